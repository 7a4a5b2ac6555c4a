package daemon

import (
	"context"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/selfstead/selfstead/patchdb"
	"github.com/selfstead/selfstead/server/authority"
	"github.com/selfstead/selfstead/server/state"
)

func TestOneProcessHoldsAFolder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, WaitEnd(t.Context(), dir), "nobody ever served it")
	f, err := lock(dir)
	require.NoError(t, err)
	_, err = lock(dir)
	require.ErrorIs(t, err, ErrLocked)
	assert.Contains(t, err.Error(), dir)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, WaitEnd(ctx, dir), context.Canceled)
	ended := make(chan error, 1)
	go func() { ended <- WaitEnd(t.Context(), dir) }()
	require.NoError(t, f.Close())
	require.NoError(t, <-ended)
	f, err = lock(dir)
	require.NoError(t, err)
	require.NoError(t, f.Close())
}

func TestPrepare(t *testing.T) {
	t.Parallel()
	db, err := patchdb.Open(filepath.Join(t.TempDir(), "state.db"), patchdb.Options{})
	require.NoError(t, err)
	defer db.Close()
	first, err := prepare(t.Context(), db, "1.0.0")
	require.NoError(t, err)
	assert.Len(t, first.tag(), 8)
	assert.Equal(t, 20, first.subnet4.Bits())
	assert.True(t, netip.MustParsePrefix("10.0.0.0/8").Overlaps(first.subnet4))
	assert.Equal(t, 64, first.subnet6.Bits())
	assert.True(t, netip.MustParsePrefix("fd00::/8").Contains(first.subnet6.Addr()))

	_, err = db.Put(t.Context(), state.PrivatePointer("account"), state.Account{PasswordHash: "x"})
	require.NoError(t, err)
	second, err := prepare(t.Context(), db, "1.1.0")
	require.NoError(t, err)
	assert.Equal(t, first, second, "the identity stays")
	info, err := patchdb.Get[state.Server](db, state.ServerInfo)
	require.NoError(t, err)
	assert.Equal(t, "1.1.0", info.Version)
	assert.True(t, info.Claimed)
	before, err := db.Dump("")
	require.NoError(t, err)
	_, err = prepare(t.Context(), db, "1.1.0")
	require.NoError(t, err)
	after, err := db.Dump("")
	require.NoError(t, err)
	assert.Equal(t, before.ID, after.ID, "a start that changes nothing is no revision")
}

func TestSubnetsAreClearOfRoutes(t *testing.T) {
	t.Parallel()
	routes := parseRoutes("Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n" +
		"eth0\t00000000\t0100A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n" +
		"eth0\t0000A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n" +
		"wg0\t0000400A\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\nbroken\n")
	assert.Equal(t, []netip.Prefix{netip.MustParsePrefix("192.168.0.0/24"), netip.MustParsePrefix("10.64.0.0/16")}, routes, "not the default route")
	assert.False(t, clear(netip.MustParsePrefix("10.64.16.0/20"), routes))
	assert.True(t, clear(netip.MustParsePrefix("10.65.16.0/20"), routes))
	for range 50 {
		v4, v6, err := pickSubnets()
		require.NoError(t, err)
		assert.NotEqual(t, byte(0), v4.Addr().As4()[1])
		assert.Equal(t, v6, v6.Masked())
	}
}

func TestListen(t *testing.T) {
	t.Parallel()
	root, err := authority.Open(authority.Options{Dir: t.TempDir()})
	require.NoError(t, err)
	for _, tt := range []struct {
		address string
		plain   bool
		scheme  string
	}{
		{"127.0.0.1:0", false, "http"},
		{"localhost:0", false, "http"},
		{"[::1]:0", false, "http"},
		{"0.0.0.0:0", false, "https"},
		{":0", false, "https"},
		{":0", true, "http"},
	} {
		l, scheme, err := listenTCP(tt.address, tt.plain, root)
		require.NoError(t, err, tt.address)
		assert.Equal(t, tt.scheme, scheme, tt.address)
		l.Close()
	}
	_, _, err = listenTCP("127.0.0.1:nonsense", false, root)
	assert.Error(t, err)
}

func TestSocketIsForItsOwnerAlone(t *testing.T) {
	t.Parallel()
	path := SocketPath(t.TempDir())
	l, err := listenSocket(path)
	require.NoError(t, err)
	info, err := os.Stat(path)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600)|os.ModeSocket, info.Mode())
	l.(*net.UnixListener).SetUnlinkOnClose(false) // as after a kill
	l.Close()
	l, err = listenSocket(path)
	require.NoError(t, err, "one that was left behind is replaced")
	l.Close()
}

func TestDisplay(t *testing.T) {
	t.Parallel()
	addr := func(s string) net.Addr { return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(s)) }
	assert.Equal(t, "127.0.0.1:8080", display(addr("127.0.0.1:8080"), "192.0.2.7"))
	assert.Equal(t, "192.0.2.7:8080", display(addr("0.0.0.0:8080"), "192.0.2.7"))
	assert.Equal(t, "[2001:db8::7]:8080", display(addr("[::]:8080"), "2001:db8::7"))
	assert.Equal(t, "localhost:8080", display(addr("[::]:8080"), ""))
}

func TestGuestLayersInUseStay(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "a"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "a", "spec.json"), []byte(`{"Layers":[{"Path":"/x/guest/0123"}]}`), 0o600))
	assert.True(t, inUse(dir, "0123"))
	assert.False(t, inUse(dir, "4567"))
}

func TestOpenNeedsRootAndItsParts(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		_, err := Open(t.Context(), Options{Dir: t.TempDir()})
		require.ErrorContains(t, err, "root")
		return
	}
	dir := filepath.Join(t.TempDir(), "state")
	_, err := Open(t.Context(), Options{Dir: dir, Listen: "127.0.0.1:0", BaseImage: "/nonexistent/base.squashfs"})
	require.ErrorContains(t, err, "base image")
	info, err := os.Stat(dir)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o700)|os.ModeDir, info.Mode())
	f, err := lock(dir)
	require.NoError(t, err, "a start that failed lets go of the folder")
	f.Close()
	assert.NoFileExists(t, SocketPath(dir))
}
