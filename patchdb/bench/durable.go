package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/selfstead/selfstead/patchdb"
)

var ctx = context.Background()

// slice is how many calls of one side come before it is the other's turn.
const slice = 25

// inTurns calls the functions in turns, a slice each, until the time is over for
// all of them, and returns the median time of a call in the slices of each: what
// else the machine does meets all alike.
func (b *bench) inTurns(fns ...func(i int) error) ([]time.Duration, error) {
	all := make([][]time.Duration, len(fns))
	start := time.Now()
	for turn := 0; time.Since(start) < time.Duration(len(fns))*b.time; turn++ {
		for k, fn := range fns {
			t := time.Now()
			for i := range slice {
				if err := fn(turn*slice + i); err != nil {
					return nil, err
				}
			}
			all[k] = append(all[k], time.Since(t)/slice)
		}
	}
	medians := make([]time.Duration, len(fns))
	for k, times := range all {
		slices.Sort(times)
		medians[k] = times[len(times)/2]
	}
	return medians, nil
}

func perSecond(d time.Duration) float64 { return 1 / d.Seconds() }

// bare appends records of n bytes and syncs each. ahead: to room that was
// written with zeros before, as patchdb does; otherwise the file grows.
type bare struct {
	f           *os.File
	rec         []byte
	off, zeroed int64
	ahead       bool
}

func (b *bench) bare(name string, n int, ahead bool) (*bare, error) {
	f, err := os.Create(filepath.Join(b.dir, name))
	if err != nil {
		return nil, err
	}
	rec := make([]byte, n)
	for i := range rec {
		rec[i] = byte(i)
	}
	return &bare{f: f, rec: rec, ahead: ahead}, nil
}

func (a *bare) append(int) error {
	const room = 1 << 20
	if a.ahead && a.off+int64(len(a.rec)) > a.zeroed {
		if _, err := a.f.WriteAt(make([]byte, room), a.zeroed); err != nil {
			return err
		}
		a.zeroed += room
	}
	if _, err := a.f.WriteAt(a.rec, a.off); err != nil {
		return err
	}
	a.off += int64(len(a.rec))
	return syscall.Fdatasync(int(a.f.Fd()))
}

// recordSize is what one small update takes in the file.
const recordSize = 32 + 96

func single(b *bench) (string, bool, error) {
	db, err := b.create("single.db", 20, patchdb.Options{})
	if err != nil {
		return "", false, err
	}
	defer db.Close()
	grow, err := b.bare("grow", recordSize, false)
	if err != nil {
		return "", false, err
	}
	defer grow.f.Close()
	ahead, err := b.bare("ahead", recordSize, true)
	if err != nil {
		return "", false, err
	}
	defer ahead.f.Close()
	m, err := b.inTurns(grow.append, ahead.append, func(i int) error {
		_, err := db.Put(ctx, statusOf(i%20)+"/started", i)
		return err
	})
	if err != nil {
		return "", false, err
	}
	ours := perSecond(m[2])
	return fmt.Sprintf("patchdb %.0f/s, bare append %.0f/s (ratio %.2f), bare append into room written ahead %.0f/s (ratio %.2f)",
		ours, perSecond(m[0]), ours/perSecond(m[0]), perSecond(m[1]), ours/perSecond(m[1])), ours/perSecond(m[0]) >= 0.9, nil
}

// many runs writers, each calling fn until the time is over, and returns the
// calls a second of all.
func (b *bench) many(writers int, fn func(writer, i int) error) (float64, error) {
	var n atomic.Int64
	var failed atomic.Pointer[error]
	var wg sync.WaitGroup
	start := time.Now()
	for w := range writers {
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

// group runs each side three times, in turns.
func group(b *bench) (string, bool, error) {
	var one, ours, bolt, lite float64
	db, err := b.create("group.db", 64, patchdb.Options{})
	if err != nil {
		return "", false, err
	}
	defer db.Close()
	for range 3 {
		update := func(w, i int) error {
			_, err := db.Put(ctx, statusOf(w)+"/started", i)
			return err
		}
		r, err := b.many(1, update)
		if err != nil {
			return "", false, err
		}
		one += r / 3
		if r, err = b.many(64, update); err != nil {
			return "", false, err
		}
		ours += r / 3
		if r, err = b.bolt(); err != nil {
			return "", false, err
		}
		bolt += r / 3
		if r, err = b.sqlite(); err != nil {
			return "", false, err
		}
		lite += r / 3
	}
	return fmt.Sprintf("one %.0f/s, 64 writers %.0f/s (%.1f times), bbolt Batch %.0f/s, SQLite %.0f/s", one, ours, ours/one, bolt, lite),
		ours >= 8*one && ours > bolt && ours > lite, nil
}
