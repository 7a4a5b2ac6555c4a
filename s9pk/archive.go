package s9pk

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"math"
	"os"

	"github.com/selfstead/selfstead/s9pk/merkle"
)

// Archive is an opened package: header, signature and all tables are proven,
// file bodies are proven as they are read. It is safe to share.
type Archive struct {
	r      io.ReaderAt
	size   int64
	o      Options
	l      Limits
	header *Header
	root   *merkle.Directory
	closer io.Closer
	// present is how long the bodies within the archive are together, at most
	// math.MaxInt64.
	present int64
}

// Open reads and proves the header, the signature and every table of an archive
// of the given length; it reads none of the bodies (but manifest.json, with
// Options.Package). The error is an *EntryError that wraps ErrFormat,
// ErrTruncated, ErrSignature, ErrHashMismatch, ErrCommitment, ErrUnsafe or
// ErrLimit, or is the reader's own.
func Open(r io.ReaderAt, size int64, o Options) (*Archive, error) {
	if size < 0 {
		return nil, fmt.Errorf("s9pk: open: length %d", size)
	}
	w := &window{r: r, size: size}
	head, err := w.bytes(0, min(size, HeaderSize))
	if err != nil {
		return nil, headerError(0, err)
	}
	header, err := checkHeader(head, o.Commitment)
	if err != nil {
		return nil, err
	}
	if header == nil {
		return nil, headerError(size, fmt.Errorf("%w: header of %d bytes, need %d", ErrTruncated, size, HeaderSize))
	}
	a := &Archive{r: r, size: size, o: o, l: o.limits(), header: header}
	t := newTables(o)
	for queue := []pending{rootPending(header)}; len(queue) > 0; queue = queue[1:] {
		p := queue[0]
		if err := t.announce(p, size); err != nil {
			return nil, err
		}
		b, err := w.bytes(int64(p.entry.Position), int64(p.entry.TableSize))
		if err != nil {
			return nil, p.fail(err)
		}
		below, err := t.admit(p, b)
		if err != nil {
			return nil, err
		}
		queue = append(queue, below...)
	}
	a.root = t.root
	a.bind("", a.root)
	if !o.Lenient {
		if err := a.checkOverlaps(); err != nil {
			return nil, err
		}
	}
	if o.Package {
		if _, err := a.readManifest(); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// OpenFile opens a package file; Close closes it.
func OpenFile(path string, o Options) (*Archive, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("s9pk: %s is not a regular file", path)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	a, err := Open(f, info.Size(), o)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	a.closer = f
	return a, nil
}

// Close releases what OpenFile opened; on other archives it does nothing.
func (a *Archive) Close() error {
	if a.closer == nil {
		return nil
	}
	err := a.closer.Close()
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}

// bind gives file entries their content.
func (a *Archive) bind(prefix string, d *merkle.Directory) {
	for _, e := range d.Stored() {
		switch e.Kind {
		case merkle.KindFile:
			f := &File{a: a, Path: prefix + e.Name, Hash: e.Hash, Size: saturate(e.Size), Position: saturate(e.Position)}
			e.Source = bodySource{f}
			if f.inside(a.size) {
				a.present += min(f.Size, math.MaxInt64-a.present)
			}
		case merkle.KindDirectory:
			if e.Dir != nil {
				a.bind(prefix+e.Name+"/", e.Dir)
			}
		}
	}
}

// Signer is the key that signed the archive. That it signed is proven; whether
// it is the right one is for the caller to know.
func (a *Archive) Signer() ed25519.PublicKey { return a.header.Signer }

// Header is the proven header.
func (a *Archive) Header() Header { return *a.header }

// Commitment names the signed tree.
func (a *Archive) Commitment() merkle.Commitment { return a.header.Commitment }

// Root is the signed tree. It is shared: Clone it to change it.
func (a *Archive) Root() *merkle.Directory { return a.root }

// Size is the length of the whole archive.
func (a *Archive) Size() int64 { return a.size }

// Lenient says that the archive was opened for inspection only.
func (a *Archive) Lenient() bool { return a.o.Lenient }

// File finds a file by its path. The error wraps fs.ErrNotExist, ErrMissing
// where it was left out of this copy, or ErrKind where it is a directory.
func (a *Archive) File(path string) (*File, error) {
	e, err := a.root.Lookup(path)
	if err != nil {
		return nil, err
	}
	switch e.Kind {
	case merkle.KindMissing:
		return nil, fmt.Errorf("s9pk: %s: %w", printable(path), ErrMissing)
	case merkle.KindDirectory:
		return nil, fmt.Errorf("s9pk: %s is a directory: %w", printable(path), ErrKind)
	}
	return e.Source.(bodySource).f, nil
}

// Files lists every file that is present, by path.
func (a *Archive) Files() []*File {
	var files []*File
	a.root.Walk(func(_ string, e *merkle.Entry) error { // never fails: the callback does not
		if e.Kind == merkle.KindFile {
			files = append(files, e.Source.(bodySource).f)
		}
		return nil
	})
	return files
}

// window reads small neighbouring pieces with few reads of the source: over a
// network each costs a round trip.
type window struct {
	r    io.ReaderAt
	size int64
	off  int64
	buf  []byte
}

const (
	firstWindow = 32 << 10
	nextWindow  = 4 << 10
)

// bytes returns n bytes at off; the caller checked that they lie within size.
func (w *window) bytes(off, n int64) ([]byte, error) {
	if off >= w.off && off+n <= w.off+int64(len(w.buf)) {
		return w.buf[off-w.off:][:n], nil
	}
	want := int64(nextWindow)
	if w.buf == nil {
		want = firstWindow
	}
	if want = min(want, w.size-off); n > want {
		return readGrowing(w.r, off, n)
	}
	buf := make([]byte, want)
	got, err := w.r.ReadAt(buf, off)
	if int64(got) < n {
		if err == nil || errors.Is(err, io.EOF) {
			err = fmt.Errorf("%w: %d of %d bytes at offset %d", ErrTruncated, got, n, off)
		}
		return nil, err
	}
	w.off, w.buf = off, buf[:got]
	return w.buf[:n], nil
}

// end is where a body ends, as far as it lies within the archive.
func (f *File) end() int64 {
	if f.Size > 0 && f.inside(f.a.size) {
		return f.Position + f.Size
	}
	return min(f.Position, f.a.size)
}

// inside says whether a body lies within the archive. An empty one lies anywhere
// that is a position at all, as for the reference.
func (f *File) inside(end int64) bool {
	if f.Size == 0 {
		return f.Position < math.MaxInt64
	}
	return f.Size > 0 && f.Position <= math.MaxInt64-f.Size && f.Position+f.Size <= end
}
