package remote

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/selfstead/selfstead/s9pk"
	"github.com/selfstead/selfstead/s9pk/merkle"
)

// zeros is a large source that takes no memory.
type zeros int64

type zeroReader struct{ *io.SectionReader }

func (zeroReader) Close() error { return nil }

type zeroAt struct{}

func (zeroAt) ReadAt(p []byte, _ int64) (int, error) { clear(p); return len(p), nil }

func (z zeros) Size() int64 { return int64(z) }
func (z zeros) Open() (io.ReadCloser, error) {
	return zeroReader{io.NewSectionReader(zeroAt{}, 0, int64(z))}, nil
}

// sparse keeps what was written but for zeros.
type sparse struct {
	size   int64
	chunks map[int64][]byte
}

const sparseChunk = 64 << 10

var zeroChunk [sparseChunk]byte

func (s *sparse) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		at, in := s.size/sparseChunk, int(s.size%sparseChunk)
		k := min(len(p), sparseChunk-in)
		if s.chunks[at] != nil || !bytes.Equal(p[:k], zeroChunk[:k]) {
			if s.chunks[at] == nil {
				s.chunks[at] = make([]byte, sparseChunk)
			}
			copy(s.chunks[at][in:], p[:k])
		}
		s.size += int64(k)
		p = p[k:]
	}
	return n, nil
}

func (s *sparse) ReadAt(p []byte, off int64) (int, error) {
	n := 0
	for n < len(p) && off < s.size {
		at, in := off/sparseChunk, int(off%sparseChunk)
		chunk := s.chunks[at]
		if chunk == nil {
			chunk = zeroChunk[:]
		}
		k := int(min(int64(copy(p[n:], chunk[in:])), s.size-off))
		n += k
		off += int64(k)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

const large = 500 << 20

// largePackage is a package with one image of 500 MB, written in the order that
// puts the tables of images behind the large members.
func largePackage(t testing.TB, order s9pk.Order) *sparse {
	t.Helper()
	root := merkle.NewDirectory()
	for name, src := range map[string]merkle.Source{
		"manifest.json": s9pk.Bytes([]byte(`{}`)), "LICENSE.md": s9pk.Bytes(make([]byte, 30<<10)),
		"icon.png": s9pk.Bytes(content(20 << 10)), "instructions.md": s9pk.Bytes([]byte("x")),
		"javascript.squashfs": zeros(3 << 20), "assets.squashfs": zeros(1 << 20),
		"images/x86_64/main.squashfs": zeros(large), "images/x86_64/main.json": s9pk.Bytes([]byte("{}")),
		"images/x86_64/main.env": s9pk.Bytes([]byte("A=1")), "images/aarch64/main.squashfs": zeros(1 << 20),
		"images/aarch64/main.json": s9pk.Bytes([]byte("{}")), "images/aarch64/main.env": s9pk.Bytes([]byte("A=1")),
	} {
		_, err := root.Put(name, src)
		require.NoError(t, err)
	}
	out := &sparse{chunks: map[int64][]byte{}}
	key := ed25519.NewKeyFromSeed(make([]byte, 32))
	require.NoError(t, s9pk.Write(out, root, key, s9pk.WriteOptions{Order: order}))
	return out
}

func serveReader(t testing.TB, files map[string]*io.SectionReader) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f := files[r.URL.Path]
		if f == nil {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("ETag", `"x"`)
		http.ServeContent(w, r, "", time.Time{}, io.NewSectionReader(f, 0, f.Size())) // each request its own place
	}))
	t.Cleanup(s.Close)
	return s
}

func TestLargePackage(t *testing.T) {
	ctx := context.Background()
	for name, order := range map[string]s9pk.Order{"standard": s9pk.OrderStandard, "none": s9pk.OrderNone} {
		t.Run(name, func(t *testing.T) {
			pkg := largePackage(t, order)
			local, err := s9pk.Open(pkg, pkg.size, s9pk.Options{})
			require.NoError(t, err)
			var ob bytes.Buffer
			require.NoError(t, local.WriteOutboard(ctx, &ob, merkle.DefaultGroup, nil))
			s := serveReader(t, map[string]*io.SectionReader{
				"/p.s9pk": io.NewSectionReader(pkg, 0, pkg.size), "/p.s9pk.obao": io.NewSectionReader(bytes.NewReader(ob.Bytes()), 0, int64(ob.Len()))})

			a, err := OpenPackage(ctx, s.URL+"/p.s9pk?"+local.Commitment().Query().Encode(), Options{}, s9pk.Options{})
			require.NoError(t, err)
			defer a.Close()
			r := a.Reader
			_, err = a.RawManifest()
			require.NoError(t, err)
			require.LessOrEqual(t, r.Stats().Bytes, int64(256<<10), "inspecting %d MB", pkg.size>>20)
			require.LessOrEqual(t, r.Stats().Requests, 4)
			t.Logf("inspected with %+v", r.Stats())

			// the first megabyte, proven by the outboard
			outboard, err := a.Outboard(ctx)
			require.NoError(t, err)
			f, err := a.File("images/x86_64/main.squashfs")
			require.NoError(t, err)
			proof, err := outboard.Proof(f.Hash, f.Size)
			require.NoError(t, err)
			b := make([]byte, 1<<20)
			_, err = io.ReadFull(s9pk.NewReader(f, proof), b)
			require.NoError(t, err)
			got := r.Stats().Bytes + a.outboard.Stats().Bytes
			t.Logf("first megabyte with %d bytes, %.2f %% of the file", got, 100*float64(got)/float64(pkg.size))
			require.LessOrEqual(t, got, pkg.size/100)

			other := local.Commitment()
			other.RootSighash[0] ^= 1
			_, err = OpenPackage(ctx, s.URL+"/p.s9pk?"+other.Query().Encode(), Options{}, s9pk.Options{})
			require.ErrorIs(t, err, s9pk.ErrCommitment)
		})
	}
}

// TestFixtures holds what a package at a URL is found to be against the same
// package in memory.
func TestFixtures(t *testing.T) {
	ctx := context.Background()
	files, err := filepath.Glob("../testdata/fixtures/*.s9pk")
	require.NoError(t, err)
	require.Greater(t, len(files), 100)
	srv := httptest.NewServer(http.FileServer(http.Dir("../testdata/fixtures")))
	defer srv.Close()
	verdict := func(a *s9pk.Archive, err error) string {
		if err == nil {
			err = a.Verify(ctx, nil)
		}
		if err == nil {
			return "ok"
		}
		return err.Error()
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		require.NoError(t, err)
		want := verdict(s9pk.Open(bytes.NewReader(b), int64(len(b)), s9pk.Options{}))
		p, err := OpenPackage(ctx, srv.URL+"/"+filepath.Base(file), quick, s9pk.Options{})
		if err != nil {
			require.Equal(t, want, err.Error(), file)
			continue
		}
		require.Equal(t, want, verdict(p.Archive, nil), file)
		require.NoError(t, p.Close())
	}
}

// BenchmarkLargePackage says what inspecting a package of 500 MB at a URL costs,
// and what the first megabyte of its image costs, proven by an outboard.
func BenchmarkLargePackage(b *testing.B) {
	ctx := context.Background()
	pkg := largePackage(b, s9pk.OrderStandard)
	local, err := s9pk.Open(pkg, pkg.size, s9pk.Options{})
	require.NoError(b, err)
	var ob bytes.Buffer
	require.NoError(b, local.WriteOutboard(ctx, &ob, merkle.DefaultGroup, nil))
	s := serveReader(b, map[string]*io.SectionReader{
		"/p.s9pk": io.NewSectionReader(pkg, 0, pkg.size), "/p.s9pk.obao": io.NewSectionReader(bytes.NewReader(ob.Bytes()), 0, int64(ob.Len()))})
	first := make([]byte, 1<<20)
	for b.Loop() {
		a, err := OpenPackage(ctx, s.URL+"/p.s9pk", Options{}, s9pk.Options{})
		require.NoError(b, err)
		_, err = a.RawManifest()
		require.NoError(b, err)
		inspected := a.Reader.Stats()
		outboard, err := a.Outboard(ctx)
		require.NoError(b, err)
		f, err := a.File("images/x86_64/main.squashfs")
		require.NoError(b, err)
		proof, err := outboard.Proof(f.Hash, f.Size)
		require.NoError(b, err)
		_, err = io.ReadFull(s9pk.NewReader(f, proof), first)
		require.NoError(b, err)
		got := a.Reader.Stats().Bytes + a.outboard.Stats().Bytes
		b.ReportMetric(float64(inspected.Bytes)/1024, "inspect-KiB")
		b.ReportMetric(float64(inspected.Requests), "inspect-requests")
		b.ReportMetric(100*float64(got)/float64(pkg.size), "first-MB-%-of-file")
		require.NoError(b, a.Close())
	}
}

// TestProvenOverBadLines verifies a package through a server that cuts every
// response, and one that changes a byte on the way.
func TestProvenOverBadLines(t *testing.T) {
	root := merkle.NewDirectory()
	for _, name := range []string{"a", "b/c", "b/d"} {
		_, err := root.Put(name, s9pk.Bytes(content(700<<10)))
		require.NoError(t, err)
	}
	var pkg bytes.Buffer
	require.NoError(t, s9pk.Write(&pkg, root, ed25519.NewKeyFromSeed(make([]byte, 32)), s9pk.WriteOptions{}))
	data := pkg.Bytes()
	verify := func(s *server) error {
		r := open(t, s, quick)
		a, err := s9pk.Open(r, r.Size(), s9pk.Options{})
		if err != nil {
			return err
		}
		r.Expect(0, r.Size())
		return a.Verify(context.Background(), nil)
	}
	require.NoError(t, verify(serve(t, data, func(s *server, n int, w http.ResponseWriter, r *http.Request) bool {
		cut(w, r, data, 90<<10)
		return true
	})))
	bad := bytes.Clone(data)
	bad[len(bad)-1000] ^= 1
	err := verify(serve(t, bad, nil))
	require.ErrorIs(t, err, s9pk.ErrHashMismatch)
	require.ErrorContains(t, err, "b/d")
	changed := content(len(data))
	err = verify(serve(t, data, func(s *server, n int, w http.ResponseWriter, r *http.Request) bool {
		if n == 1 {
			s.mu.Lock()
			s.data, s.etag = changed, `"two"`
			s.mu.Unlock()
			http.ServeContent(w, r, "", time.Time{}, strings.NewReader(string(changed)))
			return true
		}
		return false
	}))
	require.True(t, errors.Is(err, ErrChanged) || errors.Is(err, s9pk.ErrHashMismatch), "%v", err)
}
