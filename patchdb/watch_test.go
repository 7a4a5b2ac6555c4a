package patchdb

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/selfstead/selfstead/patchdb/internal/tree"
)

// follower applies what a subscription says, and holds it against the truth.
type follower struct {
	at    Pointer
	sub   *Subscription
	id    RevisionID
	value tree.Node
	dumps int
	heard int
}

// hear takes in all that waits. truth has the document at each revision.
func (f *follower) hear(t testing.TB, truth []tree.Node) {
	t.Helper()
	for {
		ev, ok, err := f.sub.TryNext()
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			break
		}
		switch {
		case ev.Dump != nil:
			f.id, f.value = ev.Dump.ID, mustParse(t, ev.Dump.Value)
			f.dumps++
		default:
			if ev.Revision.ID <= f.id {
				t.Fatalf("%q: revision %d after %d", f.at, ev.Revision.ID, f.id)
			}
			if len(ev.Revision.Patch) == 0 {
				t.Fatalf("%q: revision %d without a patch", f.at, ev.Revision.ID)
			}
			e := editor{root: f.value}
			if err := e.patch(ev.Revision.Patch); err != nil {
				t.Fatalf("%q: revision %d: %v in %s", f.at, ev.Revision.ID, err, tree.Encode(f.value))
			}
			f.id, f.value = ev.Revision.ID, e.root
			f.heard++
		}
		if want := valueAt(truth[f.id], mustTokens(f.at)); !tree.Equal(f.value, want) {
			t.Fatalf("%q: at revision %d it is %s, want %s", f.at, f.id, tree.Encode(f.value), tree.Encode(want))
		}
	}
	// Nothing waits: what it knows is what is there now.
	if now := valueAt(truth[len(truth)-1], mustTokens(f.at)); !tree.Equal(f.value, now) {
		t.Fatalf("%q: left at %s of revision %d, now it is %s", f.at, tree.Encode(f.value), f.id, tree.Encode(now))
	}
}

// watchLaw: for every subscriber, whatever its pointer and however late it
// reads, dump and revisions give the value at each revision that they name.
func watchLaw(t testing.TB, db *DB, r *rand.Rand, steps int) {
	ctx := context.Background()
	truth := []tree.Node{tree.Null{}}
	var all []*follower
	join := func(p Pointer, since *RevisionID, value tree.Node) {
		s, err := db.Subscribe(p, SubscribeOptions{Since: since, Buffer: 1 + r.IntN(6)})
		if err != nil {
			t.Fatal(err)
		}
		f := &follower{at: p, sub: s}
		if since != nil {
			f.id, f.value = *since, value
		}
		all = append(all, f)
	}
	defer func() {
		for _, f := range all {
			f.sub.Close()
		}
		if db.hub.root.kids != nil || db.hub.root.subs != nil {
			t.Error("the hub remembers subscribers that left")
		}
	}()
	for step := range steps {
		now := truth[len(truth)-1]
		var rev Revision
		var err error
		switch r.IntN(3) {
		case 0:
			rev, err = db.Put(ctx, randomPointer(r, now), randomValue(r, 3))
		case 1:
			rev, err = db.Apply(ctx, randomPatch(r, now))
		default:
			rev, err = db.Update(ctx, func(tx *Tx) error {
				for range 3 {
					// Single refusals do not end the transaction.
					if err := tx.Put(randomPointer(r, tx.edit.root), randomValue(r, 2)); err != nil && !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrNotFound) {
						return err
					}
				}
				return nil
			})
		}
		switch {
		case err != nil && !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrTest):
			t.Fatal(err)
		case err == nil && len(rev.Patch) > 0:
			if int(rev.ID) != len(truth) {
				t.Fatalf("revision %d after %d", rev.ID, len(truth)-1)
			}
			e := editor{root: now}
			if err := e.patch(rev.Patch); err != nil {
				t.Fatalf("revision %d: %v", rev.ID, err)
			}
			truth = append(truth, db.cur.Load().root)
			if !tree.Equal(e.root, truth[rev.ID]) {
				t.Fatalf("revision %d: its patch gives %s, the document is %s", rev.ID, tree.Encode(e.root), tree.Encode(truth[rev.ID]))
			}
		}
		if len(all) < 25 && step%3 == 0 {
			p := randomPointer(r, truth[len(truth)-1])
			if r.IntN(3) == 0 {
				since := RevisionID(r.IntN(len(truth)))
				join(p, &since, valueAt(truth[since], mustTokens(p)))
			} else {
				join(p, nil, nil)
			}
		}
		for _, f := range all {
			if r.IntN(4) == 0 {
				f.hear(t, truth)
			}
		}
	}
	for _, f := range all {
		f.hear(t, truth)
	}
}

func TestWatchLaw(t *testing.T) {
	t.Parallel()
	r := seeded(t)
	for range 12 {
		db := openMem(t, Options{History: 1 + r.IntN(20), CompactEvery: 30})
		watchLaw(t, db, r, 250)
		closeChecked(t, db)
	}
}

func FuzzWatch(f *testing.F) {
	f.Add([]byte("seed"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var seed [32]byte
		copy(seed[:], b)
		if len(b) > 32 {
			binary.LittleEndian.PutUint64(seed[:], binary.LittleEndian.Uint64(b[len(b)-8:]))
		}
		db := openMem(t, Options{CompactEvery: -1, History: 10})
		defer db.Close()
		watchLaw(t, db, rand.New(rand.NewChaCha8(seed)), 60)
	})
}

// Readers and writers at once: each reader ends at the last value.
func TestWatchConcurrently(t *testing.T) {
	t.Parallel()
	db := openTest(t, Options{CompactEvery: 50})
	put(t, db, "", map[string]any{"a": 0, "b": map[string]any{}})
	const writers, each = 4, 60
	var readers sync.WaitGroup
	for i := range 20 {
		p := Pointer([]string{"", "/a", "/b", "/b/1", "/b/3/x"}[i%5])
		sub, err := db.Subscribe(p, SubscribeOptions{Buffer: 1 + i})
		if err != nil {
			t.Fatal(err)
		}
		readers.Go(func() {
			var value tree.Node
			var at RevisionID
			for {
				ev, err := sub.Next(context.Background())
				if errors.Is(err, ErrClosed) {
					break
				}
				if err != nil {
					t.Error(err)
					return
				}
				if ev.Dump != nil {
					at, value = ev.Dump.ID, mustParse(t, ev.Dump.Value)
				} else {
					e := editor{root: value}
					if err := e.patch(ev.Revision.Patch); err != nil || ev.Revision.ID <= at {
						t.Errorf("%q: revision %d after %d: %v", p, ev.Revision.ID, at, err)
						return
					}
					at, value = ev.Revision.ID, e.root
				}
				if at == writers*each+1+1 { // the last update of all
					if want := valueAt(db.cur.Load().root, mustTokens(p)); !tree.Equal(value, want) {
						t.Errorf("%q ends at %s, want %s", p, tree.Encode(value), tree.Encode(want))
					}
					sub.Close()
				}
			}
		})
	}
	var w sync.WaitGroup
	for i := range writers {
		w.Go(func() {
			for k := range each {
				_, err := db.Update(t.Context(), func(tx *Tx) error {
					return errors.Join(tx.Put("/a", fmt.Sprint(i, k)), tx.PutAll(Join("/b", fmt.Sprint(i), "x"), k))
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	w.Wait()
	put(t, db, "", map[string]any{"a": "end", "b": map[string]any{"1": "end", "3": map[string]any{"x": "end"}}})
	readers.Wait()
}

// A subscriber that never reads costs a bounded queue and then one dump.
func TestSlowSubscriber(t *testing.T) {
	t.Parallel()
	db := openMem(t, Options{})
	defer db.Close()
	put(t, db, "", map[string]int{"n": 0})
	s, err := db.Subscribe("/n", SubscribeOptions{Buffer: 3})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if ev, ok, _ := s.TryNext(); !ok || ev.Dump == nil {
		t.Fatal("no dump first")
	}
	for i := 1; i <= 3; i++ {
		put(t, db, "/n", i)
	}
	if _, ok := s.Position(); ok {
		t.Error("a position while revisions wait")
	}
	for i := 1; i <= 3; i++ {
		if ev, ok, _ := s.TryNext(); !ok || ev.Revision == nil || int(ev.Revision.ID) != i+1 {
			t.Fatalf("%d: %+v", i, ev)
		}
	}
	for i := 4; i <= 1000; i++ {
		put(t, db, "/n", i)
		s.mu.Lock()
		if len(s.items) > 3 {
			t.Fatalf("%d revisions wait", len(s.items))
		}
		s.mu.Unlock()
	}
	ev, ok, _ := s.TryNext()
	if !ok || ev.Dump == nil || string(ev.Dump.Value) != "1000" {
		t.Fatalf("%+v", ev)
	}
	if id, ok := s.Position(); !ok || id != 1001 {
		t.Errorf("position %d %v", id, ok)
	}
	// Patches are bounded by their bytes too, whatever their number.
	big := make([]byte, 3<<20)
	for i := range big {
		big[i] = 'a'
	}
	wide, err := db.Subscribe("", SubscribeOptions{Buffer: 1000})
	if err != nil {
		t.Fatal(err)
	}
	defer wide.Close()
	wide.TryNext()
	for i := range 4 {
		big[i] = 'b'
		put(t, db, "/n", string(big))
	}
	if ev, ok, _ := wide.TryNext(); !ok || ev.Dump == nil {
		t.Error("12 MB of patches wait for one subscriber")
	}
}

func TestResume(t *testing.T) {
	t.Parallel()
	db := openTest(t, Options{History: 5})
	put(t, db, "", map[string]any{"a": 1, "l": []int{1, 2}})
	for i := range 10 {
		put(t, db, "/a", i+10)
	}
	for _, c := range []struct {
		since RevisionID
		want  string
	}{
		{11, "nothing"}, {10, "revision 11"}, {6, "revision 7"}, {5, "dump 11"}, {0, "dump 11"}, {12, "dump 11"},
	} {
		s, err := db.Subscribe("/a", SubscribeOptions{Since: &c.since})
		if err != nil {
			t.Fatal(err)
		}
		got := "nothing"
		switch ev, _, _ := s.TryNext(); {
		case ev.Dump != nil:
			got = fmt.Sprint("dump ", ev.Dump.ID)
		case ev.Revision != nil:
			got = fmt.Sprint("revision ", ev.Revision.ID)
		}
		if got != c.want {
			t.Errorf("since %d: %s, want %s", c.since, got, c.want)
		}
		s.Close()
	}
	// Elements that moved cannot be told from patches alone: a dump.
	put(t, db, "/l", []int{0, 1, 2})
	since := RevisionID(11)
	s, err := db.Subscribe("/l/1", SubscribeOptions{Since: &since})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if ev, _, _ := s.TryNext(); ev.Dump == nil || string(ev.Dump.Value) != "1" {
		t.Errorf("%+v", ev)
	}
}

// Revisions in the file can be resumed from after opening it again.
func TestResumeAfterReopening(t *testing.T) {
	t.Parallel()
	db := openTest(t, Options{})
	put(t, db, "", map[string]any{"a": 1})
	put(t, db, "/a", 2)
	put(t, db, "/b", "x~y")
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := Open(db.Path(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	since := RevisionID(1)
	s, err := db.Subscribe("", SubscribeOptions{Since: &since})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, want := range []string{`{"id":2,"patch":[{"op":"replace","path":"/a","value":2}]}`, `{"id":3,"patch":[{"op":"add","path":"/b","value":"x~y"}]}`} {
		if ev, ok, err := s.TryNext(); !ok || err != nil || asJSON(t, ev.Revision) != want {
			t.Fatalf("%+v %v, want %s", ev.Revision, err, want)
		}
	}
}

// Next waits, and wakes for an event, for its context, for Close and for the
// end of the database.
func TestNextWakes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		db := openMem(t, Options{CompactEvery: -1})
		sub := func() *Subscription {
			s, err := db.Subscribe("", SubscribeOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Next(t.Context()); err != nil {
				t.Fatal(err)
			}
			return s
		}
		wait := func(ctx context.Context, s *Subscription) chan error {
			c := make(chan error, 1)
			go func() { _, err := s.Next(ctx); c <- err }()
			synctest.Wait()
			select {
			case err := <-c:
				t.Fatalf("Next did not wait: %v", err)
			default:
			}
			return c
		}
		a := sub()
		c := wait(t.Context(), a)
		put(t, db, "", 1)
		if err := <-c; err != nil {
			t.Error(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		c = wait(ctx, a)
		cancel()
		if err := <-c; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		c = wait(t.Context(), a)
		a.Close()
		a.Close()
		if err := <-c; !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
		b := sub()
		c = wait(t.Context(), b)
		if err := db.Close(); err != nil {
			t.Error(err)
		}
		if err := <-c; !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
		if _, err := db.Subscribe("", SubscribeOptions{}); !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
	})
}
