package wal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/selfstead/selfstead/patchdb/internal/vfs"
)

func newFile(t *testing.T, m *vfs.Mem) *Log {
	t.Helper()
	f, err := m.Create("a")
	if err != nil {
		t.Fatal(err)
	}
	l, err := NewFile(f, 42, 7, nil, func(add func([]byte) error) error { return errors.Join(add([]byte(`{"a":`)), add([]byte(`1}`))) })
	if err != nil {
		t.Fatal(err)
	}
	if err := m.SyncDir("a"); err != nil {
		t.Fatal(err)
	}
	return l
}

// commit makes one batch durable.
func commit(t *testing.T, l *Log, first uint64, payloads ...string) {
	t.Helper()
	for i, p := range payloads {
		l.Add(first+uint64(i), []byte(p))
	}
	if err := errors.Join(l.Write(), l.File.Sync(), l.Commit()); err != nil {
		t.Fatal(err)
	}
}

func scan(t *testing.T, b []byte) ([]string, Result, error) {
	t.Helper()
	var got []string
	res, err := Scan(bytes.NewReader(b), int64(len(b)), func(r Record) error {
		payload := r.Payload
		if r.Text != nil {
			var err error
			if payload, err = io.ReadAll(r.Text); err != nil {
				return err
			}
		}
		got = append(got, fmt.Sprintf("%d %s", r.ID, payload))
		return nil
	})
	return got, res, err
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	m := vfs.NewMem(nil)
	l := newFile(t, m)
	want := []string{`7 {"a":1}`}
	for i := range 40 {
		p := fmt.Sprintf("%0*d", i, i)
		commit(t, l, uint64(8+2*i), p, "second")
		want = append(want, fmt.Sprintf("%d %s", 8+2*i, p), fmt.Sprintf("%d second", 9+2*i))
	}
	for range 2 {
		got, res, err := scan(t, m.Bytes("a"))
		if err != nil || fmt.Sprint(got) != fmt.Sprint(want) || !res.Sealed || res.Torn != 0 || res.Tail != l.Tail() || res.Records != 80 {
			t.Fatalf("%v %+v %v", got, res, err)
		}
		if err := l.Trim(); err != nil {
			t.Fatal(err)
		}
	}
	if n := int64(len(m.Bytes("a"))); n != l.Tail()+FrameSize {
		t.Errorf("%d bytes after Trim, the tail is at %d", n, l.Tail())
	}
}

// Each bit of a sealed file: found, or without effect.
func TestEachBit(t *testing.T) {
	t.Parallel()
	m := vfs.NewMem(nil)
	l := newFile(t, m)
	commit(t, l, 8, "one")
	commit(t, l, 9, "two", "three four")
	if err := l.Trim(); err != nil {
		t.Fatal(err)
	}
	whole := m.Bytes("a")
	want, _, _ := scan(t, whole)
	for i := range len(whole) * 8 {
		b := bytes.Clone(whole)
		b[i/8] ^= 1 << (i % 8)
		got, _, err := scan(t, b)
		var c *CorruptError
		if err != nil && !errors.As(err, &c) {
			t.Fatalf("bit %d: %v", i, err)
		}
		seal := int64(i/8) >= l.Tail()
		if err == nil && (!seal || fmt.Sprint(got) != fmt.Sprint(want)) {
			t.Fatalf("bit %d of byte %d is not missed: %v", i%8, i/8, got)
		}
	}
}

// A file cut anywhere gives the records before the cut, and never an error,
// unless its first part is gone.
func TestEachLength(t *testing.T) {
	t.Parallel()
	m := vfs.NewMem(nil)
	l := newFile(t, m)
	first := l.Tail()
	commit(t, l, 8, "one")
	commit(t, l, 9, "two")
	whole := m.Bytes("a")[:l.Tail()]
	want, _, _ := scan(t, whole)
	for n := range whole {
		got, _, err := scan(t, whole[:n])
		if (err != nil) != (int64(n) < first) {
			t.Fatalf("%d of %d bytes: %v", n, len(whole), err)
		}
		if err == nil && fmt.Sprint(got) != fmt.Sprint(want[:len(got)]) {
			t.Fatalf("%d bytes: %v", n, got)
		}
	}
}

// The first record of a batch was lost in a crash, the second not. After Cut a
// new record of the same length must not bring the second back.
func TestCutLeavesNoGhost(t *testing.T) {
	t.Parallel()
	m := vfs.NewMem(nil)
	l := newFile(t, m)
	tail := l.Tail()
	commit(t, l, 8, "lost", "ghost")
	b := m.Bytes("a")
	clear(b[tail : tail+Space(4)])
	for i := range b[tail+Space(4)+Space(5):] { // the seal was not written yet
		b[tail+Space(4)+Space(5)+int64(i)] = 0
	}
	if _, err := l.File.WriteAt(b, 0); err != nil {
		t.Fatal(err)
	}
	got, res, err := scan(t, b)
	if err != nil || len(got) != 1 || res.Torn == 0 || res.Tail != tail {
		t.Fatalf("%v %+v %v", got, res, err)
	}
	again := NewLog(l.File, res, int64(len(b)))
	if err := again.Cut(); err != nil {
		t.Fatal(err)
	}
	commit(t, again, 8, "mine")
	after := m.Crash(vfs.KeepNothing, rand.New(rand.NewPCG(1, 1)))
	got, _, err = scan(t, after.Bytes("a"))
	if err != nil || fmt.Sprint(got) != `[7 {"a":1} 8 mine]` {
		t.Fatalf("%v %v", got, err)
	}
}

// A record that was durable once is missed even if only zeros are left of it.
func TestLostWriteIsDamage(t *testing.T) {
	t.Parallel()
	m := vfs.NewMem(nil)
	l := newFile(t, m)
	at := l.Tail()
	commit(t, l, 8, "one")
	commit(t, l, 9, "two")
	b := m.Bytes("a")
	clear(b[at : at+Space(3)])
	var c *CorruptError
	if _, _, err := scan(t, b); !errors.As(err, &c) || c.Offset != at {
		t.Fatalf("%v, want damage at %d", err, at)
	}
}

// Records that say something else than the order they stand in.
func TestOrder(t *testing.T) {
	t.Parallel()
	head := AppendHeader(nil, 1)
	snap := AppendRecord(head, 1, HeaderSize, KindSnapshot, 5, 0, []byte("1"))
	at := int64(len(snap))
	for name, b := range map[string][]byte{
		"patch first":     AppendRecord(bytes.Clone(head), 1, HeaderSize, KindPatch, 5, 0, []byte("1")),
		"seal first":      AppendRecord(bytes.Clone(head), 1, HeaderSize, KindSeal, 5, 0, nil),
		"second snapshot": AppendRecord(bytes.Clone(snap), 1, at, KindSnapshot, 6, at, []byte("1")),
		"revision gap":    AppendRecord(bytes.Clone(snap), 1, at, KindPatch, 7, at, []byte("[]")),
		"same revision":   AppendRecord(bytes.Clone(snap), 1, at, KindPatch, 5, at, []byte("[]")),
		"no snapshot":     head,
		"empty":           nil,
		"other file":      bytes.Repeat([]byte("x"), 100),
	} {
		var c *CorruptError
		if _, _, err := scan(t, b); !errors.As(err, &c) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Bytes of another file, or of another place in it, are no record.
	for name, b := range map[string][]byte{
		"other salt":  AppendRecord(bytes.Clone(snap), 2, at, KindPatch, 6, at, []byte("[]")),
		"other place": AppendRecord(bytes.Clone(snap), 1, at+8, KindPatch, 6, at, []byte("[]")),
	} {
		if got, res, err := scan(t, b); err != nil || len(got) != 1 || res.Torn == 0 {
			t.Errorf("%s: %v %+v %v", name, got, res, err)
		}
	}
}

// Room ahead that does not fit on a full disk must not fail a record that does.
func TestFullDiskTakesTheRecordAlone(t *testing.T) {
	t.Parallel()
	full := errors.New("full")
	m := vfs.NewMem(nil)
	l := newFile(t, m)
	m.SetPlan(func(c vfs.Call) vfs.Outcome {
		if c.Op == "write" && c.Size > 1000 {
			return vfs.Outcome{Err: full, Part: 500}
		}
		return vfs.Outcome{}
	})
	commit(t, l, 8, "small")
	if got, _, err := scan(t, m.Bytes("a")); err != nil || len(got) != 2 {
		t.Fatalf("%v %v", got, err)
	}
	l.Add(9, make([]byte, 2000))
	if err := l.Write(); !errors.Is(err, full) {
		t.Fatalf("a record that does not fit: %v", err)
	}
	if err := l.Drop(); err != nil {
		t.Fatal(err)
	}
	if got, res, err := scan(t, m.Bytes("a")); err != nil || len(got) != 2 || res.Torn != 0 {
		t.Fatalf("after Drop: %v %+v %v", got, res, err)
	}
}

// FuzzScan: no bytes make it panic or reserve more than they are.
func FuzzScan(f *testing.F) {
	f.Add(AppendRecord(AppendHeader(nil, 1), 1, HeaderSize, KindSnapshot, 5, 0, []byte("1")))
	f.Fuzz(func(t *testing.T, b []byte) {
		n := 0
		_, err := Scan(bytes.NewReader(b), int64(len(b)), func(r Record) error {
			n += len(r.Payload)
			if r.Text == nil {
				return nil
			}
			text, err := io.ReadAll(r.Text)
			n += len(text)
			return err
		})
		if n > len(b) {
			t.Fatalf("%d payload bytes of %d", n, len(b))
		}
		var c *CorruptError
		if err != nil && !errors.As(err, &c) {
			t.Fatal(err)
		}
	})
}

// moving is a file in which a writer goes on between two reads.
type moving struct {
	*bytes.Reader
	then []byte // the file after the second read
	n    int
}

func (m *moving) ReadAt(b []byte, off int64) (int, error) {
	if m.n++; m.n == 3 { // after the header and what the records are read from
		m.Reader = bytes.NewReader(m.then)
	}
	return m.Reader.ReadAt(b, off)
}

// Who reads while another process writes sees the file as it was at some moment,
// and takes no record that came in meanwhile for proof of damage. Damage that
// stays is found all the same.
func TestScanBesideAWriter(t *testing.T) {
	t.Parallel()
	m := vfs.NewMem(nil)
	l := newFile(t, m)
	commit(t, l, 8, "one")
	at := l.Tail()
	before := m.Bytes("a")
	commit(t, l, 9, "two")
	commit(t, l, 10, "three")
	after := m.Bytes("a")
	for name, first := range map[string][]byte{
		"sealed":       before,
		"half written": append(bytes.Clone(after[:at+FrameSize]), make([]byte, int64(len(after))-at-FrameSize)...),
	} {
		n := 0
		res, err := Scan(&moving{Reader: bytes.NewReader(first), then: after}, int64(len(first)), func(Record) error { n++; return nil })
		if err != nil || !res.Moving || n != 2 || res.Tail != at || res.Torn != 0 {
			t.Errorf("%s: %d records, %+v, %v", name, n, res, err)
		}
		broken := bytes.Clone(after)
		broken[at+FrameSize] ^= 1
		_, err = Scan(&moving{Reader: bytes.NewReader(first), then: broken}, int64(len(first)), func(Record) error { return nil })
		var c *CorruptError
		if !errors.As(err, &c) || c.Offset != at {
			t.Errorf("%s, then broken: %v, want damage at %d", name, err, at)
		}
	}
}

// A snapshot that reads differently when it is used than when it was summed up
// is damage.
func TestSnapshotReadTwice(t *testing.T) {
	t.Parallel()
	m := vfs.NewMem(nil)
	newFile(t, m)
	first := m.Bytes("a")
	then := bytes.Clone(first)
	then[HeaderSize+FrameSize+2] ^= 4
	_, err := Scan(&moving{Reader: bytes.NewReader(first), then: then}, int64(len(first)), func(r Record) error {
		_, err := io.ReadAll(r.Text)
		return err
	})
	var c *CorruptError
	if !errors.As(err, &c) || c.Offset != HeaderSize {
		t.Fatalf("%v, want damage at %d", err, HeaderSize)
	}
}
