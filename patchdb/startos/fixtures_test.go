package startos

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/selfstead/selfstead/patchdb"
	"github.com/selfstead/selfstead/patchdb/internal/tree"
)

// The fixtures were made by the reference implementation; testdata/README.md
// says what they are.
func fixture(t *testing.T, name string, into any) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, into); err != nil {
		t.Fatal(err)
	}
}

func sameJSON(t *testing.T, what string, got, want []byte) {
	t.Helper()
	a, err := tree.Parse(got)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	b, err := tree.Parse(want)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	if !tree.Equal(a, b) {
		t.Fatalf("%s:\ngot  %s\nwant %s", what, got, want)
	}
}

type sequence struct {
	Ops []struct {
		Put   []json.RawMessage `json:"put"`
		Apply json.RawMessage   `json:"apply"`
	} `json:"ops"`
	Results []*struct {
		ID    patchdb.RevisionID `json:"id"`
		Patch patchdb.Patch      `json:"patch"`
		Error string             `json:"error"`
	} `json:"results"`
	Final  patchdb.Dump `json:"final"`
	SHA256 string       `json:"sha256"`
}

// Each file reads as the reference read it, and comes back out as it was.
func TestSequences(t *testing.T) {
	t.Parallel()
	for i := 1; i <= 6; i++ {
		name := fmt.Sprintf("seq%d", i)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var seq sequence
			fixture(t, name+".json", &seq)
			d, err := Read(filepath.Join("testdata", name+".db"))
			if err != nil {
				t.Fatal(err)
			}
			if d.ID != seq.Final.ID || d.Dropped != 0 || len(d.Failed) != 0 {
				t.Fatalf("%+v, want revision %d", d, seq.Final.ID)
			}
			sameJSON(t, "document", d.Value, seq.Final.Value)

			// The patches that the reference gave, written by us, are its file.
			var revs []patchdb.Revision
			for _, r := range seq.Results {
				if r != nil && r.Error == "" {
					revs = append(revs, patchdb.Revision{ID: r.ID, Patch: r.Patch})
				}
			}
			b, err := EncodeLog(patchdb.Dump{Value: json.RawMessage("null")}, revs)
			if err != nil {
				t.Fatal(err)
			}
			again, err := Decode(b)
			if err != nil || again.ID != d.ID {
				t.Fatalf("%+v %v", again, err)
			}
			sameJSON(t, "our log", again.Value, d.Value)
			if sum := sha256.Sum256(b); hex.EncodeToString(sum[:]) == seq.SHA256 {
				t.Log("byte for byte the reference's file")
			}
		})
	}
}

// The same operations through patchdb: the same revisions, the same refusals,
// and the same document at each step.
func TestSequencesThroughPatchdb(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for i := 1; i <= 6; i++ {
		name := fmt.Sprintf("seq%d", i)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var seq sequence
			fixture(t, name+".json", &seq)
			db, err := patchdb.Open(filepath.Join(t.TempDir(), "a.db"), patchdb.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			reference := json.RawMessage("null")
			for k, op := range seq.Ops {
				before := db.Revision()
				var r patchdb.Revision
				if op.Put != nil {
					var p patchdb.Pointer
					if err := json.Unmarshal(op.Put[0], &p); err != nil {
						t.Fatal(err)
					}
					r, err = db.Put(ctx, p, op.Put[1])
				} else {
					var p patchdb.Patch
					if p, err = patchdb.ParsePatch(op.Apply); err != nil {
						t.Fatal(err)
					}
					r, err = db.Apply(ctx, p)
				}
				want := seq.Results[k]
				switch {
				case want == nil:
					if err != nil || len(r.Patch) != 0 || db.Revision() != before {
						t.Fatalf("op %d: %v %v, want no revision", k, r, err)
					}
					continue
				case want.Error != "":
					if err == nil || db.Revision() != before {
						t.Fatalf("op %d: %v, want an error like %q", k, r, want.Error)
					}
					continue
				case err != nil:
					t.Fatalf("op %d: %v", k, err)
				case r.ID != want.ID:
					t.Fatalf("op %d: revision %d, want %d", k, r.ID, want.ID)
				}
				if len(r.Patch) > len(want.Patch) {
					t.Errorf("op %d: %d operations, the reference needs %d", k, len(r.Patch), len(want.Patch))
				}
				if reference, err = want.Patch.ApplyTo(reference); err != nil {
					t.Fatal(err)
				}
				d, err := db.Dump("")
				if err != nil {
					t.Fatal(err)
				}
				sameJSON(t, fmt.Sprintf("after op %d", k), d.Value, reference)
			}
			d, err := db.Dump("")
			if err != nil || d.ID != seq.Final.ID {
				t.Fatalf("%d %v, want %d", d.ID, err, seq.Final.ID)
			}
			sameJSON(t, "document", d.Value, seq.Final.Value)
		})
	}
}

// What the reference recovers from what crashes and damage left.
func TestCrashFixtures(t *testing.T) {
	t.Parallel()
	var cases map[string]struct {
		Result     patchdb.Dump `json:"result"`
		FailedFile *string      `json:"failedFile"`
	}
	fixture(t, "crash.json", &cases)
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, err := Read(filepath.Join("testdata", name+".db"))
			if err != nil {
				t.Fatal(err)
			}
			if d.ID != c.Result.ID {
				t.Fatalf("revision %d, want %d", d.ID, c.Result.ID)
			}
			sameJSON(t, "document", d.Value, c.Result.Value)
			var failed strings.Builder
			for _, p := range d.Failed {
				b, err := json.Marshal(p)
				if err != nil {
					t.Fatal(err)
				}
				failed.Write(append(b, '\n'))
			}
			want := ""
			if c.FailedFile != nil {
				want = *c.FailedFile
			}
			if failed.String() != want {
				t.Errorf("failed patches %q, want %q", failed.String(), want)
			}
			if torn := strings.HasPrefix(name, "torn") || name == "garbage-tail"; torn != (d.Dropped > 0) {
				t.Errorf("%d bytes dropped", d.Dropped)
			}
			if d.Backup != (name == "bak-present") {
				t.Errorf("backup: %v", d.Backup)
			}
		})
	}
}

// The part of a patch that a subscriber sees.
func TestScopeFixtures(t *testing.T) {
	t.Parallel()
	var cases []struct {
		Patch   patchdb.Patch   `json:"patch"`
		Pointer patchdb.Pointer `json:"pointer"`
		Scoped  json.RawMessage `json:"scoped"`
	}
	fixture(t, "scope.json", &cases)
	for i, c := range cases {
		p, err := c.Patch.Rebase(c.Pointer)
		if err != nil {
			t.Fatalf("case %d: %v", i, err)
		}
		// At the place itself the reference keeps the verb; we always say replace
		// for a removal, as it does.
		b, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		sameJSON(t, fmt.Sprintf("case %d", i), b, c.Scoped)
	}
}

// Our difference leads to the same document and is no longer.
func TestDiffFixtures(t *testing.T) {
	t.Parallel()
	var cases []struct {
		From      json.RawMessage `json:"from"`
		To        json.RawMessage `json:"to"`
		Reference patchdb.Patch   `json:"referencePatch"`
	}
	fixture(t, "diff.json", &cases)
	ours, theirs := 0, 0
	for i, c := range cases {
		p, err := patchdb.Diff(c.From, c.To)
		if err != nil {
			t.Fatal(err)
		}
		got, err := p.ApplyTo(c.From)
		if err != nil {
			t.Fatalf("case %d: %v", i, err)
		}
		sameJSON(t, fmt.Sprintf("case %d", i), got, c.To)
		if len(p) > len(c.Reference) {
			t.Errorf("case %d: %d operations, the reference needs %d", i, len(p), len(c.Reference))
		}
		ours, theirs = ours+len(p), theirs+len(c.Reference)
	}
	t.Logf("%d operations, the reference %d", ours, theirs)
}

func TestImportExport(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "a.db")
	d, db, err := Import("testdata/seq4.db", path, patchdb.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if db.Revision() != d.ID {
		t.Fatalf("revision %d, want %d", db.Revision(), d.ID)
	}
	if _, err := db.Put(context.Background(), "/new", []any{1, 2.5, -0.5, uint64(1<<64 - 1), "ä", nil}); err != nil {
		t.Fatal(err)
	}
	dump, err := db.Dump("")
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "out.db")
	if err := Export(context.Background(), dump, out); err != nil {
		t.Fatal(err)
	}
	again, err := Read(out)
	if err != nil || again.ID != d.ID+1 {
		t.Fatalf("%+v %v", again, err)
	}
	sameJSON(t, "exported", again.Value, dump.Value)
	for p, want := range map[string]bool{out: true, path: false} {
		if is, err := Detect(p); err != nil || is != want {
			t.Errorf("Detect(%s) = %v, %v", p, is, err)
		}
	}
	if _, _, err := Import("testdata/seq4.db", path, patchdb.Options{}); !errors.Is(err, os.ErrExist) {
		t.Errorf("import over a database: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "out.bak"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Export(context.Background(), dump, out); !errors.Is(err, os.ErrExist) {
		t.Errorf("export beside a .bak: %v", err)
	}
}

func TestEncodeRefusesWhatItWouldRound(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"18446744073709551616", "-9223372036854775809", "123456789012345678901", "0.1000000000000000000001", "1e-400"} {
		if _, err := Encode(patchdb.Dump{Value: json.RawMessage(s)}); err == nil {
			t.Errorf("%s was taken", s)
		}
	}
	for _, s := range []string{"0", "-1", "18446744073709551615", "-9223372036854775808", "0.1", "1e300", "1.0", "-0.0", "5e-324", "1e22"} {
		b, err := Encode(patchdb.Dump{Value: json.RawMessage(s)})
		if err != nil {
			t.Errorf("%s: %v", s, err)
			continue
		}
		d, err := Decode(b)
		if err != nil {
			t.Fatal(err)
		}
		sameJSON(t, s, d.Value, []byte(s))
	}
}

// FuzzDecode: no bytes make it panic, and what it reads it writes again.
func FuzzDecode(f *testing.F) {
	for _, name := range []string{"seq1.db", "bad-patch-then-good.db", "only-revision.db"} {
		b, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := Decode(b)
		if err != nil {
			return
		}
		out, err := Encode(d.Dump)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Decode(out)
		if err != nil || again.ID != d.ID || again.Dropped != 0 {
			t.Fatalf("%+v %v", again, err)
		}
		sameJSON(t, "again", again.Value, d.Value)
	})
}

// A .bak file beside a patchdb database, and a patchdb database of that name,
// have nothing to do with StartOS.
func TestDetectBeside(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ours := filepath.Join(dir, "ours.db")
	_, db, err := Import("testdata/seq4.db", ours, patchdb.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	own, err := os.ReadFile(ours)
	if err != nil {
		t.Fatal(err)
	}
	old, err := os.ReadFile("testdata/seq4.db")
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range []struct {
		db, bak []byte
		name    string
		want    bool
		fails   bool
	}{
		{db: own, bak: own},
		{db: own, bak: old},
		{bak: own, name: "x.bak"},
		{bak: own, fails: true},
		{bak: old, want: true},
		{bak: []byte{}, want: true},
		{db: old, bak: old, want: true},
		{db: []byte("what?"), bak: old, want: true},
		{db: []byte("what?")},
		{db: []byte{}, want: true},
	} {
		dir := filepath.Join(dir, fmt.Sprint(i))
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		for name, b := range map[string][]byte{"x.db": c.db, "x.bak": c.bak} {
			if b == nil {
				continue
			}
			if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if c.name == "" {
			c.name = "x.db"
		}
		if is, err := Detect(filepath.Join(dir, c.name)); is != c.want || (err != nil) != c.fails {
			t.Errorf("case %d: %v %v", i, is, err)
		}
	}
	if got := backupOf("a.b/.hidden"); got != "a.b/.hidden.bak" {
		t.Error(got)
	}
}
