package s9pk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync/atomic"

	"github.com/selfstead/selfstead/s9pk/merkle"
)

// File is the body of one file in an archive. It is safe to share.
type File struct {
	Path     string
	Hash     merkle.Hash
	Size     int64
	Position int64 // absolute offset of the first byte in the archive; not signed

	a *Archive
}

// bodySource is how a body stands in a tree that is written again.
type bodySource struct{ f *File }

func (s bodySource) Size() int64                  { return s.f.Size }
func (s bodySource) Open() (io.ReadCloser, error) { return s.f.Stream() }

func (f *File) fail(op string, err error) error {
	return &EntryError{Op: op, Path: f.Path, Offset: f.Position, Err: err}
}

// check refuses a body that does not lie within the archive.
func (f *File) check(op string) error {
	if f.inside(f.a.size) {
		return nil
	}
	return f.fail(op, fmt.Errorf("%w: %d bytes at %d, the archive has %d", ErrTruncated, f.Size, f.Position, f.a.size))
}

func (f *File) mismatch(op string, got merkle.Hash) error {
	return f.fail(op, fmt.Errorf("%w: content hashes to %s, signed is %s", ErrHashMismatch, got, f.Hash))
}

// ReadAll returns the proven content. More than limit bytes are refused with
// ErrLimit before anything is read; limit 0 means no limit.
func (f *File) ReadAll(limit int64) ([]byte, error) {
	if limit > 0 && f.Size > limit {
		return nil, f.fail("read", fmt.Errorf("%w: %d bytes, at most %d are read", ErrLimit, f.Size, limit))
	}
	if err := f.check("read"); err != nil {
		return nil, err
	}
	f.a.announce(f.Position, f.Size)
	b, err := readGrowing(f.a.r, f.Position, f.Size)
	if err != nil {
		return nil, f.fail("read", err)
	}
	if got := merkle.Sum(b); got != f.Hash {
		return nil, f.mismatch("read", got)
	}
	return b, nil
}

// Verify reads the body once and proves it.
func (f *File) Verify(ctx context.Context) error { return f.verify(ctx, 0, nil) }

func (f *File) verify(ctx context.Context, workers int, progress func(n int64)) error {
	if err := f.check("verify"); err != nil {
		return err
	}
	if workers == 0 && f.a.forward() {
		workers = min(2, merkle.Workers())
	}
	got, err := merkle.HashAt(ctx, f.a.r, f.Position, f.Size, workers, progress)
	if err != nil {
		return f.fail("verify", err)
	}
	if got != f.Hash {
		return f.mismatch("verify", got)
	}
	return nil
}

// Section gives the stored bytes without any check, for what checks them itself.
func (f *File) Section() *io.SectionReader {
	return io.NewSectionReader(f.a.r, f.Position, f.Size)
}

// Proof returns what proves parts of the body: from Options.Outboard where that
// has a proof that fits, else by reading the whole body once.
func (f *File) Proof(ctx context.Context) (*merkle.Proof, error) {
	if err := f.check("read"); err != nil {
		return nil, err
	}
	if ob := f.a.o.Outboard; ob != nil {
		if p, err := ob.Proof(f.Hash, f.Size); err == nil {
			return p, nil
		}
	}
	workers := 0
	if f.a.forward() {
		workers = 1
		f.a.announce(f.Position, f.Size)
	}
	p, err := merkle.BuildProof(ctx, f.a.r, f.Position, f.Size, merkle.DefaultGroup, workers, nil)
	if err != nil {
		return nil, f.fail("read", err)
	}
	if p.Root() != f.Hash {
		return nil, f.mismatch("read", p.Root())
	}
	return p, nil
}

// Open returns a reader that proves every byte before it hands it on, at any
// offset. Without an outboard that costs reading the body twice: once here, and
// again piece by piece, since the first reading keeps hashes and not content.
func (f *File) Open(ctx context.Context) (*Reader, error) {
	p, err := f.Proof(ctx)
	if err != nil {
		return nil, err
	}
	return NewReader(f, p), nil
}

// Reader reads a body piece by piece, each proven before it is returned. It is
// an io.Reader, io.ReaderAt, io.Seeker and io.Closer; ReadAt may be called from
// several goroutines, the others not.
type Reader struct {
	f     *File
	proof *merkle.Proof
	off   int64
	group int64 // of buf; -1 when it holds none
	buf   []byte
	run   int64                       // bytes that Read has handed on since the last Seek
	last  atomic.Pointer[provenGroup] // of ReadAt: small reads side by side prove a group once
}

// announceFrom is how much is read in a row before the source is told that the
// rest will be, too. Who wants a beginning is not sent the whole.
const announceFrom = 2 << 20

// provenGroup is content that was proven; it does not change.
type provenGroup struct {
	i int64
	b []byte
}

// NewReader reads f with a proof that was made for its hash.
func NewReader(f *File, p *merkle.Proof) *Reader { return &Reader{f: f, proof: p, group: -1} }

// load reads and proves one group.
func (r *Reader) load(i int64, buf []byte) ([]byte, error) {
	off, n := r.proof.Span(i)
	if int64(cap(buf)) < n {
		buf = make([]byte, r.proof.GroupSize())
	}
	buf = buf[:n]
	if got, err := r.f.a.r.ReadAt(buf, r.f.Position+off); int64(got) < n {
		if err == nil || errors.Is(err, io.EOF) {
			err = fmt.Errorf("%w: %d of %d bytes", ErrTruncated, got, n)
		}
		return nil, r.fail(off, err)
	}
	if err := r.proof.Check(i, buf); err != nil {
		return nil, r.fail(off, err)
	}
	return buf, nil
}

func (r *Reader) fail(off int64, err error) error {
	return &EntryError{Op: "read", Path: r.f.Path, Offset: r.f.Position + off, Err: err}
}

// Read reads on from the current offset.
func (r *Reader) Read(p []byte) (int, error) {
	if r.off >= r.f.Size {
		return 0, io.EOF
	}
	if len(p) == 0 {
		return 0, nil
	}
	i := r.off / r.proof.GroupSize()
	if i != r.group {
		r.group = -1
		buf, err := r.load(i, r.buf)
		if err != nil {
			return 0, err
		}
		r.group, r.buf = i, buf
	}
	n := copy(p, r.buf[r.off-i*r.proof.GroupSize():])
	if r.run < announceFrom && r.run+int64(n) >= announceFrom {
		r.announce()
	}
	r.off += int64(n)
	r.run += int64(n)
	return n, nil
}

// announce tells the source that all groups from the current one on will be read.
func (r *Reader) announce() {
	from := r.off / r.proof.GroupSize() * r.proof.GroupSize()
	r.f.a.announce(r.f.Position+from, r.f.Size-from)
}

// WriteTo writes all from the current offset on, which is what io.Copy calls: a
// source over a network is asked for it once.
func (r *Reader) WriteTo(w io.Writer) (n int64, err error) {
	if r.off < r.f.Size {
		r.announce()
		r.run = announceFrom
	}
	for r.off < r.f.Size {
		i := r.off / r.proof.GroupSize()
		if i != r.group {
			r.group = -1
			buf, err := r.load(i, r.buf)
			if err != nil {
				return n, err
			}
			r.group, r.buf = i, buf
		}
		k, err := w.Write(r.buf[r.off-i*r.proof.GroupSize():])
		n += int64(k)
		r.off += int64(k)
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// ReadAt reads at an offset of the body.
func (r *Reader) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, r.fail(off, fs.ErrInvalid)
	}
	var spare []byte
	n := 0
	for n < len(p) {
		if off >= r.f.Size {
			return n, io.EOF
		}
		i := off / r.proof.GroupSize()
		g := r.last.Load()
		if g == nil || g.i != i {
			buf, err := r.load(i, spare)
			if err != nil {
				return n, err
			}
			g, spare = &provenGroup{i, buf}, buf
			if off-i*r.proof.GroupSize()+int64(len(p)-n) < int64(len(buf)) { // the next read may go on in it
				r.last.Store(g)
				spare = nil
			}
		}
		c := copy(p[n:], g.b[off-i*r.proof.GroupSize():])
		n += c
		off += int64(c)
	}
	return n, nil
}

// Seek sets the offset for Read.
func (r *Reader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekStart:
	case io.SeekCurrent:
		offset += r.off
	case io.SeekEnd:
		offset += r.f.Size
	default:
		return 0, r.fail(0, fs.ErrInvalid)
	}
	if offset < 0 {
		return 0, r.fail(0, fs.ErrInvalid)
	}
	r.off, r.run = offset, 0
	return offset, nil
}

// Close drops the reader's memory; the archive stays open.
func (r *Reader) Close() error {
	r.buf, r.group, r.off = nil, -1, r.f.Size
	r.last.Store(nil)
	return nil
}
