package remote

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/selfstead/selfstead/s9pk"
	"github.com/selfstead/selfstead/s9pk/merkle"
)

// mixed is a package of small files around large ones, and its outboard.
func mixed(t *testing.T) (pkg, outboard []byte, want map[string][]byte) {
	t.Helper()
	want = map[string][]byte{
		"manifest.json": []byte("{}"), "LICENSE.md": content(3 << 10), "javascript.squashfs": content(5 << 20),
		"assets.squashfs": content(700 << 10), "images/a/main.squashfs": content(24 << 20), "images/a/main.json": []byte("{}"),
		"images/b/main.squashfs": content(9 << 20), "images/b/main.json": []byte("{}"),
	}
	for i := range 40 {
		want["many/"+string(rune('a'+i%26))+strings.Repeat("x", i)] = content(1000 + i)
	}
	root := merkle.NewDirectory()
	for name, b := range want {
		_, err := root.Put(name, s9pk.Bytes(b))
		require.NoError(t, err)
	}
	var out, ob bytes.Buffer
	require.NoError(t, s9pk.Write(&out, root, ed25519.NewKeyFromSeed(make([]byte, 32)), s9pk.WriteOptions{}))
	a, err := s9pk.Open(bytes.NewReader(out.Bytes()), int64(out.Len()), s9pk.Options{})
	require.NoError(t, err)
	require.NoError(t, a.WriteOutboard(context.Background(), &ob, merkle.DefaultGroup, nil))
	return out.Bytes(), ob.Bytes(), want
}

// TestOneStream counts the requests of what reads front to back: a large file is
// one answer, small ones that lie together are one too, and nothing comes twice.
func TestOneStream(t *testing.T) {
	ctx := context.Background()
	data, ob, want := mixed(t)
	index, err := s9pk.OpenOutboard(bytes.NewReader(ob), int64(len(ob)))
	require.NoError(t, err)
	const large = "images/a/main.squashfs"

	for name, c := range map[string]struct {
		requests int   // besides those of opening
		bytes    int64 // at most
		do       func(t *testing.T, a *s9pk.Archive)
	}{
		"verify": {1, int64(len(data)), func(t *testing.T, a *s9pk.Archive) { require.NoError(t, a.Verify(ctx, nil)) }},
		"extract": {1, int64(len(data)), func(t *testing.T, a *s9pk.Archive) {
			dir := t.TempDir() + "/x"
			require.NoError(t, a.Extract(ctx, dir, s9pk.ExtractOptions{}))
			got, err := os.ReadFile(dir + "/" + large)
			require.NoError(t, err)
			require.True(t, bytes.Equal(want[large], got))
		}},
		"write again": {2, int64(len(data)), func(t *testing.T, a *s9pk.Archive) {
			var out bytes.Buffer
			require.NoError(t, a.Rewrite(ctx, &out, a.Root(), s9pk.WriteOptions{}))
			require.True(t, bytes.Equal(data, out.Bytes()))
		}},
		"write to a file, signed anew": {2, int64(len(data)), func(t *testing.T, a *s9pk.Archive) {
			path := t.TempDir() + "/x"
			require.NoError(t, s9pk.WriteFile(ctx, path, a.Root().Clone(), ed25519.NewKeyFromSeed(make([]byte, 32)), s9pk.WriteOptions{NoSync: true}))
			got, err := os.ReadFile(path)
			require.NoError(t, err)
			require.True(t, bytes.Equal(data, got))
		}},
		"extract one": {1, 9<<20 + 64<<10, func(t *testing.T, a *s9pk.Archive) {
			require.NoError(t, a.Extract(ctx, t.TempDir()+"/x", s9pk.ExtractOptions{Paths: []string{"images/b/main.squashfs"}}))
		}},
		"stream": {1, 24 << 20, func(t *testing.T, a *s9pk.Archive) {
			f, err := a.File(large)
			require.NoError(t, err)
			s, err := f.Stream()
			require.NoError(t, err)
			got, err := io.ReadAll(s)
			require.NoError(t, err)
			require.True(t, bytes.Equal(want[large], got))
		}},
		"read all": {1, 24 << 20, func(t *testing.T, a *s9pk.Archive) {
			f, err := a.File(large)
			require.NoError(t, err)
			got, err := f.ReadAll(0)
			require.NoError(t, err)
			require.True(t, bytes.Equal(want[large], got))
		}},
		"small ones, each by itself": {2, 128 << 10, func(t *testing.T, a *s9pk.Archive) {
			for _, f := range a.Files() { // by name, as they lie
				if strings.HasPrefix(f.Path, "many/") {
					got, err := f.ReadAll(0)
					require.NoError(t, err)
					require.Equal(t, want[f.Path], got)
				}
			}
		}},
		"copy, proven by an outboard": {1, 24 << 20, func(t *testing.T, a *s9pk.Archive) {
			f, err := a.File(large)
			require.NoError(t, err)
			r, err := f.Open(ctx)
			require.NoError(t, err)
			var got bytes.Buffer
			_, err = io.Copy(&got, r)
			require.NoError(t, err)
			require.True(t, bytes.Equal(want[large], got.Bytes()))
		}},
		"copy from the middle": {1, 4<<20 + 64<<10, func(t *testing.T, a *s9pk.Archive) {
			f, err := a.File(large)
			require.NoError(t, err)
			r, err := f.Open(ctx)
			require.NoError(t, err)
			_, err = r.Seek(20<<20+5, io.SeekStart)
			require.NoError(t, err)
			var got bytes.Buffer
			_, err = io.Copy(&got, r)
			require.NoError(t, err)
			require.True(t, bytes.Equal(want[large][20<<20+5:], got.Bytes()))
		}},
		"small reads: windows first, then one": {8, 24 << 20, func(t *testing.T, a *s9pk.Archive) {
			f, err := a.File(large)
			require.NoError(t, err)
			r, err := f.Open(ctx)
			require.NoError(t, err)
			got, err := io.ReadAll(struct{ io.Reader }{r})
			require.NoError(t, err)
			require.True(t, bytes.Equal(want[large], got))
		}},
		"random reads ask for little": {3, 400 << 10, func(t *testing.T, a *s9pk.Archive) {
			f, err := a.File(large)
			require.NoError(t, err)
			r, err := f.Open(ctx)
			require.NoError(t, err)
			for _, off := range []int64{20 << 20, 3 << 20, 11 << 20} {
				b := make([]byte, 100)
				_, err := r.ReadAt(b, off)
				require.NoError(t, err)
				require.Equal(t, want[large][off:off+100], b)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, data, nil)
			r := open(t, s, Options{})
			a, err := s9pk.Open(r, r.Size(), s9pk.Options{Outboard: index})
			require.NoError(t, err)
			before := r.Stats()
			c.do(t, a)
			after := r.Stats()
			require.LessOrEqual(t, after.Requests-before.Requests, c.requests, s.asked())
			require.LessOrEqual(t, after.Bytes-before.Bytes, c.bytes)
		})
	}
}

// TestOneStreamResumes cuts the one answer twice: each time the rest is asked for
// from the missing byte on, if the file is still the same.
func TestOneStreamResumes(t *testing.T) {
	data, ob, want := mixed(t)
	index, err := s9pk.OpenOutboard(bytes.NewReader(ob), int64(len(ob)))
	require.NoError(t, err)
	var conditions []string
	s := serve(t, data, func(s *server, n int, w http.ResponseWriter, r *http.Request) bool {
		s.mu.Lock()
		conditions = append(conditions, r.Header.Get("If-Range"))
		s.mu.Unlock()
		if from, to := wanted(r, len(data)); to-from > 10<<20 {
			cut(w, r, data, 7<<20)
		}
		return false
	})
	r := open(t, s, quick)
	a, err := s9pk.Open(r, r.Size(), s9pk.Options{Outboard: index})
	require.NoError(t, err)
	f, err := a.File("images/a/main.squashfs")
	require.NoError(t, err)
	body, err := f.Open(context.Background())
	require.NoError(t, err)
	opened := len(s.asked())
	var got bytes.Buffer
	_, err = io.Copy(&got, body)
	require.NoError(t, err)
	require.True(t, bytes.Equal(want["images/a/main.squashfs"], got.Bytes()))
	asked := s.asked()[opened:]
	require.Len(t, asked, 3, "24 MiB, cut after 7 and 14")
	for i, c := range conditions[1:] {
		require.Equal(t, `"one"`, c, i)
	}
	require.EqualValues(t, len(got.Bytes()), r.Stats().Bytes-int64(32<<10)*int64(opened), "nothing comes twice: %v", s.asked())
}
