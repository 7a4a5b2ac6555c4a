package s9pk

import (
	"errors"
	"fmt"
	"math"

	"github.com/selfstead/selfstead/s9pk/merkle"
)

// tables admits tables of contents one after another; Open and StreamVerifier
// share it. Each is proven against its signed hash before anything it points at
// is looked for, so that a table cannot contain itself.
type tables struct {
	o       Options
	l       Limits
	entries int
	bytes   int64
	root    *merkle.Directory
}

// pending is a table that is still to be read.
type pending struct {
	path  string        // "/" for the root
	entry *merkle.Entry // of the root: made from the header
	depth int
}

func newTables(o Options) *tables { return &tables{o: o, l: o.limits()} }

func rootPending(h *Header) pending {
	return pending{path: "/", entry: &merkle.Entry{
		Kind: merkle.KindDirectory, Hash: h.Commitment.RootSighash, Size: h.Commitment.RootMaxsize, Hashed: true,
		Position: h.TablePosition, TableSize: h.TableSize,
	}}
}

func saturate(v uint64) int64 { return int64(min(v, math.MaxInt64)) }

func (p pending) fail(err error) error {
	return &EntryError{Op: "open", Path: p.path, Offset: saturate(p.entry.Position), Err: err}
}

func (p pending) child(name string) string {
	if p.path == "/" {
		return name
	}
	return p.path + "/" + name
}

// announce judges a table before it is read. end is the length of the archive,
// or math.MaxInt64 where that is not known yet.
func (t *tables) announce(p pending, end int64) error {
	e := p.entry
	if e.TableSize > e.Size {
		return p.fail(fmt.Errorf("%w: table of %d bytes, signed are at most %d", ErrSize, e.TableSize, e.Size))
	}
	if e.Position > math.MaxInt64 || e.TableSize > math.MaxInt64 || int64(e.Position) > math.MaxInt64-int64(e.TableSize) ||
		int64(e.Position+e.TableSize) > end {
		return p.fail(fmt.Errorf("%w: table at %d, %d bytes, lies beyond the end", ErrTruncated, e.Position, e.TableSize))
	}
	if int64(e.TableSize) > t.l.Table {
		return p.fail(fmt.Errorf("%w: table of %d bytes, at most %d are read", ErrLimit, e.TableSize, t.l.Table))
	}
	if t.bytes += int64(e.TableSize); t.bytes > t.l.Tables {
		return p.fail(fmt.Errorf("%w: tables of more than %d bytes", ErrLimit, t.l.Tables))
	}
	if p.depth > t.l.Depth {
		return p.fail(fmt.Errorf("%w: more than %d directories in one another", ErrUnsafe, t.l.Depth))
	}
	return nil
}

// admit proves one table and returns the directories below it.
func (t *tables) admit(p pending, b []byte) ([]pending, error) {
	entries, err := merkle.ParseTable(b)
	if err != nil {
		fail := &EntryError{Op: "open", Path: p.path, Offset: saturate(p.entry.Position), Err: err}
		if te := (*merkle.TableError)(nil); errors.As(err, &te) {
			fail.Offset += int64(te.Offset)
		}
		return nil, fail
	}
	if t.entries += len(entries); t.entries > t.l.Entries {
		return nil, p.fail(fmt.Errorf("%w: more than %d entries", ErrLimit, t.l.Entries))
	}
	d, name, repeated := merkle.DirectoryOf(entries)
	hash, err := d.Sighash()
	if err != nil {
		return nil, p.fail(err)
	}
	if hash != p.entry.Hash {
		return nil, p.fail(fmt.Errorf("%w: table hashes to %s, signed is %s", ErrHashMismatch, hash, p.entry.Hash))
	}
	if !t.o.Lenient {
		if repeated {
			return nil, p.fail(fmt.Errorf("%w: name %.60q is there more than once", ErrUnsafe, name))
		}
		if p.path != "/" && d.Len() > 0 && d.Exchangeable(p.entry) {
			return nil, p.fail(fmt.Errorf("%w: directory could as well be a file", ErrUnsafe))
		}
	}
	p.entry.Dir = d
	if p.path == "/" {
		t.root = d
	}
	var below []pending
	for _, e := range d.Entries() {
		if !t.o.Lenient {
			if err := merkle.CheckName(e.Name); err != nil {
				return nil, p.fail(err) // such a name makes no path
			}
			if err := checkEntry(e); err != nil {
				return nil, &EntryError{Op: "open", Path: p.child(e.Name), Offset: saturate(p.entry.Position), Err: err}
			}
		}
		if e.Kind == merkle.KindDirectory {
			below = append(below, pending{path: p.child(e.Name), entry: e, depth: p.depth + 1})
		}
	}
	return below, nil
}

func checkEntry(e *merkle.Entry) error {
	if e.Kind == merkle.KindFile && e.Size > math.MaxInt64 {
		return fmt.Errorf("%w: file of %d bytes", ErrUnsafe, e.Size)
	}
	if e.LooksLikeEmptyDirectory() {
		return fmt.Errorf("%w: file could as well be an empty directory", ErrUnsafe)
	}
	return nil
}
