package merkle

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"testing"

	"lukechampine.com/blake3/bao"
)

func content(n int) []byte {
	r := rand.NewChaCha8([32]byte{byte(n)})
	b := make([]byte, n)
	r.Read(b)
	return b
}

var sizes = []int{0, 1, 63, 64, 65, 1023, 1024, 1025, 2047, 2048, 2049, 3 << 10, 16<<10 - 1, 16 << 10, 16<<10 + 1, 17 << 10, 64 << 10, 64<<10 + 1,
	100_000, 192 << 10, 1<<20 - 1, 1 << 20, 1<<20 + 1, 3<<20 + 77, 4 << 20, 5<<20 + 1025, 9<<20 + 13}

// TestHashAt compares parallel with serial hashing, which another library does.
func TestHashAt(t *testing.T) {
	t.Parallel()
	for _, n := range sizes {
		b := content(n)
		for _, workers := range []int{1, 2, 3} {
			h, err := HashAt(context.Background(), bytes.NewReader(append([]byte("xyz"), b...)), 3, int64(n), workers, nil)
			if err != nil || h != Sum(b) {
				t.Errorf("%d bytes, %d workers: %v", n, workers, err)
			}
		}
		if _, err := HashAt(context.Background(), bytes.NewReader(b), 1, int64(n), 2, nil); n > 0 && !errors.Is(err, ErrTruncated) {
			t.Errorf("%d bytes, one too few: %v", n, err)
		}
	}
}

// TestHashAtStops cancels while another goroutine may read ahead.
func TestHashAtStops(t *testing.T) {
	t.Parallel()
	b := content(9 << 20)
	for _, workers := range []int{1, 2, 3} {
		why := errors.New("enough")
		ctx, cancel := context.WithCancelCause(context.Background())
		h, err := HashAt(ctx, bytes.NewReader(b), 0, int64(len(b)), workers, func(int64) { cancel(why) })
		if !errors.Is(err, why) || h != (Hash{}) {
			t.Errorf("%d workers: %v, %v", workers, h, err)
		}
	}
}

// TestProof compares with the Bao implementation of another library.
func TestProof(t *testing.T) {
	t.Parallel()
	for _, n := range sizes {
		b := content(n)
		for _, group := range []int{0, 4, DefaultGroup, maxGroup} {
			p, err := BuildProof(context.Background(), bytes.NewReader(b), 0, int64(n), group, 2, nil)
			if err != nil || p.Root() != Sum(b) {
				t.Fatalf("%d bytes, group %d: %v", n, group, err)
			}
			ob := p.AppendOutboard(nil)
			want, root := bao.EncodeBuf(b, group, true)
			if !bytes.Equal(ob, want) || root != p.Root() || int64(len(ob)) != OutboardLen(int64(n), group) {
				t.Errorf("%d bytes, group %d: outboard differs from bao", n, group)
			}
			q, err := ParseOutboard(ob, Sum(b), int64(n), group)
			if err != nil {
				t.Errorf("%d bytes, group %d: %v", n, group, err)
				continue
			}
			for i := range p.Groups() {
				off, size := p.Span(i)
				g := slices.Clone(b[off : off+size])
				if p.Check(i, g) != nil || q.Check(i, g) != nil {
					t.Errorf("%d bytes, group %d: %d is refused", n, group, i)
				}
				if size > 0 {
					g[size/2] ^= 4
					if p.Check(i, g) == nil || q.Check(i, g) == nil {
						t.Errorf("%d bytes, group %d: changed %d passes", n, group, i)
					}
				}
			}
			if n > 1<<20 {
				break
			}
		}
	}
}

func TestParseOutboardRefuses(t *testing.T) {
	t.Parallel()
	b := content(300_000)
	p, err := BuildProof(context.Background(), bytes.NewReader(b), 0, int64(len(b)), DefaultGroup, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	ob := p.AppendOutboard(nil)
	for i := range ob {
		bad := slices.Clone(ob)
		bad[i] ^= 1
		if _, err := ParseOutboard(bad, p.Root(), p.Size(), DefaultGroup); !errors.Is(err, ErrHashMismatch) {
			t.Fatalf("byte %d changed: %v", i, err)
		}
		if _, err := ParseOutboard(ob[:i], p.Root(), p.Size(), DefaultGroup); !errors.Is(err, ErrTruncated) {
			t.Fatalf("cut to %d: %v", i, err)
		}
	}
}

type source string

func (s source) Size() int64                  { return int64(len(s)) }
func (s source) Open() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(string(s))), nil }

func TestVarints(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		in   string
		want uint64
		ok   bool
	}{
		{"\x00", 0, true}, {"\x7f", 127, true}, {"\x80\x01", 128, true}, {"\xac\x02", 300, true},
		{"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 1<<64 - 1, true}, {"\x80\x00", 0, true}, {"\x81\x80\x00", 1, true},
		{"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", 0, false}, {strings.Repeat("\xff", 11), 0, false}, {"\x80", 0, false}, {"", 0, false},
	} {
		r := &tableReader{b: []byte(c.in)}
		if v, err := r.varint("it"); v != c.want || (err == nil) != c.ok {
			t.Errorf("% x: got %d, %v", c.in, v, err)
		}
	}
	for _, v := range []uint64{0, 127, 128, 300, 16383, 16384, 1<<32 - 1, 1<<64 - 1} {
		b := appendUvarint(nil, v)
		if len(b) != uvarintLen(v) {
			t.Errorf("%d: length %d, want %d", v, uvarintLen(v), len(b))
		}
	}
}

func TestCommitmentText(t *testing.T) {
	t.Parallel()
	c := Commitment{RootSighash: Sum(nil), RootMaxsize: 1<<64 - 1}
	back, err := CommitmentFromQuery(c.Query())
	if err != nil || *back != c {
		t.Errorf("got %v, %v", back, err)
	}
	if back, err := CommitmentFromQuery(url.Values{}); back != nil || err != nil {
		t.Errorf("empty: %v, %v", back, err)
	}
	for _, q := range []url.Values{{"rootMaxsize": {"1"}}, {"rootSighash": {"AAAA"}, "rootMaxsize": {"1"}},
		{"rootSighash": {c.Query().Get("rootSighash")}, "rootMaxsize": {"-1"}}} {
		if _, err := CommitmentFromQuery(q); err == nil {
			t.Errorf("%v was read", q)
		}
	}
	var d Commitment
	if err := d.UnmarshalJSON([]byte(c.String())); err != nil || d != c {
		t.Errorf("JSON: %v, %v", d, err)
	}
	padded := strings.Replace(c.String(), `","`, `=","`, 1)
	if err := d.UnmarshalJSON([]byte(padded)); err != nil || d != c {
		t.Errorf("padded JSON: %v, %v", d, err)
	}
	if err := d.UnmarshalJSON([]byte(`{"rootMaxsize":1}`)); err == nil {
		t.Error("half a commitment was read")
	}
	if h, err := ParseHash(c.RootSighash.String()); err != nil || h != c.RootSighash {
		t.Errorf("hex: %v", err)
	}
}

func TestDirectory(t *testing.T) {
	t.Parallel()
	d := NewDirectory()
	for _, path := range []string{"b/c/d", "a", "/b//e/"} {
		if _, err := d.Put(path, source(path)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := d.Put("a/x", source("x")); !errors.Is(err, ErrKind) {
		t.Errorf("below a file: %v", err)
	}
	for _, path := range []string{"", "/", "x/../y", "./x", "a\x00"} {
		if _, err := d.Put(path, source("x")); err == nil {
			t.Errorf("put %q", path)
		}
	}
	if _, err := d.Lookup("b/c/none"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if _, err := d.Lookup("./a"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if _, err := d.Seal(); !errors.Is(err, ErrUnhashed) {
		t.Errorf("sealed without hashes: %v", err)
	}
	if err := d.Filter(func(path string, _ *Entry) bool { return path != "a" }); !errors.Is(err, ErrUnhashed) {
		t.Errorf("left out what has no hash: %v", err)
	}
	d.Walk(func(path string, e *Entry) error {
		if e.Kind == KindFile {
			e.Hash, e.Hashed = Sum([]byte(path)), true
		}
		return nil
	})
	c, err := d.Seal()
	if err != nil {
		t.Fatal(err)
	}
	filtered := d.Clone()
	if err := filtered.Filter(func(path string, _ *Entry) bool { return path != "b/c" }); err != nil {
		t.Fatal(err)
	}
	got, err := filtered.Seal()
	if err != nil || got.RootSighash != c.RootSighash {
		t.Errorf("filtering changed the root: %v", err)
	}
	if _, err := filtered.Lookup("b/c/d"); !errors.Is(err, ErrMissing) {
		t.Errorf("below what was left out: %v", err)
	}
	if err := d.Remove("b/c/d"); err != nil {
		t.Fatal(err)
	}
	if got, err := d.Seal(); err != nil || got.RootSighash == c.RootSighash {
		t.Errorf("removing kept the root: %v", err)
	}
}

func FuzzParseTable(f *testing.F) {
	f.Add([]byte{0})
	f.Add(AppendTable(nil, []*Entry{{Name: "a", Kind: KindFile, Size: 3}, {Name: "b", Kind: KindDirectory}, {Name: "c"}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		entries, err := ParseTable(b)
		if err != nil {
			return
		}
		again := AppendTable(nil, entries)
		if uint64(len(again)) != TableLen(entries) || len(again) > len(b) {
			t.Fatalf("%d entries: %d bytes from %d", len(entries), len(again), len(b))
		}
		twice, err := ParseTable(again)
		if err != nil || !bytes.Equal(AppendTable(nil, twice), again) {
			t.Fatalf("written and read again: %v", err)
		}
	})
}
