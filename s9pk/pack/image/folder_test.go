package image

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestFolderSameBytes(t *testing.T) {
	needTool(t, "mksquashfs")
	var first []byte
	for i, mode := range []os.FileMode{0o600, 0o664} {
		dir := t.TempDir()
		require.NoError(t, os.Mkdir(dir+"/sub", 0o700|mode))
		require.NoError(t, os.WriteFile(dir+"/sub/index.js", []byte("x"), mode))
		require.NoError(t, os.Chtimes(dir+"/sub/index.js", time.Unix(int64(i), 0), time.Unix(int64(i), 0)))
		out := t.TempDir() + "/o.squashfs"
		require.NoError(t, Folder(context.Background(), dir, out, time.Unix(1e9, 0), 0))
		b, err := os.ReadFile(out)
		require.NoError(t, err)
		if first == nil {
			first = b
		}
		require.Equal(t, first, b)
		require.Equal(t, []string{"drwxr-xr-x 0/0 /sub", "-rw-r--r-- 0/0 /sub/index.js"}, lines(t, out))
	}
	require.Error(t, Folder(context.Background(), t.TempDir()+"/none", t.TempDir()+"/o", time.Time{}, 0))
}
