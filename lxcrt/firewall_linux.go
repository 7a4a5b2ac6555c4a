package lxcrt

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Edge lets one container open connections to a port of another.
type Edge struct {
	From, To string // names of containers
	Protocol string // "tcp" or "udp"
	Port     uint16
}

// firewall is the runtime's own table. It judges what comes from or goes to a
// container's link and nothing else:
//
//	prerouting   what comes out of a link has that link's address, else it is dropped
//	forward      into a link: replies, what was DNATed; from another link only what
//	             belongs to a declared edge, either way; the rest is dropped
//	input        from a link: replies, what was DNATed, DNS at the gateway; the rest is dropped
//	postrouting  from a container, out of a link that is not ours: masquerade
//
// A container whose link is a port of a bridge is known here by its addresses,
// which bridgeWall vouches for.
type firewall struct {
	name           string // table
	prefix         string
	sub4, sub6     netip.Prefix
	gate4, gate6   netip.Addr
	mu             sync.Mutex
	links          map[string]linkPlan // by container name; guarded by mu
	edges          []Edge              // guarded by mu
	table          *nftables.Table
	links4, links6 *nftables.Set
	edges4, edges6 *nftables.Set
	bridges        *nftables.Set // names of bridges with containers
	on4, on6       *nftables.Set // addresses of containers on them
	gates4, gates6 *nftables.Set // addresses at which the host answers for names
	bridge         *bridgeWall   // guarded by mu; nil until a container is on a bridge
}

// openNftables opens a connection on which a large transaction finds room, and the
// answers to it: the kernel sends one for each rule and element before any is read.
func openNftables() (*nftables.Conn, error) {
	const size = 16 << 20
	return nftables.New(nftables.WithSockOptions(func(c *netlink.Conn) error {
		return errors.Join(c.SetReadBuffer(size), c.SetWriteBuffer(size))
	}))
}

// install puts the whole table in place of whatever had its name, in one
// transaction, with the links known so far.
func (f *firewall) install() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	c, err := openNftables()
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	t := &nftables.Table{Family: nftables.TableFamilyINet, Name: f.name}
	c.AddTable(t) // so that the deletion finds one
	c.DelTable(t)
	f.table = c.AddTable(t)
	set := func(name string, types ...nftables.SetDatatype) *nftables.Set {
		s := &nftables.Set{Table: f.table, Name: name, KeyType: types[0]}
		if len(types) > 1 {
			s.KeyType, s.Concatenation = nftables.MustConcatSetType(types...), true
		}
		if err == nil {
			err = c.AddSet(s, nil)
		}
		return s
	}
	f.links4 = set("links4", nftables.TypeIFName, nftables.TypeIPAddr)
	f.links6 = set("links6", nftables.TypeIFName, nftables.TypeIP6Addr)
	f.edges4 = set("edges4", nftables.TypeIPAddr, nftables.TypeIPAddr, nftables.TypeInetProto, nftables.TypeInetService)
	f.edges6 = set("edges6", nftables.TypeIP6Addr, nftables.TypeIP6Addr, nftables.TypeInetProto, nftables.TypeInetService)
	f.bridges = set("bridges", nftables.TypeIFName)
	f.on4, f.on6 = set("on4", nftables.TypeIPAddr), set("on6", nftables.TypeIP6Addr)
	f.gates4, f.gates6 = set("gates4", nftables.TypeIPAddr), set("gates6", nftables.TypeIP6Addr)
	if err != nil {
		return fmt.Errorf("nftables sets: %w", err)
	}
	f.rules(c)
	for _, g := range []netip.Addr{f.gate4, f.gate6} {
		if g.IsValid() {
			if err := c.SetAddElements(f.gates(g), []nftables.SetElement{{Key: g.AsSlice()}}); err != nil {
				return err
			}
		}
	}
	f.bridge = nil
	for _, p := range f.links {
		if err := f.addElements(c, p); err != nil {
			return err
		}
	}
	if err := addEdges(c, f.edges4, f.edges6, f.links, f.edges); err != nil {
		return err
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("nftables table %s: %w", f.name, err)
	}
	if f.bridge == nil { // a dead process may have had containers on one
		return removeBridgeTable(c, f.name)
	}
	return nil
}

func (f *firewall) rules(c *nftables.Conn) {
	base := func(name string, typ nftables.ChainType, hook *nftables.ChainHook, prio nftables.ChainPriority) func(...exprs) {
		policy := nftables.ChainPolicyAccept
		ch := c.AddChain(&nftables.Chain{Table: f.table, Name: name, Type: typ, Hooknum: hook, Priority: &prio, Policy: &policy})
		return func(parts ...exprs) { c.AddRule(&nftables.Rule{Table: f.table, Chain: ch, Exprs: rule(parts...)}) }
	}
	linkLocal, none := netip.MustParsePrefix("fe80::/10"), netip.MustParsePrefix("::/128")
	solicit, advertise := byte(135), byte(136)

	pre := base("prerouting", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, *nftables.ChainPriorityRaw-10)
	pre(iifname(f.prefix, true), accept())
	pre(linkAddrIn(f.links4, false), accept())
	pre(linkAddrIn(f.links6, true), accept())
	for _, from := range []netip.Prefix{linkLocal, none} {
		pre(addrIn(from, false), icmp6(solicit), accept())
		pre(addrIn(from, false), icmp6(advertise), accept())
	}
	pre(drop())

	sub := func(name string) func(...exprs) {
		ch := c.AddChain(&nftables.Chain{Table: f.table, Name: name})
		return func(parts ...exprs) {
			c.AddRule(&nftables.Rule{Table: f.table, Chain: ch, Exprs: rule(parts...)})
		}
	}
	on := func(set *nftables.Set, v6, dst bool) exprs {
		return rule(nfproto(v6), exprs{loadAddr(v6, dst, 1), &expr.Lookup{SourceRegister: 1, SetName: set.Name, SetID: set.ID}})
	}

	siblings := sub("siblings")
	// Between containers every packet is judged by the edges of now, so that a
	// connection ends with its edge.
	siblings(edgeIn(f.edges4, false), accept())
	siblings(edgeIn(f.edges6, true), accept())
	siblings(replies(), edgeBack(f.edges4, false), accept())
	siblings(replies(), edgeBack(f.edges6, true), accept())
	siblings(l4proto(unix.IPPROTO_ICMP), related(), accept())
	siblings(l4proto(unix.IPPROTO_ICMPV6), related(), accept())
	siblings(drop())

	guests := sub("guests")
	guests(dnated(), accept())
	// Where a bridge has its frames looked at here as well. Nobody routes these.
	guests(nfproto(true), icmp6(solicit), accept())
	guests(nfproto(true), icmp6(advertise), accept())
	guests(iifname(f.prefix, false), jump("siblings"))
	guests(on(f.on4, false, false), jump("siblings"))
	guests(on(f.on6, true, false), jump("siblings"))
	guests(established(), accept())
	guests(drop())

	forward := base("forward", nftables.ChainTypeFilter, nftables.ChainHookForward, *nftables.ChainPriorityFilter)
	forward(oifname(f.prefix, false), jump("guests"))
	forward(on(f.on4, false, true), jump("guests"))
	forward(on(f.on6, true, true), jump("guests"))

	host := sub("host")
	host(established(), accept())
	host(dnated(), accept())
	for _, proto := range []byte{unix.IPPROTO_UDP, unix.IPPROTO_TCP} {
		host(on(f.gates4, false, true), l4proto(proto), dport(53), accept())
		host(on(f.gates6, true, true), l4proto(proto), dport(53), accept())
	}
	host(nfproto(true), icmp6(solicit), accept())
	host(nfproto(true), icmp6(advertise), accept())
	host(drop())

	input := base("input", nftables.ChainTypeFilter, nftables.ChainHookInput, *nftables.ChainPriorityFilter)
	input(iifname(f.prefix, false), jump("host"))
	input(on(f.on4, false, false), jump("host"))
	input(on(f.on6, true, false), jump("host"))

	post := base("postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, *nftables.ChainPriorityNATSource)
	post(oifname(f.prefix, false), accept())
	post(exprs{&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1}, &expr.Lookup{SourceRegister: 1, SetName: f.bridges.Name, SetID: f.bridges.ID}}, accept())
	for _, sub := range []netip.Prefix{f.sub4, f.sub6} {
		if sub.IsValid() {
			post(addrIn(sub, false), nameMatchExact("lo"), masquerade())
		}
	}
	post(on(f.on4, false, false), nameMatchExact("lo"), masquerade())
	post(on(f.on6, true, false), nameMatchExact("lo"), masquerade())
}

func (f *firewall) gates(a netip.Addr) *nftables.Set {
	if a.Is4() {
		return f.gates4
	}
	return f.gates6
}

func (f *firewall) addElements(c *nftables.Conn, p linkPlan) error {
	if p.bridge != "" && f.bridge == nil {
		f.bridge = &bridgeWall{prefix: f.prefix}
		if err := f.bridge.install(c, f.name); err != nil {
			return err
		}
		if err := f.bridge.setEdges(c, f.links, f.edges); err != nil {
			return err
		}
	}
	for _, e := range f.elements(p) {
		if err := c.SetAddElements(e.set, []nftables.SetElement{{Key: e.key}}); err != nil {
			return err
		}
	}
	if p.bridge == "" {
		return nil
	}
	// These may be there already, for another container.
	if err := c.SetAddElements(f.bridges, []nftables.SetElement{{Key: nameKey(p.bridge, nil)}}); err != nil {
		return err
	}
	for _, g := range []netip.Addr{p.gate4, p.gate6} {
		if g.IsValid() {
			if err := c.SetAddElements(f.gates(g), []nftables.SetElement{{Key: g.AsSlice()}}); err != nil {
				return err
			}
		}
	}
	return f.bridge.addElements(c, p)
}

type element struct {
	set *nftables.Set
	key []byte
}

// elements that are one container's alone.
func (f *firewall) elements(p linkPlan) []element {
	var all []element
	for _, a := range []struct {
		addr       netip.Addr
		routed, on *nftables.Set
	}{{p.addr4, f.links4, f.on4}, {p.addr6, f.links6, f.on6}} {
		switch {
		case !a.addr.IsValid():
		case p.bridge != "":
			all = append(all, element{a.on, a.addr.AsSlice()})
		default:
			all = append(all, element{a.routed, linkKey(p.name, a.addr)})
		}
	}
	return all
}

// admit lets a container's link speak with its own addresses.
func (f *firewall) admit(p linkPlan) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for name, o := range f.links {
		if name != p.container && (o.addr4.IsValid() && o.addr4 == p.addr4 || o.addr6.IsValid() && o.addr6 == p.addr6) {
			return fmt.Errorf("%w: addresses %v %v, which %s has", ErrExists, p.addr4, p.addr6, name)
		}
	}
	c, err := openNftables()
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	if err := f.addElements(c, p); err != nil {
		return err
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("nftables table %s: link %s: %w", f.name, p.name, err)
	}
	f.links[p.container] = p
	return f.edgesChanged(p.container)
}

// edgesChanged writes the edges again if one of them names the container.
func (f *firewall) edgesChanged(container string) error {
	for _, e := range f.edges {
		if e.From == container || e.To == container {
			return f.writeEdges()
		}
	}
	return nil
}

// dismiss takes a container's addresses out again.
func (f *firewall) dismiss(container string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	p, ok := f.links[container]
	if !ok {
		return nil
	}
	c, err := openNftables()
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	all := f.elements(p)
	if p.bridge != "" {
		all = append(all, f.bridge.elements(p)...)
	}
	for _, e := range all {
		if err := c.SetDeleteElements(e.set, []nftables.SetElement{{Key: e.key}}); err != nil {
			return err
		}
	}
	err = c.Flush()
	if errors.Is(err, unix.ENOENT) {
		// Gone already is as good: somebody may have flushed the rules. But one that
		// is missing has taken the others' deletion back.
		err = nil
		for _, e := range all {
			if err := c.SetDeleteElements(e.set, []nftables.SetElement{{Key: e.key}}); err != nil {
				return err
			}
			if ferr := c.Flush(); ferr != nil && !errors.Is(ferr, unix.ENOENT) {
				err = ferr
			}
		}
	}
	if err != nil {
		return fmt.Errorf("nftables table %s: link %s: %w", f.name, p.name, err)
	}
	delete(f.links, container)
	return f.edgesChanged(container)
}

// remove takes the whole table away.
func (f *firewall) remove() error {
	c, err := openNftables()
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	t := &nftables.Table{Family: nftables.TableFamilyINet, Name: f.name}
	c.AddTable(t)
	c.DelTable(t)
	if err := c.Flush(); err != nil {
		return fmt.Errorf("nftables table %s: %w", f.name, err)
	}
	return removeBridgeTable(c, f.name)
}

// addEdges writes the edges whose ends are known; the others wait for theirs.
func addEdges(c *nftables.Conn, edges4, edges6 *nftables.Set, links map[string]linkPlan, edges []Edge) error {
	var four, six []nftables.SetElement
	for _, e := range edges {
		from, to := links[e.From], links[e.To]
		proto := byte(unix.IPPROTO_TCP)
		if e.Protocol == "udp" {
			proto = unix.IPPROTO_UDP
		}
		if from.addr4.IsValid() && to.addr4.IsValid() {
			four = append(four, nftables.SetElement{Key: edgeKey(from.addr4, to.addr4, proto, e.Port)})
		}
		if from.addr6.IsValid() && to.addr6.IsValid() {
			six = append(six, nftables.SetElement{Key: edgeKey(from.addr6, to.addr6, proto, e.Port)})
		}
	}
	if len(four) > 0 {
		if err := c.SetAddElements(edges4, four); err != nil {
			return err
		}
	}
	if len(six) > 0 {
		return c.SetAddElements(edges6, six)
	}
	return nil
}

// setEdges replaces the declared edges.
func (f *firewall) setEdges(edges []Edge) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.edges = edges
	return f.writeEdges()
}

func (f *firewall) writeEdges() error {
	c, err := openNftables()
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	c.FlushSet(f.edges4)
	c.FlushSet(f.edges6)
	if err := addEdges(c, f.edges4, f.edges6, f.links, f.edges); err != nil {
		return err
	}
	if f.bridge != nil {
		if err := f.bridge.setEdges(c, f.links, f.edges); err != nil {
			return err
		}
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("nftables table %s: edges: %w", f.name, err)
	}
	return nil
}

// only dismisses every container that is not kept.
func (f *firewall) only(kept func(name string) bool) error {
	f.mu.Lock()
	var gone []string
	for name := range f.links {
		if !kept(name) {
			gone = append(gone, name)
		}
	}
	f.mu.Unlock()
	var errs []error
	for _, name := range gone {
		errs = append(errs, f.dismiss(name))
	}
	return errors.Join(errs...)
}
