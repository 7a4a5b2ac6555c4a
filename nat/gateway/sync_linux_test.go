package gateway

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/selfstead/selfstead/nat/nattest"
)

// foreign is what others have: rules, tables, one in our range and one of our
// priorities.
const foreign = `rule add from 10.9.0.0/16 lookup 77 priority 77
rule add from 10.8.0.0/16 lookup 78 priority 6270
rule add fwmark 0x1/0xff lookup 77 priority 6004
route add default via 192.0.2.1 dev eth0 table 77
route add 10.77.0.0/16 via 192.0.2.1 dev eth0 table 1579090062
rule add from 10.7.0.0/16 ipproto tcp sport 22 lookup 77 priority 90`

// quietly proves that fn makes the kernel announce nothing but what it does by
// itself.
func quietly(t *testing.T, s *nattest.Space, fn func()) {
	t.Helper()
	var m *monitor
	s.Do(func() (err error) {
		m, err = listen(nil)
		return err
	})
	defer m.close()
	fn()
	require.NoError(t, m.c.SetReadDeadline(time.Now().Add(50*time.Millisecond)))
	for {
		list, err := m.c.Receive()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		require.NoError(t, err)
		for _, msg := range list {
			require.Zero(t, msg.Header.PID, "somebody changed something: %v", msg)
		}
	}
}

// TestIdempotent: the same again writes nothing, by the same Controller or
// another; what others take away comes back; CleanUp leaves what was.
func TestIdempotent(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.host.IP(foreign)
	h.host.Sysctl("net.ipv4.conf.eth1.rp_filter", "1")
	before := dump(h.host)
	cfg := Config{
		Gateways: []string{"eth0"}, Default: "eth1", TunnelMarks: []uint32{7},
		Sources: []Source{{pfx("10.0.3.5/32"), "eth0"}, {pfx("fd00:3::/64"), "eth0"}, {pfx("10.0.3.6/32"), "absent"}},
	}
	c := h.controller()
	require.NoError(t, c.Apply(t.Context(), cfg))
	applied := dump(h.host)
	require.NotEqual(t, before, applied)
	quietly(t, h.host, func() {
		require.NoError(t, c.Apply(t.Context(), cfg))
		again := h.controller()
		require.NoError(t, again.Apply(t.Context(), cfg))
		require.NoError(t, again.Close())
	})
	require.Equal(t, applied, dump(h.host), "handles of nftables rules included")

	for _, harm := range []string{"rule del priority 6270 lookup 1579090062", "route flush table 1579090062", "rule del priority 6003"} {
		h.host.IP(harm)
		if harm[:5] == "route" {
			h.host.IP("route add 10.77.0.0/16 via 192.0.2.1 dev eth0 table 1579090062") // theirs
		}
		until(t, "repaired after "+harm, func() bool { return sorted(dump(h.host)) == sorted(applied) })
	}
	bad := cfg.Clone()
	bad.TunnelMarks = []uint32{0}
	quietly(t, h.host, func() { require.ErrorIs(t, c.Apply(t.Context(), bad), ErrInvalid) })

	require.NoError(t, c.CleanUp(t.Context()))
	require.Equal(t, before, dump(h.host))
	quietly(t, h.host, func() { require.NoError(t, c.CleanUp(t.Context())) })
	require.NoError(t, c.Close())
	require.NoError(t, c.Close())
	require.ErrorIs(t, c.Apply(t.Context(), cfg), ErrClosed)
	require.ErrorIs(t, c.CleanUp(t.Context()), ErrClosed)
}

func sorted(s string) string {
	return strings.Join(slices.Sorted(slices.Values(strings.Split(s, "\n"))), "\n")
}

// killed is a process that applies one Config after another until it is killed.
const killed = "killed"

func applyForever(t *testing.T) {
	c, err := New(Options{})
	require.NoError(t, err)
	r := rand.New(rand.NewPCG(uint64(os.Getpid()), 1))
	fmt.Println("answer ready")
	for {
		require.NoError(t, c.Apply(t.Context(), randomConfig(r)))
	}
}

func randomConfig(r *rand.Rand) Config {
	var cfg Config
	pick := func() string { return []string{"eth0", "eth1", "br0", "absent"}[r.IntN(4)] }
	for range r.IntN(3) {
		cfg.Gateways = append(cfg.Gateways, pick())
	}
	if r.IntN(2) == 0 {
		cfg.Default = pick()
	}
	for i := range r.IntN(40) {
		cfg.Sources = append(cfg.Sources, Source{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 4, byte(i)}), 32), pick()})
	}
	if r.IntN(2) == 0 {
		cfg.NextHops = map[string][]netip.Addr{"eth1": {kins[0].hop1, kins[1].hop1}}
	}
	for range r.IntN(3) {
		cfg.TunnelMarks = append(cfg.TunnelMarks, 1+r.Uint32N(1<<20))
	}
	return cfg
}

// TestKill: whatever a killed process left, Apply makes what is wanted of it, and
// CleanUp leaves what was before.
func TestKill(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.host.IP(foreign)
	h.host.Sysctl("net.ipv4.conf.eth0.rp_filter", "1")
	h.host.Sysctl("net.ipv4.conf.eth1.rp_filter", "2")
	before := dump(h.host)
	wanted := Config{Gateways: []string{"eth0"}, Default: "eth1", Sources: []Source{{pfx("10.0.4.3/32"), "eth0"}}}
	c := h.controller()
	require.NoError(t, c.Apply(t.Context(), wanted))
	want := sorted(withoutHandles(dump(h.host)))
	require.NoError(t, c.Close())
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 2))
	for round := range 12 {
		cmd, in, out := startInside(t, h.host, killed)
		require.Equal(t, "ready", answer(t, out))
		timer := time.NewTimer(time.Duration(r.IntN(60)) * time.Millisecond)
		<-timer.C
		require.NoError(t, cmd.Process.Kill())
		_, _ = io.Copy(io.Discard, out)
		require.Error(t, cmd.Wait())
		in.Close()

		next := h.controller()
		if round%3 == 0 {
			require.NoError(t, next.CleanUp(t.Context()))
			require.Equal(t, before, dump(h.host), "round %d", round)
		} else {
			require.NoError(t, next.Apply(t.Context(), wanted))
			require.Equal(t, want, sorted(withoutHandles(dump(h.host))), "round %d", round)
		}
		require.NoError(t, next.Close())
	}
}

func withoutHandles(s string) string {
	var out []byte
	for _, l := range strings.Split(s, "\n") {
		l, _, _ = strings.Cut(l, "#")
		out = append(out, l+"\n"...)
	}
	return string(out)
}

// TestWatch: what List shows, and what Watch says of it.
func TestWatch(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	events, end := make(chan []Gateway, 100), make(chan error, 1)
	go func() {
		end <- h.host.Try(func() error {
			return Watch(ctx, func(list []Gateway) error {
				events <- list
				return nil
			})
		})
	}()
	var last []Gateway
	wait := func(what string, ok func(g *Gateway) bool, name string) {
		t.Helper()
		deadline := time.After(while)
		for {
			if g := find(last, name); ok(g) {
				return
			}
			select {
			case last = <-events:
			case <-deadline:
				t.Fatalf("%s: %+v", what, last)
			}
		}
	}
	last = <-events
	var listed []Gateway
	h.host.Do(func() (err error) {
		listed, err = List()
		return err
	})
	require.True(t, sameGateways(last, listed) || len(events) > 0, "the first call is the state")
	g := find(listed, "eth0")
	require.NotNil(t, g)
	require.Equal(t, "veth", g.Kind)
	require.True(t, g.Up && g.Default4 && g.Default6 && !g.PointToPoint)
	require.Equal(t, []any{addr("192.0.2.1"), addr("2001:db8:a::1"), uint32(100), uint32(100)}, []any{g.NextHop4, g.NextHop6, g.Metric4, g.Metric6})
	require.Contains(t, g.Addresses, pfx("192.0.2.2/24"))
	require.Contains(t, g.Addresses, pfx("2001:db8:a::2/64"))
	require.Equal(t, "bridge", find(listed, "br0").Kind)
	require.Nil(t, find(listed, "lo"))

	h.host.IP("link set eth1 down")
	wait("down", func(g *Gateway) bool { return g != nil && !g.Up && !g.Default4 && !g.Default6 }, "eth1")
	h.host.IP("link set eth1 up\naddr replace 2001:db8:b::2/64 dev eth1")
	wait("up", func(g *Gateway) bool { return g != nil && g.Up }, "eth1")
	h.world.IP("link set n1 down")
	wait("carrier", func(g *Gateway) bool { return g != nil && !g.Up }, "eth1")
	h.world.IP("link set n1 up")
	h.host.IP("route add default via 198.51.100.1 dev eth1 metric 7")
	wait("route", func(g *Gateway) bool { return g != nil && g.Default4 && g.Metric4 == 7 }, "eth1")
	h.host.IP("route add default via fe80::1 dev eth1 metric 7")
	wait("link-local next hop", func(g *Gateway) bool { return g != nil && g.NextHop6 == addr("fe80::1%eth1") }, "eth1")
	h.host.IP("addr add 198.51.100.3/32 peer 198.51.100.99 dev eth1")
	wait("address", func(g *Gateway) bool { return g != nil && slices.Contains(g.Addresses, pfx("198.51.100.3/32")) }, "eth1")
	h.host.IP("link del eth1")
	wait("gone", func(g *Gateway) bool { return g == nil }, "eth1")

	// A burst is one call, or few.
	for len(events) > 0 {
		<-events
	}
	var burst []byte
	for i := range 200 {
		burst = fmt.Appendf(burst, "addr add 10.44.0.%d/32 dev eth0\n", i)
	}
	h.host.IP(string(burst))
	wait("burst", func(g *Gateway) bool { return g != nil && slices.Contains(g.Addresses, pfx("10.44.0.199/32")) }, "eth0")
	require.Less(t, len(events), 20)

	// What does not concern a gateway is no event.
	for len(events) > 0 {
		<-events
	}
	h.host.IP("route add 10.55.0.0/16 via 192.0.2.1 dev eth0\nrule add from 10.55.0.1 lookup 7 priority 9")
	h.host.IP("addr add 10.45.0.1/32 dev eth0")
	got := <-events
	require.Contains(t, find(got, "eth0").Addresses, pfx("10.45.0.1/32"))
	cancel()
	require.ErrorIs(t, <-end, context.Canceled)

	mine := errors.New("enough")
	require.ErrorIs(t, h.host.Try(func() error { return Watch(t.Context(), func([]Gateway) error { return mine }) }), mine)
}

// TestNoIPv6: a host that has IPv6 switched off.
func TestNoIPv6(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.host.Sysctl("net.ipv6.conf.all.disable_ipv6", "1")
	c := h.controller()
	cfg := Config{Gateways: []string{"eth0"}, Default: "eth1"}
	require.NoError(t, c.Apply(t.Context(), cfg))
	h.world.Serve(at(kins[0].inet, 80))
	require.Equal(t, kins[0].eth1, ask(t, h.host, "tcp", none, at(kins[0].inet, 80)))
	quietly(t, h.host, func() { require.NoError(t, c.Apply(t.Context(), cfg)) })
}

// TestRareKinds: what rules and routes of rare kinds do not break.
func TestRareKinds(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.host.IP(`route add blackhole 10.66.0.0/16
route add unreachable 2001:db8:66::/48
nexthop add id 7 via 192.0.2.1 dev eth0
route add 10.67.0.0/16 nhid 7
link add tun9 type veth peer name tun8
addr add 10.68.0.1/32 peer 10.68.0.2 dev tun9
link set tun9 up
link set tun8 up`)
	for _, dev := range []string{"tun8", "tun9"} { // the kernel's own routes come when carrier was noticed
		until(t, dev, func() bool { return strings.Contains(h.host.Run("ip", "-6", "route", "show", "dev", dev), "fe80::/64") })
	}
	h.host.Run("ip", "-4", "route", "add", "default", "via", "inet6", "fe80::9", "dev", "eth1", "metric", "50")
	h.host.Do(func() error { // a rule by DSCP (Linux 6.13), which libraries may not know
		k, err := dial(nil)
		if err != nil {
			return err
		}
		data, err := rule{Priority: 80, Family: 4, Table: 77}.data()
		if err != nil {
			return err
		}
		data = append(binary.NativeEndian.AppendUint16(binary.NativeEndian.AppendUint16(data, 5), 25), 4, 0, 0, 0)
		if err := k.change(unix.RTM_NEWRULE, netlink.Create|netlink.Excl, data); err != nil && !errors.Is(err, unix.EINVAL) {
			return err
		}
		return k.close()
	})
	c := h.controller()
	require.NoError(t, c.Apply(t.Context(), Config{Gateways: []string{"eth0", "tun9"}, Default: "eth1"}))
	require.Contains(t, h.host.Run("ip", "route", "show", "table", "all"), "default via inet6 fe80::9 dev eth1 table")
	out, err := h.host.Output("ip", "route", "get", "10.66.0.1")
	require.Error(t, err, "main's black hole is respected: %s", out)
	quietly(t, h.host, func() {
		require.NoError(t, c.Apply(t.Context(), Config{Gateways: []string{"eth0", "tun9"}, Default: "eth1"}))
	})
	h.host.Run("ip", "-4", "route", "replace", "default", "via", "inet6", "fe80::8", "dev", "eth1", "metric", "50")
	until(t, "next hop changed", func() bool {
		out, _ := h.host.Output("ip", "route", "get", "203.0.113.1")
		return out != "" && slices.Contains(strings.Fields(out), "fe80::8")
	})
}
