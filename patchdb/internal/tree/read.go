package tree

import (
	"bytes"
	"io"
)

// window is what a Parser has of a text that it reads piece by piece.
type window struct {
	r      io.Reader // nil where all that there is has been read
	buf    []byte
	before int   // bytes of the text before the window
	err    error // of r
}

const (
	windowSize = 64 << 10
	minAhead   = 8 // more than true, false and null take
)

// Read is Parse for a text that is not in memory: it holds a piece of it at a
// time, of 64 KB or the length of a string in it.
func (p *Parser) Read(r io.Reader) (Node, error) {
	if p.window == nil {
		p.window = make([]byte, windowSize)
	}
	p.b, p.i, p.depth, p.input = nil, 0, 0, window{r: r, buf: p.window}
	defer p.reset()
	n, err := p.text()
	if p.input.err != nil {
		return nil, p.input.err
	}
	return n, err
}

// more makes the window longer at its end, leaving out what lies before i. It
// reports whether there was more.
func (p *Parser) more() bool {
	in := &p.input
	if in.r == nil {
		return false
	}
	rest := p.b[p.i:]
	buf := in.buf
	if len(rest) > len(buf)/2 {
		buf = make([]byte, 2*len(buf)) // in the midst of a long string
	}
	n := copy(buf, rest)
	in.before += p.i
	got, err := io.ReadFull(in.r, buf[n:])
	if in.before+n+got > MaxSize {
		err, got = ErrSize, 0
	}
	if err != nil {
		in.r = nil
		if err != io.EOF && err != io.ErrUnexpectedEOF {
			in.err = err
		}
	}
	in.buf, p.b, p.i = buf, buf[:n+got], 0
	return got > 0
}

// ahead makes sure that a word that begins here is in the window as a whole.
func (p *Parser) ahead() {
	for p.input.r != nil && len(p.b)-p.i < minAhead {
		p.more()
	}
}

// wholeNumber does so for a number.
func (p *Parser) wholeNumber() {
	for n := 0; p.input.r != nil; p.more() {
		for p.i+n < len(p.b) && bytes.IndexByte([]byte("0123456789.-+eE"), p.b[p.i+n]) >= 0 {
			n++
		}
		if p.i+n < len(p.b) {
			return
		}
	}
}
