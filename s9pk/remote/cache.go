package remote

import "slices"

// cache keeps pieces of the file that were received, the oldest going first.
type cache struct {
	pieces []piece // in order of arrival
	bytes  int
}

type piece struct {
	off  int64
	b    []byte
	once bool // gone when all of it has been read
	read int
}

func (c *cache) put(off int64, b []byte, once bool) {
	if len(b) == 0 {
		return
	}
	c.pieces = append(c.pieces, piece{off: off, b: b, once: once})
	c.bytes += len(b)
	for c.bytes > maxCached && len(c.pieces) > 1 {
		c.bytes -= len(c.pieces[0].b)
		c.pieces = slices.Delete(c.pieces, 0, 1)
	}
}

// read copies what is known from off on.
func (c *cache) read(p []byte, off int64) int {
	for i := len(c.pieces) - 1; i >= 0; i-- {
		if at := off - c.pieces[i].off; at >= 0 && at < int64(len(c.pieces[i].b)) {
			n := copy(p, c.pieces[i].b[at:])
			if c.pieces[i].read += n; c.pieces[i].once && c.pieces[i].read >= len(c.pieces[i].b) {
				c.bytes -= len(c.pieces[i].b)
				c.pieces = slices.Delete(c.pieces, i, i+1)
			}
			return n
		}
	}
	return 0
}

// after is where the next known piece behind off begins; -1 if there is none.
func (c *cache) after(off int64) int64 {
	next := int64(-1)
	for _, p := range c.pieces {
		if p.off > off && (next < 0 || p.off < next) {
			next = p.off
		}
	}
	return next
}
