package nat_test

import (
	"context"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/selfstead/selfstead/nat"
	"github.com/selfstead/selfstead/nat/nattest"
)

func at(a netip.Addr, port uint16) netip.AddrPort { return netip.AddrPortFrom(a, port) }

// subnets are the prefix lengths of a target that sees its neighbours.
var subnets = map[string]int{"4": 24, "6": 64}

// sees asserts that the client's connection arrives, and whom the server sees.
func sees(t *testing.T, client *nattest.Space, network string, to netip.AddrPort, want netip.Addr) {
	t.Helper()
	seen, err := client.Ask(nattest.Dialer{Network: network}, to)
	require.NoError(t, err, "%s to %s %s", client.Name, network, to)
	require.Equal(t, want, seen, "%s to %s %s: source seen", client.Name, network, to)
}

// probes run side by side: each that must fail takes its whole time limit.
type probes struct {
	t  *testing.T
	wg sync.WaitGroup
}

// fails asserts that the client gets no answer.
func (p *probes) fails(client *nattest.Space, network string, to netip.AddrPort) {
	p.wg.Go(func() {
		seen, err := client.Ask(nattest.Dialer{Network: network, Timeout: refused}, to)
		if err == nil {
			p.t.Errorf("%s to %s %s was answered and seen as %s", client.Name, network, to, seen)
		}
	})
}

func (p *probes) wait() { p.wg.Wait() }

// fails asserts that the client gets no answer.
func fails(t *testing.T, client *nattest.Space, network string, to netip.AddrPort) {
	t.Helper()
	seen, err := client.Ask(nattest.Dialer{Network: network, Timeout: refused}, to)
	require.Error(t, err, "%s to %s %s was answered and seen as %s", client.Name, network, to, seen)
}

// TestRanges covers ranges with equal bases and with an offset, their ends and
// what lies beyond.
func TestRanges(t *testing.T) {
	t.Parallel()
	n := newSite(t, "bridge")
	n.s.BridgeRules(false)
	c := controller(t, n.s)
	var cfg nat.Config
	for _, fam := range families {
		for _, p := range []uint16{7000, 7004, 8000, 8004} {
			n.a.Serve(at(addrA[fam], p))
		}
		cfg.Forwards = append(cfg.Forwards,
			nat.Forward{Name: "equal" + fam, Source: at(wanAddr[fam], 7000), Target: nat.Target{Addr: addrA[fam], Prefix: subnets[fam], Port: 7000}, Count: 5},
			nat.Forward{Name: "offset" + fam, Source: at(wanAddr[fam], 9000), Target: nat.Target{Addr: addrA[fam], Prefix: subnets[fam], Port: 8000}, Count: 5},
			nat.Forward{Name: "tcp only" + fam, Source: at(wanAddr[fam], 9100), Target: nat.Target{Addr: addrA[fam], Prefix: subnets[fam], Port: 8000}, Protocols: nat.TCP},
			nat.Forward{Name: "udp range only" + fam, Source: at(lanAddr[fam], 7000), Target: nat.Target{Addr: addrA[fam], Prefix: subnets[fam], Port: 7000}, Count: 5, Protocols: nat.UDP})
	}
	apply(t, c, cfg)
	no := probes{t: t}
	for _, fam := range families {
		for _, network := range networks {
			for _, port := range []uint16{7000, 7004, 9000, 9004} {
				sees(t, n.i, network, at(wanAddr[fam], port), wanHost[fam])
				sees(t, n.s, network, at(wanAddr[fam], port), gateway[fam])
				sees(t, n.a, network, at(wanAddr[fam], port), gateway[fam])
				sees(t, n.b, network, at(wanAddr[fam], port), gateway[fam])
			}
			for _, port := range []uint16{6999, 7005, 8999, 9005} {
				no.fails(n.i, network, at(wanAddr[fam], port))
			}
		}
		sees(t, n.i, "tcp", at(wanAddr[fam], 9100), wanHost[fam])
		no.fails(n.i, "udp", at(wanAddr[fam], 9100))
		sees(t, n.l, "udp", at(lanAddr[fam], 7000), lanHost[fam])
		no.fails(n.l, "tcp", at(lanAddr[fam], 7000))
	}
	no.wait()
}

// TestRestricted covers who may use a restricted forward and who may not.
func TestRestricted(t *testing.T) {
	t.Parallel()
	n := newSite(t, "bridge")
	n.s.BridgeRules(false)
	c := controller(t, n.s)
	var cfg nat.Config
	lan := map[string]netip.Prefix{"4": netip.MustParsePrefix("192.168.1.0/24"), "6": netip.MustParsePrefix("2001:db8:1::/64")}
	for _, fam := range families {
		for _, p := range []uint16{8080, 8081, 8082} {
			n.a.Serve(at(addrA[fam], p))
		}
		to := nat.Target{Addr: addrA[fam], Prefix: subnets[fam], Port: 8080}
		ranged := to
		ranged.Port = 8081
		cfg.Forwards = append(cfg.Forwards,
			nat.Forward{Name: "lan" + fam, Source: at(wanAddr[fam], 5000), Target: to, AllowFrom: []netip.Prefix{lan[fam]}},
			nat.Forward{Name: "lan range" + fam, Source: at(wanAddr[fam], 8081), Target: ranged, Count: 2, AllowFrom: []netip.Prefix{lan[fam]}},
			nat.Forward{Name: "wan only" + fam, Source: at(wanAddr[fam], 5001), Target: to, AllowVia: []string{"wan0"}},
			nat.Forward{Name: "wan and lan" + fam, Source: at(wanAddr[fam], 5002), Target: to, AllowVia: []string{"wan0"}, AllowFrom: []netip.Prefix{lan[fam]}})
	}
	apply(t, c, cfg)
	no := probes{t: t}
	for _, fam := range families {
		for _, network := range networks {
			for _, port := range []uint16{5000, 8081, 8082} {
				sees(t, n.l, network, at(wanAddr[fam], port), lanHost[fam])
				no.fails(n.i, network, at(wanAddr[fam], port))
			}
			no.fails(n.l, network, at(wanAddr[fam], 5001))
			sees(t, n.i, network, at(wanAddr[fam], 5001), wanHost[fam])
			sees(t, n.l, network, at(wanAddr[fam], 5002), lanHost[fam])
			sees(t, n.i, network, at(wanAddr[fam], 5002), wanHost[fam])
			for _, port := range []uint16{5000, 5001, 5002, 8081} { // those who reach the target anyway
				for _, client := range []*nattest.Space{n.s, n.a, n.b} {
					sees(t, client, network, at(wanAddr[fam], port), gateway[fam])
				}
			}
		}
		_, err := n.i.Ask(nattest.Dialer{Network: "tcp", Timeout: refused}, at(wanAddr[fam], 5000))
		require.ErrorContains(t, err, "refused", "an excluded client is answered by the host")
	}
	no.wait()
}

// TestOnlyThroughItsForward has neighbours with a route try the target directly.
func TestOnlyThroughItsForward(t *testing.T) {
	for _, inside := range []string{"bridge", "point-to-point"} {
		for _, rules := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, bridge netfilter %v", inside, rules), func(t *testing.T) {
				t.Parallel()
				n := newSite(t, inside)
				n.s.BridgeRules(rules)
				c := controller(t, n.s)
				cfg := publish(subnets)
				for _, fam := range families {
					for _, p := range []uint16{8080, 8081, 7000, 7001} {
						n.a.Serve(at(addrA[fam], p))
					}
					cfg.Forwards = append(cfg.Forwards, nat.Forward{Name: "range" + fam, Source: at(wanAddr[fam], 7000),
						Target: nat.Target{Addr: addrA[fam], Prefix: subnets[fam], Port: 7000}, Count: 2})
				}
				apply(t, c, cfg)
				no := probes{t: t}
				for _, fam := range families {
					for _, network := range networks {
						for _, port := range []uint16{8080, 7000, 7001} {
							no.fails(n.l, network, at(addrA[fam], port))
							no.fails(n.i, network, at(addrA[fam], port))
							sees(t, n.b, network, at(addrA[fam], port), addrB[fam]) // its own subnet is not judged
						}
						sees(t, n.s, network, at(addrA[fam], 8080), gateway[fam])
						sees(t, n.l, network, at(addrA[fam], 8081), lanHost[fam]) // not forwarded, not ours
					}
				}
				no.wait()
				require.NoError(t, c.CleanUp(context.Background()))
				sees(t, n.l, "tcp", at(addrA["4"], 8080), lanHost["4"])
			})
		}
	}
}

// TestForeignTranslation has another program translate to the same target: it
// is neither masqueraded nor let through by us.
func TestForeignTranslation(t *testing.T) {
	t.Parallel()
	nattest.Require(t, "nft")
	n := newSite(t, "point-to-point")
	n.s.Nft(`table inet foreign {
	chain prerouting {
		type nat hook prerouting priority dstnat - 5;
		ip daddr 203.0.113.7 tcp dport 6000 dnat ip to 10.0.3.5:8080
		ip daddr 203.0.113.7 tcp dport 6001 dnat ip to 10.0.3.5:8081
		ip daddr 203.0.113.7 tcp dport 6002 dnat ip to 10.0.3.6:8080
	}
}
`)
	before := n.s.Run("nft", "list", "table", "inet", "foreign")
	n.a.Serve(at(addrA["4"], 8080))
	n.a.Serve(at(addrA["4"], 8081))
	n.b.Serve(at(addrB["4"], 8080))
	c := controller(t, n.s)
	apply(t, c, publish(map[string]int{"4": 32, "6": 128}))
	fails(t, n.l, "tcp", at(wanAddr["4"], 6000))
	sees(t, n.l, "tcp", at(wanAddr["4"], 6001), lanHost["4"])
	sees(t, n.a, "tcp", at(wanAddr["4"], 6002), addrA["4"]) // not masqueraded
	fails(t, n.a, "tcp", at(wanAddr["4"], 6001))            // its own hairpin would need it, and is not ours
	sees(t, n.a, "tcp", at(wanAddr["4"], 5000), gateway["4"])
	require.NoError(t, c.CleanUp(context.Background()))
	require.Equal(t, before, n.s.Run("nft", "list", "table", "inet", "foreign"))
}

// TestLoopbackForward publishes at 127.0.0.1: the host's own clients come
// through, and no link lets loopback addresses in.
func TestLoopbackForward(t *testing.T) {
	for _, inside := range []string{"bridge", "point-to-point"} {
		t.Run(inside, func(t *testing.T) {
			t.Parallel()
			n := newSite(t, inside)
			dev := map[string]string{"bridge": "br0", "point-to-point": "vA"}[inside]
			key := "net.ipv4.conf." + dev + ".route_localnet"
			n.a.Serve(at(addrA["4"], 8080))
			secret := n.s.Serve(netip.MustParseAddrPort("127.0.0.1:99"))
			defer secret.Close()
			c := controller(t, n.s)
			loop := netip.MustParseAddrPort("127.0.0.1:5000")
			cfg := nat.Config{Forwards: []nat.Forward{{Name: "loop", Source: loop, Target: nat.Target{Addr: addrA["4"], Prefix: 32, Port: 8080}}}}
			apply(t, c, cfg)
			for _, network := range networks {
				sees(t, n.s, network, loop, gateway["4"])
			}
			require.Equal(t, "1", n.s.ReadSysctl(key))
			// The sysctl alone would let A reach what listens on the host's loopback.
			n.a.IP("route add 127.0.0.0/8 via 10.0.3.1 dev eth0 onlink table 10\nrule add from 10.0.3.5 lookup 10 pref 0\nrule add pref 1 lookup local\nrule del pref 0 lookup local")
			n.a.Sysctl("net.ipv4.conf.all.route_localnet", "1")
			for _, network := range networks {
				_, err := n.a.Ask(nattest.Dialer{Network: network, From: addrA["4"], Timeout: refused}, netip.MustParseAddrPort("127.0.0.1:99"))
				require.Error(t, err, "a target reached the host's loopback")
			}
			apply(t, c, nat.Config{})
			require.Equal(t, "0", n.s.ReadSysctl(key))
			apply(t, c, cfg)
			require.NoError(t, c.Close())
			require.NoError(t, controller(t, n.s).CleanUp(context.Background()), "after the process that set it up")
			require.Equal(t, "0", n.s.ReadSysctl(key))
			// That A was kept out by our guard, and by nothing else:
			n.s.Sysctl(key, "1")
			_, err := n.a.Ask(nattest.Dialer{Network: "tcp", From: addrA["4"]}, netip.MustParseAddrPort("127.0.0.1:99"))
			require.NoError(t, err, "the lab does not let A through even without us")
		})
	}
}

// TestFlows changes forwards under live flows: those of a forward that goes, is
// retargeted or closed to a source end, and no others.
func TestFlows(t *testing.T) {
	t.Parallel()
	nattest.Require(t, "conntrack")
	n := newSite(t, "point-to-point")
	c := controller(t, n.s)
	var base nat.Config
	add := func(name string, fam string, port uint16, target netip.Addr) nat.Forward {
		f := nat.Forward{Name: name + fam, Source: at(wanAddr[fam], port), Target: nat.Target{Addr: target, Prefix: target.BitLen(), Port: 8080}}
		base.Forwards = append(base.Forwards, f)
		return f
	}
	for _, fam := range families {
		n.a.Serve(at(addrA[fam], 8080))
		n.b.Serve(at(addrB[fam], 8080))
		add("stays", fam, 5000, addrA[fam])
		add("goes", fam, 5001, addrA[fam])
		add("moves", fam, 5002, addrA[fam])
		add("closes", fam, 5003, addrA[fam])
	}
	apply(t, c, base)
	flows := map[string]*nattest.Flow{}
	for _, fam := range families {
		for _, network := range networks {
			for port, name := range map[uint16]string{5000: "stays", 5001: "goes", 5002: "moves", 5003: "closes"} {
				for _, client := range []*nattest.Space{n.i, n.l, n.a} {
					f, err := client.Open(nattest.Dialer{Network: network}, at(wanAddr[fam], port))
					require.NoError(t, err)
					defer f.Close()
					_, err = f.Seen(5 * time.Second)
					require.NoError(t, err)
					flows[fmt.Sprint(name, fam, network, client.Name)] = f
				}
			}
		}
	}
	count := func() int {
		n.s.Run("conntrack", "-C")
		out := n.s.Run("conntrack", "-L", "--dst-nat")
		out += n.s.Run("conntrack", "-L", "-f", "ipv6", "--dst-nat")
		lines := 0
		for _, l := range []byte(out) {
			if l == '\n' {
				lines++
			}
		}
		return lines
	}
	require.Equal(t, 48, len(flows))
	before := count()
	apply(t, c, base) // the same again
	require.Equal(t, before, count())

	next := nat.Config{}
	for _, f := range base.Forwards {
		fam := f.Name[len(f.Name)-1:]
		switch f.Name[:len(f.Name)-1] {
		case "goes":
			continue
		case "moves":
			f.Target.Addr = addrB[fam]
		case "closes":
			f.AllowFrom = []netip.Prefix{netip.PrefixFrom(lanHost[fam], lanHost[fam].BitLen())}
		}
		next.Forwards = append(next.Forwards, f)
	}
	apply(t, c, next)
	for _, fam := range families {
		for _, client := range []string{"I", "L", "A"} {
			require.NoError(t, flows["stays"+fam+"tcp"+client].Echo("still here", 5*time.Second))
			_, err := flows["stays"+fam+"udp"+client].Seen(5 * time.Second)
			require.NoError(t, err)
			require.Error(t, flows["goes"+fam+"tcp"+client].Echo("gone", refused))
			require.Error(t, flows["moves"+fam+"tcp"+client].Echo("gone", refused))
			_, err = flows["goes"+fam+"udp"+client].Seen(refused)
			require.Error(t, err)
			_, err = flows["moves"+fam+"udp"+client].Seen(5 * time.Second)
			require.NoError(t, err, "the next datagram goes to the new target")
			kept := client != "I" // A is the target itself
			_, err = flows["closes"+fam+"udp"+client].Seen(refused)
			require.Equal(t, kept, err == nil, "closes udp %s: %v", client, err)
			err = flows["closes"+fam+"tcp"+client].Echo("closed?", refused)
			require.Equal(t, kept, err == nil, "closes tcp %s: %v", client, err)
		}
	}
	require.NoError(t, c.CleanUp(context.Background()))
	out, err := n.s.Output("conntrack", "-L", "--dst-nat")
	require.NoError(t, err)
	require.NotContains(t, out, "dport=5000", "CleanUp left flows")
}

// TestDeadProcessFlows retargets a forward by a new process after the old one died.
func TestDeadProcessFlows(t *testing.T) {
	t.Parallel()
	n := newSite(t, "point-to-point")
	n.a.Serve(at(addrA["4"], 8080))
	n.b.Serve(at(addrB["4"], 8080))
	c := controller(t, n.s)
	cfg := publish(map[string]int{"4": 32, "6": 128})
	apply(t, c, cfg)
	f, err := n.i.Open(nattest.Dialer{Network: "udp"}, at(wanAddr["4"], 5000))
	require.NoError(t, err)
	defer f.Close()
	_, err = f.Seen(5 * time.Second)
	require.NoError(t, err)
	require.NoError(t, c.Close())
	// The old process wrote the new state and died before it deleted flows.
	for i := range cfg.Forwards {
		if cfg.Forwards[i].Target.Addr == addrA["4"] {
			cfg.Forwards[i].Target.Addr = addrB["4"]
		}
	}
	n.s.Run("nft", "delete element inet selfstead forward4 { 203.0.113.7 . 5000 }")
	apply(t, controller(t, n.s), cfg)
	seen, err := n.i.Ask(nattest.Dialer{Network: "udp", Port: f.Local().Port() + 1}, at(wanAddr["4"], 5000))
	require.NoError(t, err)
	require.Equal(t, wanHost["4"], seen)
	out, err := exec.LookPath("conntrack")
	require.NoError(t, err)
	require.NotContains(t, n.s.Run(out, "-L", "-p", "udp"), "src=10.0.3.5 dst=203.0.113.50")
}

// TestPinnedClient has a client send before the port is forwarded, and go on
// from the same source port: its packets must be translated all the same.
func TestPinnedClient(t *testing.T) {
	t.Parallel()
	n := newSite(t, "point-to-point")
	c := controller(t, n.s)
	apply(t, c, nat.Config{}) // conntrack works from here on
	for _, fam := range families {
		n.a.Serve(at(addrA[fam], 8080))
	}
	pinned := map[string]*nattest.Flow{}
	for _, fam := range families {
		f, err := n.l.Open(nattest.Dialer{Network: "udp"}, at(wanAddr[fam], 5000))
		require.NoError(t, err)
		defer f.Close()
		_, err = f.Seen(refused)
		require.Error(t, err)
		pinned[fam] = f
	}
	apply(t, c, publish(map[string]int{"4": 32, "6": 128}))
	for _, fam := range families {
		require.Eventually(t, func() bool {
			seen, err := pinned[fam].Seen(refused)
			return err == nil && seen.Addr() == lanHost[fam]
		}, soon, 10*time.Millisecond)
	}
}

// TestSegmentsFit has a target behind a narrow link and nobody who tells: large
// first flights arrive in both directions all the same.
func TestSegmentsFit(t *testing.T) {
	t.Parallel()
	nattest.Require(t, "nft")
	n := newSite(t, "point-to-point")
	n.s.IP("link set vA mtu 1300")
	n.s.Nft(`table inet silent {
	chain output {
		type filter hook output priority 0;
		icmp type destination-unreachable drop
		icmpv6 type packet-too-big drop
	}
}
`)
	c := controller(t, n.s)
	apply(t, c, publish(map[string]int{"4": 32, "6": 128}))
	talk := func(client *nattest.Space, fam string, limit time.Duration) error {
		f, err := client.Open(nattest.Dialer{Network: "tcp"}, at(wanAddr[fam], 5000))
		require.NoError(t, err)
		defer f.Close()
		_, err = f.Seen(5 * time.Second)
		require.NoError(t, err)
		return f.Echo(strings.Repeat("hello ", 1000)+".", limit)
	}
	for _, fam := range families {
		n.a.Serve(at(addrA[fam], 8080))
		for _, client := range []*nattest.Space{n.l, n.i, n.b, n.a} {
			require.NoError(t, talk(client, fam, 5*time.Second), "%s, IPv%s", client.Name, fam)
		}
	}
	// It is our rule that does it.
	require.NoError(t, c.Close()) // or it would put the rule back
	n.s.Run("nft", "flush", "chain", "inet", "selfstead", "forward")
	require.Error(t, talk(n.l, "4", time.Second))
}

// TestTargetOnThisHost leads a forward to a server on the host itself: clients
// keep their address, and the port stays reachable without the forward.
func TestTargetOnThisHost(t *testing.T) {
	t.Parallel()
	n := newSite(t, "bridge")
	n.s.BridgeRules(true)
	c := controller(t, n.s)
	var cfg nat.Config
	for _, fam := range families {
		n.s.Serve(at(lanAddr[fam], 8080))
		cfg.Forwards = append(cfg.Forwards, nat.Forward{Name: "own" + fam, Source: at(wanAddr[fam], 5000),
			Target: nat.Target{Addr: lanAddr[fam], Prefix: subnets[fam], Port: 8080}})
	}
	apply(t, c, cfg)
	for _, fam := range families {
		for _, network := range networks {
			for client, want := range map[*nattest.Space]netip.Addr{n.i: wanHost[fam], n.l: lanHost[fam], n.a: addrA[fam]} {
				sees(t, client, network, at(wanAddr[fam], 5000), want)
			}
			sees(t, n.a, network, at(lanAddr[fam], 8080), addrA[fam])
			_, err := n.s.Ask(nattest.Dialer{Network: network}, at(wanAddr[fam], 5000))
			require.NoError(t, err)
		}
	}
}

// TestNoPortMapping has an inside host speak to a router further out as port
// mapping clients do.
func TestNoPortMapping(t *testing.T) {
	t.Parallel()
	n := newSite(t, "point-to-point")
	ask := func(from *nattest.Space, to netip.AddrPort, limit time.Duration) error {
		_, err := from.Ask(nattest.Dialer{Network: "udp", Timeout: limit}, to)
		return err
	}
	for _, fam := range families {
		for _, port := range []uint16{5351, 1900, 5352} {
			n.i.Serve(at(wanHost[fam], port))
		}
		n.a.Serve(at(addrA[fam], 5351))
	}
	c := controller(t, n.s)
	apply(t, c, publish(map[string]int{"4": 32, "6": 128}))
	for _, fam := range families {
		require.NoError(t, ask(n.a, at(wanHost[fam], 5351), 5*time.Second), "the lab lets it through")
	}
	require.NoError(t, c.Close())
	n.s.Do(func() (err error) {
		c, err = nat.New(nat.Options{NoPortMapping: true})
		return err
	})
	defer c.Close()
	cfg := publish(map[string]int{"4": 32, "6": 128})
	for i, fam := range families {
		cfg.Forwards = append(cfg.Forwards, nat.Forward{Name: fmt.Sprint("its own ", i), Source: at(wanAddr[fam], 5351), Target: nat.Target{Addr: addrA[fam], Prefix: map[string]int{"4": 32, "6": 128}[fam], Port: 5351}})
	}
	apply(t, c, cfg)
	require.Contains(t, n.s.Ruleset(), "udp dport 5351 drop")
	require.Contains(t, n.s.Ruleset(), "udp dport 1900 drop")
	for _, fam := range families {
		require.Error(t, ask(n.a, at(wanHost[fam], 5351), refused), fam)
		require.Error(t, ask(n.a, at(wanHost[fam], 1900), refused), fam)
		require.NoError(t, ask(n.a, at(wanHost[fam], 5352), 5*time.Second), fam)
		require.NoError(t, ask(n.i, at(wanAddr[fam], 5351), 5*time.Second), "a forward of that port")
	}
}
