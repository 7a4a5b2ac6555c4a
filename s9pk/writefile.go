package s9pk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/selfstead/selfstead/s9pk/merkle"
)

// WriteFile signs a tree and writes it as a package to path, which appears only
// when it is complete and, unless NoSync, on disk. Contents are hashed while
// they are copied, several files at once, so each is read a single time and what
// is signed is what was written.
func WriteFile(ctx context.Context, path string, root *merkle.Directory, key Signer, o WriteOptions) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".partial-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	var w io.WriterAt = f
	if !o.NoSync {
		w = &eagerFile{f: f}
	}
	err = WriteAt(ctx, w, root, key, o)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if err == nil && !o.NoSync {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	if o.NoSync {
		return nil
	}
	return syncDir(filepath.Dir(path))
}

// eagerFile starts writing back what was written, 8 MiB at a time. Parts may be
// written by several goroutines, each going forward.
type eagerFile struct{ f *os.File }

const writebackStep = 8 << 20

func (e *eagerFile) WriteAt(p []byte, off int64) (int, error) {
	n, err := e.f.WriteAt(p, off)
	if end := (off + int64(n)) / writebackStep * writebackStep; end > off {
		startWriteback(e.f, end-writebackStep, writebackStep)
	}
	return n, err
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// WriteAt is WriteContext for a destination that takes its parts in any order.
// On an error what was written is useless.
func WriteAt(ctx context.Context, w io.WriterAt, root *merkle.Directory, key Signer, o WriteOptions) error {
	j, err := newJob(ctx, root, key, o)
	if err != nil {
		return err
	}
	known := j.hashed()
	j.total = 0
	places, err := layout(root, HeaderSize, o.Order) // lengths do not depend on hashes
	if err != nil {
		return err
	}
	var bodies, tables []*place
	for _, p := range places {
		if p.entry == nil || p.entry.Kind == merkle.KindDirectory {
			tables = append(tables, p)
			continue
		}
		j.total += int64(p.size)
		bodies = append(bodies, p)
	}
	workers := merkle.Workers()
	stored := bodyFiles(bodies)
	items := make([]int, len(bodies))
	for i := range items {
		items[i] = i
		if f := stored[i]; f != nil && f.a.forward() {
			workers = 1
		}
	}
	if err := forEach(ctx, items, workers, func(ctx context.Context, i int) error {
		if workers == 1 {
			announceRun(stored, i)
		}
		return j.place(ctx, w, bodies[i], known[bodies[i].entry])
	}); err != nil {
		return err
	}
	head, _, err := j.seal()
	if err != nil {
		return err
	}
	for _, p := range tables {
		if _, err := w.WriteAt(p.tableBytes(p.dir(root)), int64(p.pos)); err != nil {
			return err
		}
	}
	_, err = w.WriteAt(head, 0)
	return err
}

// place copies one body to its place, hashes it on the way, and proves it or
// notes its hash.
func (j *job) place(ctx context.Context, w io.WriterAt, p *place, known bool) error {
	h, err := j.copyTo(ctx, w, p)
	if err == nil && known && h != p.entry.Hash {
		err = fmt.Errorf("%w: content hashes to %s, signed is %s", ErrHashMismatch, h, p.entry.Hash)
	}
	if err == nil && !known {
		p.entry.Hash, p.entry.Hashed = h, true
		err = writable(p.entry)
	}
	if err != nil {
		return &EntryError{Op: "write", Path: p.path, Offset: int64(p.pos), Err: err}
	}
	return nil
}

func (j *job) copyTo(ctx context.Context, w io.WriterAt, p *place) (merkle.Hash, error) {
	rc, err := openRaw(p.entry.Source)
	if err != nil {
		return merkle.Hash{}, err
	}
	h := merkle.NewHasher()
	bp := copyBuffers.Get().(*[]byte)
	defer copyBuffers.Put(bp)
	out := io.MultiWriter(h, io.NewOffsetWriter(w, int64(p.pos)))
	err = copySource(ctx, out, rc, int64(p.size), *bp, j.progress)
	return h.Sum(), errors.Join(err, rc.Close())
}
