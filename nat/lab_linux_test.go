package nat_test

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/selfstead/selfstead/nat"
	"github.com/selfstead/selfstead/nat/nattest"
)

// site is the lab that most tests share: a server S with a LAN client L, an
// outside client I, and the inside hosts A (the target) and B next to each
// other behind S in one of several ways.
type site struct {
	*nattest.Lab
	s, l, i, a, b *nattest.Space
	inside        string
}

// Addresses of the site by family, "4" and "6".
var (
	lanAddr  = pair("192.168.1.10", "2001:db8:1::10")
	wanAddr  = pair("203.0.113.7", "2001:db8:2::7")
	farAddr  = pair("198.51.100.99", "2001:db8:3::99") // held by an upstream gateway, not by S
	lanHost  = pair("192.168.1.50", "2001:db8:1::50")
	wanHost  = pair("203.0.113.50", "2001:db8:2::50")
	gateway  = pair("10.0.3.1", "fd00:3::1")
	addrA    = pair("10.0.3.5", "fd00:3::5")
	addrB    = pair("10.0.3.6", "fd00:3::6")
	families = []string{"4", "6"}
	networks = []string{"tcp", "udp"}
)

func pair(v4, v6 string) map[string]netip.Addr {
	return map[string]netip.Addr{"4": netip.MustParseAddr(v4), "6": netip.MustParseAddr(v6)}
}

// newSite builds the lab; inside is "bridge", "segment",
// "point-to-point", "unnumbered" or "routed".
func newSite(t testing.TB, inside string) *site {
	t.Helper()
	lab := nattest.NewLab(t)
	n := &site{Lab: lab, inside: inside, s: lab.Router("S"), l: lab.Space("L"), i: lab.Space("I"), a: lab.Space("A"), b: lab.Space("B")}
	lab.Join(n.s, "lan0", n.l, "eth0")
	lab.Join(n.s, "wan0", n.i, "eth0")
	n.s.IP(`addr add 192.168.1.10/24 dev lan0
addr add 2001:db8:1::10/64 dev lan0
addr add 203.0.113.7/24 dev wan0
addr add 2001:db8:2::7/64 dev wan0
route add default via 203.0.113.50
route add default via 2001:db8:2::50`)
	n.l.IP(`addr add 192.168.1.50/24 dev eth0
addr add 2001:db8:1::50/64 dev eth0
route add default via 192.168.1.10
route add default via 2001:db8:1::10`)
	n.i.IP(`addr add 203.0.113.50/24 dev eth0
addr add 2001:db8:2::50/64 dev eth0
route add 10.0.3.0/24 via 203.0.113.7
route add fd00:3::/64 via 2001:db8:2::7`)
	switch inside {
	case "bridge":
		n.s.IP(`link add br0 address 02:00:00:00:03:01 type bridge
addr add 10.0.3.1/24 dev br0
addr add fd00:3::1/64 dev br0
link set br0 up`)
		for host, name := range map[*nattest.Space]string{n.a: "A", n.b: "B"} {
			lab.Join(n.s, "v"+name, host, "eth0")
			n.s.IP("link set v" + name + " master br0")
		}
		n.number(24, 64)
	case "point-to-point":
		for host, name := range map[*nattest.Space]string{n.a: "A", n.b: "B"} {
			lab.Join(n.s, "v"+name, host, "eth0")
			own := map[string]map[string]netip.Addr{"A": addrA, "B": addrB}[name]
			n.s.IP(fmt.Sprintf(`addr add 10.0.3.1/32 dev v%[1]s
addr add fd00:3::1/128 dev v%[1]s
route add %[2]s dev v%[1]s
route add %[3]s dev v%[1]s`, name, own["4"], own["6"]))
		}
		n.number(32, 128)
	case "segment": // S, A and B on one switch, which is none of S's links
		w := lab.Space("W")
		w.BridgeRules(false)
		w.IP("link add sw0 type bridge\nlink set sw0 up")
		for host, name := range map[*nattest.Space]string{n.s: "S", n.a: "A", n.b: "B"} {
			dev := "eth0"
			if host == n.s {
				dev = "seg0"
			}
			lab.Join(w, "p"+name, host, dev)
			w.IP("link set p" + name + " master sw0")
		}
		n.s.IP("addr add 10.0.3.1/24 dev seg0\naddr add fd00:3::1/64 dev seg0")
		n.number(24, 64)
	case "unnumbered": // as container runtimes do: the gateway is on lo, the links have no address
		n.s.IP("addr add 10.0.3.1/32 dev lo\naddr add fd00:3::1/128 dev lo")
		for host, name := range map[*nattest.Space]string{n.a: "A", n.b: "B"} {
			lab.Join(n.s, "v"+name, host, "eth0")
			own := map[string]map[string]netip.Addr{"A": addrA, "B": addrB}[name]
			n.s.IP(fmt.Sprintf("link set v%[1]s address 02:00:00:00:04:01\nroute add %[2]s dev v%[1]s\nroute add %[3]s dev v%[1]s", name, own["4"], own["6"]))
			host.IP("neigh add fd00:3::1 lladdr 02:00:00:00:04:01 dev eth0")
		}
		n.number(32, 128)
	case "routed": // A and B share a segment behind a router of their own
		r := lab.Router("R")
		lab.Join(n.s, "r0", r, "up0")
		n.s.IP(`addr add 10.0.9.1/24 dev r0
addr add fd00:9::1/64 dev r0
route add 10.0.3.0/24 via 10.0.9.2
route add fd00:3::/64 via fd00:9::2`)
		r.IP(`addr add 10.0.9.2/24 dev up0
addr add fd00:9::2/64 dev up0
route add default via 10.0.9.1
route add default via fd00:9::1
link add br0 type bridge
addr add 10.0.3.1/24 dev br0
addr add fd00:3::1/64 dev br0
link set br0 up`)
		r.BridgeRules(false)
		for host, name := range map[*nattest.Space]string{n.a: "A", n.b: "B"} {
			lab.Join(r, "v"+name, host, "eth0")
			r.IP("link set v" + name + " master br0")
		}
		n.number(24, 64)
	default:
		t.Fatalf("unknown inside %q", inside)
	}
	return n
}

// number gives A and B their addresses and a default route.
func (n *site) number(bits4, bits6 int) {
	for host, own := range map[*nattest.Space]map[string]netip.Addr{n.a: addrA, n.b: addrB} {
		host.IP(fmt.Sprintf(`addr add %s/%d dev eth0
addr add %s/%d dev eth0
route add default via 10.0.3.1 dev eth0 onlink
route add default via fd00:3::1 dev eth0 onlink`, own["4"], bits4, own["6"], bits6))
	}
}

// controller opens a controller inside S; it is closed with the test.
func controller(t testing.TB, s *nattest.Space) *nat.Controller {
	t.Helper()
	var c *nat.Controller
	s.Do(func() (err error) {
		c, err = nat.New(nat.Options{})
		return err
	})
	t.Cleanup(func() { c.Close() })
	return c
}

// publish returns forwards of port 5000 at each of S's addresses to A's port
// 8080, in both families, with the target's prefix given by family.
func publish(prefix map[string]int) nat.Config {
	var cfg nat.Config
	for _, fam := range families {
		for name, at := range map[string]map[string]netip.Addr{"lan": lanAddr, "wan": wanAddr, "far": farAddr, "gateway": gateway} {
			cfg.Forwards = append(cfg.Forwards, nat.Forward{
				Name:   name + fam,
				Source: netip.AddrPortFrom(at[fam], 5000),
				Target: nat.Target{Addr: addrA[fam], Prefix: prefix[fam], Port: 8080},
			})
		}
	}
	return cfg
}

func apply(t testing.TB, c *nat.Controller, cfg nat.Config) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	require.NoError(t, c.Apply(ctx, cfg))
}

// refused is how long a probe that must fail is given.
const refused = 300 * time.Millisecond
