package nattest_test

import (
	"context"
	"errors"
	"go/build"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/selfstead/selfstead/nat"
	"github.com/selfstead/selfstead/nat/nattest"
)

var (
	_ nattest.Applier = (*nattest.Recorder)(nil)
	_ nattest.Applier = (*nat.Controller)(nil)
)

func config(name string) nat.Config {
	return nat.Config{Forwards: []nat.Forward{{Name: name, Source: netip.MustParseAddrPort("203.0.113.7:443"),
		Target: nat.Target{Addr: netip.MustParseAddr("10.0.3.5"), Prefix: 24, Port: 8443}}}}
}

func TestRecorder(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	var r nattest.Recorder
	cfg := config("a")
	require.NoError(t, r.Apply(ctx, cfg))
	cfg.Forwards[0].Name = "changed by its owner"
	require.Equal(t, config("a"), r.Current())
	require.ErrorIs(t, r.Apply(ctx, nat.Config{Forwards: []nat.Forward{{}}}), nat.ErrInvalid)
	no := errors.New("no")
	r.Fail = func(nat.Config) error { return no }
	require.ErrorIs(t, r.Apply(ctx, config("b")), no)
	r.Fail = nil
	require.NoError(t, r.Apply(ctx, config("c")))
	require.Equal(t, []nat.Config{config("a"), config("c")}, r.Applied())
	list, err := r.Forwards(ctx)
	require.NoError(t, err)
	require.Equal(t, config("c").Forwards, list)
	require.NoError(t, r.CleanUp(ctx))
	require.Equal(t, 1, r.CleanUps())
	require.Empty(t, r.Current().Forwards)
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	require.ErrorIs(t, r.Apply(cancelled, config("d")), context.Canceled)
	require.NoError(t, r.Close())
	require.ErrorIs(t, r.Apply(ctx, config("d")), nat.ErrClosed)
	require.NoError(t, r.Close())
}

// TestLab checks the lab without nat: two hosts and a router.
func TestLab(t *testing.T) {
	t.Parallel()
	lab := nattest.NewLab(t)
	r, a, b := lab.Router("R"), lab.Space("A"), lab.Space("B")
	lab.Join(r, "a0", a, "eth0")
	lab.Join(r, "b0", b, "eth0")
	r.IP("addr add 10.1.0.1/24 dev a0\naddr add 10.2.0.1/24 dev b0\naddr add fd01::1/64 dev a0\naddr add fd02::1/64 dev b0")
	a.IP("addr add 10.1.0.2/24 dev eth0\naddr add fd01::2/64 dev eth0\nroute add default via 10.1.0.1\nroute add default via fd01::1")
	b.IP("addr add 10.2.0.2/24 dev eth0\naddr add fd02::2/64 dev eth0\nroute add default via 10.2.0.1\nroute add default via fd02::1")
	for _, pair := range [][2]string{{"10.1.0.2", "10.2.0.2"}, {"fd01::2", "fd02::2"}} {
		from, to := netip.MustParseAddr(pair[0]), netip.AddrPortFrom(netip.MustParseAddr(pair[1]), 80)
		srv := b.Serve(to)
		for _, network := range []string{"tcp", "udp"} {
			seen, err := a.Ask(nattest.Dialer{Network: network}, to)
			require.NoError(t, err)
			require.Equal(t, from, seen)
			f, err := a.Open(nattest.Dialer{Network: network, From: from, Port: 4000}, to)
			require.NoError(t, err)
			peer, err := f.Seen(time.Second)
			require.NoError(t, err)
			require.Equal(t, netip.AddrPortFrom(from, 4000), peer)
			require.Equal(t, peer, f.Local())
			if network == "tcp" {
				require.NoError(t, f.Echo("hello", time.Second))
			}
			f.Close()
		}
		srv.Close()
		_, err := a.Ask(nattest.Dialer{Network: "tcp", Timeout: time.Second}, to)
		require.Error(t, err)
	}
	require.Equal(t, "1", r.ReadSysctl("net.ipv4.ip_forward"))
	require.Contains(t, a.Run("ip", "-br", "addr"), "10.1.0.2/24")
	_, err := a.Output("false")
	require.Error(t, err)
}

// TestImports keeps nat alone: the libraries never import each other, and
// nothing here imports the server.
func TestImports(t *testing.T) {
	t.Parallel()
	const module = "github.com/selfstead/selfstead/"
	for dir, allowed := range map[string][]string{"..": nil, ".": {"nat"}, "../ports": nil} {
		pkg, err := build.ImportDir(dir, 0)
		require.NoError(t, err)
		for _, path := range pkg.Imports {
			rest, ours := strings.CutPrefix(path, module)
			if !ours {
				continue
			}
			require.Contains(t, allowed, rest, "%s imports %s", dir, path)
		}
	}
}
