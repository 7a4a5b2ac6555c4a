package embedded

import (
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestGivenImageIsUsedAsItIs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	given := filepath.Join(dir, "mine.squashfs")
	b := NewBase(BaseOptions{Dir: filepath.Join(dir, "base"), Given: given})
	_, err := b.Image(t.Context())
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.NoError(t, os.WriteFile(given, []byte("image"), 0o644))
	path, err := b.Image(t.Context())
	require.NoError(t, err, "an error is not kept")
	require.Equal(t, given, path)
	require.NoDirExists(t, filepath.Join(dir, "base"))
}

func TestAdoptTakesFinishedImages(t *testing.T) {
	t.Parallel()
	cache, dir := t.TempDir(), t.TempDir()
	write := func(name, content string) {
		require.NoError(t, os.WriteFile(filepath.Join(cache, name), []byte(content), 0o644))
	}
	sum := sha256.Sum256([]byte("image"))
	write("debian-a.squashfs", "image")
	write("debian-a.squashfs.sha256", hex.EncodeToString(sum[:]))
	write("debian-b.squashfs", "unfinished: it has no hash yet")
	require.NoError(t, adopt(cache, dir))
	require.NoError(t, adopt(cache, dir), "again")
	got, err := os.ReadFile(filepath.Join(dir, "debian-a.squashfs"))
	require.NoError(t, err)
	require.Equal(t, "image", string(got))
	require.FileExists(t, filepath.Join(dir, "debian-a.squashfs.sha256"))
	require.NoFileExists(t, filepath.Join(dir, "debian-b.squashfs"))
	require.NoError(t, copyFile(filepath.Join(cache, "debian-a.squashfs"), filepath.Join(dir, "copy")))
	list, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, list, 3)
}
