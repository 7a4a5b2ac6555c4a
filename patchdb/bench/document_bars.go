package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/selfstead/selfstead/patchdb"
)

// leaf updates a status through its type, in a small document and in a large one.
func leaf(b *bench) (string, bool, error) {
	update := func(name string, packages int) (*patchdb.DB, func(i int) error, error) {
		db, err := b.create(name, packages, patchdb.Options{})
		return db, func(i int) error {
			_, err := patchdb.Mutate(ctx, db, statusOf(i*7%packages), func(s *Status) error { s.Started++; return nil })
			return err
		}, err
	}
	small, inSmall, err := update("small.db", 20)
	if err != nil {
		return "", false, err
	}
	defer small.Close()
	large, inLarge, err := update("large.db", 2000)
	if err != nil {
		return "", false, err
	}
	defer large.Close()
	m, err := b.inTurns(inSmall, inLarge)
	if err != nil {
		return "", false, err
	}
	ratio := float64(m[1]) / float64(m[0])
	return fmt.Sprintf("%d KB: %v (%.0f/s), %d KB: %v (%.0f/s), ratio %.2f", len(document(20))>>10, m[0], perSecond(m[0]),
		len(document(2000))>>10, m[1], perSecond(m[1]), ratio), ratio <= 1.2, nil
}

// others updates one package in two documents; 2,000 watch the other packages
// of one of them.
func others(b *bench) (string, bool, error) {
	update := func(name string) (*patchdb.DB, func(i int) error, error) {
		db, err := b.create(name, 2001, patchdb.Options{})
		return db, func(i int) error {
			_, err := db.Put(ctx, statusOf(2000)+"/started", i)
			return err
		}, err
	}
	quiet, inQuiet, err := update("quiet.db")
	if err != nil {
		return "", false, err
	}
	defer quiet.Close()
	watched, inWatched, err := update("watched.db")
	if err != nil {
		return "", false, err
	}
	defer watched.Close()
	var wg, first sync.WaitGroup
	defer wg.Wait()
	for i := range 2000 {
		s, err := watched.Subscribe(statusOf(i), patchdb.SubscribeOptions{})
		if err != nil {
			return "", false, err
		}
		defer s.Close()
		first.Add(1)
		wg.Go(func() {
			once := sync.OnceFunc(first.Done)
			for {
				if _, err := s.Next(ctx); err != nil {
					return
				}
				once()
			}
		})
	}
	first.Wait()
	m, err := b.inTurns(inQuiet, inWatched)
	if err != nil {
		return "", false, err
	}
	ratio := float64(m[1]) / float64(m[0])
	return fmt.Sprintf("none %v, 2,000 elsewhere %v, ratio %.2f", m[0], m[1], ratio), ratio <= 1.3, nil
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

// memory measures in processes of their own: 1.6 MB with 3,500 revisions, and 16
// MB. What a process takes that opens nothing is not counted. The most that a
// process took counts for the large text: beside the small one the runtime's own
// needs, a few MB whatever it opens, weigh more than the document.
func memory(b *bench) (string, bool, error) {
	small, err := b.withLog("memory.db")
	if err != nil {
		return "", false, err
	}
	db, err := b.create("memory16.db", 20000, patchdb.Options{})
	if err != nil {
		return "", false, err
	}
	if err := db.Close(); err != nil {
		return "", false, err
	}
	none, err := openApart("")
	if err != nil {
		return "", false, err
	}
	var found []string
	holds := true
	for _, path := range []string{small, db.Path()} {
		m, err := openApart(path)
		if err != nil {
			return "", false, err
		}
		heap, peak := float64(m.heap)/float64(m.text), float64(m.peak-none.peak)/float64(m.text)
		holds = holds && heap <= 6 && (peak <= 6 || path == small)
		found = append(found, fmt.Sprintf("%d KB of text: live heap %d KB (%.1f times), most that the process took while opening %d KB (%.1f times)",
			m.text>>10, m.heap>>10, heap, (m.peak-none.peak)>>10, peak))
	}
	return fmt.Sprintf("%s\n         (above the %d KB of a process that opens nothing)", strings.Join(found, "\n         "), none.peak>>10), holds, nil
}

// usage is what opening a database took.
type usage struct{ heap, peak, text int64 }

func openApart(path string) (u usage, err error) {
	self, err := os.Executable()
	if err != nil {
		return u, err
	}
	out, err := exec.Command(self, "-child", "open:"+path).Output()
	if err != nil {
		return u, err
	}
	_, err = fmt.Sscan(string(out), &u.heap, &u.peak, &u.text)
	return u, err
}

func memoryChild(path string) error {
	if path == "" {
		peak, err := peakResident()
		fmt.Println(0, peak, 0)
		return err
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	db, err := patchdb.Open(path, patchdb.Options{CompactEvery: -1})
	if err != nil {
		return err
	}
	peak, err := peakResident()
	if err != nil {
		return err
	}
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&after)
	d, err := db.Dump("")
	if err != nil {
		return err
	}
	fmt.Println(int64(after.HeapAlloc)-int64(before.HeapAlloc), peak, len(d.Value))
	return db.Close()
}

// peakResident is the most memory that this process had so far.
func peakResident() (peak int64, err error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			_, err = fmt.Sscan(rest, &peak)
		}
	}
	return peak << 10, err
}
