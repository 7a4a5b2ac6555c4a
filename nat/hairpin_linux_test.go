package nat_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

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
