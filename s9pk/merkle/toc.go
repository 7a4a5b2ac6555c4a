package merkle

import (
	"encoding/binary"
	"fmt"
	"unicode/utf8"
)

// Kind tells what an entry of a table is. It is not signed.
type Kind uint8

// The three kinds, with the bytes that stand for them.
const (
	KindMissing   Kind = 0
	KindFile      Kind = 1
	KindDirectory Kind = 2
)

// String is "missing", "file" or "directory".
func (k Kind) String() string {
	switch k {
	case KindMissing:
		return "missing"
	case KindFile:
		return "file"
	case KindDirectory:
		return "directory"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// minEntry is the size of the shortest entry: an empty name, kind missing.
const minEntry = 1 + 32 + 8 + 1

// maxName is where the reference stops reading a name; a longer one cannot
// have been read by it, so its table cannot be what was signed.
const maxName = 1 << 20

// TableError says at which byte of a table reading stopped.
type TableError struct {
	Offset int // from the first byte of the table
	Name   string
	Err    error
}

func (e *TableError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *TableError) Unwrap() error { return e.Err }

type tableReader struct {
	b   []byte
	off int
}

func (r *tableReader) fail(err error, format string, args ...any) error {
	return &TableError{Offset: r.off, Err: fmt.Errorf("%w: %s", err, fmt.Sprintf(format, args...))}
}

func (r *tableReader) varint(what string) (uint64, error) {
	v, n := binary.Uvarint(r.b[r.off:])
	switch {
	case n > 0:
		r.off += n
		return v, nil
	case n == 0 && len(r.b)-r.off < binary.MaxVarintLen64:
		return 0, r.fail(ErrTruncated, "table ends inside %s", what)
	}
	return 0, r.fail(ErrFormat, "%s is no number of 64 bits", what)
}

func (r *tableReader) take(n int, what string) ([]byte, error) {
	if len(r.b)-r.off < n {
		return nil, r.fail(ErrTruncated, "table ends inside %s", what)
	}
	b := r.b[r.off : r.off+n]
	r.off += n
	return b, nil
}

// ParseTable reads the entries of one table, in the order they are stored.
// Bytes after the last entry are allowed. Names are only checked to be UTF-8;
// see CheckName. Memory is bounded by len(b), whatever the counts in it say.
func ParseTable(b []byte) ([]*Entry, error) {
	r := &tableReader{b: b}
	count, err := r.varint("the entry count")
	if err != nil {
		return nil, err
	}
	// At most what fits: a larger count runs into the end below.
	room := min(count, uint64(len(b)/minEntry))
	slab := make([]Entry, 0, room)
	entries := make([]*Entry, 0, room)
	for i := uint64(0); i < count; i++ {
		var e Entry
		if err := r.entry(&e); err != nil {
			if te, ok := err.(*TableError); ok && te.Name == "" {
				te.Name = e.Name
			}
			return nil, err
		}
		slab = append(slab, e)
		entries = append(entries, &slab[len(slab)-1])
	}
	return entries, nil
}

func (r *tableReader) entry(e *Entry) error {
	n, err := r.varint("a name's length")
	if err != nil {
		return err
	}
	if n > uint64(len(r.b)-r.off) {
		return r.fail(ErrTruncated, "table ends inside a name of %d bytes", n)
	}
	if n > maxName {
		return r.fail(ErrHashMismatch, "name of %d bytes cannot have been signed", n)
	}
	name, err := r.take(int(n), "a name")
	if err != nil {
		return err
	}
	if !utf8.Valid(name) {
		return r.fail(ErrFormat, "name %.40q is not UTF-8", name)
	}
	e.Name = string(name)
	fixed, err := r.take(41, "an entry")
	if err != nil {
		return err
	}
	copy(e.Hash[:], fixed)
	e.Hashed = true
	e.Size = binary.BigEndian.Uint64(fixed[32:])
	e.Kind = Kind(fixed[40])
	switch e.Kind {
	case KindMissing:
	case KindFile:
		tail, err := r.take(8, "a file's position")
		if err != nil {
			return err
		}
		e.Position = binary.BigEndian.Uint64(tail)
	case KindDirectory:
		tail, err := r.take(16, "a directory's position")
		if err != nil {
			return err
		}
		e.Position = binary.BigEndian.Uint64(tail)
		e.TableSize = binary.BigEndian.Uint64(tail[8:])
	default:
		r.off--
		return r.fail(ErrFormat, "unknown entry type %d", uint8(e.Kind))
	}
	return nil
}

func appendUvarint(b []byte, v uint64) []byte { return binary.AppendUvarint(b, v) }

func uvarintLen(v uint64) int {
	n := 1
	for v >= 0x80 {
		v >>= 7
		n++
	}
	return n
}

func (e *Entry) encodedLen() uint64 {
	n := uint64(uvarintLen(uint64(len(e.Name)))+len(e.Name)) + 41
	switch e.Kind {
	case KindFile:
		n += 8
	case KindDirectory:
		n += 16
	}
	return n
}

// append adds the entry's stored form, or its signed form (as missing).
func (e *Entry) append(b []byte, signed bool) []byte {
	b = appendUvarint(b, uint64(len(e.Name)))
	b = append(b, e.Name...)
	b = append(b, e.Hash[:]...)
	b = binary.BigEndian.AppendUint64(b, e.Size)
	if signed {
		return append(b, byte(KindMissing))
	}
	b = append(b, byte(e.Kind))
	switch e.Kind {
	case KindFile:
		b = binary.BigEndian.AppendUint64(b, e.Position)
	case KindDirectory:
		b = binary.BigEndian.AppendUint64(b, e.Position)
		b = binary.BigEndian.AppendUint64(b, e.TableSize)
	}
	return b
}

// AppendTable adds the stored form of a table with these entries, in this order.
func AppendTable(b []byte, entries []*Entry) []byte {
	b = appendUvarint(b, uint64(len(entries)))
	for _, e := range entries {
		b = e.append(b, false)
	}
	return b
}

// TableLen is the length of what AppendTable adds.
func TableLen(entries []*Entry) uint64 {
	n := uint64(uvarintLen(uint64(len(entries))))
	for _, e := range entries {
		n += e.encodedLen()
	}
	return n
}

// CheckName refuses what is no single, ordinary path component: empty, ".",
// "..", or with a slash or a NUL byte. The format itself allows those.
func CheckName(name string) error {
	bad := ""
	switch {
	case name == "":
		bad = "empty"
	case name == "." || name == "..":
		bad = "a directory reference"
	default:
		for i := 0; i < len(name); i++ {
			if name[i] == '/' || name[i] == 0 {
				bad = "more than one path component"
				break
			}
		}
	}
	if bad == "" {
		return nil
	}
	return fmt.Errorf("%w: name %.60q is %s", ErrUnsafe, name, bad)
}
