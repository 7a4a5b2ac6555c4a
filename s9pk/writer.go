package s9pk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"sync"

	"github.com/selfstead/selfstead/s9pk/merkle"
)

// WriteOptions tunes Write and WriteFile.
type WriteOptions struct {
	Order Order
	// Header keeps this header's key, signature and signed bound instead of
	// signing anew; the tree must still be the one it signed, with any part
	// left out. Give Write a nil key then.
	Header *Header
	// Progress is called from one goroutine at a time with the bytes hashed or
	// copied so far, of those that will be.
	Progress func(done, total int64)
	// NoSync leaves it to the kernel when WriteFile's bytes reach the disk.
	NoSync bool
}

// Write signs a tree and writes it as a package. It is WriteContext without a
// way to interrupt it.
func Write(w io.Writer, root *merkle.Directory, key Signer, o WriteOptions) error {
	return WriteContext(context.Background(), w, root, key, o)
}

// WriteContext signs a tree and writes it as a package to w, which may be a
// pipe. Files without a hash are hashed first, several at once, and their
// entries keep it; directories are sealed. Bodies that already have a hash are
// proven against it while they are copied. The same tree, key and order always
// give the same bytes. A file that changes its content, but not its length,
// between hashing and copying goes unnoticed here; WriteFile reads it once.
func WriteContext(ctx context.Context, w io.Writer, root *merkle.Directory, key Signer, o WriteOptions) error {
	j, err := newJob(ctx, root, key, o)
	if err != nil {
		return err
	}
	known := j.hashed()
	if err := j.hashAll(); err != nil {
		return err
	}
	head, places, err := j.seal()
	if err != nil {
		return err
	}
	if _, err := w.Write(head); err != nil {
		return err
	}
	bp := copyBuffers.Get().(*[]byte)
	defer copyBuffers.Put(bp)
	stored := bodyFiles(places)
	for i, p := range places {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		announceRun(stored, i)
		if p.entry == nil || p.entry.Kind == merkle.KindDirectory {
			if _, err := w.Write(p.tableBytes(p.dir(root))); err != nil {
				return err
			}
			continue
		}
		if err := j.copyBody(w, p, known[p.entry], *bp); err != nil {
			return err
		}
	}
	return nil
}

var copyBuffers = sync.Pool{New: func() any { b := make([]byte, 256<<10); return &b }}

// job is one run of a writer.
type job struct {
	ctx  context.Context // of one call only
	root *merkle.Directory
	key  Signer
	o    WriteOptions

	mu          sync.Mutex
	done, total int64
}

func newJob(ctx context.Context, root *merkle.Directory, key Signer, o WriteOptions) (*job, error) {
	if (key == nil) == (o.Header == nil) {
		return nil, errors.New("s9pk: write: need either a key or a header to keep")
	}
	j := &job{ctx: ctx, root: root, key: key, o: o}
	err := root.Walk(func(path string, e *merkle.Entry) error {
		if err := writable(e); err != nil {
			return &EntryError{Op: "write", Path: path, Offset: -1, Err: err}
		}
		if e.Kind == merkle.KindFile {
			j.total += int64(e.Size)
			if !e.Hashed {
				j.total += int64(e.Size)
			}
		}
		return nil
	})
	return j, err
}

// writable refuses what Open would refuse in the result.
func writable(e *merkle.Entry) error {
	if err := merkle.CheckName(e.Name); err != nil {
		return err
	}
	if len(e.Name) > 1<<20 {
		return fmt.Errorf("%w: name of %d bytes, StartOS reads 1 MiB", ErrLimit, len(e.Name))
	}
	if e.Kind != merkle.KindFile {
		return nil
	}
	if e.Source == nil {
		return errors.New("file without a source")
	}
	if s, ok := e.Source.(bodySource); ok && s.f.a.o.Lenient {
		return ErrReadOnly
	}
	if e.Size > math.MaxInt64 {
		return fmt.Errorf("%w: file of %d bytes", ErrUnsafe, e.Size)
	}
	if e.LooksLikeEmptyDirectory() && e.Hashed {
		return fmt.Errorf("%w: file could as well be an empty directory", ErrUnsafe)
	}
	return nil
}

func (j *job) progress(n int64) {
	if j.o.Progress == nil {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.done += n
	j.o.Progress(j.done, j.total)
}

// hashed is the set of files whose hash was known before this run.
func (j *job) hashed() map[*merkle.Entry]bool {
	known := map[*merkle.Entry]bool{}
	j.root.Walk(func(_ string, e *merkle.Entry) error { // never fails: the callback does not
		if e.Kind == merkle.KindFile && e.Hashed {
			known[e] = true
		}
		return nil
	})
	return known
}

// hashAll hashes every file that has no hash.
func (j *job) hashAll() error {
	type item struct {
		path string
		e    *merkle.Entry
	}
	var items []item
	j.root.Walk(func(path string, e *merkle.Entry) error { // never fails: the callback does not
		if e.Kind == merkle.KindFile && !e.Hashed {
			items = append(items, item{path, e})
		}
		return nil
	})
	workers := merkle.Workers()
	return forEach(j.ctx, items, workers, func(ctx context.Context, it item) error {
		share := workers
		if len(items) > workers {
			share = 1
		}
		h, err := hashSource(ctx, it.e.Source, share, j.progress)
		if err != nil {
			return &EntryError{Op: "write", Path: it.path, Offset: -1, Err: err}
		}
		it.e.Hash, it.e.Hashed = h, true
		if err := writable(it.e); err != nil {
			return &EntryError{Op: "write", Path: it.path, Offset: -1, Err: err}
		}
		return nil
	})
}

// forEach runs fn over items with some goroutines; the first error stops the rest.
func forEach[T any](ctx context.Context, items []T, workers int, fn func(context.Context, T) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	queue := make(chan T)
	var wg sync.WaitGroup
	for range min(workers, len(items)) {
		wg.Go(func() {
			for it := range queue {
				if ctx.Err() != nil {
					continue // drain
				}
				if err := fn(ctx, it); err != nil {
					cancel(err)
				}
			}
		})
	}
	for _, it := range items {
		queue <- it
	}
	close(queue)
	wg.Wait()
	return context.Cause(ctx)
}

// hashSource hashes a whole source and insists on its announced length.
func hashSource(ctx context.Context, src merkle.Source, workers int, progress func(int64)) (h merkle.Hash, err error) {
	rc, err := src.Open()
	if err != nil {
		return h, err
	}
	defer func() { err = errors.Join(err, rc.Close()) }()
	if ra, ok := rc.(io.ReaderAt); ok {
		if h, err = merkle.HashAt(ctx, ra, 0, src.Size(), workers, progress); err != nil {
			return h, err
		}
		var one [1]byte
		if n, _ := ra.ReadAt(one[:], src.Size()); n != 0 {
			return h, fmt.Errorf("%w: more than the announced %d bytes", ErrSize, src.Size())
		}
		return h, nil
	}
	hasher := merkle.NewHasher()
	bp := copyBuffers.Get().(*[]byte)
	defer copyBuffers.Put(bp)
	err = copySource(ctx, hasher, rc, src.Size(), *bp, progress)
	return hasher.Sum(), err
}

// copySource copies exactly size bytes and then expects the end.
func copySource(ctx context.Context, w io.Writer, r io.Reader, size int64, buf []byte, progress func(int64)) error {
	for done := int64(0); done < size; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, err := io.ReadFull(r, buf[:min(int64(len(buf)), size-done)])
		if _, werr := w.Write(buf[:n]); werr != nil {
			return werr
		}
		done += int64(n)
		progress(int64(n))
		if err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				err = fmt.Errorf("%w: %d instead of %d bytes", ErrSize, done, size)
			}
			return err
		}
	}
	if n, _ := io.ReadFull(r, buf[:1]); n != 0 {
		return fmt.Errorf("%w: more than the announced %d bytes", ErrSize, size)
	}
	return nil
}

// seal computes what is signed, signs it or checks it against the header that
// is kept, and lays the package out.
func (j *job) seal() (head []byte, places []*place, err error) {
	c, err := j.root.Seal()
	if err != nil {
		return nil, nil, err
	}
	if err := checkSealed(j.root); err != nil {
		return nil, nil, err
	}
	h := &Header{Commitment: c}
	if keep := j.o.Header; keep != nil {
		if c.RootSighash != keep.Commitment.RootSighash || c.RootMaxsize > keep.Commitment.RootMaxsize {
			return nil, nil, &EntryError{Op: "write", Offset: -1, Err: fmt.Errorf("%w: the tree is not the one that was signed", ErrHashMismatch)}
		}
		h = &Header{Signer: keep.Signer, Signature: keep.Signature, Commitment: keep.Commitment}
	} else {
		if err := checkNew(j.root); err != nil {
			return nil, nil, err
		}
		if h.Signer, err = PublicKey(j.key); err != nil {
			return nil, nil, err
		}
		if h.Signature, err = Sign(j.key, c, Context); err != nil {
			return nil, nil, err
		}
	}
	places, err = layout(j.root, HeaderSize, j.o.Order)
	if err != nil {
		return nil, nil, err
	}
	h.TablePosition, h.TableSize = HeaderSize, places[0].size
	return h.append(make([]byte, 0, HeaderSize)), places, nil
}

// checkNew refuses to sign directories deeper than Open follows. A root table
// above 1 MiB is signed as the reference does it; reading it takes its commitment.
func checkNew(root *merkle.Directory) error {
	most := Options{}.limits().Depth
	return root.Walk(func(path string, e *merkle.Entry) error {
		if e.Kind == merkle.KindDirectory && strings.Count(path, "/") >= most {
			return &EntryError{Op: "write", Path: path, Offset: -1, Err: fmt.Errorf("%w: more than %d directories in one another", ErrUnsafe, most)}
		}
		return nil
	})
}

// checkSealed refuses directories that Open would refuse.
func checkSealed(root *merkle.Directory) error {
	return root.Walk(func(path string, e *merkle.Entry) error {
		if e.Kind == merkle.KindDirectory && e.Dir.Len() > 0 && e.Dir.Exchangeable(e) {
			return &EntryError{Op: "write", Path: path, Offset: -1, Err: fmt.Errorf("%w: nothing in it is present, it could as well be a file", ErrUnsafe)}
		}
		return nil
	})
}

// copyBody copies one body, and proves it where its hash was known before.
func (j *job) copyBody(w io.Writer, p *place, known bool, buf []byte) error {
	fail := func(err error) error {
		if err == nil {
			return nil
		}
		return &EntryError{Op: "write", Path: p.path, Offset: int64(p.pos), Err: err}
	}
	rc, err := openRaw(p.entry.Source)
	if err != nil {
		return fail(err)
	}
	var hasher *merkle.Hasher
	out := w
	if known {
		hasher = merkle.NewHasher()
		out = io.MultiWriter(w, hasher)
	}
	err = copySource(j.ctx, out, rc, int64(p.size), buf, j.progress)
	err = errors.Join(err, rc.Close())
	if err == nil && hasher != nil && hasher.Sum() != p.entry.Hash {
		err = fmt.Errorf("%w: content hashes to %s, signed is %s", ErrHashMismatch, hasher.Sum(), p.entry.Hash)
	}
	return fail(err)
}

// bodyFiles lists the bodies of archives among what is written; nil for others.
func bodyFiles(places []*place) []*File {
	files := make([]*File, len(places))
	for i, p := range places {
		if p.entry == nil {
			continue
		}
		if s, ok := p.entry.Source.(bodySource); ok {
			files[i] = s.f
		}
	}
	return files
}

// openRaw opens a source for copying; bodies of archives come unproven, since
// the copy proves them.
func openRaw(src merkle.Source) (io.ReadCloser, error) {
	if s, ok := src.(bodySource); ok {
		if err := s.f.check("write"); err != nil {
			return nil, err
		}
		return sectionReader{s.f.Section()}, nil
	}
	return src.Open()
}

type sectionReader struct{ *io.SectionReader }

func (sectionReader) Close() error { return nil }

// Rewrite writes the archive again with its own signature. root is the tree to
// write: a.Root(), or a clone that was filtered.
func (a *Archive) Rewrite(ctx context.Context, w io.Writer, root *merkle.Directory, o WriteOptions) error {
	if a.o.Lenient {
		return fmt.Errorf("s9pk: write: %w", ErrReadOnly)
	}
	if f := a.overloaded(a.Files()); f != nil { // one stretch under many names
		return f.fail("write", errOverlap)
	}
	h := a.Header()
	o.Header = &h
	return WriteContext(ctx, w, root, nil, o)
}
