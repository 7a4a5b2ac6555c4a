package s9pk_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"testing"

	"github.com/selfstead/selfstead/s9pk"
	"github.com/selfstead/selfstead/s9pk/merkle"
	"github.com/selfstead/selfstead/s9pk/s9pktest"
)

func dirEntry(name string, below []*merkle.Entry, pos uint64) *merkle.Entry {
	d, _, _ := merkle.DirectoryOf(below)
	h, err := d.Sighash()
	if err != nil {
		panic(err) // entries made here have their hashes
	}
	n := merkle.TableLen(below)
	return &merkle.Entry{Name: name, Kind: merkle.KindDirectory, Hash: h, Size: n, Hashed: true, Position: pos, TableSize: n}
}

func fileEntry(name string, content []byte, pos uint64) *merkle.Entry {
	return &merkle.Entry{Name: name, Kind: merkle.KindFile, Hash: merkle.Sum(content), Size: uint64(len(content)), Hashed: true, Position: pos}
}

// TestManyFromFew opens an archive in which each directory lists the next one
// several times: 16 small tables that stand for billions of entries.
func TestManyFromFew(t *testing.T) {
	t.Parallel()
	tables := [][]byte{}
	pos := uint64(1 << 12) // tables lie from here on, innermost first
	entries := []*merkle.Entry{fileEntry("file", []byte("x"), 0)}
	for range 14 {
		tables = append(tables, merkle.AppendTable(nil, entries))
		var up []*merkle.Entry
		for i := range 4 {
			up = append(up, dirEntry(fmt.Sprint(i), entries, pos))
		}
		pos += uint64(len(tables[len(tables)-1]))
		entries = up
	}
	root := merkle.AppendTable(nil, entries)
	b := signed(s9pktest.Key("x"), entries, uint64(len(root)), uint64(len(root)), root)
	b = append(b, make([]byte, 1<<12-len(b))...)
	b = append(b, bytes.Join(tables, nil)...)
	if _, err := open(b, s9pk.Options{}); !errors.Is(err, s9pk.ErrLimit) {
		t.Errorf("open: %v", err)
	}
	if _, err := stream(b, 100, s9pk.Options{}); !errors.Is(err, s9pk.ErrLimit) && !errors.Is(err, s9pk.ErrUnsafe) {
		t.Errorf("stream: %v", err)
	}
}

// overlapping is an archive whose many bodies are all but the same bytes.
func overlapping() []byte {
	body := make([]byte, 1<<20)
	const files = 64
	var entries []*merkle.Entry
	for i := range files {
		entries = append(entries, fileEntry(fmt.Sprintf("%02d", i), body[i:], 0))
	}
	n := merkle.TableLen(entries)
	for i, e := range entries {
		e.Position = s9pk.HeaderSize + n + uint64(i)
	}
	return signed(s9pktest.Key("x"), entries, n, n, merkle.AppendTable(nil, entries), body)
}

// deep is an archive of that many directories in one another.
func deep(levels int) []byte {
	entries := []*merkle.Entry{fileEntry("f", []byte("x"), s9pk.HeaderSize)}
	var tables [][]byte
	pos := uint64(1 << 16)
	for range levels {
		table := merkle.AppendTable(nil, entries)
		tables = append(tables, table)
		entries = []*merkle.Entry{dirEntry("d", entries, pos)}
		pos += uint64(len(table))
	}
	root := merkle.AppendTable(nil, entries)
	b := signed(s9pktest.Key("x"), entries, uint64(len(root)), uint64(len(root)), root)
	b = append(b, make([]byte, 1<<16-len(b))...)
	return append(b, bytes.Join(tables, nil)...)
}

// TestDangers has one archive for each kind that the reference opens and that is
// dangerous: refused unless Lenient, and then for looking at only.
func TestDangers(t *testing.T) {
	t.Parallel()
	kinds := map[string][]byte{"bodies that overlap": overlapping(), "17 directories in one another": deep(17)}
	for kind, name := range map[string]string{
		"name with a slash": "name-slash.s9pk", "name ..": "name-dotdot.s9pk", "name .": "name-dot.s9pk",
		"absolute name": "name-absolute.s9pk", "name /": "name-root.s9pk", "empty name": "name-empty.s9pk",
		"name with a NUL": "name-nul.s9pk", "name that climbs": "name-traversal.s9pk", "a name twice": "dup-last-wins.s9pk",
		"file of 2^63 bytes and more": "entry-size-huge.s9pk", "manifest of as many": "manifest-size-huge.s9pk",
		"64 directories in one another": "deep-64.s9pk", "file as directory": "file-as-dir.s9pk",
		"empty directory as file": "retype-empty-dir-to-file.s9pk",
	} {
		if !stricter[name] {
			t.Errorf("%s is not on the list of what we refuse", name)
		}
		kinds[kind] = fixture(t, name)
	}
	if len(kinds) != len(stricter)+2 {
		t.Errorf("%d kinds, %d archives of the fixtures are refused that the reference opens", len(kinds), len(stricter))
	}
	for kind, b := range kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			var ee *s9pk.EntryError
			if _, err := open(b, s9pk.Options{}); !errors.Is(err, s9pk.ErrUnsafe) || !errors.As(err, &ee) {
				t.Fatalf("open: %v", err)
			}
			if _, err := stream(b, 1<<12, s9pk.Options{}); !errors.Is(err, s9pk.ErrUnsafe) {
				t.Errorf("stream: %v", err)
			}
			a, err := open(b, s9pk.Options{Lenient: true})
			if err != nil {
				t.Fatalf("lenient: %v", err)
			}
			listed := 0
			a.Root().Walk(func(string, *merkle.Entry) error { listed++; return nil })
			if listed == 0 || len(a.Signer()) == 0 {
				t.Errorf("lenient: %d entries", listed)
			}
			for _, f := range a.Files() { // where it can be read it is what was signed
				if content, err := f.ReadAll(1 << 21); err == nil && merkle.Sum(content) != f.Hash {
					t.Errorf("lenient: %s reads wrong", f.Path)
				}
			}
			dir := t.TempDir()
			if err := a.Extract(context.Background(), dir+"/x", s9pk.ExtractOptions{}); !errors.Is(err, s9pk.ErrReadOnly) {
				t.Errorf("extract: %v", err)
			}
			if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
				t.Errorf("extract left %v, %v", left, err)
			}
			if err := a.Rewrite(context.Background(), io.Discard, a.Root(), s9pk.WriteOptions{}); !errors.Is(err, s9pk.ErrReadOnly) {
				t.Errorf("rewrite: %v", err)
			}
			if err := s9pk.Write(io.Discard, a.Root().Clone(), s9pktest.Key("y"), s9pk.WriteOptions{}); err == nil {
				t.Error("signed anew")
			}
		})
	}
	a, err := open(overlapping(), s9pk.Options{Lenient: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Verify(context.Background(), nil); err != nil {
		t.Errorf("overlapping bodies are what was signed: %v", err)
	}
}

// TestOneBodyManyNames has a single stretch under a hundred names: one proof, but
// a hundred times the bytes when it is taken apart.
func TestOneBodyManyNames(t *testing.T) {
	t.Parallel()
	body := make([]byte, 1<<20)
	var entries []*merkle.Entry
	for i := range 100 {
		entries = append(entries, fileEntry(fmt.Sprintf("%02d", i), body, 0))
	}
	n := merkle.TableLen(entries)
	for _, e := range entries {
		e.Position = s9pk.HeaderSize + n
	}
	b := signed(s9pktest.Key("x"), entries, n, n, merkle.AppendTable(nil, entries), body)
	a, err := open(b, s9pk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Verify(context.Background(), nil); err != nil {
		t.Error(err)
	}
	if err := a.Extract(context.Background(), t.TempDir()+"/x", s9pk.ExtractOptions{}); !errors.Is(err, s9pk.ErrUnsafe) {
		t.Errorf("extract: %v", err)
	}
	if err := a.Rewrite(context.Background(), io.Discard, a.Root(), s9pk.WriteOptions{}); !errors.Is(err, s9pk.ErrUnsafe) {
		t.Errorf("rewrite: %v", err)
	}
	if err := a.Extract(context.Background(), t.TempDir()+"/x", s9pk.ExtractOptions{Paths: []string{"00", "01"}}); err != nil {
		t.Error(err)
	}
}

// TestClaimedLength opens an archive whose source claims to be longer than it is.
func TestClaimedLength(t *testing.T) {
	t.Parallel()
	b := s9pktest.Build(t, s9pktest.Spec{})
	for _, size := range []int64{1 << 40, 1 << 61, 1 << 62, math.MaxInt64} {
		a, err := s9pk.Open(bytes.NewReader(b), size, s9pk.Options{})
		if err != nil {
			t.Fatalf("%d: %v", size, err)
		}
		if err := a.Verify(context.Background(), nil); err != nil {
			t.Errorf("%d: %v", size, err)
		}
	}
	body := fileEntry("f", nil, s9pk.HeaderSize)
	body.Size = 1 << 62
	other := *body
	other.Name = "g"
	entries := []*merkle.Entry{body, &other}
	n := merkle.TableLen(entries)
	b = signed(s9pktest.Key("x"), entries, n, n, merkle.AppendTable(nil, entries))
	a, err := s9pk.Open(bytes.NewReader(b), math.MaxInt64, s9pk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Verify(context.Background(), nil); !errors.Is(err, s9pk.ErrUnsafe) && !errors.Is(err, s9pk.ErrTruncated) {
		t.Errorf("two huge bodies: %v", err)
	}
}

// TestClaims has headers and tables that promise much more than there is.
func TestClaims(t *testing.T) {
	t.Parallel()
	huge := &merkle.Entry{Name: "d", Kind: merkle.KindDirectory, Size: 1 << 62, Hashed: true, Position: s9pk.HeaderSize, TableSize: 1 << 62}
	body := fileEntry("f", nil, s9pk.HeaderSize)
	body.Size = 1 << 62
	for name, entries := range map[string][]*merkle.Entry{"directory": {huge}, "file": {body}} {
		n := merkle.TableLen(entries)
		b := signed(s9pktest.Key("x"), entries, n, n, merkle.AppendTable(nil, entries))
		checkFuzzed(t, b)
		if _, err := stream(b, 50, s9pk.Options{}); !errors.Is(err, s9pk.ErrTruncated) && !errors.Is(err, s9pk.ErrLimit) {
			t.Errorf("%s: %v", name, err)
		}
		if a, err := open(b, s9pk.Options{}); err == nil {
			f, err := a.File("f")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.ReadAll(0); !errors.Is(err, s9pk.ErrTruncated) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}
