package vm

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseTarget(t *testing.T) {
	require.Equal(t, Target{Package: "./nat"}, ParseTarget("./nat"))
	require.Equal(t, Target{Package: "./nat", Run: "^Test=1$"}, ParseTarget("./nat=^Test=1$"))
	require.Equal(t, Target{Package: "./nat", Run: "A", Skip: "B"}, ParseTarget("./nat=A!B"))
	require.Equal(t, Target{Package: "./nat", Skip: "B"}, ParseTarget("./nat=!B"))
}

func TestCount(t *testing.T) {
	passed, skipped := count([]byte("=== RUN   TestA\n--- PASS: TestA (0.00s)\n    --- PASS: TestA/b (0.00s)\n    --- SKIP: TestA/c (0.01s)\n        x_test.go:1: missing: a thing\nok --- PASS: no\nPASS\n"))
	require.Equal(t, 2, passed)
	require.Equal(t, []string{"TestA/c"}, skipped)
}

func TestModuleOrder(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "modules.dep"), []byte("kernel/a-b.ko: kernel/c.ko kernel/d.ko\nkernel/c.ko: kernel/d.ko\nkernel/d.ko:\nkernel/e.ko: kernel/d.ko\n"), 0o600))
	got, err := order(dir, []string{"a_b", "builtin", "e"})
	require.NoError(t, err)
	require.Equal(t, []string{"kernel/d.ko", "kernel/c.ko", "kernel/a-b.ko", "kernel/e.ko"}, got)
}

// TestArchive has cpio itself read what the kernel is given.
func TestArchive(t *testing.T) {
	if _, err := exec.LookPath("busybox"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("this test needs the program busybox")
		}
		t.Skip("this test needs the program busybox")
	}
	var b bytes.Buffer
	c := newCPIO(&b)
	c.dir("/empty/folder")
	c.file("/some/where/file", 0o751, []byte("content"))
	c.file("/some/odd", 0o600, []byte("12345"))
	require.NoError(t, c.close())
	dir := t.TempDir()
	cmd := exec.Command("busybox", "cpio", "-idm")
	cmd.Dir, cmd.Stdin = dir, &b
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	for name, want := range map[string]string{"some/where/file": "content", "some/odd": "12345"} {
		got, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		require.Equal(t, want, string(got))
	}
	st, err := os.Stat(filepath.Join(dir, "some/where/file"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o751), st.Mode())
	require.DirExists(t, filepath.Join(dir, "empty/folder"))
}

// TestMissing: what a machine needs and is not there is named.
func TestMissing(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	temp := t.TempDir()
	_, err := Start(t.Context(), Options{Image: &Image{}, Temp: temp})
	require.ErrorIs(t, err, ErrNotSupported)
	require.ErrorContains(t, err, "qemu-system-x86")
	_, err = BuildImage(t.Context(), ImageOptions{Cache: temp})
	require.ErrorIs(t, err, ErrNotSupported)
	require.ErrorContains(t, err, "unsquashfs")
	left, err := os.ReadDir(temp)
	require.NoError(t, err)
	require.Empty(t, left)
}
