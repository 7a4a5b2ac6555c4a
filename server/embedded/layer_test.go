package embedded

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestLayerIsWrittenOnceAndWhole(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "guest")
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "old", "usr"), 0o755))
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "held"), 0o755))
	require.NoError(t, os.MkdirAll(filepath.Join(dir, ".part-1"), 0o755))
	layer, err := Layer(dir, func(n string) bool { return n == "held" })
	require.NoError(t, err, "make build puts the in-container program in")
	info, err := os.Stat(filepath.Join(layer, "usr/bin/start-container"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o755), info.Mode())
	script, err := os.ReadFile(filepath.Join(layer, "usr/lib/startos/init/index.js"))
	require.NoError(t, err)
	require.NotEmpty(t, script)
	link, err := os.Readlink(filepath.Join(layer, "usr/bin/start-cli"))
	require.NoError(t, err)
	require.Equal(t, "start-container", link)

	again, err := Layer(dir, nil)
	require.NoError(t, err)
	require.Equal(t, layer, again)
	list, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, list, 1, "layers that nothing holds are removed")
	same, err := os.Stat(filepath.Join(layer, "usr/bin/start-container"))
	require.NoError(t, err)
	require.Equal(t, info.ModTime(), same.ModTime(), "not written again")
}
