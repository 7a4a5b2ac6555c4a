package patchdb

import (
	"encoding/json"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/selfstead/selfstead/patchdb/internal/tree"
)

// openTest opens a database that is checked when the test ends.
func openTest(t testing.TB, o Options) *DB {
	t.Helper()
	db, err := Open(filepath.Join(t.TempDir(), "test.db"), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeChecked(t, db) })
	return db
}

func closeChecked(t testing.TB, db *DB) {
	t.Helper()
	if db.Err() == nil {
		if _, err := db.Check(t.Context()); err != nil && t.Context().Err() == nil {
			t.Error(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
	if r, err := check(db.Path(), db.fs); err != nil || r.Torn > 0 {
		t.Errorf("%+v %v", r, err)
	}
}

func put(t testing.TB, db *DB, p Pointer, v any) Revision {
	t.Helper()
	r, err := db.Put(t.Context(), p, v)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func text(t testing.TB, db *DB, p Pointer) string {
	t.Helper()
	d, err := db.Dump(p)
	if err != nil {
		t.Fatal(err)
	}
	return string(d.Value)
}

func asJSON(t testing.TB, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// needTool skips without the program, except in CI, where it must be.
func needTool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		skipOrFail(t, name+" is missing")
	}
	return path
}

// skipOrFail ends a test that cannot run here; in CI it must.
func skipOrFail(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// crashDir is where databases of processes that are killed lie: PATCHDB_TEST_DIR,
// or else memory, where a sync costs nothing. What a kill can lose does not
// depend on the disk.
func crashDir(t testing.TB) string {
	t.Helper()
	base := os.Getenv("PATCHDB_TEST_DIR")
	if base == "" {
		base = "/dev/shm"
		if st, err := os.Stat(base); err != nil || !st.IsDir() {
			return t.TempDir()
		}
	}
	dir, err := os.MkdirTemp(base, "patchdb-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// rounds is how often a long test runs: n, or what the environment says.
func rounds(t testing.TB, variable string, n int) int {
	t.Helper()
	if s := os.Getenv(variable); s != "" {
		v, err := strconv.Atoi(s)
		if err != nil {
			t.Fatalf("%s: %v", variable, err)
		}
		return v
	}
	return n
}

// randomValue is JSON of few different parts.
func randomValue(r *rand.Rand, depth int) any {
	n := r.IntN(9)
	if depth == 0 {
		n = r.IntN(5)
	}
	switch n {
	case 0:
		return nil
	case 1:
		return r.IntN(2) == 0
	case 2:
		return json.Number([]string{"0", "1", "-7", "2.5", "1e10", "18446744073709551615", "-9223372036854775808"}[r.IntN(7)])
	case 3, 4:
		return []string{"", "x", "y/z", "~", "ünï"}[r.IntN(5)]
	case 5, 6:
		l := make([]any, r.IntN(6))
		for i := range l {
			l[i] = randomValue(r, depth-1)
		}
		return l
	}
	m := map[string]any{}
	for range r.IntN(6) {
		m[randomKey(r)] = randomValue(r, depth-1)
	}
	return m
}

func randomKey(r *rand.Rand) string {
	return []string{"a", "b", "c", "a/b", "m~n", "0", "-", ""}[r.IntN(8)]
}

// randomPointer leads, mostly, to something in the document.
func randomPointer(r *rand.Rand, n tree.Node) Pointer {
	p := Pointer("")
	for r.IntN(4) > 0 {
		switch c := n.(type) {
		case *tree.Object:
			key := randomKey(r)
			p = Join(p, key)
			if n = c.Get(key); n == nil {
				return p
			}
		case *tree.Array:
			i := r.IntN(c.Len() + 1)
			if i == c.Len() {
				return Join(p, []string{"-", strconv.Itoa(i)}[r.IntN(2)])
			}
			p = Join(p, strconv.Itoa(i))
			n = c.At(i)
		default:
			return p
		}
	}
	return p
}

// randomPatch is one that mostly applies.
func randomPatch(r *rand.Rand, n tree.Node) Patch {
	var p Patch
	for range 1 + r.IntN(3) {
		o := Op{Op: []string{"add", "add", "replace", "remove", "move", "copy", "test"}[r.IntN(7)], Path: string(randomPointer(r, n))}
		switch o.Op {
		case "add", "replace":
			b, err := json.Marshal(randomValue(r, 2))
			if err != nil {
				panic(err) // plain values marshal
			}
			o.Value = b
		case "test":
			v := tree.Get(n, mustTokens(Pointer(o.Path)))
			if v == nil {
				v = tree.Null{}
			}
			o.Value = tree.Encode(v)
		case "move", "copy":
			o.From = string(randomPointer(r, n))
		}
		p = append(p, o)
	}
	return p
}

func mustTokens(p Pointer) []string {
	tokens, err := p.Tokens()
	if err != nil {
		panic(err) // made by Join
	}
	return tokens
}
