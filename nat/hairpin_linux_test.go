package nat_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/selfstead/selfstead/nat"
	"github.com/selfstead/selfstead/nat/nattest"
)

// cell is one hairpin case: who asks at which address, and whom A must see.
type cell struct {
	name string
	from *nattest.Space
	to   map[string]netip.Addr
	seen map[string]netip.Addr
}

// cells lists every client for a site whose hairpin traffic A sees coming from
// masq, and whose sibling's traffic it sees coming from sibling.
func (n *site) cells(masq, sibling map[string]netip.Addr) []cell {
	cells := []cell{
		{"outside client, public address", n.i, wanAddr, wanHost},
		{"LAN client, LAN address", n.l, lanAddr, lanHost},
		{"LAN client, public address", n.l, wanAddr, lanHost},
		{"LAN client, address of an upstream gateway", n.l, farAddr, lanHost},
		{"host itself, LAN address", n.s, lanAddr, masq},
		{"host itself, public address", n.s, wanAddr, masq},
		{"host itself, address that is not local", n.s, farAddr, masq},
		{"target itself, LAN address", n.a, lanAddr, masq},
		{"target itself, public address", n.a, wanAddr, masq},
		{"target itself, address of an upstream gateway", n.a, farAddr, masq},
		{"sibling, LAN address", n.b, lanAddr, sibling},
		{"sibling, public address", n.b, wanAddr, sibling},
	}
	if n.inside != "routed" { // there it is the router's
		cells = append(cells,
			cell{"host itself, gateway address", n.s, gateway, masq},
			cell{"target itself, gateway address", n.a, gateway, masq},
			cell{"sibling, gateway address", n.b, gateway, sibling})
	}
	return cells
}

// TestHairpin asserts the source address that the target sees for every
// client, transport and family, behind each kind of link, with and without
// bridge netfilter.
func TestHairpin(t *testing.T) {
	behindRouter := pair("10.0.9.1", "fd00:9::1")
	type prefixes = map[string]int
	alone := prefixes{"4": 32, "6": 128}
	for _, tc := range []struct {
		name, inside  string
		prefix        prefixes
		masq, sibling map[string]netip.Addr
	}{
		{"bridge", "bridge", subnets, gateway, gateway},
		{"shared segment", "segment", subnets, gateway, gateway},
		{"point-to-point, host prefix", "point-to-point", alone, gateway, addrB},
		{"point-to-point, subnet prefix", "point-to-point", subnets, gateway, addrB},
		{"unnumbered, host prefix", "unnumbered", alone, gateway, addrB},
		{"unnumbered, subnet prefix", "unnumbered", subnets, gateway, addrB},
		{"routed subnet", "routed", subnets, behindRouter, behindRouter},
	} {
		for _, rules := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, bridge netfilter %v", tc.name, rules), func(t *testing.T) {
				t.Parallel()
				n := newSite(t, tc.inside)
				n.s.BridgeRules(rules)
				for _, fam := range families {
					n.a.Serve(netip.AddrPortFrom(addrA[fam], 8080))
				}
				c := controller(t, n.s)
				apply(t, c, publish(tc.prefix))
				for _, cell := range n.cells(tc.masq, tc.sibling) {
					for _, fam := range families {
						for _, network := range networks {
							seen, err := cell.from.Ask(nattest.Dialer{Network: network}, netip.AddrPortFrom(cell.to[fam], 5000))
							if what := fmt.Sprintf("%s, %s, IPv%s", cell.name, network, fam); err != nil {
								t.Errorf("%s: %v", what, err)
							} else if seen != cell.seen[fam] {
								t.Errorf("%s: A saw %s, not %s", what, seen, cell.seen[fam])
							}
						}
					}
				}
				require.NoError(t, c.Close())
			})
		}
	}
}

// TestThroughTwoHosts has a target ask for itself at the address of a host that
// publishes this one: two translations each way, and the way back retraces them.
func TestThroughTwoHosts(t *testing.T) {
	t.Parallel()
	nattest.Require(t, "nft")
	n := newSite(t, "bridge")
	n.s.BridgeRules(false)
	tunnel := n.Router("T")
	n.Join(tunnel, "to0", n.s, "up0")
	outer, link, near := pair("198.51.100.7", "2001:db8:7::7"), pair("10.59.0.1", "fd59::1"), pair("10.59.0.2", "fd59::2")
	var inner, far nat.Config
	for _, fam := range families {
		n.a.Serve(at(addrA[fam], 8080))
		bits := map[string]string{"4": "/24", "6": "/64 nodad"}[fam]
		tunnel.IP("addr add " + link[fam].String() + bits[:3] + " dev to0" + bits[3:])
		n.s.IP("addr add " + near[fam].String() + bits[:3] + " dev up0" + bits[3:] + "\nroute add " + outer[fam].String() + " via " + link[fam].String())
		inner.Forwards = append(inner.Forwards, nat.Forward{Name: "inner" + fam, Source: at(near[fam], 5000), Target: nat.Target{Addr: addrA[fam], Prefix: subnets[fam], Port: 8080}})
		far.Forwards = append(far.Forwards, nat.Forward{Name: "outer" + fam, Source: at(outer[fam], 5000), Target: nat.Target{Addr: near[fam], Prefix: subnets[fam], Port: 5000}})
	}
	apply(t, controller(t, n.s), inner)
	apply(t, controller(t, tunnel), far)
	ask := func(from *nattest.Space, network, fam string) (netip.Addr, error) {
		return from.Ask(nattest.Dialer{Network: network, Timeout: refused}, at(outer[fam], 5000))
	}
	for _, fam := range families {
		_, err := ask(n.a, "tcp", fam)
		require.Error(t, err, "nobody knows the way back to the target without the egress masquerade")
	}
	n.s.Nft("table inet egress { chain post { type nat hook postrouting priority 100; oifname up0 ip saddr 10.0.3.0/24 masquerade; oifname up0 ip6 saddr fd00:3::/64 masquerade; }; }\n")
	for _, fam := range families {
		for _, network := range networks {
			sees(t, n.a, network, at(outer[fam], 5000), link[fam])
			sees(t, n.b, network, at(outer[fam], 5000), link[fam])
		}
	}
}
