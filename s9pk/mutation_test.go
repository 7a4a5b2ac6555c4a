package s9pk_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/selfstead/selfstead/s9pk"
	"github.com/selfstead/selfstead/s9pk/merkle"
	"github.com/selfstead/selfstead/s9pk/s9pktest"
)

type run struct {
	From, To     int
	Open, Verify string
}

type mutationTable struct {
	Base        string
	Bytes       int
	TruncatedTo []run
	Xor01AtByte []run
	Xor80AtByte []run
	XorffAtByte []run
}

// outcome opens and verifies, through both entry points, which must agree.
func outcome(t *testing.T, b []byte, piece int) (opened, verified bool) {
	t.Helper()
	a, err := open(b, s9pk.Options{})
	opened = err == nil
	if opened {
		verified = a.Verify(context.Background(), nil) == nil
	}
	if piece == 0 {
		return opened, verified
	}
	if _, err := stream(b, piece, s9pk.Options{}); (err == nil) != (opened && verified) {
		t.Errorf("stream by %d: %v, but open %v, verify %v", piece, err, opened, verified)
	}
	return opened, verified
}

// TestMutations changes every byte, and cuts at every length, of two archives,
// and compares the verdict with the reference's.
func TestMutations(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("testdata/mutations.json")
	if err != nil {
		t.Fatal(err)
	}
	var list struct{ Tables []mutationTable }
	if err := json.Unmarshal(text, &list); err != nil {
		t.Fatal(err)
	}
	for _, table := range list.Tables {
		base := fixture(t, table.Base)
		check := func(what string, runs []run, at func(i int) []byte) {
			for _, r := range runs {
				for i := r.From; i <= r.To; i++ {
					opened, verified := outcome(t, at(i), []int{1, 0, 1000, 0, 29, 0}[i%6])
					if opened != (r.Open == "ok") || verified != (r.Verify == "ok") {
						t.Errorf("%s, %s %d: open %v, verify %v, want %s, %s", table.Base, what, i, opened, verified, r.Open, r.Verify)
					}
				}
			}
		}
		check("cut to", table.TruncatedTo, func(i int) []byte { return base[:i] })
		for mask, runs := range map[byte][]run{0x01: table.Xor01AtByte, 0x80: table.Xor80AtByte, 0xff: table.XorffAtByte} {
			check("changed at", runs, func(i int) []byte {
				b := slices.Clone(base)
				b[i] ^= mask
				return b
			})
		}
	}
}

// uncovered names every bit of an archive that no signature covers and whose
// change may go unnoticed; all others must be found. Positions and lengths of
// tables, and positions of bodies, are not signed either, but they lead to what is.
func uncovered(a *s9pk.Archive) map[bit]string {
	list := map[bit]string{}
	position := func(at int, what string) {
		for i := range 64 {
			list[bit{at + i/8, i % 8}] = what
		}
	}
	var table func(d *merkle.Directory, at int)
	table = func(d *merkle.Directory, at int) {
		entries := d.Stored()
		at += len(binary.AppendUvarint(nil, uint64(len(entries))))
		for i, e := range entries {
			kind := at + len(binary.AppendUvarint(nil, uint64(len(e.Name)))) + len(e.Name) + 32 + 8
			last := i == len(entries)-1
			at = kind + 1
			switch e.Kind {
			case merkle.KindFile:
				if last { // what follows it is slack then
					list[bit{kind, 0}] = "type of the last entry of a table: the file is left out"
				}
				if e.Size == 0 {
					position(at, "position of an empty file")
				}
				at += 8
			case merkle.KindDirectory:
				if last {
					list[bit{kind, 1}] = "type of the last entry of a table: the directory is left out"
				}
				if e.Dir.Len() == 0 {
					position(at, "position of an empty directory: any zero byte is its table")
				}
				table(e.Dir, int(e.Position))
				at += 16
			}
		}
	}
	table(a.Root(), int(a.Header().TablePosition))
	return list
}

type bit struct{ at, n int }

// TestFlips changes each bit of small archives, and cuts them at every length:
// that is found, but for the bits that uncovered names.
func TestFlips(t *testing.T) {
	t.Parallel()
	for name, files := range map[string]map[string]string{
		"files and directories": {"a": "alpha", "b/c": "gamma", "b/d": "delta", "e/f/g": "eta", "manifest.json": "{}"},
		"only directories":      {"b/c": "gamma", "e/f": "zeta"},
		"empty ones":            {"a": "alpha", "none": "", "dir/": "", "d/none": "", "d/x": "xi"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := merkle.NewDirectory()
			for path, content := range files {
				var err error
				if dir, ok := strings.CutSuffix(path, "/"); ok {
					_, err = root.MakeDir(dir)
				} else {
					_, err = root.Put(path, s9pk.Bytes([]byte(content)))
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			var out bytes.Buffer
			if err := s9pk.Write(&out, root, s9pktest.Key("flips"), s9pk.WriteOptions{}); err != nil {
				t.Fatal(err)
			}
			base := out.Bytes()
			whole, err := open(base, s9pk.Options{})
			if err != nil {
				t.Fatal(err)
			}
			open := uncovered(whole)
			seen := map[string]bool{}
			for at := range base {
				for n := range 8 {
					b := slices.Clone(base)
					b[at] ^= 1 << n
					_, verified := outcome(t, b, []int{1000, 0, 0, 0, 0, 0, 0, 13}[n])
					what, named := open[bit{at, n}]
					if verified && !named {
						t.Errorf("bit %d of byte %d changed unnoticed", n, at)
					}
					if verified {
						seen[what] = true
						checkSameFiles(t, whole, b)
					}
				}
			}
			for _, what := range open {
				if !seen[what] {
					t.Errorf("named without need: %s", what)
				}
			}
			for n := range base {
				if _, verified := outcome(t, base[:n], 0); verified {
					t.Errorf("cut to %d of %d bytes unnoticed", n, len(base))
				}
			}
		})
	}
}

// checkSameFiles reads all that is still there of an archive that was changed.
func checkSameFiles(t *testing.T, whole *s9pk.Archive, changed []byte) {
	t.Helper()
	a, err := open(changed, s9pk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range a.Files() {
		was, err := whole.File(f.Path)
		if err != nil {
			t.Fatalf("%s was not there: %v", f.Path, err)
		}
		x, err1 := f.ReadAll(0)
		y, err2 := was.ReadAll(0)
		if err1 != nil || err2 != nil || !bytes.Equal(x, y) {
			t.Fatalf("%s reads differently: %v, %v", f.Path, err1, err2)
		}
	}
}

// TestFaultPlace checks that a stream is refused at the byte that shows the fault.
func TestFaultPlace(t *testing.T) {
	t.Parallel()
	base := s9pktest.Build(t, s9pktest.Spec{Files: map[string][]byte{"assets.squashfs": bytes.Repeat([]byte("hsqs"), 1000)}})
	a, err := open(base, s9pk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	h := a.Header()
	assets, err := a.File("assets.squashfs")
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := a.File("manifest.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name         string
		flip, notice int64
	}{
		{"magic", 0, 1}, {"version", 2, 3}, {"signature", 40, 139}, {"root hash", 100, 139},
		{"root table", s9pk.HeaderSize + 60, int64(h.TablePosition + h.TableSize)},
		{"body", assets.Position + 17, assets.Position + assets.Size},
		{"manifest", manifest.Position, manifest.Position + manifest.Size},
	} {
		b := slices.Clone(base)
		b[c.flip] ^= 1
		sv := s9pk.NewStreamVerifier(s9pk.Options{})
		n, err := sv.Write(b)
		if err == nil || int64(n) != c.notice {
			t.Errorf("%s: noticed after %d bytes, want %d: %v", c.name, n, c.notice, err)
		}
		if _, again := sv.Write([]byte("x")); again != err {
			t.Errorf("%s: later write: %v", c.name, again)
		}
	}
}
