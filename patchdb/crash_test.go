package patchdb

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/selfstead/selfstead/patchdb/internal/vfs"
)

const crashName = "crash.db"

func seeded(t testing.TB) *rand.Rand {
	t.Helper()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// run is a scenario with what it was promised.
type run struct {
	acked    int // updates that returned without error
	tried    int // updates that were begun
	created  bool
	failed   error
	readOnly bool
}

// hookFS calls hook before some steps of a compaction, at which updates come
// in between: when the snapshot is written, before the new file takes the name,
// and before that is durable.
type hookFS struct {
	*vfs.Mem
	hook func()
}

type hookFile struct {
	vfs.File
	hook func()
}

func (h hookFS) Create(name string) (vfs.File, error) {
	f, err := h.Mem.Create(name)
	if err != nil {
		return nil, err
	}
	return hookFile{f, h.hook}, nil
}

func (f hookFile) Sync() error {
	f.hook()
	return f.File.Sync()
}

func (f hookFile) Writeback(off, n int64) error {
	f.hook()
	return f.File.Writeback(off, n)
}

func (h hookFS) Rename(from, to string) error {
	h.hook()
	return h.Mem.Rename(from, to)
}

func (h hookFS) SyncDir(name string) error {
	h.hook()
	return h.Mem.SyncDir(name)
}

func (h hookFS) Names(name string, f vfs.File) (bool, error) {
	if hf, ok := f.(hookFile); ok {
		f = hf.File
	}
	return h.Mem.Names(name, f)
}

// scenario opens, updates, compacts, updates, closes, and opens once more,
// until something fails.
func scenario(m *vfs.Mem) (r run) {
	ctx := context.Background()
	for range 2 {
		hook := func() {}
		db, err := Open(crashName, Options{CompactEvery: -1, fs: hookFS{m, func() { hook() }}})
		if err != nil {
			r.failed = err
			return r
		}
		r.created = true
		update := func(n int) bool {
			for range n {
				r.tried++
				_, err := db.Update(ctx, func(tx *Tx) error {
					if err := tx.PutAll(Join("/items", fmt.Sprint(r.tried%5)), longText(r.tried)); err != nil {
						return err
					}
					return tx.PutAll("/n", r.tried)
				})
				if err != nil {
					r.failed = err
					r.readOnly = errors.Is(db.Err(), ErrReadOnly)
					return false
				}
				r.acked++
			}
			return true
		}
		ok := update(4)
		if ok {
			busy := false
			hook = func() {
				if busy || r.readOnly {
					return // this is the sync of the update below
				}
				busy = true
				ok = update(1) && ok
				busy = false
			}
			if err := db.Compact(ctx); err != nil {
				r.failed = err
			}
			hook = func() {}
			// A failed compaction leaves the database in use.
			ok = ok && update(3)
		}
		var n int
		if verr := db.View(func(tx *Tx) error { return tx.Get("/n", &n) }); verr == nil && n != r.acked {
			r.failed = fmt.Errorf("WRONG: the document is at %d after %d updates", n, r.acked)
		}
		if err := db.Close(); err != nil && r.failed == nil {
			r.failed = err
		}
		if !ok || m.Down() {
			return r
		}
	}
	return r
}

// longText makes records of several sectors now and then.
func longText(n int) string {
	b := make([]byte, n*n*40%1700)
	for i := range b {
		b[i] = 'a' + byte((n+i)%26)
	}
	return string(b)
}

// verify opens what is left and checks that it is at an update from acked to
// last, whole, and good to go on with.
func verify(t *testing.T, m *vfs.Mem, r run, last int) {
	t.Helper()
	if _, err := check(crashName, m); err != nil && !(errors.Is(err, fs.ErrNotExist) && !r.created) {
		t.Fatalf("check: %v", err)
	}
	db, err := Open(crashName, Options{CompactEvery: -1, fs: m})
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	var n int
	if err := db.View(func(tx *Tx) error {
		if !tx.Exists("/n") {
			return nil
		}
		if err := tx.Get("/n", &n); err != nil {
			return err
		}
		var s string
		if err := tx.Get(Join("/items", fmt.Sprint(n%5)), &s); err != nil {
			return err
		}
		if s != longText(n) {
			return fmt.Errorf("half an update %d", n)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if n < r.acked || n > last {
		t.Fatalf("at update %d; %d were acknowledged, %d begun", n, r.acked, r.tried)
	}
	if int(db.Revision()) != n {
		t.Fatalf("revision %d at update %d", db.Revision(), n)
	}
	if _, err := db.Put(context.Background(), "", map[string]int{"n": n + 1}); err != nil {
		t.Fatalf("going on: %v", err)
	}
	if err := db.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
	if _, err := check(crashName, m); err != nil {
		t.Fatalf("check afterwards: %v", err)
	}
}

// Each call to the file system in turn fails, is cut short, or is the last
// before the machine stops; then what is left is checked and used.
func TestCrashAtEachCall(t *testing.T) {
	t.Parallel()
	r := seeded(t)
	clean := vfs.NewMem(nil)
	if res := scenario(clean); res.failed != nil || res.acked != 26 {
		t.Fatalf("without faults: %+v", res)
	}
	verify(t, clean, run{acked: 26, created: true}, 26)

	eio := fmt.Errorf("injected: %w", syscall.EIO)
	full := fmt.Errorf("injected: %w", syscall.ENOSPC)
	modes := map[string]func(c vfs.Call) vfs.Outcome{
		"fails":              func(vfs.Call) vfs.Outcome { return vfs.Outcome{Err: eio} },
		"is cut short":       func(c vfs.Call) vfs.Outcome { return vfs.Outcome{Err: full, Part: c.Size / 2} },
		"stops before":       func(c vfs.Call) vfs.Outcome { return vfs.Outcome{Crash: true} },
		"stops in the midst": func(c vfs.Call) vfs.Outcome { return vfs.Outcome{Crash: true, Part: c.Size * 2 / 3} },
		"stops behind":       func(c vfs.Call) vfs.Outcome { return vfs.Outcome{Crash: true, After: true} },
	}
	for mode, outcome := range modes {
		for _, lasting := range []bool{false, true} {
			if lasting && strings.HasPrefix(mode, "stops") {
				continue // it always lasts
			}
			for n := 1; n <= clean.Calls(); n++ {
				var hit vfs.Call
				m := vfs.NewMem(func(c vfs.Call) vfs.Outcome {
					if c.N == n || lasting && c.N > n {
						if hit.N == 0 {
							hit = c
						}
						return outcome(c)
					}
					return vfs.Outcome{}
				})
				res := scenario(m)
				t.Run(fmt.Sprintf("%s/lasting=%v/call %d %s %s", mode, lasting, n, hit.Op, hit.Name), func(t *testing.T) {
					if res.failed != nil && !errors.Is(res.failed, syscall.EIO) && !errors.Is(res.failed, syscall.ENOSPC) && !errors.Is(res.failed, vfs.ErrCrashed) {
						t.Fatalf("unexpected: %v", res.failed)
					}
					// What was in flight may be there where nothing could be taken back.
					last := res.acked
					if res.tried > res.acked && (lasting || m.Down()) {
						last++
					}
					if res.tried > res.acked && res.readOnly == false && !m.Down() && res.created {
						t.Fatalf("an update failed and the database is not read-only: %v", res.failed)
					}
					if !m.Down() {
						m.SetPlan(nil)
						after := m.Crash(vfs.KeepAll, r)
						verify(t, after, res, last)
					}
					verify(t, m.Crash(vfs.KeepNothing, r), res, last)
					verify(t, m.Crash(vfs.KeepAll, r), res, last)
					for range rounds(t, "PATCHDB_CRASHES", 2) {
						verify(t, m.Crash(vfs.KeepSome, r), res, last)
					}
				})
			}
		}
	}
}

// Several writers and a compaction at once, the machine stopping anywhere:
// each writer's acknowledged updates are there, and at most one more.
func TestCrashConcurrent(t *testing.T) {
	t.Parallel()
	r := seeded(t)
	ctx := context.Background()
	for round := range 150 {
		at := 20 + r.IntN(120)
		m := vfs.NewMem(func(c vfs.Call) vfs.Outcome { return vfs.Outcome{Crash: c.N == at, Part: c.Size / 3} })
		db, err := Open(crashName, Options{CompactEvery: 20, fs: m})
		if err != nil {
			t.Fatal(err)
		}
		var acked [4]int
		var wg sync.WaitGroup
		for w := range acked {
			wg.Go(func() {
				for i := 1; i <= 30; i++ {
					if _, err := db.Update(ctx, func(tx *Tx) error { return tx.PutAll(Join("/w", fmt.Sprint(w)), i) }); err != nil {
						return
					}
					acked[w] = i
				}
			})
		}
		wg.Wait()
		db.Close()
		for range 4 {
			after := m.Crash(vfs.KeepSome, r)
			db, err := Open(crashName, Options{fs: after})
			if err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
			total := 0
			for w, want := range acked {
				n := 0
				if err := db.View(func(tx *Tx) error { return tx.Get(Join("/w", fmt.Sprint(w)), &n) }); err != nil && !errors.Is(err, ErrNotFound) {
					t.Fatal(err)
				}
				if n < want || n > want+1 {
					t.Fatalf("round %d: writer %d is at %d after %d acknowledged updates", round, w, n, want)
				}
				total += n
			}
			if total != int(db.Revision()) {
				t.Fatalf("round %d: %d updates at revision %d", round, total, db.Revision())
			}
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}
