package patchdb

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// An update within the same step of the file's clock as the one before, and of
// the same length, is heard too.
func TestFollowWithACoarseClock(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "test.db")
	db, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	put(t, db, "", 1)
	now := time.Now().Add(time.Second) // for the file, time stands still here
	stop := func() {
		if err := os.Chtimes(path, now, now); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	done := errors.New("heard both")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	n := 0
	err = Follow(ctx, path, "", func(ev Event) error {
		if n++; n == 2 {
			return done
		}
		put(t, db, "", 2)
		stop()
		return nil
	})
	if !errors.Is(err, done) {
		t.Error(err)
	}
}

// Who only reads, or checks, while a writer is at work and compacts is never
// told of damage, and sees each time a state that was.
func TestReadBesideAWriter(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "test.db")
	db, err := Open(path, Options{CompactEvery: 100})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	wrote := make(chan error, 1)
	go func() {
		for i := 1; ctx.Err() == nil; i++ {
			if _, err := db.Put(context.Background(), "", i); err != nil {
				wrote <- err
				return
			}
		}
		wrote <- nil
	}()
	for range 200 {
		r, err := Open(path, Options{ReadOnly: true})
		if err != nil {
			t.Error(err)
			break
		}
		d, err := r.Dump("")
		if want := strconv.FormatUint(uint64(d.ID), 10); err != nil || d.ID > 0 && string(d.Value) != want || !json.Valid(d.Value) {
			t.Errorf("revision %d: %s %v", d.ID, d.Value, err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if _, err := Check(path); err != nil {
			t.Error(err)
			break
		}
	}
	cancel()
	if err := <-wrote; err != nil {
		t.Error(err)
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}
