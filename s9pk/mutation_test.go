package s9pk_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"testing"

	"github.com/selfstead/selfstead/s9pk"
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

// TestFlips changes a bit of each byte of a package: the change is refused, or it is one
// that the format leaves unsigned and that changes nothing of what is read.
func TestFlips(t *testing.T) {
	t.Parallel()
	base := s9pktest.Build(t, s9pktest.Spec{})
	whole, err := open(base, s9pk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range base {
		for _, bit := range []int{i % 8} {
			b := slices.Clone(base)
			b[i] ^= 1 << bit
			a, err := open(b, s9pk.Options{})
			if err != nil || a.Verify(context.Background(), nil) != nil {
				continue
			}
			// What is left: a position that was changed to where the same bytes lie.
			for _, f := range whole.Files() {
				got, err := a.File(f.Path)
				if errors.Is(err, s9pk.ErrMissing) {
					continue // the type is not signed: anyone can leave things out
				}
				if err != nil {
					t.Fatalf("bit %d of byte %d: %v", bit, i, err)
				}
				x, err1 := f.ReadAll(0)
				y, err2 := got.ReadAll(0)
				if err1 != nil || err2 != nil || !bytes.Equal(x, y) {
					t.Fatalf("bit %d of byte %d changes %s unnoticed", bit, i, f.Path)
				}
			}
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
