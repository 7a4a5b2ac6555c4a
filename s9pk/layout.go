package s9pk

import (
	"fmt"
	"math"
	"strings"

	"github.com/selfstead/selfstead/s9pk/merkle"
)

// Order is how entries follow one another in the root table. It is not signed.
// In all tables directories come first, then files, then missing entries.
type Order int

const (
	// OrderStandard puts what a reader wants first: manifest.json, the icon,
	// LICENSE.md, instructions.md, dependencies, javascript.squashfs,
	// assets.squashfs, images, all others by name. StartOS writes it whenever
	// it rewrites a package.
	OrderStandard Order = iota
	// OrderNone is by name, as the first pack by StartOS tools writes it.
	OrderNone
)

func (o Order) rank() func(string) int {
	if o == OrderNone {
		return nil
	}
	return standardRank
}

func standardRank(name string) int {
	switch name {
	case "manifest.json":
		return 0
	case "LICENSE.md":
		return 2
	case "instructions.md":
		return 3
	case "dependencies":
		return 4
	case "javascript.squashfs":
		return 5
	case "assets.squashfs":
		return 6
	case "images":
		return 7
	}
	if stem(name) == "icon" {
		return 1
	}
	return 8
}

// stem is a name without its extension: what follows the last dot, unless the
// name begins with that dot.
func stem(name string) string {
	if i := strings.LastIndexByte(name, '.'); i > 0 {
		return name[:i]
	}
	return name
}

// place is one thing that a writer emits: a table or a body.
type place struct {
	path    string
	entry   *merkle.Entry   // of the tree; nil for the root table
	entries []*merkle.Entry // of a table: copies in stored order, with positions
	pos     uint64
	size    uint64
}

// layout assigns positions breadth first, beginning at start with the root table.
func layout(root *merkle.Directory, start uint64, order Order) ([]*place, error) {
	first := &place{path: "/", entries: root.Ordered(order.rank()), pos: start}
	first.size = merkle.TableLen(first.entries)
	places := []*place{first}
	next := start + first.size
	for i := 0; i < len(places); i++ {
		p := places[i]
		if p.entry != nil && p.entry.Kind != merkle.KindDirectory {
			continue
		}
		prefix := ""
		if p.path != "/" {
			prefix = p.path + "/"
		}
		for j, e := range p.entries {
			c := &place{path: prefix + e.Name, entry: e, pos: next}
			stored := *e
			switch e.Kind {
			case merkle.KindMissing:
				continue
			case merkle.KindFile:
				c.size = e.Size
			case merkle.KindDirectory:
				c.entries = e.Dir.Ordered(nil)
				c.size = merkle.TableLen(c.entries)
				stored.TableSize = c.size
				if e.Hashed && c.size > e.Size {
					return nil, &EntryError{Op: "write", Path: c.path, Offset: -1,
						Err: fmt.Errorf("%w: table of %d bytes, signed are at most %d", ErrSize, c.size, e.Size)}
				}
			}
			if c.size > math.MaxInt64-next {
				return nil, &EntryError{Op: "write", Path: c.path, Offset: -1, Err: ErrLimit}
			}
			stored.Position = next
			p.entries[j] = &stored
			next += c.size
			places = append(places, c)
		}
	}
	return places, nil
}

// tableBytes is the stored form of a table; entries that were hashed after the
// layout take their hash from the tree.
func (p *place) tableBytes(d *merkle.Directory) []byte {
	for _, c := range p.entries {
		e := d.Entry(c.Name)
		c.Hash, c.Size = e.Hash, e.Size
	}
	return merkle.AppendTable(make([]byte, 0, p.size), p.entries)
}

func (p *place) dir(root *merkle.Directory) *merkle.Directory {
	if p.entry == nil {
		return root
	}
	return p.entry.Dir
}
