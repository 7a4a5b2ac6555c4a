package s9pk_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"runtime"
	"testing"

	"github.com/selfstead/selfstead/s9pk"
	"github.com/selfstead/selfstead/s9pk/merkle"
	"github.com/selfstead/selfstead/s9pk/s9pktest"
)

func seedArchives(f *testing.F) {
	f.Helper()
	for _, v := range verdicts(f) {
		if v.Open == "ok" {
			if b := fixture(f, v.File); b != nil && len(b) < 4000 {
				f.Add(b)
			}
		}
	}
	f.Add(s9pktest.Build(f, s9pktest.Spec{Arch: []string{"x86_64", "aarch64"}}))
}

// resign makes hashes and signature fit whatever the tables say now, so that
// the fuzzer gets past them.
func resign(b []byte) []byte {
	if len(b) < s9pk.HeaderSize {
		return b
	}
	b = bytes.Clone(b)
	pos, size := binary.BigEndian.Uint64(b[139:]), binary.BigEndian.Uint64(b[147:])
	entries := rehash(b, pos, size, 0)
	if entries == nil {
		return b
	}
	head := signed(s9pktest.Key("fuzz"), entries, size, max(size, binary.BigEndian.Uint64(b[131:])%(1<<20)))
	copy(b, head[:139])
	return b
}

// rehash corrects the hashes in a table, innermost first.
func rehash(b []byte, pos, size uint64, depth int) []*merkle.Entry {
	if depth > 8 || pos > uint64(len(b)) || size > uint64(len(b))-pos {
		return nil
	}
	table := b[pos : pos+size]
	entries, err := merkle.ParseTable(table)
	if err != nil || len(entries) > 64 {
		return nil
	}
	for _, e := range entries {
		old := bytes.Clone(e.Hash[:])
		switch e.Kind {
		case merkle.KindDirectory:
			if below := rehash(b, e.Position, e.TableSize, depth+1); below != nil {
				d, _, _ := merkle.DirectoryOf(below)
				if h, err := d.Sighash(); err == nil {
					e.Hash = h
				}
			}
		case merkle.KindFile:
			if e.Position <= uint64(len(b)) && e.Size <= uint64(len(b))-e.Position {
				e.Hash = merkle.Sum(b[e.Position : e.Position+e.Size])
			}
		}
		if at := bytes.Index(table, old); at >= 0 {
			copy(table[at:], e.Hash[:])
		}
	}
	return entries
}

// FuzzOpen looks for panics, for memory out of proportion to the input, and for
// archives that one entry point takes and another does not; what is taken must
// be written again to the same bytes, once it is in the writer's form.
func FuzzOpen(f *testing.F) {
	seedArchives(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, b := range [][]byte{b, resign(b)} {
			checkAllocated(t, b)
			checkFuzzed(t, b)
		}
	})
}

// checkAllocated counts what opening allocates; nothing else may run meanwhile.
func checkAllocated(t *testing.T, b []byte) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, _ = open(b, s9pk.Options{}) // the verdict does not matter here
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 1<<20+64*uint64(len(b)) {
		t.Fatalf("%d bytes allocated for %d", grown, len(b))
	}
}

func checkFuzzed(t *testing.T, b []byte) {
	t.Helper()
	ctx := context.Background()
	a, err := open(b, s9pk.Options{})
	verified := err == nil && a.Verify(ctx, nil) == nil
	if _, serr := stream(b, 33, s9pk.Options{}); (serr == nil) != verified {
		t.Fatalf("open: %v, verified %v, but stream: %v", err, verified, serr)
	}
	if _, err := open(b, s9pk.Options{Lenient: true}); a != nil && err != nil {
		t.Fatalf("lenient refuses what strict takes: %v", err)
	}
	if !verified {
		return
	}
	if _, err := a.Manifest(ctx); err == nil {
		s9pk.Require(a.Root(), mustManifest(t, a), "")
	}
	var once, twice bytes.Buffer
	if err := a.Rewrite(ctx, &once, a.Root(), s9pk.WriteOptions{}); err != nil {
		t.Fatalf("rewrite: %v", err)
	}
	again, err := open(once.Bytes(), s9pk.Options{})
	if err != nil {
		t.Fatalf("open what was rewritten: %v", err)
	}
	if err := again.Rewrite(ctx, &twice, again.Root(), s9pk.WriteOptions{}); err != nil || !bytes.Equal(once.Bytes(), twice.Bytes()) {
		t.Fatalf("rewritten twice: other bytes, %v", err)
	}
}

func mustManifest(t *testing.T, a *s9pk.Archive) *s9pk.Manifest {
	t.Helper()
	m, err := a.Manifest(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// FuzzManifest looks for manifests that change when they are written and read.
func FuzzManifest(f *testing.F) {
	m, err := s9pktest.Manifest(f, "a", "1:0", "x86_64").MarshalJSON()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(m)
	f.Add([]byte(`{"id":"a"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := s9pk.ParseManifest(b)
		if err != nil {
			return
		}
		out, err := m.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		again, err := s9pk.ParseManifest(out)
		if err != nil {
			t.Fatalf("%s: %v", out, err)
		}
		if twice, err := again.MarshalJSON(); err != nil || !bytes.Equal(twice, out) {
			t.Fatalf("written twice: %s, %s, %v", out, twice, err)
		}
	})
}

// FuzzOutboard looks for outboards that panic or prove what is wrong.
func FuzzOutboard(f *testing.F) {
	content := bytes.Repeat([]byte("0123456789"), 20_000)
	a := s9pktest.Archive(f, s9pktest.Spec{Files: map[string][]byte{"assets.squashfs": content}})
	var ob bytes.Buffer
	if err := a.WriteOutboard(context.Background(), &ob, merkle.DefaultGroup, nil); err != nil {
		f.Fatal(err)
	}
	f.Add(ob.Bytes())
	wrong := bytes.Clone(content[:r64])
	wrong[5] ^= 1
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := s9pk.OpenOutboard(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		p, err := o.Proof(merkle.Sum(content), int64(len(content)))
		if err == nil && p.GroupSize() == r64 && (p.Check(0, wrong) == nil || p.Check(0, content[:r64]) != nil) {
			t.Fatal("proved what is wrong, or refused what is right")
		}
	})
}
