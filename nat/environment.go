package nat

import (
	"net/netip"
	"slices"
)

// Environment is what the links, addresses and routes of the network namespace
// say about where targets are. The zero value knows nothing, and then every
// hairpin connection from a target's subnet is masqueraded.
type Environment struct {
	Links  map[int]Link
	Addrs  map[netip.Addr]int // own addresses, and the link that holds each
	Routes []Route            // unicast routes; those of the main table first
}

// Link is the part of a network link that matters to hairpin.
type Link struct {
	Name         string
	Kind         string         // "bridge", "veth", "tun", "wireguard", ...
	PointToPoint bool           // no neighbour resolution: a tunnel
	Master       int            // the bridge it is a port of, 0 when none
	Hairpin      bool           // bridge port: may send a frame back where it came from
	CallRules    [2]bool        // bridge: frames visit the IPv4, IPv6 rules by the bridge's own option
	Subnets      []netip.Prefix // the link's own addresses with their prefixes
}

// Route is a unicast route.
type Route struct {
	Dst    netip.Prefix
	Link   int
	Via    netip.Addr // the router it leads to; invalid when the destination is a neighbour
	Main   bool       // of the main table
	Metric uint32
}

// route finds the route to addr by its longest prefix, preferring the main table.
func (e *Environment) route(addr netip.Addr) (Route, bool) {
	best, found := Route{}, false
	for _, r := range e.Routes {
		if !r.Dst.Contains(addr) {
			continue
		}
		if !found || better(r, best) {
			best, found = r, true
		}
	}
	return best, found
}

func better(a, b Route) bool {
	if a.Main != b.Main {
		return a.Main
	}
	if a.Dst.Bits() != b.Dst.Bits() {
		return a.Dst.Bits() > b.Dst.Bits()
	}
	return a.Metric < b.Metric
}

// shortcut returns the sources from which a hairpin connection to the target
// must be masqueraded, as a masked prefix around the target.
//
// The target's replies take a short cut past this host when the target reaches
// the client without it: as a neighbour on a bridge or another shared segment,
// here or behind a further router. They cannot where each host hangs on a link
// of its own: a point-to-point link whose own subnet holds the target (a
// WireGuard hub and its peers), or a route to the target alone that leads
// straight to a link that is no bridge. There only the target itself needs it,
// since it would drop a packet from its own address, and siblings keep theirs.
func (e *Environment) shortcut(target netip.Addr, prefix int) netip.Prefix {
	alone := netip.PrefixFrom(target, target.BitLen())
	whole := netip.PrefixFrom(target, prefix).Masked()
	if prefix == target.BitLen() {
		return alone
	}
	r, ok := e.route(target)
	if !ok || r.Via.IsValid() {
		return whole
	}
	link := e.Links[r.Link]
	switch {
	case link.PointToPoint:
		for _, p := range link.Subnets {
			if p.Contains(target) {
				return alone
			}
		}
		if r.Dst.IsSingleIP() {
			return alone
		}
		return whole
	case link.Kind == "bridge":
		return whole
	case r.Dst.IsSingleIP():
		return alone
	}
	return whole
}

// equal reports whether both say the same.
func (e *Environment) equal(f *Environment) bool {
	if len(e.Links) != len(f.Links) || len(e.Addrs) != len(f.Addrs) || !slices.Equal(e.Routes, f.Routes) {
		return false
	}
	for a, i := range e.Addrs {
		if j, ok := f.Addrs[a]; !ok || i != j {
			return false
		}
	}
	for i, l := range e.Links {
		m, ok := f.Links[i]
		if !ok || l.Name != m.Name || l.Kind != m.Kind || l.PointToPoint != m.PointToPoint || l.Master != m.Master ||
			l.Hairpin != m.Hairpin || l.CallRules != m.CallRules || !slices.Equal(l.Subnets, m.Subnets) {
			return false
		}
	}
	return true
}
