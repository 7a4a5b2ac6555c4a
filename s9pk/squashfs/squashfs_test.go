package squashfs

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/require"
)

// need skips what the machine cannot do, and fails instead where CI is set.
func need(t testing.TB, tool string) {
	t.Helper()
	if _, err := exec.LookPath(tool); err == nil {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s is missing", tool)
	}
	t.Skipf("%s is missing", tool)
}

func big() []byte {
	b := make([]byte, 300<<10+17)
	rng := rand.New(rand.NewPCG(3, 4))
	for i := range b {
		b[i] = byte(rng.Uint32() & 15)
	}
	return b
}

// stream writes the test tree.
func stream(w io.Writer) error {
	tw := tar.NewWriter(w)
	for _, e := range []struct {
		name, link string
		kind       byte
		mode       int64
		body       []byte
	}{
		{name: "a/", kind: tar.TypeDir, mode: 0o750},
		{name: "a/big", kind: tar.TypeReg, mode: 0o600, body: big()},
		{name: "a/empty", kind: tar.TypeReg, mode: 0o644},
		{name: "a/hard", kind: tar.TypeLink, link: "a/big"},
		{name: "a/b/", kind: tar.TypeDir, mode: 0o755},
		{name: "a/b/small", kind: tar.TypeReg, mode: 0o755, body: []byte("small")},
		{name: "lib", kind: tar.TypeSymlink, link: "/a/b", mode: 0o777},
		{name: "a/up", kind: tar.TypeSymlink, link: "../a/b/small", mode: 0o777},
		{name: "loop", kind: tar.TypeSymlink, link: "loop", mode: 0o777},
		{name: "null", kind: tar.TypeChar, mode: 0o666},
	} {
		h := &tar.Header{Name: e.name, Typeflag: e.kind, Linkname: e.link, Mode: e.mode, Uid: 7, Gid: 70000,
			Size: int64(len(e.body)), ModTime: time.Unix(1e9, 0)}
		if err := tw.WriteHeader(h); err != nil {
			return err
		}
		if _, err := tw.Write(e.body); err != nil {
			return err
		}
	}
	return tw.Close()
}

func image(t testing.TB) []byte {
	t.Helper()
	need(t, "mksquashfs")
	path := t.TempDir() + "/i.squashfs"
	require.NoError(t, Create(context.Background(), path, CreateOptions{Time: time.Unix(17e8, 0)}, stream))
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	return b
}

func TestCreateSameBytes(t *testing.T) {
	one, two := image(t), image(t)
	require.True(t, bytes.Equal(one, two))
	require.Zero(t, len(one)%4096)
}

func TestCreateFails(t *testing.T) {
	need(t, "mksquashfs")
	dir := t.TempDir()
	for name, src := range map[string]func(io.Writer) error{
		"source":    func(io.Writer) error { return io.ErrNoProgress },
		"cut":       func(w io.Writer) error { _, err := w.Write(make([]byte, 100)); return err },
		"no stream": func(w io.Writer) error { _, err := w.Write(bytes.Repeat([]byte("x"), 8<<10)); return err },
	} {
		err := Create(context.Background(), dir+"/o", CreateOptions{}, src)
		require.ErrorContains(t, err, "squashfs: create", name)
		left, err := os.ReadDir(dir)
		require.NoError(t, err)
		require.Empty(t, left, name)
	}
	err := Create(context.Background(), dir+"/o", CreateOptions{Exe: "/nonexistent"}, stream)
	require.ErrorIs(t, err, fs.ErrNotExist)
	ctx, cancel := context.WithCancel(context.Background())
	err = Create(ctx, dir+"/o", CreateOptions{}, func(w io.Writer) error { cancel(); return ctx.Err() })
	require.ErrorIs(t, err, context.Canceled)
}

func TestRead(t *testing.T) {
	b := image(t)
	f, err := Open(bytes.NewReader(b), int64(len(b)))
	require.NoError(t, err)
	for _, name := range []string{"a/big", "a/hard"} {
		got, err := fs.ReadFile(f, name)
		require.NoError(t, err)
		require.True(t, bytes.Equal(big(), got))
	}
	for _, name := range []string{"a/b/small", "lib/small", "a/up", "lib/../up"} {
		if !fs.ValidPath(name) {
			continue
		}
		got, err := fs.ReadFile(f, name)
		require.NoError(t, err, name)
		require.Equal(t, "small", string(got), name)
	}
	list, err := f.ReadDir("lib")
	require.NoError(t, err)
	require.Len(t, list, 1)
	fi, err := f.Stat("a")
	require.NoError(t, err)
	require.Equal(t, "drwxr-x--- a 7 70000 1000000000", strings.Join([]string{fi.Mode().String(), fi.Name(), "7", "70000", "1000000000"}, " "))
	require.Equal(t, &Info{UID: 7, GID: 70000}, fi.Sys())
	require.EqualValues(t, 1e9, fi.ModTime().Unix())
	fi, err = f.Lstat("lib")
	require.NoError(t, err)
	require.Equal(t, fs.ModeSymlink, fi.Mode().Type())
	require.Equal(t, "/a/b", fi.Sys().(*Info).Link)
	to, err := f.ReadLink("a/up")
	require.NoError(t, err)
	require.Equal(t, "../a/b/small", to)
	for name, want := range map[string]string{
		"none": "not exist", "a/none": "not exist", "a/empty/x": "not exist", "loop": "too many links",
		"null": "has no content", "/a": "invalid", "../a": "invalid",
	} {
		_, err := f.Open(name)
		require.ErrorContains(t, err, want, name)
	}
	_, err = f.ReadLink("a")
	require.ErrorIs(t, err, fs.ErrInvalid)
}

// TestModes lists all twelve bits of a mode, as mksquashfs stored them.
func TestModes(t *testing.T) {
	need(t, "mksquashfs")
	want := map[string]fs.FileMode{
		"su": 0o755 | fs.ModeSetuid, "sg": 0o750 | fs.ModeSetgid, "both": 0o711 | fs.ModeSetuid | fs.ModeSetgid, "plain": 0o640,
		"tmp": 0o777 | fs.ModeDir | fs.ModeSticky, "shared": 0o775 | fs.ModeDir | fs.ModeSetgid, "tmp/in": 0o600 | fs.ModeSetuid,
	}
	path := t.TempDir() + "/i"
	require.NoError(t, Create(context.Background(), path, CreateOptions{}, func(w io.Writer) error {
		tw := tar.NewWriter(w)
		for _, h := range []*tar.Header{
			{Name: "su", Typeflag: tar.TypeReg, Mode: 0o4755}, {Name: "sg", Typeflag: tar.TypeReg, Mode: 0o2750},
			{Name: "both", Typeflag: tar.TypeReg, Mode: 0o6711}, {Name: "plain", Typeflag: tar.TypeReg, Mode: 0o640},
			{Name: "tmp/", Typeflag: tar.TypeDir, Mode: 0o1777}, {Name: "shared/", Typeflag: tar.TypeDir, Mode: 0o2775},
			{Name: "tmp/in", Typeflag: tar.TypeReg, Mode: 0o4600},
		} {
			if err := tw.WriteHeader(h); err != nil {
				return err
			}
		}
		return tw.Close()
	}))
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	f, err := Open(bytes.NewReader(b), int64(len(b)))
	require.NoError(t, err)
	got := map[string]fs.FileMode{}
	require.NoError(t, fs.WalkDir(f, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == "." {
			return err
		}
		listed, err := d.Info()
		require.NoError(t, err)
		direct, err := f.Lstat(p)
		require.NoError(t, err)
		require.Equal(t, listed.Mode(), direct.Mode(), p)
		got[p] = listed.Mode()
		return nil
	}))
	require.Equal(t, want, got)
}

// TestFSRules has the standard library try every call that an fs.FS answers.
func TestFSRules(t *testing.T) {
	need(t, "mksquashfs")
	path := t.TempDir() + "/i"
	require.NoError(t, Create(context.Background(), path, CreateOptions{}, func(w io.Writer) error {
		tw := tar.NewWriter(w)
		for _, n := range []string{"d/", "d/x", "y"} {
			h := &tar.Header{Name: n, Mode: 0o755, Typeflag: tar.TypeDir}
			if !strings.HasSuffix(n, "/") {
				h.Typeflag, h.Size = tar.TypeReg, 1
			}
			if err := tw.WriteHeader(h); err != nil {
				return err
			}
			if h.Size > 0 {
				if _, err := tw.Write([]byte("1")); err != nil {
					return err
				}
			}
		}
		return tw.Close()
	}))
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	f, err := Open(bytes.NewReader(b), int64(len(b)))
	require.NoError(t, err)
	require.NoError(t, fstest.TestFS(f, "d", "d/x", "y"))
}

func TestCompressors(t *testing.T) {
	need(t, "mksquashfs")
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(dir+"/big", big(), 0o644))
	for _, comp := range []string{"gzip", "xz", "zstd", "lzo", "lz4"} {
		out := t.TempDir() + "/i"
		said, err := exec.Command("mksquashfs", dir, out, "-comp", comp, "-quiet", "-no-progress").CombinedOutput()
		require.NoError(t, err, string(said))
		b, err := os.ReadFile(out)
		require.NoError(t, err)
		f, err := Open(bytes.NewReader(b), int64(len(b)))
		if strings.HasPrefix(comp, "lz") {
			require.ErrorIs(t, err, errors.ErrUnsupported)
			require.ErrorContains(t, err, comp)
			continue
		}
		require.NoError(t, err, comp)
		got, err := fs.ReadFile(f, "big")
		require.NoError(t, err, comp)
		require.True(t, bytes.Equal(big(), got), comp)
	}
}

// readAll goes through all of an image, whatever comes.
func readAll(b []byte) {
	f, err := Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return
	}
	entries := 0
	_ = fs.WalkDir(f, ".", func(p string, d fs.DirEntry, err error) error {
		if entries++; entries > 100 {
			return fs.SkipAll
		}
		if err == nil && d.Type().IsRegular() {
			if file, err := f.Open(p); err == nil {
				_, _ = io.Copy(io.Discard, io.LimitReader(file, 1<<20))
				file.Close()
			}
		}
		return nil
	})
}

// TestDamage changes and cuts an image everywhere that matters: errors are fine,
// crashes and endless reading are not.
func TestDamage(t *testing.T) {
	b := image(t)
	used := bytes.TrimRight(b, "\x00")
	positions := []int{}
	for i := range 96 {
		positions = append(positions, i)
	}
	for i := max(96, len(used)-500); i < len(used); i++ { // inodes, directories, tables
		positions = append(positions, i)
	}
	for _, i := range positions {
		for _, mask := range []byte{0xff, 0x01} {
			c := bytes.Clone(b)
			c[i] ^= mask
			readAll(c)
		}
	}
	for n := 0; n < len(used); n += 1 + n/50 {
		readAll(b[:n])
	}
}

func FuzzRead(f *testing.F) {
	f.Add(image(f))
	f.Fuzz(func(t *testing.T, b []byte) { readAll(b) })
}
