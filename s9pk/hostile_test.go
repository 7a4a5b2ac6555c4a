package s9pk_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
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

// TestOverlaps opens an archive whose many bodies are all but the same bytes.
func TestOverlaps(t *testing.T) {
	t.Parallel()
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
	b := signed(s9pktest.Key("x"), entries, n, n, merkle.AppendTable(nil, entries), body)
	a, err := open(b, s9pk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Verify(context.Background(), nil); !errors.Is(err, s9pk.ErrUnsafe) {
		t.Errorf("verify: %v", err)
	}
	if _, err := stream(b, 1<<16, s9pk.Options{}); !errors.Is(err, s9pk.ErrUnsafe) {
		t.Errorf("stream: %v", err)
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
