package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/selfstead/selfstead/patchdb"
)

// perUpdate returns the median time of a typed update of a status.
func perUpdate(db *patchdb.DB, d time.Duration, packages int) (time.Duration, error) {
	var all []time.Duration
	start := time.Now()
	for i := 0; time.Since(start) < d; i++ {
		t := time.Now()
		if _, err := patchdb.Mutate(ctx, db, statusOf(i*7%packages), func(s *Status) error { s.Started++; return nil }); err != nil {
			return 0, err
		}
		all = append(all, time.Since(t))
	}
	slices.Sort(all)
	return all[len(all)/2], nil
}

func leaf(b *bench) (string, bool, error) {
	small, err := b.create("small.db", 20, patchdb.Options{})
	if err != nil {
		return "", false, err
	}
	defer small.Close()
	large, err := b.create("large.db", 2000, patchdb.Options{})
	if err != nil {
		return "", false, err
	}
	defer large.Close()
	var s, l time.Duration
	for range 3 {
		x, err := perUpdate(small, b.time, 20)
		if err != nil {
			return "", false, err
		}
		y, err := perUpdate(large, b.time, 2000)
		if err != nil {
			return "", false, err
		}
		s, l = s+x/3, l+y/3
	}
	ratio := float64(l) / float64(s)
	return fmt.Sprintf("%d KB: %v (%.0f/s), %d KB: %v (%.0f/s), ratio %.2f", len(document(20))>>10, s, 1/s.Seconds(),
		len(document(2000))>>10, l, 1/l.Seconds(), ratio), ratio <= 1.2, nil
}

func others(b *bench) (string, bool, error) {
	db, err := b.create("others.db", 2001, patchdb.Options{})
	if err != nil {
		return "", false, err
	}
	defer db.Close()
	measure := func() (time.Duration, error) {
		var all []time.Duration
		start := time.Now()
		for i := 0; time.Since(start) < b.time/2; i++ {
			t := time.Now()
			if _, err := db.Put(ctx, statusOf(2000)+"/started", i); err != nil {
				return 0, err
			}
			all = append(all, time.Since(t))
		}
		slices.Sort(all)
		return all[len(all)/2], nil
	}
	var none, with time.Duration
	for range 3 {
		x, err := measure()
		if err != nil {
			return "", false, err
		}
		var subs []*patchdb.Subscription
		var wg sync.WaitGroup
		var first sync.WaitGroup
		for i := range 2000 {
			s, err := db.Subscribe(statusOf(i), patchdb.SubscribeOptions{})
			if err != nil {
				return "", false, err
			}
			subs = append(subs, s)
			first.Add(1)
			wg.Go(func() {
				once := first.Done
				for {
					if _, err := s.Next(ctx); err != nil {
						return
					}
					once()
				}
			})
		}
		first.Wait()
		y, err := measure()
		for _, s := range subs {
			s.Close()
		}
		wg.Wait()
		if err != nil {
			return "", false, err
		}
		none, with = none+x/3, with+y/3
	}
	ratio := float64(with) / float64(none)
	return fmt.Sprintf("none %v, 2,000 elsewhere %v, ratio %.2f", none, with, ratio), ratio <= 1.3, nil
}

func fanout(b *bench) (string, bool, error) {
	db, err := b.create("fanout.db", 20000, patchdb.Options{})
	if err != nil {
		return "", false, err
	}
	defer db.Close()
	const subscribers = 100
	var heard, dumped atomic.Int64
	all := make(chan struct{}, 1)
	var wg, first sync.WaitGroup
	var subs []*patchdb.Subscription
	for i := range subscribers {
		p := patchdb.Pointer("/packageData")
		if i%2 == 0 {
			p = statusOf(7)
		}
		s, err := db.Subscribe(p, patchdb.SubscribeOptions{})
		if err != nil {
			return "", false, err
		}
		subs = append(subs, s)
		first.Add(1)
		wg.Go(func() {
			if _, err := s.Next(ctx); err != nil {
				return
			}
			first.Done()
			for {
				ev, err := s.Next(ctx)
				if err != nil {
					return
				}
				if ev.Dump != nil {
					dumped.Add(1)
				}
				if heard.Add(1)%subscribers == 0 {
					all <- struct{}{}
				}
			}
		})
	}
	first.Wait()
	var times []time.Duration
	start := time.Now()
	for i := 0; time.Since(start) < b.time; i++ {
		t := time.Now()
		if _, err := db.Put(ctx, statusOf(7)+"/started", i); err != nil {
			return "", false, err
		}
		<-all
		times = append(times, time.Since(t))
	}
	for _, s := range subs {
		s.Close()
	}
	wg.Wait()
	slices.Sort(times)
	m := times[len(times)/2]
	return fmt.Sprintf("median %v, 99th percentile %v, of %d; %d MB", m, times[len(times)*99/100], len(times), len(document(20000))>>20),
		m < 3*time.Millisecond && dumped.Load() == 0, nil
}

// withLog leaves a file of 2,000 packages and 3,500 revisions.
func (b *bench) withLog(name string) (string, error) {
	db, err := b.create(name, 2000, patchdb.Options{CompactEvery: -1})
	if err != nil {
		return "", err
	}
	_, err = b.manyN(3500, func(i int) error {
		_, err := db.Put(ctx, statusOf(i%2000)+"/started", i)
		return err
	})
	if cerr := db.Close(); err == nil {
		err = cerr
	}
	return db.Path(), err
}

// manyN does n things, 64 at a time.
func (b *bench) manyN(n int, fn func(i int) error) (struct{}, error) {
	var next atomic.Int64
	var failed atomic.Pointer[error]
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				if err := fn(i); err != nil {
					failed.Store(&err)
				}
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		return struct{}{}, *err
	}
	return struct{}{}, nil
}

func reopen(b *bench) (string, bool, error) {
	path, err := b.withLog("reopen.db")
	if err != nil {
		return "", false, err
	}
	var all []time.Duration
	for range 9 {
		runtime.GC()
		t := time.Now()
		db, err := patchdb.Open(path, patchdb.Options{CompactEvery: -1})
		if err != nil {
			return "", false, err
		}
		all = append(all, time.Since(t))
		if r := db.Recovered(); r.Revisions != 3500 {
			return "", false, fmt.Errorf("%d revisions", r.Revisions)
		}
		if err := db.Close(); err != nil {
			return "", false, err
		}
	}
	slices.Sort(all)
	return fmt.Sprintf("median %v, slowest %v of %d", all[len(all)/2], all[len(all)-1], len(all)), all[len(all)/2] <= 60*time.Millisecond, nil
}

// memory measures in a process of its own, on 1.6 MB with 3,500 revisions.
func memory(b *bench) (string, bool, error) {
	path, err := b.withLog("memory.db")
	if err != nil {
		return "", false, err
	}
	self, err := os.Executable()
	if err != nil {
		return "", false, err
	}
	out, err := exec.Command(self, "-child", path).Output()
	if err != nil {
		return "", false, err
	}
	var heap, peak, text int64
	if _, err := fmt.Sscan(string(out), &heap, &peak, &text); err != nil {
		return "", false, err
	}
	ratio := float64(heap) / float64(text)
	return fmt.Sprintf("JSON text %d KB, live heap %d KB (%.1f times), largest resident size of the process while opening %d KB (%.1f times)",
		text>>10, heap>>10, ratio, peak>>10, float64(peak)/float64(text)), ratio <= 6, nil
}

func memoryChild(path string) error {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	db, err := patchdb.Open(path, patchdb.Options{CompactEvery: -1})
	if err != nil {
		return err
	}
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&after)
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	var peak int64
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			if _, err := fmt.Sscan(rest, &peak); err != nil {
				return err
			}
		}
	}
	d, err := db.Dump("")
	if err != nil {
		return err
	}
	fmt.Println(int64(after.HeapAlloc)-int64(before.HeapAlloc), peak<<10, len(d.Value))
	return db.Close()
}

// compact keeps one writer writing while 16 MB are rewritten three times.
func compact(b *bench) (string, bool, error) {
	db, err := b.create("compact.db", 20000, patchdb.Options{CompactEvery: -1})
	if err != nil {
		return "", false, err
	}
	defer db.Close()
	var during atomic.Bool
	stop := make(chan struct{})
	var worst, quiet time.Duration
	var writes int
	done := make(chan error, 1)
	go func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			busy := during.Load()
			t := time.Now()
			if _, err := db.Put(ctx, statusOf(i%2000)+"/started", i); err != nil {
				done <- err
				return
			}
			d := time.Since(t)
			if busy {
				worst = max(worst, d)
				writes++
			} else {
				quiet = max(quiet, d)
			}
		}
	}()
	var took time.Duration
	for range 3 {
		time.Sleep(b.time / 4)
		during.Store(true)
		t := time.Now()
		if err := db.Compact(ctx); err != nil {
			return "", false, err
		}
		took += time.Since(t) / 3
		during.Store(false)
	}
	close(stop)
	if err := <-done; err != nil {
		return "", false, err
	}
	size := int64(0)
	if st, err := os.Stat(filepath.Join(b.dir, "compact.db")); err == nil {
		size = st.Size()
	}
	return fmt.Sprintf("slowest of %d updates during compaction %v, slowest of others %v; one compaction %v, file %d MB",
		writes, worst, quiet, took, size>>20), worst <= 20*time.Millisecond, nil
}
