package gateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/selfstead/selfstead/nat/nattest"
)

var none netip.Addr

// TestReplies: connections that come in on the second uplink, to a socket of the
// host and to a forwarded target, are answered on it, with strict reverse path
// filters everywhere.
func TestReplies(t *testing.T) {
	t.Parallel()
	for _, all := range []string{"0", "1"} {
		t.Run("all="+all, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			h.host.Sysctl("net.ipv4.conf.all.rp_filter", all)
			for _, dev := range []string{"eth0", "eth1", "br0"} {
				h.host.Sysctl("net.ipv4.conf."+dev+".rp_filter", "1")
			}
			for _, k := range kins {
				h.host.Serve(at(k.eth0, 80))
				h.host.Serve(at(k.eth1, 80))
				h.service.Serve(at(k.target, 8080))
			}
			cases := func(fn func(network string, k kin, to netip.AddrPort)) {
				for _, k := range kins {
					for _, network := range []string{"tcp", "udp"} {
						fn(network, k, at(k.eth1, 80))
						fn(network, k, at(k.eth1, 5000))
					}
				}
			}
			before := dump(h.host)
			cases(func(network string, k kin, to netip.AddrPort) {
				if network == "udp" || to.Port() == 80 { // the service would repeat its answers for long
					fails(t, h.world, network, k.inet, to)
				}
			})
			h.host.Run("conntrack", "-F")
			h.world.IP("neigh flush all") // strict filters swallow its questions too

			c := h.controller()
			require.NoError(t, c.Apply(t.Context(), Config{Gateways: []string{"eth0", "eth1"}}))
			spoofed := h.count("spoof0")
			cases(func(network string, k kin, to netip.AddrPort) {
				require.Equal(t, k.inet, ask(t, h.world, network, k.inet, to))
				require.Equal(t, k.inet, ask(t, h.world, network, k.inet, at(k.eth0, to.Port())), "the first one as well")
			})
			require.Equal(t, spoofed, h.count("spoof0"), "nothing left by the other uplink")
			require.Equal(t, map[string]string{"0": "0", "1": "2"}[all], h.host.ReadSysctl("net.ipv4.conf.eth1.rp_filter"))
			require.Equal(t, "1", h.host.ReadSysctl("net.ipv4.conf.br0.rp_filter"), "no gateway")

			// Another process cleans up.
			require.NoError(t, c.Close())
			other := h.controller()
			require.NoError(t, other.CleanUp(t.Context()))
			require.Equal(t, before, dump(h.host))
			h.host.Run("conntrack", "-F")
			fails(t, h.world, "tcp", kins[0].inet, at(kins[0].eth1, 80))
		})
	}
}

// TestTransit: a packet in the direction of the first one is never routed by
// the mark: a neighbour that uses the host as its router gets out.
func TestTransit(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	c := h.controller()
	require.NoError(t, c.Apply(t.Context(), Config{Gateways: []string{"br0", "eth0"}, Default: "eth1"}))
	for _, k := range kins {
		h.world.Serve(at(k.inet, 80))
		for _, network := range []string{"tcp", "udp"} {
			flow, err := h.service.Open(nattest.Dialer{Network: network, Timeout: while}, at(k.inet, 80))
			require.NoError(t, err)
			for range 2 { // UDP asks anew
				if seen, err := flow.Seen(while); network == "udp" {
					require.NoError(t, err)
					require.Equal(t, k.eth1, seen.Addr())
				}
				if network == "tcp" {
					require.NoError(t, flow.Echo("more", while))
					break
				}
			}
			flow.Close()
		}
	}
}

// TestSources: one service leaves by the second uplink, and is reached by both.
func TestSources(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	c := h.controller()
	for _, k := range kins {
		h.world.Serve(at(k.inet, 80))
		h.service.Serve(at(k.target, 8080))
		require.Equal(t, k.eth0, ask(t, h.service, "tcp", none, at(k.inet, 80)), "main's choice")
	}
	// Without marks, replies follow the source's rule.
	h.host.IP("rule add from 10.0.3.5 lookup 77 priority 77\nroute add default via 198.51.100.1 dev eth1 table 77")
	fails(t, h.world, "tcp", kins[0].inet, at(kins[0].eth0, 5000))
	h.host.IP("rule del priority 77\nroute flush table 77")
	h.host.Run("conntrack", "-F")

	sources := []Source{{pfx("10.0.3.5/32"), "eth1"}, {pfx("fd00:3::5/128"), "eth1"}, {pfx("10.0.3.0/24"), "eth0"}, {pfx("fd00:3::/64"), "eth0"}}
	for _, cfg := range []Config{
		{Gateways: []string{"eth0"}, Sources: sources},
		{Default: "eth0", Sources: sources},
		{Default: "eth0", Sources: sources[:2]},
	} {
		require.NoError(t, c.Apply(t.Context(), cfg))
		for _, k := range kins {
			for _, network := range []string{"tcp", "udp"} {
				require.Equal(t, k.eth1, ask(t, h.service, network, none, at(k.inet, 80)))
				require.Equal(t, k.inet, ask(t, h.world, network, k.inet, at(k.eth0, 5000)))
				require.Equal(t, k.inet, ask(t, h.world, network, k.inet, at(k.eth1, 5000)))
				require.Equal(t, k.eth0, ask(t, h.host, network, none, at(k.inet, 80)), "the host itself")
			}
		}
	}
	require.NoError(t, c.Apply(t.Context(), Config{Gateways: []string{"eth0", "eth1"}}))
	h.host.Run("conntrack", "-F")
	for _, k := range kins {
		require.Equal(t, k.eth0, ask(t, h.service, "tcp", none, at(k.inet, 80)), "main's choice again")
	}
}

// TestDefault: the second uplink is the way out; sockets bound to an address or a
// device leave by it; neighbours and the service stay reachable.
func TestDefault(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.world.IP("link add lan type bridge\nlink set lan up")
	c := h.controller()
	require.NoError(t, c.Apply(t.Context(), Config{Gateways: []string{"eth0"}, Default: "eth1"}))
	// Some programs say default with two halves: a choice outranks that.
	h.host.IP("route add 0.0.0.0/1 via 192.0.2.1\nroute add 128.0.0.0/1 via 192.0.2.1\nroute add 2000::/3 via 2001:db8:a::1")
	for _, k := range kins {
		h.world.Serve(at(k.inet, 80))
		h.world.Serve(at(k.hop0, 80))
		h.service.Serve(at(k.target, 8080))
		for _, network := range []string{"tcp", "udp"} {
			require.Equal(t, k.eth1, ask(t, h.host, network, none, at(k.inet, 80)))
			if k.eth0.Is4() { // IPv6 must be bound to the device
				require.Equal(t, k.eth0, ask(t, h.host, network, k.eth0, at(k.inet, 80)), "bound to an address")
			}
			require.Equal(t, k.eth1, ask(t, h.service, network, none, at(k.inet, 80)))
			require.Equal(t, k.eth0, ask(t, h.host, network, none, at(k.hop0, 80)), "a neighbour of the other uplink")
			ask(t, h.host, network, none, at(k.target, 8080))
		}
		for dev, want := range map[string]netip.Addr{"eth0": k.eth0, "eth1": k.eth1} {
			require.Equal(t, want, boundTo(t, h.host, dev, at(k.inet, 80)), "bound to a device")
		}
	}
}

// TestSwitch: while the default gateway changes back and forth, each question
// leaves by one of the two, and none is refused.
func TestSwitch(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	c := h.controller()
	configs := []Config{
		{Gateways: []string{"eth0"}, Default: "eth1", Sources: []Source{{pfx("10.9.0.0/16"), "eth1"}}},
		{Gateways: []string{"eth1"}, Default: "eth0", Sources: []Source{{pfx("10.9.0.0/16"), "eth0"}}},
	}
	require.NoError(t, c.Apply(t.Context(), configs[0]))
	h.host.IP("route flush exact 0.0.0.0/0\nroute del default via 2001:db8:a::1\nroute del default via 2001:db8:b::1")
	for i := range configs {
		configs[i].NextHops = map[string][]netip.Addr{"eth0": {kins[0].hop0, kins[1].hop0}, "eth1": {kins[0].hop1, kins[1].hop1}}
	}
	require.NoError(t, c.Apply(t.Context(), configs[0]))
	for _, k := range kins {
		h.world.Serve(at(k.inet, 80))
	}
	stop, end := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			for _, k := range kins {
				d := nattest.Dialer{Network: "udp", Timeout: while}
				if k.eth0.Is6() {
					d.Timeout = soon
				}
				seen, err := h.host.Ask(d, at(k.inet, 80))
				if k.eth0.Is6() && errors.Is(err, os.ErrDeadlineExceeded) {
					continue // the change came between choosing an address and sending: see doc.go
				}
				if err == nil && seen != k.eth0 && seen != k.eth1 {
					err = fmt.Errorf("seen from %s", seen)
				}
				if err != nil {
					end <- err
					return
				}
			}
			select {
			case <-stop:
				end <- nil
				return
			default:
			}
		}
	}()
	for i := range 40 {
		require.NoError(t, c.Apply(t.Context(), configs[i%2]))
	}
	close(stop)
	require.NoError(t, <-end)
}

// boundTo asks over TCP from a socket bound to a device.
func boundTo(t *testing.T, s *nattest.Space, dev string, to netip.AddrPort) netip.Addr {
	t.Helper()
	d := net.Dialer{Timeout: while, Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		cerr := c.Control(func(fd uintptr) { err = unix.BindToDevice(int(fd), dev) })
		if cerr != nil {
			return cerr
		}
		return err
	}}
	var local netip.AddrPort
	s.Do(func() error {
		c, err := d.DialContext(context.Background(), "tcp", to.String())
		if err != nil {
			return err
		}
		defer c.Close()
		local = netip.MustParseAddrPort(c.LocalAddr().String())
		return nil
	})
	return local.Addr()
}

// TestNoLeak: whatever happens to a chosen gateway, its traffic leaves by no
// other, is refused at once, and comes back with it.
func TestNoLeak(t *testing.T) {
	t.Parallel()
	for _, chosen := range []Config{
		{Gateways: []string{"eth0"}, Default: "eth1"},
		{Gateways: []string{"eth0"}, Sources: []Source{{pfx("10.0.3.5/32"), "eth1"}, {pfx("fd00:3::5/128"), "eth1"}}},
	} {
		t.Run("default="+chosen.Default, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			c := h.controller()
			require.NoError(t, c.Apply(t.Context(), chosen))
			for _, k := range kins {
				h.world.Serve(at(k.inet, 80))
				h.host.Serve(at(k.eth0, 81))
				h.service.Serve(at(k.target, 8080))
			}
			works := func() {
				t.Helper()
				for _, k := range kins {
					until(t, "the gateway is back for "+k.name, func() bool {
						seen, err := h.service.Ask(nattest.Dialer{Network: "tcp", Timeout: soon}, at(k.inet, 80))
						return err == nil && seen == k.eth1
					})
				}
			}
			refused := func(list ...kin) {
				t.Helper()
				before := h.count("asked0")
				for _, k := range list {
					for _, network := range []string{"tcp", "udp"} {
						fails(t, h.service, network, none, at(k.inet, 80))
						if chosen.Default != "" {
							err := fails(t, h.host, network, none, at(k.inet, 80))
							require.ErrorIs(t, err, unix.EHOSTUNREACH)
						}
					}
				}
				require.Equal(t, before, h.count("asked0")+h.count("spoof0"), "none on the other uplink")
				// Who asks on the other uplink gets an answer all the same.
				for _, k := range kins {
					require.Equal(t, k.inet, ask(t, h.world, "tcp", k.inet, at(k.eth0, 81)))
					require.Equal(t, k.inet, ask(t, h.world, "tcp", k.inet, at(k.eth0, 5000)))
				}
			}
			works()
			flow := map[string]*nattest.Flow{}
			for _, k := range kins {
				f, err := h.host.Open(nattest.Dialer{Network: "tcp", From: k.eth1, Timeout: while}, at(k.inet, 80))
				require.NoError(t, err)
				defer f.Close()
				_, err = f.Seen(while)
				require.NoError(t, err)
				flow[k.name] = f
			}

			h.host.IP("link set eth1 down")
			refused(kins...)
			for _, k := range kins {
				_, err := h.service.Ask(nattest.Dialer{Network: "tcp", Timeout: while}, at(k.inet, 80))
				require.ErrorContains(t, err, map[string]string{"IPv4": "no route to host", "IPv6": "network is unreachable"}[k.name], "told, and not lost")
			}
			h.host.IP(`link set eth1 up
addr replace 2001:db8:b::2/64 dev eth1 nodad
route replace default via 198.51.100.1 dev eth1 metric 200
route replace default via 2001:db8:b::1 dev eth1 metric 200`)
			works()

			// No carrier: main's route stays, and leads nowhere.
			h.world.IP("link set n1 down")
			until(t, "carrier lost", func() bool { return !strings.Contains(dump(h.host), "default via 198.51.100.1 dev eth1 table") })
			refused(kins...)
			h.world.IP("link set n1 up\naddr replace 2001:db8:b::1/64 dev n1 nodad")
			works()

			// One family only.
			h.host.IP("addr del 2001:db8:b::2/64 dev eth1")
			until(t, "no IPv6", func() bool { return !strings.Contains(h.host.Run("ip", "-6", "rule"), "2001:db8:b::2") })
			refused(kins[1])
			require.Equal(t, kins[0].eth1, ask(t, h.service, "tcp", none, at(kins[0].inet, 80)))
			h.host.IP("addr add 2001:db8:b::2/64 dev eth1\nroute replace default via 2001:db8:b::1 dev eth1 metric 200")
			works()

			old := h.host.Run("ip", "-o", "link", "show", "eth1")
			h.host.IP("link del eth1")
			refused(kins...)
			h.host.IP("link add filler type bridge") // takes the next index
			h.plug1()
			require.NotEqual(t, strings.Fields(old)[0], strings.Fields(h.host.Run("ip", "-o", "link", "show", "eth1"))[0])
			works()
			for _, k := range kins {
				require.NoError(t, flow[k.name].Echo("still here", while), "%s: an open connection goes on", k.name)
			}
		})
	}
}

// TestOneNetwork: two links into the same network; a neighbour is answered on the
// one that it asked on.
func TestOneNetwork(t *testing.T) {
	t.Parallel()
	nattest.Require(t, "ip", "nft")
	lab := nattest.NewLab(t)
	host, peer := lab.Space("host"), lab.Space("peer")
	lab.Join(host, "wired", peer, "p0")
	lab.Join(host, "radio", peer, "p1")
	peer.IP(`link add lan type bridge
link set p0 master lan
link set p1 master lan
link set lan up
addr add 192.0.2.1/24 dev lan
addr add 2001:db8:a::1/64 dev lan`)
	host.IP(`addr add 192.0.2.2/24 dev wired
addr add 2001:db8:a::2/64 dev wired
addr add 192.0.2.3/24 dev radio
addr add 2001:db8:a::3/64 dev radio
route add default via 192.0.2.1 dev wired
route add default via 2001:db8:a::1 dev wired`)
	for _, k := range []string{"arp_ignore", "arp_announce"} {
		host.Sysctl("net.ipv4.conf.all."+k, "2")
	}
	host.Nft(`table inet count {
	chain out { type filter hook postrouting priority 0
		oifname wired tcp sport 80 counter comment "wired"
		oifname radio tcp sport 80 counter comment "radio"
	}
}`)
	c := controllerIn(t, host)
	require.NoError(t, c.Apply(t.Context(), Config{Gateways: []string{"wired", "radio"}}))
	for _, ip := range []string{"192.0.2.3", "2001:db8:a::3"} {
		host.Serve(at(addr(ip), 80))
		// The neighbour must know who lives where.
		_, rest, _ := strings.Cut(host.Run("ip", "-o", "link", "show", "radio"), "link/ether ")
		peer.IP("neigh replace " + ip + " dev lan lladdr " + strings.Fields(rest)[0])
		ask(t, peer, "tcp", none, at(addr(ip), 80))
	}
	require.Regexp(t, `"wired"`, host.Ruleset())
	require.Regexp(t, `oifname "wired" tcp sport 80 counter packets 0 `, host.Ruleset())
}

// TestForeignMarks: bits of others in packet and connection marks survive, and do
// not hinder.
func TestForeignMarks(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.host.Nft(`table inet other {
	chain early { type filter hook prerouting priority -160
		meta mark set 0x4001
		ct state new ct mark set 0x55
	}
	chain local { type route hook output priority -160
		meta mark set 0x4002
	}
	chain late { type filter hook postrouting priority 300
		oifname eth1 meta mark & 0xfffff == 0x4002 counter comment "own"
		oifname eth1 meta mark & 0xfffff == 0x4001 counter comment "forwarded"
		oifname eth1 ct mark & 0xfffff == 0x55 counter comment "connection"
	}
}`)
	c := h.controller()
	require.NoError(t, c.Apply(t.Context(), Config{Gateways: []string{"eth0", "eth1"}}))
	for _, k := range kins {
		h.host.Serve(at(k.eth1, 80))
		h.service.Serve(at(k.target, 8080))
		ask(t, h.world, "tcp", k.inet, at(k.eth1, 80))
		ask(t, h.world, "tcp", k.inet, at(k.eth1, 5000))
	}
	for _, what := range []string{"own", "forwarded", "connection"} {
		require.NotRegexp(t, `packets 0 .*"`+what+`"`, h.host.Ruleset())
	}
	require.NoError(t, c.CleanUp(t.Context()))
	require.Contains(t, h.host.Ruleset(), "table inet other")
	require.NotContains(t, h.host.Ruleset(), "selfstead")
}

// TestNextHops: links that main has no default route by, one of several routes,
// and several next hops of one route.
func TestNextHops(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	c := h.controller()
	cfg := Config{Gateways: []string{"eth0"}, Sources: []Source{{pfx("10.0.3.5/32"), "eth1"}, {pfx("fd00:3::5/128"), "eth1"}}}
	require.NoError(t, c.Apply(t.Context(), cfg))
	for _, k := range kins {
		h.world.Serve(at(k.inet, 80))
	}
	for _, step := range []struct {
		name, ip string
		hops     map[string][]netip.Addr
		works    bool
	}{
		{"from main", "", nil, true},
		{"better metric first", "route add default via 198.51.100.9 dev eth1 metric 300\nroute add default via 2001:db8:b::9 dev eth1 metric 300", nil, true},
		{"worse by itself", "route del default via 198.51.100.1 metric 200\nroute del default via 2001:db8:b::1 metric 200", nil, false},
		{"from the Config", "", map[string][]netip.Addr{"eth1": {kins[0].hop1, kins[1].hop1}}, true},
		{"none in main", "route flush exact 0.0.0.0/0\nroute del default via 2001:db8:a::1\nroute del default via 2001:db8:b::9", map[string][]netip.Addr{"eth1": {kins[0].hop1, kins[1].hop1}}, true},
		{"no way at all", "", nil, false},
		{
			"several next hops", `route add default nexthop via 192.0.2.1 dev eth0 nexthop via 198.51.100.1 dev eth1
route add default nexthop via 2001:db8:a::1 dev eth0 nexthop via 2001:db8:b::1 dev eth1`, nil, true,
		},
		{
			"onlink, beyond the own network", `addr del 198.51.100.2/24 dev eth1
addr add 198.51.100.2/32 dev eth1
route replace default via 192.0.2.1 dev eth0 metric 100
route replace default via 198.51.100.1 dev eth1 onlink metric 200`, nil, true,
		},
	} {
		if step.ip != "" {
			h.host.IP(step.ip)
		}
		cfg.NextHops = step.hops
		require.NoError(t, c.Apply(t.Context(), cfg), step.name)
		for _, k := range kins {
			if !step.works {
				fails(t, h.service, "tcp", none, at(k.inet, 80))
				continue
			}
			// Where an address went and came, the kernel ends its translations late.
			until(t, step.name+" "+k.name, func() bool {
				seen, err := h.service.Ask(nattest.Dialer{Network: "tcp", Timeout: soon}, at(k.inet, 80))
				require.True(t, err != nil || seen == k.eth1, step.name)
				return err == nil
			})
		}
	}
}
