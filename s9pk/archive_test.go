package s9pk_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/selfstead/selfstead/s9pk"
	"github.com/selfstead/selfstead/s9pk/merkle"
	"github.com/selfstead/selfstead/s9pk/s9pktest"
)

// vectorKey has the seed 00 01 02 to 1f.
func vectorKey() ed25519.PrivateKey {
	seed := make([]byte, 32)
	for i := range seed {
		seed[i] = byte(i)
	}
	return ed25519.NewKeyFromSeed(seed)
}

func vectorTree(t *testing.T) *merkle.Directory {
	t.Helper()
	root := merkle.NewDirectory()
	for path, content := range map[string]string{"LICENSE.md": "MIT", "manifest.json": "{}", "images/aarch64/main.env": "A=2", "images/x86_64/main.env": "A=1"} {
		if _, err := root.Put(path, s9pk.Bytes([]byte(content))); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// TestVector writes the archive that the format description spells out.
func TestVector(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	if err := s9pk.Write(&b, vectorTree(t), vectorKey(), s9pk.WriteOptions{Order: s9pk.OrderNone}); err != nil {
		t.Fatal(err)
	}
	if b.Len() != 602 {
		t.Errorf("%d bytes, want 602", b.Len())
	}
	a, err := open(b.Bytes(), s9pk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	c := a.Commitment()
	if got := c.RootSighash.String(); got != "0a403d0caae20e50e246358dbeaa671f7d94050f6bd4e195d6be7192d074e055" {
		t.Errorf("sighash %s", got)
	}
	if got := c.String(); got != `{"rootSighash":"CkA9DKriDlDiRjWNvqpnH32UBQ9r1OGV1r5xktB04FU","rootMaxsize":188}` {
		t.Errorf("commitment %s", got)
	}
	h := a.Header()
	if got := hex.EncodeToString(h.Signature); !strings.HasPrefix(got, "5a7cdbae93e11433694c3ffb9f016ed4") {
		t.Errorf("signature %s", got)
	}
	want := map[string]int64{"LICENSE.md": 0x1d9, "manifest.json": 0x1dc, "images/aarch64/main.env": 0x254, "images/x86_64/main.env": 0x257}
	for path, pos := range want {
		f, err := a.File(path)
		if err != nil || f.Position != pos {
			t.Errorf("%s at %#x, want %#x, %v", path, f.Position, pos, err)
		}
	}

	// Leaving one architecture out keeps everything before the first table that changes.
	root := a.Root().Clone()
	if err := root.Filter(func(path string, _ *merkle.Entry) bool { return path != "images/aarch64" }); err != nil {
		t.Fatal(err)
	}
	var filtered bytes.Buffer
	if err := a.Rewrite(context.Background(), &filtered, root, s9pk.WriteOptions{Order: s9pk.OrderNone}); err != nil {
		t.Fatal(err)
	}
	if filtered.Len() != 524 || !bytes.Equal(filtered.Bytes()[:0xdb], b.Bytes()[:0xdb]) {
		t.Errorf("filtered: %d bytes, want 524 with the same beginning", filtered.Len())
	}
	e, err := root.Lookup("images")
	if err != nil || e.Size != 0x82 {
		t.Errorf("images keeps signed size %#x, want 0x82, %v", e.Size, err)
	}

	// In standard order the manifest comes before the licence.
	var standard bytes.Buffer
	if err := a.Rewrite(context.Background(), &standard, a.Root(), s9pk.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	if a, err = open(standard.Bytes(), s9pk.Options{}); err != nil {
		t.Fatal(err)
	}
	if f, err := a.File("manifest.json"); err != nil || f.Position != 0x1d9 {
		t.Errorf("standard order: manifest at %#x, %v", f.Position, err)
	}
}

func TestEmptyArchive(t *testing.T) {
	t.Parallel()
	c, err := merkle.NewDirectory().Seal()
	if err != nil || c.RootSighash.String() != "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213" || c.RootMaxsize != 1 {
		t.Errorf("got %v, %v", c, err)
	}
}

func TestKeys(t *testing.T) {
	t.Parallel()
	key := vectorKey()
	pub := key.Public().(ed25519.PublicKey)
	v2 := "-----BEGIN PRIVATE KEY-----\nMFECAQEwBQYDK2VwBCIEIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f\n" +
		"gSEAA6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=\n-----END PRIVATE KEY-----\n"
	v1 := "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f\n-----END PRIVATE KEY-----\n"
	if got := string(s9pk.MarshalPrivateKey(key)); got != v2 {
		t.Errorf("private key:\n%s", got)
	}
	for _, text := range []string{v1, v2, strings.ReplaceAll(v2, "\n", "\r\n"), "\n" + v1} {
		if got, err := s9pk.ParsePrivateKey([]byte(text)); err != nil || !got.Equal(key) {
			t.Errorf("%q: %v", text, err)
		}
	}
	other := strings.Replace(v2, "Mbg=", "Mbk=", 1)
	if _, err := s9pk.ParsePrivateKey([]byte(other)); err == nil {
		t.Error("a key file with another's public key was read")
	}
	spki := "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAA6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=\n-----END PUBLIC KEY-----\n"
	if got := string(s9pk.MarshalPublicKey(pub)); got != spki {
		t.Errorf("public key:\n%s", got)
	}
	if got, err := s9pk.ParsePublicKey([]byte(spki)); err != nil || !got.Equal(pub) {
		t.Error(err)
	}
	root := vectorTree(t)
	var b bytes.Buffer
	if err := s9pk.Write(&b, root, key, s9pk.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	sig := b.Bytes()[35:99]
	text := s9pk.MarshalSignature(sig)
	if !bytes.Contains(text, []byte("MEkwBQYDK2VwBEBafNuuk+EUM2lMP/ufAW7Uo3rlNcOH7dJsxzO+jP6hcokcO2u6\n37UZDV+ioeyenMyYGv+QdDARhilG6obZN8IN\n")) {
		t.Errorf("signature:\n%s", text)
	}
	if got, err := s9pk.ParseSignature(text); err != nil || !bytes.Equal(got, sig) {
		t.Error(err)
	}
	for _, bad := range []string{"", "x", spki, strings.Replace(v2, "PRIVATE", "EC PRIVATE", 2)} {
		if _, err := s9pk.ParsePrivateKey([]byte(bad)); err == nil {
			t.Errorf("%q was read as a private key", bad)
		}
	}
}

func TestFixtureKeys(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("testdata/keys.json")
	if err != nil {
		t.Fatal(err)
	}
	var keys struct {
		PackageKey struct{ Seed, Pkcs8Pem, PublicPem string }
	}
	if err := json.Unmarshal(text, &keys); err != nil {
		t.Fatal(err)
	}
	key, err := s9pk.ParsePrivateKey([]byte(keys.PackageKey.Pkcs8Pem))
	if err != nil || hex.EncodeToString(key.Seed()) != keys.PackageKey.Seed || string(s9pk.MarshalPrivateKey(key)) != keys.PackageKey.Pkcs8Pem {
		t.Errorf("private key: %v", err)
	}
	pub, err := s9pk.ParsePublicKey([]byte(keys.PackageKey.PublicPem))
	if err != nil || !pub.Equal(key.Public()) || string(s9pk.MarshalPublicKey(pub)) != keys.PackageKey.PublicPem {
		t.Errorf("public key: %v", err)
	}
}

// big is a package with one body of several groups.
func big(t testing.TB) ([]byte, []byte) {
	t.Helper()
	content := make([]byte, 5<<20+12345)
	for i := range content {
		content[i] = byte(i>>13) ^ byte(i*7)
	}
	copy(content, "hsqs")
	return s9pktest.Build(t, s9pktest.Spec{Files: map[string][]byte{"assets.squashfs": content}}), content
}

func TestReaders(t *testing.T) {
	t.Parallel()
	b, content := big(t)
	a, err := open(b, s9pk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	f, err := a.File("assets.squashfs")
	if err != nil {
		t.Fatal(err)
	}
	r, err := f.Open(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, content) {
		t.Errorf("Open: %d bytes, %v", len(got), err)
	}
	part := make([]byte, 100_000)
	if n, err := r.ReadAt(part, 1_000_001); err != nil || !bytes.Equal(part[:n], content[1_000_001:1_100_001]) {
		t.Errorf("ReadAt: %d, %v", n, err)
	}
	if n, err := r.ReadAt(part, int64(len(content))-10); n != 10 || err != io.EOF {
		t.Errorf("ReadAt at the end: %d, %v", n, err)
	}
	if _, err := r.Seek(-5, io.SeekEnd); err != nil {
		t.Error(err)
	}
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, content[len(content)-5:]) {
		t.Errorf("after Seek: %q, %v", got, err)
	}
	s, err := f.Stream()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(s); err != nil || !bytes.Equal(got, content) {
		t.Errorf("Stream: %d bytes, %v", len(got), err)
	}
	if n, ok := s.Verified(); n != int64(len(content)) || !ok || s.Close() != nil {
		t.Errorf("Verified: %d, %v", n, ok)
	}
	if s, err = f.Stream(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(s, part); err != nil {
		t.Error(err)
	}
	if n, ok := s.Verified(); n != int64(len(part)) || ok {
		t.Errorf("Verified early: %d, %v", n, ok)
	}
	if err := s.Close(); !errors.Is(err, s9pk.ErrUnverified) {
		t.Errorf("closed early: %v", err)
	}
	if _, err := f.ReadAll(1000); !errors.Is(err, s9pk.ErrLimit) {
		t.Errorf("ReadAll with a limit: %v", err)
	}
}

// changing is a reader whose bytes change after a number of reads.
type changing struct {
	mu    sync.Mutex
	b     []byte
	after int
	at    int64
}

func (c *changing) ReadAt(p []byte, off int64) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.after--
	if c.after == 0 {
		c.b[c.at] ^= 1
	}
	return bytes.NewReader(c.b).ReadAt(p, off)
}

// TestChangedBehind has the bytes change between the proof and their reading.
func TestChangedBehind(t *testing.T) {
	t.Parallel()
	b, content := big(t)
	c := &changing{b: b}
	a, err := s9pk.Open(c, int64(len(b)), s9pk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	f, err := a.File("assets.squashfs")
	if err != nil {
		t.Fatal(err)
	}
	r, err := f.Open(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	c.at, c.after = f.Position+3<<20, 10
	got, err := io.ReadAll(r)
	var ee *s9pk.EntryError
	if !errors.Is(err, s9pk.ErrHashMismatch) || !errors.As(err, &ee) || ee.Path != "assets.squashfs" || ee.Offset > c.at || ee.Offset+r64 < c.at {
		t.Errorf("got %v, want a mismatch near %d", err, c.at)
	}
	if !bytes.Equal(got, content[:len(got)]) {
		t.Error("bytes were handed on that are not what was signed")
	}
}

const r64 = 1024 << merkle.DefaultGroup

func TestStreamHoldsBack(t *testing.T) {
	t.Parallel()
	b, content := big(t)
	a, err := open(b, s9pk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	f, err := a.File("assets.squashfs")
	if err != nil {
		t.Fatal(err)
	}
	b[f.Position] ^= 1
	s, err := f.Stream()
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(s)
	if !errors.Is(err, s9pk.ErrHashMismatch) || len(got) >= len(content) {
		t.Errorf("%d of %d bytes, %v", len(got), len(content), err)
	}
	if _, err := f.Open(context.Background()); !errors.Is(err, s9pk.ErrHashMismatch) {
		t.Errorf("Open: %v", err)
	}
	if err := a.Verify(context.Background(), nil); !errors.Is(err, s9pk.ErrHashMismatch) {
		t.Errorf("Verify: %v", err)
	}
	bad, err := a.BadFiles(context.Background())
	if err != nil || len(bad) != 1 || bad[0].Path != "assets.squashfs" || bad[0].Offset != f.Position {
		t.Errorf("BadFiles: %v, %v", bad, err)
	}
}

func TestExtract(t *testing.T) {
	t.Parallel()
	b, content := big(t)
	a, err := open(b, s9pk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	parent := t.TempDir()
	dir := filepath.Join(parent, "out")
	var last, total int64
	if err := a.Extract(ctx, dir, s9pk.ExtractOptions{Progress: func(d, all int64) { last, total = d, all }}); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "assets.squashfs")); err != nil || !bytes.Equal(got, content) {
		t.Error(err)
	}
	if last != total || total == 0 {
		t.Errorf("progress ended at %d of %d", last, total)
	}
	if err := a.Extract(ctx, dir, s9pk.ExtractOptions{}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("into a full directory: %v", err)
	}
	some := filepath.Join(parent, "some")
	if err := a.Extract(ctx, some, s9pk.ExtractOptions{Paths: []string{"images/", "manifest.json"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(some, "images/x86_64/main.env")); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(some, "LICENSE.md")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("extracted what was not asked for: %v", err)
	}
	if err := a.Extract(ctx, filepath.Join(parent, "none"), s9pk.ExtractOptions{Paths: []string{"nothing"}}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("unknown path: %v", err)
	}

	f, err := a.File("assets.squashfs")
	if err != nil {
		t.Fatal(err)
	}
	b[f.Position+f.Size-1] ^= 1
	err = a.Extract(ctx, filepath.Join(parent, "bad"), s9pk.ExtractOptions{})
	if !errors.Is(err, s9pk.ErrHashMismatch) {
		t.Errorf("wrong body: %v", err)
	}
	entries, err := os.ReadDir(parent)
	if err != nil || len(entries) != 2 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func TestLenientIsReadOnly(t *testing.T) {
	t.Parallel()
	a, err := open(fixture(t, "name-traversal.s9pk"), s9pk.Options{Lenient: true})
	if err != nil {
		t.Fatal(err)
	}
	parent := t.TempDir()
	if err := a.Extract(context.Background(), filepath.Join(parent, "x"), s9pk.ExtractOptions{}); !errors.Is(err, s9pk.ErrReadOnly) {
		t.Errorf("extract: %v", err)
	}
	if err := s9pk.Write(io.Discard, a.Root().Clone(), vectorKey(), s9pk.WriteOptions{}); err == nil {
		t.Error("written again")
	}
}

func TestOutboard(t *testing.T) {
	t.Parallel()
	b, content := big(t)
	a, err := open(b, s9pk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var ob bytes.Buffer
	if err := a.WriteOutboard(context.Background(), &ob, merkle.DefaultGroup, nil); err != nil {
		t.Fatal(err)
	}
	if ob.Len() > len(content)/500 {
		t.Errorf("outboard of %d bytes for %d", ob.Len(), len(content))
	}
	o, err := s9pk.OpenOutboard(bytes.NewReader(ob.Bytes()), int64(ob.Len()))
	if err != nil {
		t.Fatal(err)
	}
	count := &countingReader{r: bytes.NewReader(b)}
	a, err = s9pk.Open(count, int64(len(b)), s9pk.Options{Outboard: o})
	if err != nil {
		t.Fatal(err)
	}
	f, err := a.File("assets.squashfs")
	if err != nil {
		t.Fatal(err)
	}
	before := count.n
	r, err := f.Open(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	part := make([]byte, 1<<20)
	if _, err := r.ReadAt(part, 2<<20); err != nil || !bytes.Equal(part, content[2<<20:3<<20]) {
		t.Error(err)
	}
	if read := count.n - before; read > 1<<20+2*r64 {
		t.Errorf("read %d bytes for one MiB", read)
	}
	before = count.n
	for off := int64(2 << 20); off < 3<<20; off += 10_000 { // crosses groups
		small := part[:10_000]
		if _, err := r.ReadAt(small, off); err != nil || !bytes.Equal(small, content[off:off+10_000]) {
			t.Fatalf("small reads: %v", err)
		}
	}
	if read := count.n - before; read > 1<<20+2*r64 {
		t.Errorf("small reads side by side read %d bytes for one MiB", read)
	}
	b[f.Position+4<<20] ^= 1
	if _, err := r.ReadAt(part, 4<<20); !errors.Is(err, s9pk.ErrHashMismatch) {
		t.Errorf("changed chunk: %v", err)
	}
	if _, err := r.ReadAt(part, 2<<20); err != nil {
		t.Errorf("other chunk: %v", err)
	}
	for i := range ob.Len() {
		bad := bytes.Clone(ob.Bytes())
		bad[i] ^= 1
		o, err := s9pk.OpenOutboard(bytes.NewReader(bad), int64(len(bad)))
		if err != nil {
			continue
		}
		if p, err := o.Proof(f.Hash, f.Size); err == nil && p.Check(0, content[:r64]) != nil {
			t.Fatalf("byte %d changed: outboard accepted that does not fit", i)
		}
	}
}

// TestOutboardOfNoUse opens a package with outboards that are of another
// package, damaged, or gone while they are read: its bodies are then proven whole.
func TestOutboardOfNoUse(t *testing.T) {
	t.Parallel()
	b, content := big(t)
	a, err := open(b, s9pk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var good, other bytes.Buffer
	if err := a.WriteOutboard(context.Background(), &good, merkle.DefaultGroup, nil); err != nil {
		t.Fatal(err)
	}
	changed := bytes.Clone(content)
	changed[5] ^= 1
	stranger, err := open(s9pktest.Build(t, s9pktest.Spec{Files: map[string][]byte{"assets.squashfs": changed}}), s9pk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := stranger.WriteOutboard(context.Background(), &other, merkle.DefaultGroup, nil); err != nil {
		t.Fatal(err)
	}
	damaged := bytes.Clone(good.Bytes())
	damaged[len(damaged)-1] ^= 1
	for name, ob := range map[string][]byte{"of another package": other.Bytes(), "damaged": damaged, "gone": good.Bytes()} {
		src := &failingReader{r: bytes.NewReader(ob)}
		o, err := s9pk.OpenOutboard(src, int64(len(ob)))
		if err != nil {
			t.Fatal(err)
		}
		src.broken = name == "gone"
		a, err := open(b, s9pk.Options{Outboard: o})
		if err != nil {
			t.Fatal(err)
		}
		f, err := a.File("assets.squashfs")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := o.Proof(f.Hash, f.Size); err == nil {
			t.Errorf("%s: asked directly it must say what is wrong", name)
		}
		r, err := f.Open(context.Background())
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%s: read %d bytes, %v", name, len(got), err)
		}
	}
}

// failingReader reads until it is broken.
type failingReader struct {
	r      io.ReaderAt
	broken bool
}

func (f *failingReader) ReadAt(p []byte, off int64) (int, error) {
	if f.broken {
		return 0, errors.New("the connection is gone")
	}
	return f.r.ReadAt(p, off)
}

type countingReader struct {
	r io.ReaderAt
	n int64
}

func (c *countingReader) ReadAt(p []byte, off int64) (int, error) {
	n, err := c.r.ReadAt(p, off)
	c.n += int64(n)
	return n, err
}
