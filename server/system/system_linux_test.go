package system_test

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/selfstead/selfstead/patchdb"
	"github.com/selfstead/selfstead/server/problem"
	"github.com/selfstead/selfstead/server/state"
	"github.com/selfstead/selfstead/server/system"
)

// Public keys made by ssh-keygen for this test, and their fingerprints as it
// shows them.
const (
	edKey  = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAYu71sCphbpnYAcq6wSsGqJZj54r4cUmkoVnsv4hybf me@laptop"
	edSum  = "SHA256:rkUKzoVJawQbmTlhlt1fFVDbjlcuOIHizxjYjAtEgWI"
	rsaKey = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQC7Ur59MYO1moJs9SQUpv15opa+OPtIgw90YAkVCXnOrE9IW8BSJYFMr7E25bN6As57oryicWD2l6l1d+g3LqcflnBIEBcQU/xL9tQH9F0E9xdVQvCuaFvvk8VQaoZmv8NP0/fx/M/m9wMo40yu7LX1GTEGzfH8VKtot9kjEoqApKDgmGiWvLaATBFl7S2i+5IDt220qs2Usv3Ue2nFRogAgtT3afVyArLqYs/c7+FE0lEi6uvZ1zQQvmtKXBSAqGcT1r2JfEjGsXW4s6nUtrW9YSQlmzWaDBYztKzX6tl/wNy+SAtyw+ElCCkkSI/gIx0y6nx4vkrv8peFRAfaLkSf big"
)

func newManager(t *testing.T, o system.Options) *system.Manager {
	t.Helper()
	db, err := patchdb.Open(filepath.Join(t.TempDir(), "state.db"), patchdb.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { db.Close() })
	doc := state.New()
	doc.Public.ServerInfo = state.Server{ID: "srv", Hostname: "stead"}
	_, err = db.Put(t.Context(), "", doc)
	require.NoError(t, err)
	o.DB = db
	if o.Etc == "" {
		o.Etc = t.TempDir()
	}
	m := system.New(o)
	require.NoError(t, m.Start(t.Context()))
	return m
}

func code(err error) string {
	if err == nil {
		return ""
	}
	return problem.From(err).Code
}

func TestKeys(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), ".ssh", "authorized_keys")
	m := newManager(t, system.Options{AuthorizedKeys: file})
	_, err := os.Stat(file)
	assert.ErrorIs(t, err, os.ErrNotExist, "nothing to say, no file")
	require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o700))
	require.NoError(t, os.WriteFile(file, []byte("ssh-ed25519 AAAA somebody's own"), 0o600))

	k, err := m.AddKey(t.Context(), edKey)
	require.NoError(t, err)
	assert.Equal(t, edSum, k.Fingerprint)
	assert.Equal(t, "ssh-ed25519", k.Algorithm)
	assert.Equal(t, "me@laptop", k.Comment)
	again, err := m.AddKey(t.Context(), strings.Replace(edKey, "me@laptop", "other", 1))
	require.NoError(t, err)
	assert.Equal(t, k, again)
	_, err = m.AddKey(t.Context(), rsaKey)
	require.NoError(t, err)
	text := func() string {
		data, err := os.ReadFile(file)
		require.NoError(t, err)
		return string(data)
	}
	assert.True(t, strings.HasPrefix(text(), "ssh-ed25519 AAAA somebody's own\n# selfstead: begin"), text())
	assert.Contains(t, text(), edKey+"\n")
	info, err := os.Stat(file)
	require.NoError(t, err)
	assert.EqualValues(t, 0o600, info.Mode().Perm())
	list, err := m.Keys()
	require.NoError(t, err)
	assert.Len(t, list, 2)

	for name, line := range map[string]string{
		"nothing": "", "text": "hello", "options": `command="rm -rf /" ` + edKey, "two": edKey + "\n" + rsaKey,
		"private": "-----BEGIN OPENSSH PRIVATE KEY-----",
	} {
		_, err := m.AddKey(t.Context(), line)
		assert.Equal(t, problem.CodeInvalid, code(err), name)
	}
	for _, k := range list {
		require.NoError(t, m.RemoveKey(t.Context(), k.ID))
	}
	assert.Equal(t, "ssh-ed25519 AAAA somebody's own\n", text())
	assert.Equal(t, problem.CodeNotFound, code(m.RemoveKey(t.Context(), k.ID)))
}

func TestNames(t *testing.T) { // not parallel: its thread has a host name of its own
	etc := t.TempDir()
	m := newManager(t, system.Options{ManageHost: true, Etc: etc})
	name, host, bad := "My server", "attic", "Größe"
	require.NoError(t, m.SetNames(t.Context(), &name, nil))
	n, err := m.Names()
	require.NoError(t, err)
	assert.Equal(t, system.Names{ID: "srv", Name: name, Hostname: "stead"}, n)
	assert.Equal(t, problem.CodeInvalid, code(m.SetNames(t.Context(), nil, &bad)))

	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root")
		}
		t.Skip("needs root")
	}
	done := make(chan error, 1)
	go func() { // the thread goes with the goroutine
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_NEWUTS)
		if err == nil {
			err = m.SetNames(t.Context(), nil, &host)
		}
		var u unix.Utsname
		if err == nil {
			err = unix.Uname(&u)
			assert.Equal(t, host, unix.ByteSliceToString(u.Nodename[:]))
		}
		done <- err
	}()
	require.NoError(t, <-done)
	text, err := os.ReadFile(filepath.Join(etc, "hostname"))
	require.NoError(t, err)
	assert.Equal(t, "attic\n", string(text))
}

func TestNotManaged(t *testing.T) {
	t.Parallel()
	zones := filepath.Join(t.TempDir(), "zoneinfo")
	require.NoError(t, os.MkdirAll(filepath.Join(zones, "Europe"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(zones, "Europe", "Vienna"), []byte("TZif2"), 0o644))
	etc := t.TempDir()
	m := newManager(t, system.Options{Etc: etc, Zones: zones})
	host := "attic"
	assert.Equal(t, system.CodeNotManaged, code(m.SetNames(t.Context(), nil, &host)))
	assert.Equal(t, system.CodeNotManaged, code(m.SetTimezone("Europe/Vienna")))
	assert.Equal(t, "UTC", m.Timezone())

	m = newManager(t, system.Options{ManageHost: true, Etc: etc, Zones: zones})
	for _, bad := range []string{"", "Europe", "Europe/Atlantis", "../../etc/passwd", "/etc/passwd"} {
		assert.Equal(t, problem.CodeInvalid, code(m.SetTimezone(bad)), bad)
	}
	require.NoError(t, os.Symlink("nowhere", filepath.Join(etc, "localtime.new")), "of a server that died")
	require.NoError(t, m.SetTimezone("Europe/Vienna"))
	assert.Equal(t, "Europe/Vienna", m.Timezone())
}

func TestDevice(t *testing.T) {
	t.Parallel()
	d := newManager(t, system.Options{Etc: "/etc"}).Device()
	assert.NotEmpty(t, d.OS)
	assert.NotEmpty(t, d.Kernel)
	assert.Positive(t, d.CPUs)
	assert.Greater(t, d.Memory, int64(1<<24))
}
