package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

// unwatched are folders whose changes make no other package, or are made by the
// build itself.
var unwatched = map[string]bool{"node_modules": true, "javascript": true, "__pycache__": true}

// watched says whether a change of a file, by its path inside the project, counts.
func watched(rel string, own bool) bool {
	for i, part := range strings.Split(filepath.ToSlash(rel), "/") {
		if unwatched[part] && (part != "javascript" || (i == 0 && own)) || strings.HasPrefix(part, ".") && part != "." {
			return false
		}
	}
	name := filepath.Base(rel)
	for _, suffix := range []string{".s9pk", ".obao", "~", ".swp", ".swx", ".tmp", ".part"} {
		if strings.HasSuffix(name, suffix) {
			return false
		}
	}
	// npm writes the first, and vi tries with the second whether it may write.
	return name != "package-lock.json" && name != "4913"
}

// watch sends the name of the last file that changed below dir once none has
// changed for a while. The channel holds one change and is closed when ctx ends
// or dir goes.
func watch(ctx context.Context, dir string, quiet time.Duration) (<-chan string, error) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("watching %s: %w", dir, err)
	}
	dir = filepath.Clean(dir)
	// The bundle is made by the build where there is one.
	_, err = os.Stat(filepath.Join(dir, "package.json"))
	p := &projectWatch{w: w, dir: dir, builds: err == nil}
	if err := p.add(dir); err != nil {
		w.Close()
		return nil, err
	}
	changes := make(chan string, 1)
	go func() {
		defer close(changes)
		defer w.Close()
		p.run(ctx, quiet, changes)
	}()
	return changes, nil
}

type projectWatch struct {
	w      *fsnotify.Watcher
	dir    string
	builds bool
}

func (p *projectWatch) counts(path string) bool {
	rel, err := filepath.Rel(p.dir, path)
	return err == nil && watched(rel, p.builds)
}

// add watches a folder and those below it.
func (p *projectWatch) add(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist) && path != p.dir:
			return nil // gone again
		case err != nil:
			return fmt.Errorf("watching: %w", err)
		case !d.IsDir():
			return nil
		case !p.counts(path):
			return filepath.SkipDir
		}
		if err := p.w.Add(path); err != nil {
			return fmt.Errorf("watching %s: %w", path, err)
		}
		return nil
	})
}

func (p *projectWatch) run(ctx context.Context, quiet time.Duration, changes chan<- string) {
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	defer timer.Stop()
	last := ""
	for {
		select {
		case <-ctx.Done():
			return
		case e, ok := <-p.w.Events:
			if !ok {
				return
			}
			if e.Name == p.dir && e.Has(fsnotify.Remove) {
				return
			}
			if !p.counts(e.Name) {
				continue
			}
			if fi, err := os.Lstat(e.Name); err == nil && fi.IsDir() && e.Has(fsnotify.Create) {
				p.add(e.Name) //nolint:errcheck // what is not watched is built at the next change
			}
			last, _ = filepath.Rel(p.dir, e.Name)
			timer.Reset(quiet)
		case _, ok := <-p.w.Errors: // overflow: something changed
			if !ok {
				return
			}
			last = "something"
			timer.Reset(quiet)
		case <-timer.C:
			select {
			case changes <- last:
			default: // one is waiting already
			}
		}
	}
}
