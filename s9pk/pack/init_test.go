package pack

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/selfstead/selfstead/s9pk/pack/image"
)

func TestInit(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "my-app")
	title := `Tom's "app" <1>`
	files, err := Init(dir, InitOptions{Title: title})
	require.NoError(t, err)
	require.Contains(t, files, ".gitignore")
	_, err = Init(dir, InitOptions{})
	require.ErrorIs(t, err, os.ErrExist)
	_, err = Init(t.TempDir(), InitOptions{ID: "My App"})
	require.ErrorContains(t, err, "no package id")

	text, err := os.ReadFile(filepath.Join(dir, "package.json"))
	require.NoError(t, err)
	require.True(t, json.Valid(text))
	_, err = image.ReadSource(filepath.Join(dir, "images/main.json"))
	require.NoError(t, err)

	// The example's modules, where they are installed, build this one too.
	modules, err := filepath.Abs("../../examples/services/hello-world/node_modules")
	require.NoError(t, err)
	if _, err := os.Stat(modules); err != nil {
		return
	}
	need(t, "npm", "node", "mksquashfs")
	require.NoError(t, os.Symlink(modules, filepath.Join(dir, "node_modules")))
	cmd := exec.Command("npm", "run", "-s", "build")
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	a := packed(t, Options{Dir: dir, Arch: []string{"x86_64"}, Images: map[string]image.Source{"main": {Rootfs: "files"}}})
	m, err := a.Manifest(context.Background())
	require.NoError(t, err)
	require.Equal(t, title, m.Title)
	require.Equal(t, "my-app", m.ID)
}
