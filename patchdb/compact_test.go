package patchdb

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/selfstead/selfstead/patchdb/internal/vfs"
)

// slowFS lets no slow step of a compaction pass before step returns.
type slowFS struct {
	*vfs.Mem
	step func(op string)
}

type slowFile struct {
	vfs.File
	step func(op string)
}

func (s slowFS) Open(name string, write bool) (vfs.File, error) {
	f, err := s.Mem.Open(name, write)
	if err != nil {
		return nil, err
	}
	return slowFile{f, s.step}, nil
}

func (s slowFS) Create(name string) (vfs.File, error) {
	s.step("create")
	f, err := s.Mem.Create(name)
	if err != nil {
		return nil, err
	}
	return slowFile{f, s.step}, nil
}

func (s slowFS) Rename(from, to string) error {
	s.step("rename")
	return s.Mem.Rename(from, to)
}

func (s slowFS) Remove(name string) error {
	s.step("remove")
	return s.Mem.Remove(name)
}

func (s slowFS) SyncDir(name string) error {
	s.step("syncdir")
	return s.Mem.SyncDir(name)
}

func (s slowFS) Names(name string, f vfs.File) (bool, error) {
	return s.Mem.Names(name, f.(slowFile).File)
}

func (f slowFile) Sync() error {
	f.step("sync")
	return f.File.Sync()
}

func (f slowFile) Writeback(off, n int64) error {
	f.step("writeback")
	return f.File.Writeback(off, n)
}

func (f slowFile) Close() error {
	f.step("close")
	return f.File.Close()
}

// However long a step of a compaction takes, updates go on meanwhile: at each
// call that may have to wait for the disk, the compaction waits for a whole
// update by another goroutine.
func TestCompactionHoldsNobody(t *testing.T) {
	t.Parallel()
	var (
		mu      sync.Mutex
		on      bool // the compaction is at work, and no update of ours
		seen    = map[string]int{}
		updates int
	)
	var db *DB
	step := func(op string) {
		mu.Lock()
		if !on {
			mu.Unlock()
			return
		}
		on = false // the calls until it is back are the update's
		seen[op]++
		updates++
		n := updates
		mu.Unlock()
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		done := make(chan error, 1)
		go func() {
			_, err := db.Put(ctx, "/n", n)
			done <- err
		}()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("an update during %s: %v", op, err)
			}
		case <-ctx.Done():
			t.Errorf("an update waits for the compaction's %s", op)
		}
		mu.Lock()
		on = true
		mu.Unlock()
	}
	m := vfs.NewMem(nil)
	var err error
	if db, err = Open("a.db", Options{CompactEvery: -1, fs: slowFS{m, step}}); err != nil {
		t.Fatal(err)
	}
	put(t, db, "", map[string]any{"n": 0, "text": strings.Repeat("long ", 30_000)})
	for round := range 3 {
		mu.Lock()
		on = true
		mu.Unlock()
		if err := db.Compact(t.Context()); err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		on = false
		mu.Unlock()
		if got := text(t, db, "/n"); got != fmt.Sprint(updates) {
			t.Fatalf("round %d: at %s after %d updates", round, got, updates)
		}
	}
	for _, op := range []string{"create", "remove", "sync", "writeback", "rename", "syncdir", "close"} {
		if seen[op] < 3 {
			t.Errorf("no update during %s: %v", op, seen)
		}
	}
	id := db.Revision()
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if r, err := check("a.db", m); err != nil || r.Revision != id {
		t.Fatalf("%+v %v", r, err)
	}
}

// A compaction that is called off, at whatever step, leaves all as it is.
func TestCompactionCalledOff(t *testing.T) {
	t.Parallel()
	for at := 1; ; at++ {
		ctx, cancel := context.WithCancelCause(t.Context())
		stop := errors.New("called off")
		n, on := 0, false
		step := func(string) {
			if on {
				if n++; n == at {
					cancel(stop)
				}
			}
		}
		m := vfs.NewMem(nil)
		db, err := Open("a.db", Options{CompactEvery: -1, fs: slowFS{m, step}})
		if err != nil {
			t.Fatal(err)
		}
		put(t, db, "", map[string]any{"n": 0, "text": strings.Repeat("long ", 30_000)})
		on = true
		err = db.Compact(ctx)
		on = false
		if err != nil && !errors.Is(err, stop) && !errors.Is(err, context.Canceled) {
			t.Fatalf("at step %d: %v", at, err)
		}
		put(t, db, "/n", 1)
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		if r, err := check("a.db", m); err != nil || r.Revision != 2 {
			t.Fatalf("at step %d: %+v %v", at, r, err)
		}
		if names := m.List(); len(names) != 1 {
			t.Fatalf("at step %d: %v is left", at, names)
		}
		cancel(nil)
		if n < at {
			break
		}
	}
}
