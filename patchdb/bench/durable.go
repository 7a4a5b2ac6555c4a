package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/selfstead/selfstead/patchdb"
)

var ctx = context.Background()

// rate calls fn until the time is over and returns the calls a second.
func rate(d time.Duration, fn func(i int) error) (float64, error) {
	start := time.Now()
	for i := 0; ; i++ {
		if err := fn(i); err != nil {
			return 0, err
		}
		if t := time.Since(start); t >= d {
			return float64(i+1) / t.Seconds(), nil
		}
	}
}

// bare appends records of n bytes and syncs each. ahead: to room that was
// written with zeros before, as patchdb does; otherwise the file grows.
func (b *bench) bare(n int, ahead bool) (float64, error) {
	f, err := os.Create(filepath.Join(b.dir, "bare"))
	if err != nil {
		return 0, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	const room = 1 << 20
	rec := make([]byte, n)
	for i := range rec {
		rec[i] = byte(i)
	}
	var off, zeroed int64
	return rate(b.time, func(int) error {
		if ahead && off+int64(n) > zeroed {
			if _, err := f.WriteAt(make([]byte, room), zeroed); err != nil {
				return err
			}
			zeroed += room
		}
		if _, err := f.WriteAt(rec, off); err != nil {
			return err
		}
		off += int64(n)
		return syscall.Fdatasync(int(f.Fd()))
	})
}

// recordSize is what one small update takes in the file.
const recordSize = 32 + 96

func (b *bench) writeOne() (float64, error) {
	db, err := b.create("single.db", 20, patchdb.Options{})
	if err != nil {
		return 0, err
	}
	defer os.Remove(db.Path())
	defer db.Close()
	return rate(b.time, func(i int) error {
		_, err := db.Put(ctx, statusOf(i%20)+"/started", i)
		return err
	})
}

func single(b *bench) (string, bool, error) {
	var ours, grow, ahead float64
	for range 3 { // in turns, so that the disk's moods meet all
		for _, m := range []struct {
			to *float64
			fn func() (float64, error)
		}{
			{&grow, func() (float64, error) { return b.bare(recordSize, false) }},
			{&ahead, func() (float64, error) { return b.bare(recordSize, true) }},
			{&ours, b.writeOne},
		} {
			r, err := m.fn()
			if err != nil {
				return "", false, err
			}
			*m.to += r / 3
		}
	}
	return fmt.Sprintf("patchdb %.0f/s, bare append %.0f/s (ratio %.2f), bare append into room written ahead %.0f/s (ratio %.2f)",
		ours, grow, ours/grow, ahead, ours/ahead), ours/grow >= 0.9, nil
}

// many runs 64 writers, each calling fn until the time is over.
func (b *bench) many(fn func(writer, i int) error) (float64, error) {
	var n atomic.Int64
	var failed atomic.Pointer[error]
	var wg sync.WaitGroup
	start := time.Now()
	for w := range 64 {
		wg.Go(func() {
			for i := 0; time.Since(start) < b.time && failed.Load() == nil; i++ {
				if err := fn(w, i); err != nil {
					failed.Store(&err)
					return
				}
				n.Add(1)
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		return 0, *err
	}
	return float64(n.Load()) / time.Since(start).Seconds(), nil
}

func (b *bench) writeMany() (float64, error) {
	db, err := b.create("group.db", 64, patchdb.Options{})
	if err != nil {
		return 0, err
	}
	defer os.Remove(db.Path())
	defer db.Close()
	return b.many(func(w, i int) error {
		_, err := db.Put(ctx, statusOf(w)+"/started", i)
		return err
	})
}

func group(b *bench) (string, bool, error) {
	one, err := b.writeOne()
	if err != nil {
		return "", false, err
	}
	ours, err := b.writeMany()
	if err != nil {
		return "", false, err
	}
	bolt, err := b.bolt()
	if err != nil {
		return "", false, err
	}
	lite, err := b.sqlite()
	if err != nil {
		return "", false, err
	}
	return fmt.Sprintf("one %.0f/s, 64 writers %.0f/s (%.1f times), bbolt Batch %.0f/s, SQLite %.0f/s", one, ours, ours/one, bolt, lite),
		ours >= 8*one && ours > bolt && ours > lite, nil
}
