package merkle

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
)

// Source is where the content of a file entry comes from. Open may be called
// more than once and from several goroutines; where what it returns is also an
// io.ReaderAt, large contents are read in parallel.
type Source interface {
	Size() int64
	Open() (io.ReadCloser, error)
}

// Entry is one name in a directory.
type Entry struct {
	Name string
	Kind Kind
	Hash Hash // of a file its content's hash, of a directory its sighash
	// Size of a file is its length. Of a directory it is the signed bound of
	// its table: the length with nothing left out.
	Size   uint64
	Hashed bool // Hash and Size are known; false for what was put in or changed

	Position  uint64 // as read: absolute offset of content or table; 0 when missing
	TableSize uint64 // as read: length of a directory's table

	Dir    *Directory // of a directory
	Source Source     // of a file
}

// Directory is a set of entries with distinct names. It may be read from
// several goroutines, but not while it is changed.
type Directory struct {
	byName []*Entry // distinct names, in byte order
	stored []*Entry // as read from a table; nil once changed or when built
}

// NewDirectory returns an empty directory.
func NewDirectory() *Directory { return &Directory{} }

func compareNames(a, b *Entry) int { return strings.Compare(a.Name, b.Name) }

// DirectoryOf takes entries as ParseTable returns them. Where a name repeats,
// the last entry counts and duplicate is that name; no writer does that.
func DirectoryOf(entries []*Entry) (d *Directory, duplicate string, repeated bool) {
	d = &Directory{stored: entries, byName: entries}
	if !slices.IsSortedFunc(entries, compareNames) {
		d.byName = slices.Clone(entries)
		slices.SortStableFunc(d.byName, compareNames)
	}
	for i := 1; i < len(d.byName); i++ {
		if d.byName[i].Name != d.byName[i-1].Name {
			continue
		}
		if !repeated {
			duplicate, repeated = d.byName[i].Name, true
		}
	}
	if repeated {
		kept := make([]*Entry, 0, len(d.byName))
		for i, e := range d.byName {
			if i+1 == len(d.byName) || d.byName[i+1].Name != e.Name {
				kept = append(kept, e)
			}
		}
		d.byName = kept
	}
	return d, duplicate, repeated
}

// Len is the number of distinct names.
func (d *Directory) Len() int { return len(d.byName) }

// Entries lists the distinct names in byte order. The slice must not be changed.
func (d *Directory) Entries() []*Entry { return d.byName }

// Stored lists the entries in the order of the table they were read from,
// repeated names included; for other directories it is Entries.
func (d *Directory) Stored() []*Entry {
	if d.stored != nil {
		return d.stored
	}
	return d.byName
}

// Entry finds a name in this directory, nil if it is not there.
func (d *Directory) Entry(name string) *Entry {
	i, ok := slices.BinarySearchFunc(d.byName, name, func(e *Entry, n string) int { return strings.Compare(e.Name, n) })
	if !ok {
		return nil
	}
	return d.byName[i]
}

// split cuts a path into components; empty ones (leading, doubled and trailing
// slashes) do not count. "." and ".." are names like any other.
func split(path string) []string {
	return strings.FieldsFunc(path, func(r rune) bool { return r == '/' })
}

// Lookup walks a slash-separated path. The error wraps fs.ErrNotExist, ErrKind
// where a component is a file, or ErrMissing where one was left out.
func (d *Directory) Lookup(path string) (*Entry, error) {
	parts := split(path)
	if len(parts) == 0 {
		return nil, fmt.Errorf("merkle: %q names the root: %w", path, ErrKind)
	}
	for i, part := range parts {
		e := d.Entry(part)
		if e == nil {
			return nil, fmt.Errorf("merkle: %s: %w", path, fs.ErrNotExist)
		}
		if i == len(parts)-1 {
			return e, nil
		}
		switch e.Kind {
		case KindMissing:
			return nil, fmt.Errorf("merkle: %s: %w", strings.Join(parts[:i+1], "/"), ErrMissing)
		case KindFile:
			return nil, fmt.Errorf("merkle: %s is a file: %w", strings.Join(parts[:i+1], "/"), ErrKind)
		}
		d = e.Dir
	}
	panic("unreachable: the last component returns")
}

// Put sets a file, making parents as needed and replacing what is there. Every
// directory on the way loses its hash until Seal.
func (d *Directory) Put(path string, src Source) (*Entry, error) {
	e, err := d.put(path, KindFile)
	if err != nil {
		return nil, err
	}
	*e = Entry{Name: e.Name, Kind: KindFile, Size: uint64(src.Size()), Source: src}
	return e, nil
}

// MakeDir makes a directory and its parents; one that exists stays as it is.
func (d *Directory) MakeDir(path string) (*Entry, error) {
	e, err := d.Lookup(path)
	if err == nil && e.Kind == KindDirectory {
		return e, nil
	}
	e, err = d.put(path, KindDirectory)
	if err != nil {
		return nil, err
	}
	*e = Entry{Name: e.Name, Kind: KindDirectory, Dir: NewDirectory()}
	return e, nil
}

func (d *Directory) put(path string, last Kind) (*Entry, error) {
	parts := split(path)
	if len(parts) == 0 {
		return nil, fmt.Errorf("merkle: put %q: %w", path, ErrKind)
	}
	for _, part := range parts {
		if err := CheckName(part); err != nil {
			return nil, fmt.Errorf("merkle: put %.200q: %w", path, err)
		}
	}
	for i, part := range parts {
		d.stored = nil
		at, ok := slices.BinarySearchFunc(d.byName, part, func(e *Entry, n string) int { return strings.Compare(e.Name, n) })
		if !ok {
			d.byName = slices.Insert(d.byName, at, &Entry{Name: part, Kind: last})
		}
		e := d.byName[at]
		if i == len(parts)-1 {
			return e, nil
		}
		switch {
		case !ok:
			*e = Entry{Name: part, Kind: KindDirectory, Dir: NewDirectory()}
		case e.Kind != KindDirectory:
			return nil, fmt.Errorf("merkle: put %s: %s is a %s: %w", path, strings.Join(parts[:i+1], "/"), e.Kind, ErrKind)
		}
		e.Hashed = false
		d = e.Dir
	}
	panic("unreachable: the last component returns")
}

// Remove takes a name away altogether, which changes what is signed; to leave
// something out of a signed tree use Filter.
func (d *Directory) Remove(path string) error {
	if _, err := d.Lookup(path); err != nil {
		return err
	}
	parts := split(path)
	for i, part := range parts {
		d.stored = nil
		if i == len(parts)-1 {
			d.byName = slices.DeleteFunc(d.byName, func(e *Entry) bool { return e.Name == part })
			return nil
		}
		e := d.Entry(part)
		e.Hashed = false
		d = e.Dir
	}
	return nil
}

// Walk calls fn for every entry below d, parents before children, names in byte
// order. fn may return fs.SkipDir for a directory, or fs.SkipAll.
func (d *Directory) Walk(fn func(path string, e *Entry) error) error {
	err := d.walk("", fn)
	if errors.Is(err, fs.SkipAll) {
		return nil
	}
	return err
}

func (d *Directory) walk(prefix string, fn func(path string, e *Entry) error) error {
	for _, e := range d.byName {
		path := prefix + e.Name
		err := fn(path, e)
		if err == fs.SkipDir && e.Kind == KindDirectory {
			continue
		}
		if err != nil {
			return err
		}
		if e.Kind == KindDirectory {
			if err := e.Dir.walk(path+"/", fn); err != nil {
				return err
			}
		}
	}
	return nil
}

// Filter turns every entry that keep refuses into a missing one; names, hashes
// and sizes stay, and with them every signature. keep is asked about a directory
// before its children. An entry without a hash cannot be left out: ErrUnhashed,
// and d is then partly filtered.
func (d *Directory) Filter(keep func(path string, e *Entry) bool) error {
	return d.filter("", keep)
}

func (d *Directory) filter(prefix string, keep func(path string, e *Entry) bool) error {
	for _, e := range d.byName {
		path := prefix + e.Name
		switch {
		case e.Kind == KindMissing:
		case !keep(path, e):
			if !e.Hashed {
				return fmt.Errorf("merkle: leave out %s: %w", path, ErrUnhashed)
			}
			d.stored = nil
			*e = Entry{Name: e.Name, Kind: KindMissing, Hash: e.Hash, Size: e.Size, Hashed: true}
		case e.Kind == KindDirectory:
			if err := e.Dir.filter(path+"/", keep); err != nil {
				return err
			}
		}
	}
	return nil
}

// Clone copies the tree; sources are shared.
func (d *Directory) Clone() *Directory {
	c := &Directory{byName: make([]*Entry, len(d.byName))}
	for i, e := range d.byName {
		ce := *e
		if e.Dir != nil {
			ce.Dir = e.Dir.Clone()
		}
		c.byName[i] = &ce
	}
	return c
}

// SignedForm is the input of the sighash.
func (d *Directory) SignedForm() ([]byte, error) {
	n := uvarintLen(uint64(len(d.byName)))
	for _, e := range d.byName {
		n += uvarintLen(uint64(len(e.Name))) + len(e.Name) + 41
	}
	b := make([]byte, 0, n)
	b = appendUvarint(b, uint64(len(d.byName)))
	for _, e := range d.byName {
		if !e.Hashed {
			return nil, fmt.Errorf("%w: %s", ErrUnhashed, e.Name)
		}
		b = e.append(b, true)
	}
	return b, nil
}

// Sighash hashes the signed form; every entry needs its hash.
func (d *Directory) Sighash() (Hash, error) {
	b, err := d.SignedForm()
	if err != nil {
		return Hash{}, err
	}
	return Sum(b), nil
}

// Exchangeable says whether the signed entry e, a directory with content d,
// could just as well be a file with the bytes of d's signed form. Empty
// directories are always so and are the one case that writers produce.
func (d *Directory) Exchangeable(e *Entry) bool {
	n := uint64(uvarintLen(uint64(len(d.byName))))
	for _, c := range d.byName {
		n += uint64(uvarintLen(uint64(len(c.Name)))+len(c.Name)) + 41
	}
	return e.Size == n
}

// emptyDirectory is the sighash of a directory without entries.
var emptyDirectory = Sum([]byte{0})

// LooksLikeEmptyDirectory says that a file entry has the hash and size of an
// empty directory, which is what one turned into a file looks like.
func (e *Entry) LooksLikeEmptyDirectory() bool {
	return e.Kind == KindFile && e.Size == 1 && e.Hash == emptyDirectory
}

// Seal computes the hash and signed size of every changed directory, innermost
// first, and returns the commitment of d as a root. Files must have their
// hashes: ErrUnhashed.
func (d *Directory) Seal() (Commitment, error) {
	if err := d.seal(""); err != nil {
		return Commitment{}, err
	}
	h, err := d.Sighash()
	return Commitment{RootSighash: h, RootMaxsize: TableLen(d.byName)}, err
}

func (d *Directory) seal(prefix string) error {
	for _, e := range d.byName {
		if e.Hashed {
			continue
		}
		path := prefix + e.Name
		if e.Kind != KindDirectory {
			return fmt.Errorf("merkle: %s: %w", path, ErrUnhashed)
		}
		if err := e.Dir.seal(path + "/"); err != nil {
			return err
		}
		h, err := e.Dir.Sighash()
		if err != nil {
			return err
		}
		e.Hash, e.Size, e.Hashed = h, TableLen(e.Dir.byName), true
	}
	return nil
}
