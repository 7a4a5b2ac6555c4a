package service

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// writeTree makes a tree with one of everything.
func writeTree(t *testing.T, dir string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(dir+"/sub/deep", 0o750))
	require.NoError(t, os.WriteFile(dir+"/file", []byte(strings.Repeat("content ", 1<<16)), 0o640))
	require.NoError(t, os.Link(dir+"/file", dir+"/sub/second name"))
	require.NoError(t, os.WriteFile(dir+"/empty", nil, 0o600))
	require.NoError(t, os.Symlink("../file", dir+"/sub/link"))
	require.NoError(t, unix.Mkfifo(dir+"/pipe", 0o622))
	f, err := os.Create(dir + "/holes")
	require.NoError(t, err)
	_, err = f.WriteAt([]byte("end"), 64<<20)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	require.NoError(t, os.WriteFile(dir+"/.version", []byte("1.0.0:0"), 0o644))
	if os.Geteuid() == 0 {
		require.NoError(t, os.Chown(dir+"/file", 1000, 1001))
		require.NoError(t, os.Lchown(dir+"/sub/link", 7, 8))
		require.NoError(t, os.Chown(dir+"/sub/deep", 33, 33))
	}
	require.NoError(t, unix.Chmod(dir+"/sub/deep", 0o2771))
	require.NoError(t, unix.Lsetxattr(dir+"/file", "user.note", []byte("kept"), 0))
}

// sameTree compares all that a copy must have.
func sameTree(t *testing.T, a, b string) {
	t.Helper()
	names := func(dir string) (list []string) {
		require.NoError(t, filepath.WalkDir(dir, func(p string, _ os.DirEntry, err error) error {
			name, _ := filepath.Rel(dir, p)
			list = append(list, name)
			return err
		}))
		return list
	}
	list := names(a)
	require.Equal(t, list, names(b))
	for _, name := range list {
		var x, y syscall.Stat_t
		require.NoError(t, syscall.Lstat(filepath.Join(a, name), &x))
		require.NoError(t, syscall.Lstat(filepath.Join(b, name), &y))
		require.Equal(t, [3]uint32{x.Mode, x.Uid, x.Gid}, [3]uint32{y.Mode, y.Uid, y.Gid}, name)
		require.Equal(t, x.Mtim, y.Mtim, name)
		if x.Mode&unix.S_IFMT != unix.S_IFDIR {
			require.Equal(t, x.Nlink, y.Nlink, name)
		}
		switch x.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			one, err := os.ReadFile(filepath.Join(a, name))
			require.NoError(t, err)
			two, err := os.ReadFile(filepath.Join(b, name))
			require.NoError(t, err)
			require.True(t, string(one) == string(two), name)
			require.LessOrEqual(t, y.Blocks, x.Blocks+16, "%s: holes stay holes", name)
		case unix.S_IFLNK:
			one, _ := os.Readlink(filepath.Join(a, name))
			two, _ := os.Readlink(filepath.Join(b, name))
			require.Equal(t, one, two)
		}
	}
	value := make([]byte, 16)
	n, err := unix.Lgetxattr(b+"/file", "user.note", value)
	require.NoError(t, err)
	require.Equal(t, "kept", string(value[:n]))
}

func TestSnapshot(t *testing.T) {
	t.Parallel()
	snapshotLife(t, t.TempDir())
}

// Where files can share their blocks a snapshot takes no room.
func TestSnapshotShares(t *testing.T) {
	t.Parallel()
	mkfs, err := exec.LookPath("mkfs.btrfs")
	if err != nil || os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("missing: mkfs.btrfs or root")
		}
		t.Skip("missing: mkfs.btrfs or root")
	}
	dir := t.TempDir()
	disk := filepath.Join(dir, "disk")
	require.NoError(t, os.WriteFile(disk, nil, 0o600))
	require.NoError(t, os.Truncate(disk, 256<<20))
	out, err := exec.Command(mkfs, "-q", disk).CombinedOutput()
	require.NoError(t, err, "%s", out)
	at := filepath.Join(dir, "mnt")
	require.NoError(t, os.Mkdir(at, 0o755))
	out, err = exec.Command("mount", "-o", "loop", disk, at).CombinedOutput()
	require.NoError(t, err, "%s", out)
	defer func() {
		out, err := exec.Command("umount", at).CombinedOutput()
		require.NoError(t, err, "%s", out)
	}()
	l := layout(at)
	require.NoError(t, l.make())
	big := l.data("alpha") + "/main/big"
	require.NoError(t, os.MkdirAll(filepath.Dir(big), 0o755))
	require.NoError(t, os.WriteFile(big, []byte(strings.Repeat("x", 60<<20)), 0o644))
	require.True(t, sharesBlocks(l.volumes()))
	need, err := l.snapshotNeeds("alpha")
	require.NoError(t, err)
	require.Zero(t, need)
	free := func() int64 {
		require.NoError(t, syncFS(at))
		var fs unix.Statfs_t
		require.NoError(t, unix.Statfs(at, &fs))
		return int64(fs.Bavail) * fs.Bsize
	}
	before := free()
	require.NoError(t, l.snapshot(t.Context(), "alpha", nil))
	require.Less(t, before-free(), int64(8<<20))
	require.NoError(t, os.WriteFile(big, []byte("spoilt"), 0o644))
	require.NoError(t, l.restore("alpha"))
	info, err := os.Stat(big)
	require.NoError(t, err)
	require.EqualValues(t, 60<<20, info.Size())
	require.NoError(t, os.RemoveAll(l.volumes()+"/alpha"))
	snapshotLife(t, at)
}

func snapshotLife(t *testing.T, dir string) {
	t.Helper()
	l := layout(dir)
	require.NoError(t, l.make())
	original := t.TempDir() + "/original"
	writeTree(t, l.data("alpha"))
	require.NoError(t, (&copier{ctx: t.Context(), links: map[inode]string{}}).tree(l.data("alpha"), original))
	sameTree(t, l.data("alpha"), original)

	var told int64
	require.NoError(t, l.snapshot(t.Context(), "alpha", func(n int64) { told = n }))
	require.Positive(t, told)
	sameTree(t, original, l.beside("alpha", "before"))

	// It is put back whole, wherever the putting back is cut off.
	for _, cut := range []func(){
		func() {},
		func() { os.Rename(l.data("alpha"), l.beside("alpha", "failed")) },
		func() { os.Mkdir(l.beside("alpha", "failed"), 0o700) },
	} {
		require.NoError(t, l.snapshot(t.Context(), "alpha", nil))
		require.NoError(t, os.WriteFile(l.data("alpha")+"/file", []byte("spoilt"), 0o600))
		require.NoError(t, os.RemoveAll(l.data("alpha")+"/sub"))
		cut()
		for range 2 {
			require.NoError(t, l.restore("alpha"))
			sameTree(t, original, l.data("alpha"))
		}
		entries, err := os.ReadDir(l.beside("alpha", ""))
		require.NoError(t, err)
		require.Len(t, entries, 1)
	}

	// Half of one does not count, and a cancelled one leaves none.
	require.NoError(t, os.Mkdir(l.beside("alpha", "before.part"), 0o700))
	require.False(t, l.hasSnapshot("alpha"))
	require.NoError(t, l.restore("alpha"))
	sameTree(t, original, l.data("alpha"))
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("given up")
	cancel(why)
	require.ErrorIs(t, l.snapshot(ctx, "alpha", nil), why)
	require.NoDirExists(t, l.beside("alpha", "before.part"))
	require.False(t, l.hasSnapshot("alpha"))

	use, err := diskUse(l.data("alpha"))
	require.NoError(t, err)
	require.Greater(t, use, int64(512<<10))
	require.Less(t, use, int64(2<<20), "hard links count once and holes not at all")
}
