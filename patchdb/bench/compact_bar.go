package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/selfstead/selfstead/patchdb"
	"github.com/selfstead/selfstead/patchdb/internal/vfs"
)

// compactions is how often the document is rewritten beside the writer.
const compactions = 12

// compact compares four writers: one that only appends and syncs, the same
// beside a file that is written the way a compaction writes its own, our updates
// with nothing beside, and our updates beside compactions of 16 MB. They take
// turns, so that each meets what else the disk has to do.
//
// Of each of our updates the time in calls on its log is the disk's; the rest is
// ours: locks, the second file that it is written to while a compaction ends,
// and the wait for a processor.
func compact(b *bench) (string, bool, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	clock := &clockFS{FS: vfs.OS, thread: syscall.Gettid()}
	vfs.OS = clock
	defer func() { vfs.OS = clock.FS }()
	db, err := b.create("compact.db", 20000, patchdb.Options{CompactEvery: -1})
	if err != nil {
		return "", false, err
	}
	defer db.Close()
	bare, err := b.bare("beside", recordSize, true)
	if err != nil {
		return "", false, err
	}
	defer bare.f.Close()

	var all [4]delays
	var took time.Duration
	update := func(i int) error {
		_, err := db.Put(ctx, statusOf(i%2000)+"/started", i)
		return err
	}
	idle := func() error { <-time.After(b.time / 8); return nil }
	sides := [4]func() error{
		idle,
		func() error { return b.writeBeside(15 << 20) },
		idle,
		func() error {
			start := time.Now()
			defer func() { took += time.Since(start) }()
			return db.Compact(ctx)
		},
	}
	n := 0
	for range compactions {
		for k, beside := range sides {
			done := make(chan error, 1)
			go func() { done <- beside() }()
			for running := true; running; n++ {
				select {
				case err := <-done:
					if err != nil {
						return "", false, err
					}
					running = false
				default:
				}
				clock.start()
				start := time.Now()
				if k < 2 {
					err = bare.append(n)
				} else {
					err = update(n)
				}
				if err != nil {
					return "", false, err
				}
				all[k].add(time.Since(start), clock.inLog)
			}
		}
	}
	ours := slices.Max(all[3].ours)
	found := fmt.Sprintf(`%d compactions, %v each; slowest update %v, of which at most %v are ours and not the disk's
         bare append                     %v
         the same beside a paced file    %v
         update                          %v
         update beside a compaction      %v
           of it ours: locks, 2nd file   %v`,
		compactions, (took / compactions).Round(time.Millisecond), ms(slices.Max(all[3].times)), ms(ours),
		histogram(all[0].times), histogram(all[1].times), histogram(all[2].times), histogram(all[3].times), histogram(all[3].ours))
	floor := max(slices.Max(all[0].times), slices.Max(all[1].times), slices.Max(all[2].times))
	return found, ours <= held && slices.Max(all[3].times) <= max(held, floor), nil
}

// held is how long a compaction may hold an update up.
const held = 20 * time.Millisecond

type delays struct{ times, ours []time.Duration }

func (d *delays) add(took, inLog time.Duration) {
	d.times = append(d.times, took)
	d.ours = append(d.ours, took-inLog)
}

func ms(d time.Duration) string { return fmt.Sprintf("%.2f ms", d.Seconds()*1e3) }

// histogram sorts the times and says where they lie.
func histogram(times []time.Duration) string {
	slices.Sort(times)
	at := func(p float64) string { return ms(times[int(float64(len(times)-1)*p)]) }
	over := func(d time.Duration) int {
		i, _ := slices.BinarySearch(times, d)
		return len(times) - i
	}
	return fmt.Sprintf("median %s, 99%% %s, 99.9%% %s, most %s; of %d: %d over 2 ms, %d over 5, %d over 10, %d over 20", at(.5), at(.99), at(.999), at(1),
		len(times), over(2*time.Millisecond), over(5*time.Millisecond), over(10*time.Millisecond), over(20*time.Millisecond))
}

// writeBeside writes n bytes to a new file with the calls and pauses of a
// compaction.
func (b *bench) writeBeside(n int64) error {
	f, err := vfs.OS.Create(filepath.Join(b.dir, "paced"))
	if err != nil {
		return err
	}
	defer os.Remove(filepath.Join(b.dir, "paced"))
	defer f.Close()
	piece := make([]byte, 64<<10)
	for at := int64(0); at < n; at += int64(len(piece)) {
		start := time.Now()
		if _, err := f.WriteAt(piece, at); err != nil {
			return err
		}
		if err := f.Writeback(at, int64(len(piece))); err != nil {
			return err
		}
		if at%(1<<20) == 0 {
			if err := f.Sync(); err != nil {
				return err
			}
		}
		<-time.After(time.Since(start))
	}
	return f.Sync()
}

// clockFS measures one thread's calls on the file that it calls first.
type clockFS struct {
	vfs.FS
	thread int

	mu    sync.Mutex
	first *clockFile
	inLog time.Duration
}

func (c *clockFS) start() {
	c.mu.Lock()
	c.first, c.inLog = nil, 0
	c.mu.Unlock()
}

func (c *clockFS) wrap(f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &clockFile{f, c}, nil
}

func (c *clockFS) Open(name string, write bool) (vfs.File, error) {
	return c.wrap(c.FS.Open(name, write))
}

func (c *clockFS) Create(name string) (vfs.File, error) { return c.wrap(c.FS.Create(name)) }

func (c *clockFS) Names(name string, f vfs.File) (bool, error) {
	return c.FS.Names(name, f.(*clockFile).File)
}

type clockFile struct {
	vfs.File
	clock *clockFS
}

func (f *clockFile) took(start time.Time) {
	if syscall.Gettid() != f.clock.thread {
		return
	}
	f.clock.mu.Lock()
	defer f.clock.mu.Unlock()
	if f.clock.first == nil {
		f.clock.first = f
	}
	if f.clock.first == f {
		f.clock.inLog += time.Since(start)
	}
}

func (f *clockFile) WriteAt(b []byte, off int64) (int, error) {
	defer f.took(time.Now())
	return f.File.WriteAt(b, off)
}

func (f *clockFile) Sync() error {
	defer f.took(time.Now())
	return f.File.Sync()
}
