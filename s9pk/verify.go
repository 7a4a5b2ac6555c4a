package s9pk

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"

	"github.com/selfstead/selfstead/s9pk/merkle"
)

// splitFrom is the body size from which several cores share one body.
const splitFrom = 8 << 20

// bodies lists what has to be read to prove all of the archive, by position.
// The same stretch with the same hash counts once.
func (a *Archive) bodies() (files []*File, total int64, err error) {
	files = distinct(a.Files())
	for _, f := range files {
		if err := f.check("verify"); err != nil {
			return nil, 0, err
		}
		if f.Size > math.MaxInt64-total { // lenient: no sum of what somebody claims may overflow
			return nil, 0, f.fail("verify", errOverlap)
		}
		total += f.Size
	}
	return files, total, nil
}

// distinct sorts files by position and keeps one for each stretch and hash.
func distinct(files []*File) []*File {
	slices.SortStableFunc(files, compareStretch)
	return slices.CompactFunc(files, func(x, y *File) bool { return compareStretch(x, y) == 0 })
}

func compareStretch(x, y *File) int {
	return cmp.Or(cmp.Compare(x.Position, y.Position), cmp.Compare(x.Size, y.Size), slices.Compare(x.Hash[:], y.Hash[:]))
}

var errOverlap = fmt.Errorf("%w: bodies overlap", ErrUnsafe)

// mostWork is how many bytes of bodies are worked on. No writer lets bodies
// overlap. Entries are cheap and hashing is not, so work is bounded by a multiple
// of what was received.
func (a *Archive) mostWork() int64 {
	return min(a.size, math.MaxInt64/8)*4 + 1<<20 // the length, too, is what somebody claims
}

// overloaded names the file with which bodies are more than mostWork; nil if
// they are not. What lies beyond the end of the archive is not counted.
func (a *Archive) overloaded(files []*File) *File {
	var total int64
	for _, f := range files {
		switch {
		case !f.inside(a.size):
		case f.Size > a.mostWork()-total:
			return f
		default:
			total += f.Size
		}
	}
	return nil
}

// checkOverlaps refuses archives that take far more work to prove than to send.
func (a *Archive) checkOverlaps() error {
	if a.present <= a.mostWork() { // and most archives do not get further
		return nil
	}
	if f := a.overloaded(distinct(a.Files())); f != nil {
		return f.fail("open", errOverlap)
	}
	return nil
}

// Verify proves every body that is present, on all cores. progress, where not
// nil, is called from one goroutine at a time with the bytes done so far. Of
// several wrong bodies the error names the first found.
func (a *Archive) Verify(ctx context.Context, progress func(done, total int64)) error {
	files, total, err := a.bodies()
	if err != nil {
		return err
	}
	var mu sync.Mutex
	var done int64
	report := func(n int64) {
		if progress == nil {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		done += n
		progress(done, total)
	}
	if len(files) > 0 {
		announceRun(files, 0)
	}
	return a.each(ctx, files, total, report)
}

// each verifies files by position, which a source over a network serves best.
func (a *Archive) each(ctx context.Context, files []*File, total int64, report func(int64)) error {
	workers := merkle.Workers()
	// Alone, a body keeps one core busy; one that outweighs a core's share of all
	// is spread over them.
	share := func(f *File) int {
		if f.Size >= splitFrom && f.Size*int64(workers) > total {
			return workers
		}
		return 1
	}
	switch {
	case a.forward():
		ahead := func(*File) int { return min(2, workers) } // one reads, in order
		return eachOf(ctx, files, 1, ahead, report)
	case workers <= 2: // while one reads ahead for a large body it has time for small ones
		return eachOf(ctx, files, workers, share, report)
	}
	from := 0
	for i, f := range files {
		if n := share(f); n > 1 {
			if err := eachOf(ctx, files[from:i], workers, share, report); err != nil {
				return err
			}
			if err := f.verify(ctx, n, report); err != nil {
				return err
			}
			from = i + 1
		}
	}
	return eachOf(ctx, files[from:], workers, share, report)
}

// eachOf verifies files side by side, each on its share of the cores.
func eachOf(ctx context.Context, whole []*File, workers int, share func(*File) int, report func(int64)) error {
	if len(whole) == 0 {
		return context.Cause(ctx)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	queue := make(chan *File)
	var wg sync.WaitGroup
	for range min(workers, len(whole)) {
		wg.Go(func() {
			for f := range queue {
				if err := f.verify(ctx, share(f), report); err != nil {
					cancel(err) // the first call wins
				}
			}
		})
	}
feed:
	for _, f := range whole {
		select {
		case queue <- f:
		case <-ctx.Done():
			break feed
		}
	}
	close(queue)
	wg.Wait()
	return context.Cause(ctx)
}

// BadFiles reads every body and returns the error of each that is wrong, by
// position; nothing stops at the first. The error is the context's.
func (a *Archive) BadFiles(ctx context.Context) ([]*EntryError, error) {
	var bad []*EntryError
	files := a.Files()
	slices.SortStableFunc(files, compareStretch)
	var last *EntryError // of the file before
	for i, f := range files {
		announceRun(files, i)
		if i > 0 && compareStretch(files[i-1], f) == 0 { // proven once
			if last != nil {
				again := *last
				again.Path = f.Path
				bad = append(bad, &again)
			}
			continue
		}
		err := f.verify(ctx, 0, nil)
		if ctx.Err() != nil {
			return bad, context.Cause(ctx)
		}
		if last = nil; errors.As(err, &last) {
			bad = append(bad, last)
		}
	}
	return bad, nil
}
