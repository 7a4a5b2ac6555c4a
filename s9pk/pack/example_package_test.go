package pack

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/selfstead/selfstead/s9pk"
	"github.com/selfstead/selfstead/s9pk/squashfs"
	"github.com/selfstead/selfstead/s9pk/validate"
)

// TestExamplePackage takes the example service, packed by the command line from
// Debian's packages, through verification, filtering and extraction, and looks
// into its image in place.
func TestExamplePackage(t *testing.T) {
	path := os.Getenv("STEAD_EXAMPLE")
	if path == "" {
		if os.Getenv("CI") == "true" {
			t.Fatal("STEAD_EXAMPLE does not name the packed example service")
		}
		t.Skip("STEAD_EXAMPLE does not name the packed example service")
	}
	ctx := context.Background()
	a, err := s9pk.OpenFile(path, s9pk.Options{Package: true})
	require.NoError(t, err)
	defer a.Close()
	require.NoError(t, a.Verify(ctx, nil))
	require.NoError(t, validate.Err(validate.Package(a, "")))
	m, err := a.Manifest(ctx)
	require.NoError(t, err)
	arch := m.Images["web"].Arch[0]

	root, err := a.ForArch(ctx, arch)
	require.NoError(t, err)
	small := filepath.Join(t.TempDir(), "small.s9pk")
	h := a.Header()
	require.NoError(t, s9pk.WriteFile(ctx, small, root, nil, s9pk.WriteOptions{Header: &h}))
	b, err := s9pk.OpenFile(small, s9pk.Options{Commitment: &h.Commitment})
	require.NoError(t, err)
	defer b.Close()
	require.NoError(t, b.Verify(ctx, nil))
	out := filepath.Join(t.TempDir(), "out")
	require.NoError(t, b.Extract(ctx, out, s9pk.ExtractOptions{}))

	img, err := a.Image(m, "web", arch)
	require.NoError(t, err)
	require.NotEmpty(t, img.Env)
	r, err := img.Rootfs.Open(ctx)
	require.NoError(t, err)
	rootfs, err := squashfs.Open(r, img.Rootfs.Size)
	require.NoError(t, err)
	text, err := fs.ReadFile(rootfs, "etc/os-release")
	require.NoError(t, err)
	require.Contains(t, string(text), "Debian")
	for _, name := range []string{"etc/hostname", "etc/resolv.conf"} { // nothing of the machine that built it
		fi, err := rootfs.Stat(name)
		require.NoError(t, err)
		require.Zero(t, fi.Size(), name)
	}
	_, err = fs.Stat(rootfs, "etc/apt/sources.list")
	require.ErrorIs(t, err, fs.ErrNotExist)

	extracted, err := os.Open(filepath.Join(out, "images", arch, "web.squashfs"))
	require.NoError(t, err)
	defer extracted.Close()
	same, err := squashfs.Open(extracted, img.Rootfs.Size)
	require.NoError(t, err)
	list, err := same.ReadDir("usr/bin")
	require.NoError(t, err)
	require.NotEmpty(t, list)
}
