package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"
)

// entry is a member of a test layer.
type entry struct {
	name, body, link string
	kind             byte // 0 is a regular file
	mode             int64
	uid, gid         int
	xattr            string
}

func layerTar(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Typeflag: e.kind, Mode: e.mode, Uid: e.uid, Gid: e.gid,
			Linkname: e.link, ModTime: time.Unix(1e9, 5e8)}
		if e.kind == 0 {
			h.Typeflag, h.Size = tar.TypeReg, int64(len(e.body))
		}
		if h.Mode == 0 {
			h.Mode = 0o755
		}
		if e.xattr != "" {
			h.PAXRecords = map[string]string{paxXattr + "user.test": e.xattr}
		}
		require.NoError(t, w.WriteHeader(h))
		if h.Size > 0 {
			_, err := w.Write([]byte(e.body))
			require.NoError(t, err)
		}
	}
	require.NoError(t, w.Close())
	return b.Bytes()
}

func gz(t *testing.T, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, err := w.Write(b)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return out.Bytes()
}

func zst(t *testing.T, b []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	require.NoError(t, err)
	return w.EncodeAll(b, nil)
}

// layout writes an OCI layout of one image for each architecture.
func layout(t *testing.T, dir string, arches []string, layers ...[]byte) {
	t.Helper()
	put := func(b []byte) map[string]any {
		sum := sha256.Sum256(b)
		name := hex.EncodeToString(sum[:])
		require.NoError(t, os.MkdirAll(dir+"/blobs/sha256", 0o755))
		require.NoError(t, os.WriteFile(dir+"/blobs/sha256/"+name, b, 0o644))
		return map[string]any{"digest": "sha256:" + name, "size": len(b)}
	}
	doc := func(v any) []byte {
		b, err := json.Marshal(v)
		require.NoError(t, err)
		return b
	}
	var inner []any
	for _, arch := range arches {
		var ls []any
		for _, l := range layers {
			ls = append(ls, put(l))
		}
		config := put(doc(map[string]any{"architecture": arch, "config": map[string]any{
			"Env": []string{"PATH=/bin", "A=1"}, "Entrypoint": []string{"/bin/app"}, "Cmd": []string{"-x"},
			"WorkingDir": "/srv", "User": "1000:100"}}))
		m := put(doc(map[string]any{"schemaVersion": 2, "config": config, "layers": ls}))
		m["platform"] = map[string]any{"architecture": arch, "os": "linux"}
		inner = append(inner, m)
	}
	ix := put(doc(map[string]any{"schemaVersion": 2, "manifests": inner}))
	ix["annotations"] = map[string]any{refName: "latest"}
	require.NoError(t, os.WriteFile(dir+"/index.json", doc(map[string]any{"manifests": []any{ix}}), 0o644))
	require.NoError(t, os.WriteFile(dir+"/oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644))
}

var (
	lowerLayer = []entry{
		{name: "usr/", kind: tar.TypeDir}, {name: "usr/lib/", kind: tar.TypeDir},
		{name: "lib", kind: tar.TypeSymlink, link: "usr/lib"},
		{name: "usr/lib/old", body: "old"}, {name: "usr/lib/kept", body: "kept"},
		{name: "etc/gone/", kind: tar.TypeDir}, {name: "etc/gone/a", body: "a"},
		{name: "etc/cleared/", kind: tar.TypeDir}, {name: "etc/cleared/a", body: "a"},
		{name: "bin/app", body: "v1", mode: 0o4755, uid: 7, gid: 8, xattr: "yes"},
		{name: "bin/same", kind: tar.TypeLink, link: "bin/app"},
		{name: "was-dir/", kind: tar.TypeDir}, {name: "was-dir/x", body: "x"},
	}
	upperLayer = []entry{
		{name: "lib/.wh.old"}, // through the link
		{name: "lib/new", body: "new"},
		{name: "etc/.wh.gone"}, // before and after: only lower layers count
		{name: "etc/gone/b", body: "b"},
		{name: "etc/cleared/b", body: "b"}, {name: "etc/cleared/.wh..wh..opq"},
		{name: "bin/app", body: "v2!"},
		{name: "was-dir", body: "file now"},
		{name: "dev/null", kind: tar.TypeChar, mode: 0o666},
		{name: "../escape", body: "inside after all"},
	}
	wantMerged = []string{
		"drwxr-xr-x 0/0 /bin", "-rwxr-xr-x 0/0 /bin/app", "-rwsr-xr-x 7/8 /bin/same",
		"drwxr-xr-x 0/0 /dev", "crw-rw-rw- 0/0 /dev/null", "-rwxr-xr-x 0/0 /escape", "drwxr-xr-x 0/0 /etc",
		"drwxr-xr-x 0/0 /etc/cleared", "-rwxr-xr-x 0/0 /etc/cleared/b", "drwxr-xr-x 0/0 /etc/gone",
		"-rwxr-xr-x 0/0 /etc/gone/b", "-rw-r--r-- 0/0 /etc/hostname", "-rw-r--r-- 0/0 /etc/hosts",
		"-rw-r--r-- 0/0 /etc/resolv.conf", "lrwxrwxrwx 0/0 /lib -> usr/lib", "drwxr-xr-x 0/0 /proc", "drwxr-xr-x 0/0 /sys",
		"drwxrwxrwt 0/0 /tmp", "drwxr-xr-x 0/0 /usr", "drwxr-xr-x 0/0 /usr/lib", "-rwxr-xr-x 0/0 /usr/lib/kept",
		"-rwxr-xr-x 0/0 /usr/lib/new", "-rwxr-xr-x 0/0 /was-dir",
	}
)

// short lines of list: mode, owner, path.
func lines(t *testing.T, path string) []string {
	t.Helper()
	var got []string
	for l := range strings.Lines(list(t, path)) {
		f := strings.Fields(l)
		if len(f) < 6 || len(f[0]) != 10 {
			continue
		}
		at := 5
		if strings.HasSuffix(f[2], ",") { // a device has two numbers
			at = 6
		}
		got = append(got, f[0]+" "+f[1]+" "+strings.Join(f[at:], " "))
	}
	return got
}

func TestBuildOCI(t *testing.T) {
	needTool(t, "mksquashfs")
	dir := t.TempDir()
	layout(t, dir+"/layout", []string{"arm64", "amd64"}, gz(t, layerTar(t, lowerLayer...)), zst(t, layerTar(t, upperLayer...)))
	require.NoError(t, os.WriteFile(dir+"/oci.tar", tarDir(t, dir+"/layout"), 0o644))
	require.NoError(t, os.WriteFile(dir+"/oci.tar.gz", gz(t, tarDir(t, dir+"/layout")), 0o644))
	save := t.TempDir()
	require.NoError(t, os.WriteFile(save+"/l1.tar", layerTar(t, lowerLayer...), 0o644))
	require.NoError(t, os.WriteFile(save+"/l2.tar", layerTar(t, upperLayer...), 0o644))
	require.NoError(t, os.WriteFile(save+"/c.json", []byte(`{"architecture":"amd64","config":{"Env":["PATH=/bin","A=1"],"Entrypoint":["/bin/app"],"Cmd":["-x"],"WorkingDir":"/srv","User":"1000:100"}}`), 0o644))
	require.NoError(t, os.WriteFile(save+"/manifest.json", []byte(`[{"Config":"c.json","RepoTags":["x:1"],"Layers":["l1.tar","l2.tar"]}]`), 0o644))
	require.NoError(t, os.WriteFile(dir+"/save.tar", tarDir(t, save), 0o644))

	var first []byte
	for _, name := range []string{"layout", "oci.tar", "oci.tar.gz", "save.tar"} {
		img, err := Build(context.Background(), Source{OCI: name, Cmd: &[]string{}, Env: []string{"A=2", "B=3"}},
			Options{Arch: "x86_64", Dir: dir, CacheDir: t.TempDir()})
		require.NoError(t, err, name)
		require.ElementsMatch(t, wantMerged, lines(t, img.SquashFS), name)
		require.Equal(t, `{"workdir":"/srv","user":"1000:100","entrypoint":["/bin/app"],"cmd":[]}`, string(img.Config.JSON()))
		env, err := img.Config.EnvFile()
		require.NoError(t, err)
		require.Equal(t, "PATH=/bin\nA=2\nB=3", string(env))
		b, err := os.ReadFile(img.SquashFS)
		require.NoError(t, err)
		if first == nil {
			first = b
		}
		require.True(t, bytes.Equal(first, b), "%s gives the same bytes", name)
	}
}

// tarDir is a folder as a tar archive with "./" names.
func tarDir(t *testing.T, dir string) []byte {
	t.Helper()
	var es []entry
	require.NoError(t, filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		require.NoError(t, err)
		rel, err := filepath.Rel(dir, p)
		require.NoError(t, err)
		if d.IsDir() {
			return nil
		}
		b, err := os.ReadFile(p)
		require.NoError(t, err)
		es = append(es, entry{name: "./" + rel, body: string(b)})
		return nil
	}))
	return layerTar(t, es...)
}

func TestOCIRefused(t *testing.T) {
	good := gz(t, layerTar(t, entry{name: "f", body: "x"}))
	other := gz(t, layerTar(t, entry{name: "f", body: "y"}))
	for name, c := range map[string]struct {
		spoil func(dir string)
		src   Source
		want  string
	}{
		"wrong architecture": {src: Source{}, want: "no image for x86_64; it holds latest arm64"},
		"unknown ref":        {src: Source{Ref: "v9"}, want: "called v9"},
		"no index":           {spoil: func(d string) { os.Remove(d + "/index.json") }, want: "neither index.json nor manifest.json"},
		"changed blob": {spoil: func(d string) {
			names, _ := filepath.Glob(d + "/blobs/sha256/*")
			for _, n := range names {
				b, _ := os.ReadFile(n)
				if bytes.Equal(b, good) {
					os.WriteFile(n, other, 0o644)
				}
			}
		}, want: "content has digest"},
		"changed manifest": {spoil: func(d string) {
			names, _ := filepath.Glob(d + "/blobs/sha256/*")
			for _, n := range names {
				b, _ := os.ReadFile(n)
				if bytes.Contains(b, []byte(`"manifests"`)) {
					os.WriteFile(n, append(b, ' '), 0o644)
				}
			}
		}, want: "does not have the digest"},
		"hard link to nothing": {spoil: func(d string) {
			layout(t, d, []string{"amd64"}, layerTar(t, entry{name: "l", kind: tar.TypeLink, link: "nowhere"}))
		}, want: "which is no file"},
		"links in a circle": {spoil: func(d string) {
			layout(t, d, []string{"amd64"}, layerTar(t, entry{name: "a", kind: tar.TypeSymlink, link: "b"},
				entry{name: "b", kind: tar.TypeSymlink, link: "a"}, entry{name: "a/f", body: "x"}))
		}, want: "too many links"},
		"cut layer": {spoil: func(d string) {
			layout(t, d, []string{"amd64"}, gz(t, layerTar(t, entry{name: "f", body: strings.Repeat("x", 9000)})[:3000]))
		}, want: "unexpected EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			arches := []string{"amd64"}
			if name == "wrong architecture" {
				arches = []string{"arm64"}
			}
			layout(t, dir, arches, good)
			if c.spoil != nil {
				c.spoil(dir)
			}
			c.src.OCI = dir
			cache := t.TempDir()
			_, err := Build(context.Background(), c.src, Options{Arch: "x86_64", CacheDir: cache})
			require.ErrorContains(t, err, c.want)
			left, err := os.ReadDir(cache)
			require.NoError(t, err)
			require.Empty(t, left, "nothing half-made stays")
		})
	}
}
