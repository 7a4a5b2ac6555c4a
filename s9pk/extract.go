package s9pk

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/selfstead/selfstead/s9pk/merkle"
)

// ExtractOptions tunes Extract.
type ExtractOptions struct {
	// Paths limits what is extracted to these files, and directories with all
	// they hold; nil means everything.
	Paths []string
	// Progress is called from one goroutine with the bytes written so far.
	Progress func(done, total int64)
}

// Extract writes files to dir, which must not exist, or be empty. They are
// written and proven in a hidden directory beside it, which takes dir's place
// when all is well and is removed when anything is not: dir is never half full.
// Names cannot lead out of it. Entries that were left out of the archive are
// skipped, unless Paths names them.
func (a *Archive) Extract(ctx context.Context, dir string, o ExtractOptions) (err error) {
	if a.o.Lenient {
		return fmt.Errorf("s9pk: extract: %w", ErrReadOnly)
	}
	list, total, err := a.extractList(o.Paths)
	if err != nil {
		return err
	}
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		return &fs.PathError{Op: "extract", Path: dir, Err: fs.ErrExist}
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	dir = filepath.Clean(dir)
	stage, err := os.MkdirTemp(filepath.Dir(dir), "."+filepath.Base(dir)+".partial-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(stage))
		}
	}()
	root, err := os.OpenRoot(stage)
	if err != nil {
		return err
	}
	// Bodies in the order in which they lie, which a source over a network serves
	// best; directories before them.
	slices.SortStableFunc(list, func(x, y extractItem) int { return cmp.Compare(x.position(), y.position()) })
	var files []*File
	for _, item := range list {
		if item.file != nil {
			files = append(files, item.file)
		}
	}
	var done atomic.Int64
	for i, item := range list {
		if err = ctx.Err(); err != nil {
			break
		}
		if item.file != nil {
			announceRun(files, i-(len(list)-len(files)))
		}
		if err = a.extractItem(ctx, root, item, func(n int64) {
			if d := done.Add(n); o.Progress != nil {
				o.Progress(d, total)
			}
		}); err != nil {
			break
		}
	}
	if err = errors.Join(err, root.Chmod(".", 0o755), root.Close()); err != nil {
		return err
	}
	return os.Rename(stage, dir)
}

type extractItem struct {
	path string
	file *File // nil for a directory
}

func (it extractItem) position() int64 {
	if it.file == nil {
		return -1
	}
	return it.file.Position
}

func (a *Archive) extractList(paths []string) (list []extractItem, total int64, err error) {
	wanted := func(p string) bool { return paths == nil }
	if paths != nil {
		clean := make([]string, len(paths))
		for i, p := range paths {
			clean[i] = strings.Join(strings.FieldsFunc(p, func(r rune) bool { return r == '/' }), "/")
			e, err := a.root.Lookup(p)
			if err == nil && e.Kind == merkle.KindMissing {
				err = ErrMissing
			}
			if err != nil {
				return nil, 0, &EntryError{Op: "extract", Path: clean[i], Offset: -1, Err: err}
			}
		}
		wanted = func(p string) bool {
			for _, c := range clean {
				if p == c || strings.HasPrefix(p, c+"/") {
					return true
				}
			}
			return false
		}
	}
	err = a.root.Walk(func(p string, e *merkle.Entry) error {
		if !wanted(p) {
			return nil
		}
		switch e.Kind {
		case merkle.KindDirectory:
			list = append(list, extractItem{path: p})
		case merkle.KindFile:
			f := e.Source.(bodySource).f
			if err := f.check("extract"); err != nil {
				return err
			}
			if f.Size > a.mostWork()-total { // one stretch under many names
				return f.fail("extract", errOverlap)
			}
			list = append(list, extractItem{p, f})
			total += f.Size
		}
		return nil
	})
	return list, total, err
}

func (a *Archive) extractItem(ctx context.Context, root *os.Root, it extractItem, progress func(int64)) (err error) {
	fail := func(err error) error {
		var ee *EntryError
		if err == nil || errors.As(err, &ee) {
			return err
		}
		return &EntryError{Op: "extract", Path: it.path, Offset: -1, Err: err}
	}
	if it.file == nil {
		return fail(root.MkdirAll(it.path, 0o755))
	}
	if dir := path.Dir(it.path); dir != "." {
		if err := root.MkdirAll(dir, 0o755); err != nil {
			return fail(err)
		}
	}
	f, err := root.OpenFile(it.path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return fail(err)
	}
	s, err := it.file.stream()
	if err == nil {
		bp := copyBuffers.Get().(*[]byte)
		defer copyBuffers.Put(bp)
		err = copySource(ctx, f, s, it.file.Size, *bp, progress)
		if closed := s.Close(); err == nil {
			err = closed
		}
	}
	return fail(errors.Join(err, f.Close()))
}
