package patchdb

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/selfstead/selfstead/patchdb/internal/tree"
	"github.com/selfstead/selfstead/patchdb/internal/vfs"
)

func openMem(t testing.TB, o Options) *DB {
	t.Helper()
	o.fs = vfs.NewMem(nil)
	db, err := Open("mem.db", o)
	if err != nil {
		t.Fatal(err)
	}
	return db
}

func TestUpdateIsAllOrNothing(t *testing.T) {
	t.Parallel()
	db := openTest(t, Options{})
	put(t, db, "", map[string]any{"a": 1})
	mine := errors.New("mine")
	_, err := db.Update(t.Context(), func(tx *Tx) error {
		if err := tx.Put("/a", 2); err != nil {
			t.Error(err)
		}
		return mine
	})
	if err != mine || db.Revision() != 1 || text(t, db, "/a") != "1" {
		t.Errorf("%v at revision %d: %s", err, db.Revision(), text(t, db, ""))
	}
	// A panic passes through and leaves the database usable.
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic was lost")
			}
		}()
		db.Update(t.Context(), func(tx *Tx) error { panic("x") })
	}()
	if r := put(t, db, "/a", 3); r.ID != 2 {
		t.Errorf("revision %d", r.ID)
	}
}

func TestNothingChangedSpendsNoRevision(t *testing.T) {
	t.Parallel()
	db := openTest(t, Options{})
	put(t, db, "", map[string]any{"a": 1, "b": []any{1, "x"}})
	for name, fn := range map[string]func(tx *Tx) error{
		"nothing": func(tx *Tx) error { return nil },
		"same":    func(tx *Tx) error { return tx.Put("/a", 1.0) },
		"there & back": func(tx *Tx) error {
			return errors.Join(tx.Put("/a", 2), tx.Put("/b/0", 5), tx.Put("/b/0", 1), tx.Put("/a", 1))
		},
		"test only":    func(tx *Tx) error { return tx.Apply(Patch{{Op: "test", Path: "/a", Value: json.RawMessage("1")}}) },
		"same replace": func(tx *Tx) error { return tx.Apply(Patch{{Op: "replace", Path: "/a", Value: json.RawMessage("1")}}) },
	} {
		r, err := db.Update(t.Context(), fn)
		if err != nil || r.ID != 1 || len(r.Patch) != 0 {
			t.Errorf("%s: %+v %v", name, r, err)
		}
	}
}

func TestTxErrors(t *testing.T) {
	t.Parallel()
	db := openTest(t, Options{})
	put(t, db, "", json.RawMessage(`{"o":{"a":1},"l":[1,2,3],"n":null,"s":"x"}`))
	var n int
	for name, c := range map[string]struct {
		fn   func(tx *Tx) error
		want error
	}{
		"get missing":           {func(tx *Tx) error { return tx.Get("/none", &n) }, ErrNotFound},
		"get missing is fs":     {func(tx *Tx) error { return tx.Get("/o/none", &n) }, fs.ErrNotExist},
		"get of another type":   {func(tx *Tx) error { return tx.Get("/s", &n) }, ErrInvalid},
		"bad pointer":           {func(tx *Tx) error { return tx.Get("none", &n) }, ErrInvalid},
		"bad escape":            {func(tx *Tx) error { return tx.Put("/a~", 1) }, ErrInvalid},
		"put below missing":     {func(tx *Tx) error { return tx.Put("/none/x", 1) }, ErrNotFound},
		"put below a scalar":    {func(tx *Tx) error { return tx.Put("/s/x", 1) }, ErrInvalid},
		"put far in a list":     {func(tx *Tx) error { return tx.Put("/l/4", 1) }, ErrNotFound},
		"leading zero":          {func(tx *Tx) error { return tx.Put("/l/01", 1) }, ErrInvalid},
		"negative index":        {func(tx *Tx) error { return tx.Put("/l/-1", 1) }, ErrInvalid},
		"remove missing":        {func(tx *Tx) error { return tx.Remove("/none") }, ErrNotFound},
		"remove the end":        {func(tx *Tx) error { return tx.Remove("/l/-") }, ErrInvalid},
		"not JSON":              {func(tx *Tx) error { return tx.Put("/a", json.RawMessage("{")) }, ErrInvalid},
		"no JSON form":          {func(tx *Tx) error { return tx.Put("/a", func() {}) }, ErrInvalid},
		"keys of a list":        {func(tx *Tx) error { _, err := tx.Keys("/l"); return err }, ErrInvalid},
		"failed test":           {func(tx *Tx) error { return tx.Apply(Patch{{Op: "test", Path: "/s", Value: json.RawMessage(`"y"`)}}) }, ErrTest},
		"test missing":          {func(tx *Tx) error { return tx.Apply(Patch{{Op: "test", Path: "/none", Value: json.RawMessage(`1`)}}) }, ErrNotFound},
		"op without value":      {func(tx *Tx) error { return tx.Apply(Patch{{Op: "add", Path: "/x"}}) }, ErrInvalid},
		"unknown op":            {func(tx *Tx) error { return tx.Apply(Patch{{Op: "put", Path: "/x"}}) }, ErrInvalid},
		"move into itself":      {func(tx *Tx) error { return tx.Apply(Patch{{Op: "move", From: "/o", Path: "/o/a/b"}}) }, ErrInvalid},
		"move from nowhere":     {func(tx *Tx) error { return tx.Apply(Patch{{Op: "move", From: "/none", Path: "/x"}}) }, ErrNotFound},
		"another revision":      {func(tx *Tx) error { return tx.Expect(7) }, ErrConflict},
		"nested past the limit": {func(tx *Tx) error { return tx.PutAll(Pointer(strings.Repeat("/d", 1001)), 1) }, ErrInvalid},
	} {
		_, err := db.Update(t.Context(), func(tx *Tx) error {
			before := tx.edit.root
			err := c.fn(tx)
			if tx.edit.root != before || len(tx.edit.ops) > 0 {
				t.Errorf("%s: the document changed", name)
			}
			return err
		})
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		if err != nil && !strings.HasPrefix(err.Error(), "patchdb: ") {
			t.Errorf("%s: the text is %q", name, err)
		}
	}
	if err := db.View(func(tx *Tx) error { return tx.Put("/o", 1) }); !errors.Is(err, ErrReadOnly) {
		t.Errorf("put in a View: %v", err)
	}
	var kept *Tx
	db.View(func(tx *Tx) error { kept = tx; return nil })
	if err := kept.Get("", &n); !errors.Is(err, ErrClosed) {
		t.Errorf("transaction after its end: %v", err)
	}
	if _, err := db.Update(t.Context(), func(tx *Tx) error { return tx.Expect(1) }); err != nil {
		t.Error(err)
	}
}

func TestPutAll(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		doc  string
		at   Pointer
		want string
	}{
		{`null`, "/a/b", `{"a":{"b":1}}`}, {`{}`, "/a/b/c", `{"a":{"b":{"c":1}}}`}, {`{"a":null,"z":0}`, "/a/b", `{"a":{"b":1},"z":0}`},
		{`{"a":{"x":2}}`, "/a/b", `{"a":{"x":2,"b":1}}`}, {`{"l":[]}`, "/l/-/x", `{"l":[{"x":1}]}`}, {`{"l":[{}]}`, "/l/0/x", `{"l":[{"x":1}]}`}, {`5`, "", `1`},
	} {
		db := openMem(t, Options{})
		put(t, db, "", json.RawMessage(c.doc))
		if _, err := db.Update(t.Context(), func(tx *Tx) error { return tx.PutAll(c.at, 1) }); err != nil {
			t.Errorf("%s at %q: %v", c.doc, c.at, err)
		}
		if got := text(t, db, ""); got != c.want {
			t.Errorf("%s at %q: %s, want %s", c.doc, c.at, got, c.want)
		}
		db.Close()
	}
}

func TestKeysInOrder(t *testing.T) {
	t.Parallel()
	db := openTest(t, Options{})
	var want []string
	put(t, db, "", struct{}{})
	for i := range 50 {
		key := fmt.Sprint((i * 37) % 50)
		put(t, db, Join("", key), i)
		want = append(want, key)
	}
	put(t, db, "/37", "changed")
	db.Close()
	db, err := Open(db.Path(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.View(func(tx *Tx) error {
		keys, err := tx.Keys("")
		if fmt.Sprint(keys) != fmt.Sprint(want) {
			t.Errorf("%v, want %v", keys, want)
		}
		if n, _ := tx.Len(""); n != 50 || !tx.Exists("/37") || tx.Exists("/50") {
			t.Error("Len or Exists")
		}
		return err
	}); err != nil {
		t.Error(err)
	}
}

func TestNumbersStayExact(t *testing.T) {
	t.Parallel()
	db := openTest(t, Options{})
	const all = `[-9223372036854775808,18446744073709551615,9007199254740993,0.1,1e300,5e-324,1.0,-0.0,123456789012345678901234567890]`
	put(t, db, "", json.RawMessage(all))
	db.Close()
	db, err := Open(db.Path(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if got := text(t, db, ""); got != all {
		t.Errorf("%s", got)
	}
	if n, err := Get[uint64](db, "/1"); err != nil || n != 1<<64-1 {
		t.Errorf("%d %v", n, err)
	}
	if n, err := Get[int64](db, "/0"); err != nil || n != -1<<63 {
		t.Errorf("%d %v", n, err)
	}
}

func TestSecondOpenIsRefused(t *testing.T) {
	t.Parallel()
	db := openTest(t, Options{})
	put(t, db, "", 1)
	if _, err := Open(db.Path(), Options{}); !errors.Is(err, ErrLocked) {
		t.Fatalf("%v", err)
	}
	// Also after a compaction, which exchanges the file.
	if err := db.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(db.Path(), Options{}); !errors.Is(err, ErrLocked) {
		t.Fatalf("%v", err)
	}
	ro, err := Open(db.Path(), Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer ro.Close()
	if got := text(t, ro, ""); got != "1" {
		t.Error(got)
	}
	if _, err := ro.Put(t.Context(), "", 2); !errors.Is(err, ErrReadOnly) {
		t.Errorf("update of a read-only database: %v", err)
	}
	if _, err := Create(db.Path(), Dump{Value: json.RawMessage("1")}, Options{}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Create over a database: %v", err)
	}
}

// Many open one missing file at once: one gets it.
func TestOpenRace(t *testing.T) {
	t.Parallel()
	for range 20 {
		path := filepath.Join(t.TempDir(), "a.db")
		var wg sync.WaitGroup
		got := make([]*DB, 8)
		for i := range got {
			wg.Go(func() {
				db, err := Open(path, Options{})
				if err != nil && !errors.Is(err, ErrLocked) {
					t.Error(err)
				}
				got[i] = db
			})
		}
		wg.Wait()
		n := 0
		for _, db := range got {
			if db != nil {
				n++
				db.Close()
			}
		}
		if n != 1 {
			t.Fatalf("%d have it open", n)
		}
	}
}

// plainFS has no hard links.
type plainFS struct{ *vfs.Mem }

func (plainFS) Link(from, to string) error {
	return &os.LinkError{Op: "link", Old: from, New: to, Err: syscall.EPERM}
}

func TestWithoutHardLinks(t *testing.T) {
	t.Parallel()
	o := Options{fs: plainFS{vfs.NewMem(nil)}}
	for want := range RevisionID(3) {
		db, err := Open("a", o)
		if err != nil || db.Revision() != want {
			t.Fatalf("%v at %d", err, want)
		}
		put(t, db, "", want)
		closeChecked(t, db)
	}
	if _, err := Create("a", Dump{Value: json.RawMessage("1")}, o); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Create over a database: %v", err)
	}
}

func TestNotADatabase(t *testing.T) {
	t.Parallel()
	for name, b := range map[string][]byte{"empty": {}, "text": []byte("hello, this is a text that is longer than a header"), "zeros": make([]byte, 4096)} {
		path := filepath.Join(t.TempDir(), "a.db")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(path, Options{}); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
		if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, b) {
			t.Errorf("%s: the file was changed", name)
		}
	}
}

// Each bit of a database file, one after the other: Open and Check find it, or
// it has no effect.
func TestEachBitOfADatabase(t *testing.T) {
	t.Parallel()
	db := openMem(t, Options{CompactEvery: -1})
	put(t, db, "", map[string]any{"a": []int{1, 2}, "b": "text"})
	put(t, db, "/a/1", 7)
	if err := db.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	put(t, db, "/b", nil)
	put(t, db, "/c", 1.5)
	want := text(t, db, "")
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	whole := db.fs.(*vfs.Mem).Bytes("mem.db")
	found, harmless := 0, 0
	for bit := range len(whole) * 8 {
		m := vfs.NewMem(nil)
		f, err := m.Create("a")
		if err != nil {
			t.Fatal(err)
		}
		b := bytes.Clone(whole)
		b[bit/8] ^= 1 << (bit % 8)
		if _, err := f.WriteAt(b, 0); err != nil {
			t.Fatal(err)
		}
		_, cerr := check("a", m)
		db, err := Open("a", Options{fs: m})
		if errors.Is(err, ErrCorrupt) != errors.Is(cerr, ErrCorrupt) {
			t.Fatalf("bit %d: Open says %v, Check %v", bit, err, cerr)
		}
		if err != nil {
			if !errors.Is(err, ErrCorrupt) || !bytes.Equal(m.Bytes("a"), b) {
				t.Fatalf("bit %d: %v", bit, err)
			}
			found++
			continue
		}
		harmless++
		if got := text(t, db, ""); got != want || db.Revision() != 4 {
			t.Fatalf("bit %d of byte %d of %d: unnoticed, the document is %s", bit%8, bit/8, len(whole), got)
		}
		db.Close()
	}
	t.Logf("%d bits: %d found, %d in the seal, without effect", len(whole)*8, found, harmless)
}

// A random history against a plain document and the oracle, with reopening and
// compaction in between.
func TestModel(t *testing.T) {
	t.Parallel()
	r := seeded(t)
	m := vfs.NewMem(nil)
	o := Options{CompactEvery: 40, fs: m}
	db, err := Open("a", o)
	if err != nil {
		t.Fatal(err)
	}
	var doc tree.Node = tree.Null{}
	var id RevisionID
	for step := range 3000 {
		switch r.IntN(60) {
		case 0:
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			if db, err = Open("a", o); err != nil {
				t.Fatal(err)
			}
		case 1:
			if err := db.Compact(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		var want json.RawMessage
		var rev Revision
		var oracleErr error
		if p := randomPatch(r, doc); r.IntN(2) == 0 {
			want, oracleErr = oracle(t, tree.Encode(doc), p)
			rev, err = db.Apply(t.Context(), p)
		} else {
			at, v := randomPointer(r, doc), randomValue(r, 3)
			op := "add"
			if tree.Get(doc, mustTokens(at)) != nil {
				op = "replace"
			}
			want, oracleErr = oracle(t, tree.Encode(doc), Patch{{Op: op, Path: string(at), Value: json.RawMessage(asJSON(t, v))}})
			rev, err = db.Put(t.Context(), at, v)
		}
		if (err != nil) != (oracleErr != nil) {
			t.Fatalf("step %d: %v, the oracle says %v; %s", step, err, oracleErr, tree.Encode(doc))
		}
		if err == nil {
			next := mustParse(t, want)
			if tree.Equal(doc, next) != (len(rev.Patch) == 0) {
				t.Fatalf("step %d: %d operations between %s and %s", step, len(rev.Patch), tree.Encode(doc), want)
			}
			if len(rev.Patch) > 0 {
				id++
			}
			if rev.ID != id {
				t.Fatalf("step %d: revision %d, want %d", step, rev.ID, id)
			}
			doc = next
		}
		if got := db.cur.Load().root; !tree.Equal(got, doc) {
			t.Fatalf("step %d: %s, want %s", step, tree.Encode(got), tree.Encode(doc))
		}
		if doc.Size() > 20000 {
			put(t, db, "", nil)
			doc = tree.Null{}
			id++
		}
	}
	if _, err := db.Check(t.Context()); err != nil {
		t.Error(err)
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}

// A symbolic link to a database stays one, and both names lead to the same.
func TestSymbolicLink(t *testing.T) {
	t.Parallel()
	dir, other := t.TempDir(), t.TempDir()
	path, link := filepath.Join(dir, "a.db"), filepath.Join(other, "link.db")
	db, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	put(t, db, "", 1)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if db, err = Open(link, Options{}); err != nil {
		t.Fatal(err)
	}
	put(t, db, "", 2)
	if err := db.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	put(t, db, "", 3)
	if _, err := Open(path, Options{}); !errors.Is(err, ErrLocked) {
		t.Errorf("the other name: %v", err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Lstat(link); err != nil || st.Mode().Type() != os.ModeSymlink {
		t.Errorf("%v %v", st, err)
	}
	if db, err = Open(path, Options{}); err != nil {
		t.Fatal(err)
	}
	defer closeChecked(t, db)
	if got := text(t, db, ""); got != "3" {
		t.Errorf("%s under the database's own name", got)
	}
}

func TestClosed(t *testing.T) {
	t.Parallel()
	db := openTest(t, Options{})
	put(t, db, "", 1)
	if err := errors.Join(db.Close(), db.Close()); err != nil {
		t.Fatal(err)
	}
	_, perr := db.Put(t.Context(), "", 2)
	_, derr := db.Dump("")
	_, cerr := db.Check(t.Context())
	for _, err := range []error{perr, derr, cerr, db.Compact(t.Context()), db.View(func(*Tx) error { return nil }), db.Err()} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%v", err)
		}
	}
}

// The context ends the wait for another update's function.
func TestUpdateContext(t *testing.T) {
	t.Parallel()
	db := openTest(t, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	entered, leave := make(chan struct{}), make(chan struct{})
	go db.Update(t.Context(), func(tx *Tx) error { close(entered); <-leave; return nil })
	<-entered
	// A View does not wait.
	if err := db.View(func(*Tx) error { return nil }); err != nil {
		t.Error(err)
	}
	cancel()
	if _, err := db.Put(ctx, "", 1); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	close(leave)
	if _, err := db.Put(ctx, "", 1); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	put(t, db, "", 2)
}

// By itself the file stays small, whatever is written.
func TestCompactsByItself(t *testing.T) {
	t.Parallel()
	db := openMem(t, Options{CompactEvery: 100})
	defer closeChecked(t, db)
	put(t, db, "", map[string]string{"a": ""})
	for i := range 2000 {
		put(t, db, "/a", strings.Repeat("x", i%50))
	}
	db.background.Wait()
	r, err := db.Check(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if r.Revision != r.Snapshot+RevisionID(r.Revisions) || r.Revisions > 1000 {
		t.Errorf("%+v", r)
	}
}

// A database can be opened again once it is closed, also where the process
// starts programs meanwhile, which have its files for the moment before exec.
func TestReopenBesideFork(t *testing.T) {
	t.Parallel()
	name := needTool(t, "true")
	path := filepath.Join(t.TempDir(), "a.db")
	stop := make(chan struct{})
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(stop)
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					exec.Command(name).Run()
				}
			}
		})
	}
	for range 300 {
		db, err := Open(path, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
