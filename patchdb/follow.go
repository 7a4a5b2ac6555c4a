package patchdb

import (
	"context"
	"errors"
	"os"
	"time"
)

// followEvery is how often Follow looks at a file that another process writes.
const followEvery = 100 * time.Millisecond

// Follow calls fn with what a Subscription at p would hear, of a database that
// another process may have open: it looks at the file ten times a second. Where
// the file no longer has the revisions in between, fn gets a new dump. It
// returns fn's error, the context's, or why the file cannot be read.
func Follow(ctx context.Context, path string, p Pointer, fn func(Event) error) error {
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	var (
		known *RevisionID
		seen  os.FileInfo
		again bool
	)
	for {
		now, err := os.Stat(path)
		if err != nil {
			return &FileError{"follow", path, -1, err}
		}
		changed := seen == nil || !os.SameFile(seen, now) || !seen.ModTime().Equal(now.ModTime()) || seen.Size() != now.Size()
		if changed || again {
			// An update within the same step of the file's clock would not show: look
			// once more, a step later.
			seen, again = now, changed
			id, err := follow(path, p, known, fn)
			if err != nil {
				return err
			}
			known = &id
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// follow tells what came since the known revision, and returns the newest.
func follow(path string, p Pointer, known *RevisionID, fn func(Event) error) (RevisionID, error) {
	db, err := Open(path, Options{ReadOnly: true, CompactEvery: -1})
	if err != nil {
		return 0, err
	}
	defer db.Close()
	id := db.Revision()
	if known != nil && *known == id {
		return id, nil
	}
	sub, err := db.Subscribe(p, SubscribeOptions{Since: known, Buffer: defaultHistory})
	if err != nil {
		return 0, err
	}
	defer sub.Close()
	for {
		ev, ok, err := sub.TryNext()
		if err != nil && !errors.Is(err, ErrClosed) {
			return 0, err
		}
		if !ok {
			return id, nil
		}
		if err := fn(ev); err != nil {
			return 0, err
		}
	}
}
