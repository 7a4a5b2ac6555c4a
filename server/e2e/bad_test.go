package e2e

import (
	"bytes"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/selfstead/selfstead/s9pk/s9pktest"
)

// TestBadPackages sends what must be refused: each answer says which fault it
// is and where, and nothing is left on disk.
func TestBadPackages(t *testing.T) {
	l := newLab(t)
	base := t.TempDir()
	dir := filepath.Join(base, "state")
	require.NoError(t, os.Mkdir(dir, 0o700))
	require.NoError(t, syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=512m,mode=0700"))
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
	s := startServer(t, l, dir)
	a := claim(t, s)
	good, err := os.ReadFile(os.Getenv("STEAD_EXAMPLE"))
	require.NoError(t, err)
	flipped := func(at int) []byte {
		b := bytes.Clone(good)
		b[at] ^= 0x40
		return b
	}
	refused := func(name string, body []byte, status int, code string) problem {
		t.Helper()
		var p problem
		a.want(t, status, "POST", "/v1/packages:sideload", bytes.NewReader(body), &p)
		require.Equal(t, code, p.Code, "%s: %+v", name, p)
		require.NotEmpty(t, p.Detail)
		requireEmpty(t, dir, name)
		return p
	}
	refused("not an s9pk", bytes.Repeat([]byte("not an s9pk "), 1000), 422, "not-an-s9pk")
	refused("empty", nil, 422, "truncated")
	refused("truncated", good[:len(good)/2], 422, "truncated")
	p := refused("flipped byte in a body", flipped(len(good)-5000), 422, "corrupt")
	require.NotEmpty(t, p.Entry, "the entry at fault is named")
	refused("flipped byte of the signature", flipped(40), 422, "bad-signature")
	refused("unknown architecture", s9pktest.Build(t, s9pktest.Spec{Arch: []string{"sparc"}}), 422, "unknown-architecture")

	// Well signed, but its images are no file systems: it installs half-way.
	var o operation
	a.want(t, 202, "POST", "/v1/packages:sideload", bytes.NewReader(s9pktest.Build(t, s9pktest.Spec{ID: "hollow"})), &o)
	_, last := a.follow(t, o.ID)
	require.Equal(t, "failed", last.Status)
	require.NotNil(t, last.Problem)
	require.NotEmpty(t, last.Problem.Detail)
	a.want(t, 404, "GET", "/v1/packages/hollow", nil, nil)
	require.Empty(t, leftovers(t, l, dir, "hollow"))

	// Disk full: most of the file system is taken.
	filler := filepath.Join(base, "state", "filler")
	var st syscall.Statfs_t
	require.NoError(t, syscall.Statfs(dir, &st))
	require.NoError(t, os.WriteFile(filler, make([]byte, int(st.Bavail)*int(st.Bsize)-len(good)/2), 0o600))
	refused("disk full", good, 507, "disk-full")
	require.NoError(t, os.Remove(filler))

	_, last = a.sideload(t, os.Getenv("STEAD_EXAMPLE"))
	require.Equal(t, "succeeded", last.Status, "%+v", last.Problem)
	var again problem
	a.want(t, 409, "POST", "/v1/packages:sideload", bytes.NewReader(good), &again)
	require.Equal(t, "already-installed", again.Code)
	require.Contains(t, again.Detail, example)
	left, err := os.ReadDir(filepath.Join(dir, "uploads"))
	if err == nil {
		require.Empty(t, left)
	}
}
