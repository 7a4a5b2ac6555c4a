package gateway

import (
	"fmt"
	"hash/fnv"
	"maps"
	"math/bits"
	"net/netip"
	"slices"
	"strings"
)

// Slots are numbered from 1; each gateway's is derived from its name, so that it
// stays the same across restarts and re-made interfaces.
const (
	slots       = 4094
	maxGateways = 256
)

// Priorities of rules, from Options.Priority on; doc.go says what each is for.
const (
	priorityTunnel    = 0
	priorityNoTunnel  = 1
	priorityNeighbour = 2
	priorityMain      = 3
	priorityMark      = 4
	priorityDevice    = 5
	prioritySource    = 10 // and two for each bit that a prefix is shorter
	priorityOwn       = 11
	priorityDefault   = 270

	mainPriority = 32766 // of the kernel's rule for main
	mainTable    = 254
)

// Prefixes up to these lengths stand for default routes.
const (
	shortest4 = 3
	shortest6 = 4
)

// unreachableMetric is below every other route's.
const unreachableMetric = 1<<32 - 1

var (
	any4 = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	any6 = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
)

// rule is one routing rule of ours, comparable. It matches all that is set.
type rule struct {
	Priority    uint32
	Family      int // 4 or 6
	From        netip.Prefix
	Mark, Mask  uint32
	Device      string // that a socket is bound to
	Table       uint32
	Suppress    uint32 // routes with prefixes up to this length do not count; 0 means all count
	Unreachable bool   // instead of a table
}

// route is one route, comparable. Unreachable ones have no interface.
type route struct {
	Table       uint32
	Dst         netip.Prefix
	Via         netip.Addr
	Src         netip.Addr // to prefer as source
	Index       uint32
	Metric      uint32
	MTU         uint32
	Onlink      bool
	Unreachable bool
}

// plan is what a Config means here and now. Pure.
type plan struct {
	Slots  map[string]uint32 // gateway -> slot
	Rules  []rule
	Routes []route
}

// assign gives each name a slot: the one it has, else its hash, or the next free
// one.
func assign(names []string, have map[string]uint32) map[string]uint32 {
	out := map[string]uint32{}
	taken := map[uint32]bool{}
	for _, n := range names {
		if s, ok := have[n]; ok {
			out[n], taken[s] = s, true
		}
	}
	for _, n := range slices.Sorted(slices.Values(names)) {
		if _, ok := out[n]; ok {
			continue
		}
		h := fnv.New32a()
		h.Write([]byte(n))
		s := h.Sum32()%slots + 1
		for taken[s] {
			s = s%slots + 1
		}
		out[n], taken[s] = s, true
	}
	return out
}

// makePlan turns cfg into rules and routes. have and main are what there is:
// the interfaces, and main's default and on-link routes; kept holds slots that
// are in use.
func makePlan(cfg Config, o Options, have []Gateway, main []route, kept map[string]uint32) plan {
	p := plan{Slots: assign(cfg.names(), kept)}
	shift := trailingZeros(o.Mask)
	both := func(r rule) {
		for _, r.Family = range []int{4, 6} {
			if r.Suppress != 0 {
				r.Suppress = shortest(r.Family)
			}
			r.Priority += o.Priority
			p.Rules = append(p.Rules, r)
			r.Priority -= o.Priority
		}
	}
	if len(p.Slots) > 0 {
		both(rule{Priority: priorityMain, Table: mainTable, Suppress: 1})
	}
	for _, name := range cfg.names() {
		slot := p.Slots[name]
		table := o.TableBase + slot
		both(rule{Priority: priorityNeighbour, Mark: slot << shift, Mask: o.Mask, Table: table, Suppress: 1})
		both(rule{Priority: priorityMark, Mark: slot << shift, Mask: o.Mask, Table: table})
		both(rule{Priority: priorityDevice, Device: name, Table: table})
		if g := find(have, name); g != nil {
			for _, a := range g.Addresses {
				// An IPv6 socket without an address that meets "unreachable" takes some
				// address and is routed again, by that one: it would leak around a default.
				if !a.Addr().IsLinkLocalUnicast() && (a.Addr().Is4() || cfg.Default == "") {
					host := netip.PrefixFrom(a.Addr(), a.Addr().BitLen())
					p.Rules = append(p.Rules, rule{Priority: o.Priority + priorityOwn, Family: family(host), From: host, Table: table})
				}
			}
			if g.Up {
				p.Routes = append(p.Routes, onlink(*g, main, table)...)
				p.Routes = append(p.Routes, defaults(cfg.NextHops[name], *g, main, table)...)
			}
		}
		for _, any := range []netip.Prefix{any4, any6} {
			p.Routes = append(p.Routes, route{Table: table, Dst: any, Metric: unreachableMetric, Unreachable: true})
		}
	}
	for _, m := range cfg.TunnelMarks {
		both(rule{Priority: priorityTunnel, Mark: m, Mask: 1<<32 - 1, Table: mainTable})
		both(rule{Priority: priorityNoTunnel, Mark: m, Mask: 1<<32 - 1, Unreachable: true})
	}
	for _, s := range cfg.Sources {
		short := uint32(s.Prefix.Addr().BitLen() - s.Prefix.Bits())
		p.Rules = append(p.Rules, rule{
			Priority: o.Priority + prioritySource + 2*short, Family: family(s.Prefix), From: s.Prefix, Table: o.TableBase + p.Slots[s.Gateway],
		})
	}
	if cfg.Default != "" {
		both(rule{Priority: priorityDefault, Table: o.TableBase + p.Slots[cfg.Default]})
	}
	// Two gateways may have one address: the first by name has it. (Replies go by
	// their mark all the same.)
	slices.SortStableFunc(p.Rules, func(a, b rule) int {
		if a.Priority != b.Priority {
			return int(a.Priority) - int(b.Priority)
		}
		return a.Family - b.Family
	})
	seen := map[rule]bool{}
	p.Rules = slices.DeleteFunc(p.Rules, func(r rule) bool {
		r.Table = 0
		again := seen[r]
		seen[r] = true
		return again
	})
	return p
}

// onlink are main's routes to the networks on g's link, as copies for its table.
func onlink(g Gateway, main []route, table uint32) []route {
	var out []route
	for _, r := range main {
		if r.Index != uint32(g.Index) || r.Via.IsValid() || r.Dst.Bits() <= int(shortest(family(r.Dst))) {
			continue
		}
		// IPv6 multicast is the kernel's own.
		if r.Dst.Addr().IsMulticast() {
			continue
		}
		r.Table, r.Metric = table, 1
		if !slices.Contains(out, r) {
			out = append(out, r)
		}
	}
	return out
}

// defaults are the default routes by g: by the Config's next hops, else as
// main's best, else by the link itself where it leads to one peer.
func defaults(hops []netip.Addr, g Gateway, main []route, table uint32) []route {
	var out []route
	for _, any := range []netip.Prefix{any4, any6} {
		is4 := any.Addr().Is4()
		if !slices.ContainsFunc(g.Addresses, func(a netip.Prefix) bool { return a.Addr().Is4() == is4 && !a.Addr().IsLinkLocalUnicast() }) {
			continue // no address of this family: nothing could leave
		}
		r := route{Table: table, Dst: any, Index: uint32(g.Index), Metric: 1}
		known := g.PointToPoint
		if i := slices.IndexFunc(hops, func(h netip.Addr) bool { return h.Is4() == is4 }); i >= 0 {
			known, r.Via = true, hops[i].WithZone("")
		} else if best := bestDefault(main, r.Index, any); best != nil {
			known, r.Via, r.Src, r.MTU = true, best.Via, best.Src, best.MTU
		}
		if !known {
			continue
		}
		// Its neighbourhood is not looked up: the lookup would obey our own rules.
		r.Onlink = r.Via.IsValid() && !(r.Via.Is6() && r.Via.IsLinkLocalUnicast())
		out = append(out, r)
	}
	return out
}

// bestDefault is main's default route of any's family by an interface that has
// the lowest metric, the first of equals; nil without one.
func bestDefault(main []route, index uint32, any netip.Prefix) *route {
	var best *route
	for i := range main {
		r := &main[i]
		if r.Dst == any && r.Index == index && (best == nil || r.Metric < best.Metric) {
			best = r
		}
	}
	return best
}

func find(have []Gateway, name string) *Gateway {
	i := slices.IndexFunc(have, func(g Gateway) bool { return g.Name == name })
	if i < 0 {
		return nil
	}
	return &have[i]
}

func family(p netip.Prefix) int {
	if p.Addr().Is4() {
		return 4
	}
	return 6
}

func shortest(family int) uint32 {
	if family == 4 {
		return shortest4
	}
	return shortest6
}

func trailingZeros(mask uint32) int { return bits.TrailingZeros32(mask) }

func (r rule) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d: v%d", r.Priority, r.Family)
	if r.From.IsValid() {
		fmt.Fprintf(&b, " from %s", r.From)
	}
	if r.Mask != 0 {
		fmt.Fprintf(&b, " mark %#x/%#x", r.Mark, r.Mask)
	}
	if r.Device != "" {
		fmt.Fprintf(&b, " device %s", r.Device)
	}
	switch {
	case r.Unreachable:
		b.WriteString(" unreachable")
	case r.Table == mainTable:
		b.WriteString(" main")
	default:
		fmt.Fprintf(&b, " table %#x", r.Table)
	}
	if r.Suppress != 0 {
		fmt.Fprintf(&b, " longer than %d", r.Suppress)
	}
	return b.String()
}

func (r route) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "table %#x: %s", r.Table, r.Dst)
	if r.Unreachable {
		b.WriteString(" unreachable")
	}
	if r.Via.IsValid() {
		fmt.Fprintf(&b, " via %s", r.Via)
	}
	if r.Index != 0 {
		fmt.Fprintf(&b, " link %d", r.Index)
	}
	if r.Src.IsValid() {
		fmt.Fprintf(&b, " src %s", r.Src)
	}
	if r.MTU != 0 {
		fmt.Fprintf(&b, " mtu %d", r.MTU)
	}
	if r.Onlink {
		b.WriteString(" onlink")
	}
	fmt.Fprintf(&b, " metric %d", r.Metric)
	return b.String()
}

// String is the plan as text, for people and golden files.
func (p plan) String() string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(p.Slots)) {
		fmt.Fprintf(&b, "slot %#x %s\n", p.Slots[name], name)
	}
	for _, r := range p.Rules {
		fmt.Fprintln(&b, "rule", r)
	}
	for _, r := range p.Routes {
		fmt.Fprintln(&b, "route", r)
	}
	return b.String()
}
