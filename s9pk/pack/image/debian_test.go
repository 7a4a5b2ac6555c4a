package image

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
)

// need skips what the machine cannot do, and fails instead where CI is set.
func need(t *testing.T, what string, there bool) {
	t.Helper()
	if there {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s is missing", what)
	}
	t.Skipf("%s is missing", what)
}

func needTool(t *testing.T, name string) {
	t.Helper()
	_, err := exec.LookPath(name)
	need(t, name, err == nil)
}

// list is what unsquashfs says of an image: mode owner size name lines.
func list(t *testing.T, path string) string {
	t.Helper()
	out, err := exec.Command("unsquashfs", "-lln", "-d", "", path).CombinedOutput()
	require.NoError(t, err, string(out))
	return string(out)
}

func TestBuildDebian(t *testing.T) {
	needTool(t, "mmdebstrap")
	needTool(t, "unsquashfs")
	files := t.TempDir()
	require.NoError(t, os.MkdirAll(files+"/lib/app", 0o755))
	require.NoError(t, os.WriteFile(files+"/lib/app/run", []byte("#!/bin/sh\n"), 0o755))
	src := Source{Debian: &Debian{Packages: []string{"busybox-static"}, Variant: "extract"}, Files: files}
	o := Options{Arch: "x86_64", CacheDir: t.TempDir()}
	img, err := Build(context.Background(), src, o)
	require.NoError(t, err)
	require.False(t, img.Cached)
	got := list(t, img.SquashFS)
	for _, want := range []string{" /lib/app/run\n", "/busybox\n", " /etc/hosts\n", " /proc\n"} {
		require.Contains(t, got, want)
	}
	fi, err := os.Stat(img.SquashFS)
	require.NoError(t, err)
	require.Zero(t, fi.Size()%4096)

	again, err := Build(context.Background(), src, o)
	require.NoError(t, err)
	require.True(t, again.Cached)
	require.Equal(t, img.SquashFS, again.SquashFS)

	one, err := os.ReadFile(img.SquashFS)
	require.NoError(t, err)
	o.CacheDir = t.TempDir()
	other, err := Build(context.Background(), src, o)
	require.NoError(t, err)
	require.False(t, other.Cached)
	two, err := os.ReadFile(other.SquashFS)
	require.NoError(t, err)
	require.True(t, bytes.Equal(one, two), "the same packages give the same bytes")
}
