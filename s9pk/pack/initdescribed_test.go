package pack

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/selfstead/selfstead/s9pk/pack/image"
)

// ociLayout writes an image layout of one small layer.
func ociLayout(t *testing.T, dir string, config object) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "blobs/sha256"), 0o755))
	put := func(b []byte) object {
		sum := sha256.Sum256(b)
		name := hex.EncodeToString(sum[:])
		require.NoError(t, os.WriteFile(filepath.Join(dir, "blobs/sha256", name), b, 0o644))
		return object{"digest": "sha256:" + name, "size": len(b)}
	}
	doc := func(v any) []byte {
		b, err := json.Marshal(v)
		require.NoError(t, err)
		return b
	}
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	require.NoError(t, w.WriteHeader(&tar.Header{Name: "app", Mode: 0o755, Size: 3}))
	_, err := w.Write([]byte("app"))
	require.NoError(t, err)
	require.NoError(t, w.Close())
	m := put(doc(object{"config": put(doc(object{"architecture": "amd64", "config": config})), "layers": []any{put(layer.Bytes())}}))
	m["platform"] = object{"architecture": "amd64", "os": "linux"}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "index.json"), doc(object{"manifests": []any{m}}), 0o644))
}

// From an OCI layout to a package, without a line by hand.
func TestInitFromOCI(t *testing.T) {
	need(t, "node", "mksquashfs")
	dir := t.TempDir()
	ociLayout(t, filepath.Join(dir, "layout"), object{"Entrypoint": []string{"/app"}, "Cmd": []string{"serve"}, "Env": []string{"A=b"}, "User": "7",
		"WorkingDir": "/srv", "ExposedPorts": object{"3000/tcp": object{}}, "Volumes": object{"/data": object{}},
		"Labels": object{"org.opencontainers.image.version": "2.5", "org.opencontainers.image.title": "The App"}})
	to := filepath.Join(dir, "my-app")
	files, err := InitDescribed(context.Background(), to, DescribeOptions{OCI: filepath.Join(dir, "layout")})
	require.NoError(t, err)
	require.ElementsMatch(t, []string{"service.yaml", "README.md", "LICENSE", "instructions.md", "icon.svg", ".gitignore"}, files)
	a := packed(t, Options{Dir: to})
	m, err := a.Manifest(context.Background())
	require.NoError(t, err)
	require.Equal(t, "my-app", m.ID)
	require.Equal(t, "The App", m.Title)
	require.Equal(t, "2.5:0", m.Version.String())
	require.Equal(t, []string{"x86_64"}, m.Images["main"].Arch)
	require.JSONEq(t, `{"workdir":"/srv","user":"7","entrypoint":["/app"],"cmd":["serve"]}`, content(t, a, "images/x86_64/main.json"))
	require.NoDirExists(t, filepath.Join(to, "javascript"), "the project is not written to")

	_, err = InitDescribed(context.Background(), to, DescribeOptions{})
	require.ErrorIs(t, err, os.ErrExist)
	_, err = InitDescribed(context.Background(), filepath.Join(dir, "b"), DescribeOptions{OCI: filepath.Join(dir, "none.tar")})
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = InitDescribed(context.Background(), filepath.Join(dir, "b"), DescribeOptions{Debian: []string{"nginx-light"}})
	require.ErrorContains(t, err, "command")
	require.NoDirExists(t, filepath.Join(dir, "b"))
}

// The page of a new project, and what it is made of.
func TestInitDescribed(t *testing.T) {
	need(t, "node", "mksquashfs")
	to := filepath.Join(t.TempDir(), "page")
	files, err := InitDescribed(context.Background(), to, DescribeOptions{Title: `A <b> & "c"`})
	require.NoError(t, err)
	require.Contains(t, files, "files/srv/index.html")
	a := packed(t, Options{Dir: to, Arch: []string{"x86_64"}, Images: map[string]image.Source{"main": {Rootfs: "files"}}})
	m, err := a.Manifest(context.Background())
	require.NoError(t, err)
	require.Equal(t, `A <b> & "c"`, m.Title)
}

// What is wrong in a description is said with its place, and a project is of one
// kind.
func TestDescribedFaults(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, DescriptionName, "id: x\ntitle: [1]\n")
	_, err := Pack(context.Background(), Options{Dir: dir, Key: testKey})
	require.ErrorIs(t, err, ErrProject)
	require.ErrorContains(t, err, filepath.Join(dir, "service.yaml")+":2:1: title: is a list, must be a text")
	write(t, dir, "javascript/index.js", "")
	_, err = Pack(context.Background(), Options{Dir: dir, Key: testKey})
	require.ErrorContains(t, err, "remove one")
}
