//go:build linux

package lxcrt_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/selfstead/selfstead/lxcrt"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// The source of a writable bind lies where no user of the host can run what a
// container leaves in it; the source's own mode is the container's to change.
func TestGuardedSources(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("missing: root")
		}
		t.Skip("missing: root")
	}
	base, err := os.MkdirTemp("", "guarded") // 0700
	require.NoError(t, err)
	defer os.RemoveAll(base)
	var st unix.Statfs_t
	require.NoError(t, unix.Statfs(base, &st))
	if st.Flags&unix.ST_NOSUID != 0 {
		require.NoError(t, lxcrt.Guarded(base), "nothing there runs as its owner")
		return
	}
	below := filepath.Join(base, "a", "b")
	require.NoError(t, os.MkdirAll(below, 0o755))
	file := filepath.Join(below, "file")
	require.NoError(t, os.WriteFile(file, nil, 0o644))
	for _, source := range []string{below, file, filepath.Join(base, "a")} {
		require.NoError(t, lxcrt.Guarded(source), source)
	}
	require.ErrorIs(t, lxcrt.Guarded(base), lxcrt.ErrInvalid, "container root may open it to everyone")
	require.NoError(t, os.Chmod(base, 0o711))
	for _, source := range []string{base, below, file} {
		require.ErrorIs(t, lxcrt.Guarded(source), lxcrt.ErrInvalid, source)
	}
	require.NoError(t, os.Symlink(below, filepath.Join(base, "link")))
	require.ErrorIs(t, lxcrt.Guarded(filepath.Join(base, "link")), lxcrt.ErrInvalid)
	require.ErrorIs(t, lxcrt.Guarded(filepath.Join(base, "none")), os.ErrNotExist)
}
