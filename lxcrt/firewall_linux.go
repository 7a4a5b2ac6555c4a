package lxcrt

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"github.com/google/nftables"
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
}

// install puts the whole table in place of whatever had its name, in one
// transaction, with the links known so far.
func (f *firewall) install() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	t := &nftables.Table{Family: nftables.TableFamilyINet, Name: f.name}
	c.AddTable(t) // so that the deletion finds one
	c.DelTable(t)
	f.table = c.AddTable(t)
	set := func(name string, types ...nftables.SetDatatype) *nftables.Set {
		s := &nftables.Set{Table: f.table, Name: name, KeyType: nftables.MustConcatSetType(types...), Concatenation: true}
		if err == nil {
			err = c.AddSet(s, nil)
		}
		return s
	}
	f.links4 = set("links4", nftables.TypeIFName, nftables.TypeIPAddr)
	f.links6 = set("links6", nftables.TypeIFName, nftables.TypeIP6Addr)
	f.edges4 = set("edges4", nftables.TypeIPAddr, nftables.TypeIPAddr, nftables.TypeInetProto, nftables.TypeInetService)
	f.edges6 = set("edges6", nftables.TypeIP6Addr, nftables.TypeIP6Addr, nftables.TypeInetProto, nftables.TypeInetService)
	if err != nil {
		return fmt.Errorf("nftables sets: %w", err)
	}
	f.rules(c)
	for _, p := range f.links {
		if err := f.addElements(c, p); err != nil {
			return err
		}
	}
	if err := f.addEdges(c); err != nil {
		return err
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("nftables table %s: %w", f.name, err)
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

	guests := c.AddChain(&nftables.Chain{Table: f.table, Name: "guests"})
	into := func(parts ...exprs) {
		c.AddRule(&nftables.Rule{Table: f.table, Chain: guests, Exprs: rule(parts...)})
	}
	into(dnated(), accept())
	into(iifname(f.prefix, true), established(), accept())
	// Between containers every packet is judged by the edges of now, so that a
	// connection ends with its edge.
	into(iifname(f.prefix, false), edgeIn(f.edges4, false), accept())
	into(iifname(f.prefix, false), edgeIn(f.edges6, true), accept())
	into(iifname(f.prefix, false), replies(), edgeBack(f.edges4, false), accept())
	into(iifname(f.prefix, false), replies(), edgeBack(f.edges6, true), accept())
	into(iifname(f.prefix, false), l4proto(unix.IPPROTO_ICMP), related(), accept())
	into(iifname(f.prefix, false), l4proto(unix.IPPROTO_ICMPV6), related(), accept())
	into(drop())

	forward := base("forward", nftables.ChainTypeFilter, nftables.ChainHookForward, *nftables.ChainPriorityFilter)
	forward(oifname(f.prefix, false), jump("guests"))

	input := base("input", nftables.ChainTypeFilter, nftables.ChainHookInput, *nftables.ChainPriorityFilter)
	input(iifname(f.prefix, true), accept())
	input(established(), accept())
	input(dnated(), accept())
	for _, gate := range []netip.Addr{f.gate4, f.gate6} {
		if gate.IsValid() {
			to := addrIn(netip.PrefixFrom(gate, gate.BitLen()), true)
			input(to, l4proto(unix.IPPROTO_UDP), dport(53), accept())
			input(to, l4proto(unix.IPPROTO_TCP), dport(53), accept())
		}
	}
	input(nfproto(true), icmp6(solicit), accept())
	input(nfproto(true), icmp6(advertise), accept())
	input(drop())

	post := base("postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, *nftables.ChainPriorityNATSource)
	post(oifname(f.prefix, false), accept())
	for _, sub := range []netip.Prefix{f.sub4, f.sub6} {
		if sub.IsValid() {
			post(addrIn(sub, false), nameMatchExact("lo"), masquerade())
		}
	}
}

func (f *firewall) addElements(c *nftables.Conn, p linkPlan) error {
	if p.addr4.IsValid() {
		if err := c.SetAddElements(f.links4, []nftables.SetElement{{Key: linkKey(p.name, p.addr4)}}); err != nil {
			return err
		}
	}
	if p.addr6.IsValid() {
		return c.SetAddElements(f.links6, []nftables.SetElement{{Key: linkKey(p.name, p.addr6)}})
	}
	return nil
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
	c, err := nftables.New()
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
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	for _, e := range []struct {
		set  *nftables.Set
		addr netip.Addr
	}{{f.links4, p.addr4}, {f.links6, p.addr6}} {
		if !e.addr.IsValid() {
			continue
		}
		if err := c.SetDeleteElements(e.set, []nftables.SetElement{{Key: linkKey(p.name, e.addr)}}); err != nil {
			return err
		}
		// Gone already is as good: somebody may have flushed the rules.
		if err := c.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("nftables table %s: link %s: %w", f.name, p.name, err)
		}
	}
	delete(f.links, container)
	return f.edgesChanged(container)
}

// remove takes the whole table away.
func (f *firewall) remove() error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	t := &nftables.Table{Family: nftables.TableFamilyINet, Name: f.name}
	c.AddTable(t)
	c.DelTable(t)
	if err := c.Flush(); err != nil {
		return fmt.Errorf("nftables table %s: %w", f.name, err)
	}
	return nil
}

// addEdges writes the edges whose ends are known; the others wait for theirs.
func (f *firewall) addEdges(c *nftables.Conn) error {
	var four, six []nftables.SetElement
	for _, e := range f.edges {
		from, to := f.links[e.From], f.links[e.To]
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
		if err := c.SetAddElements(f.edges4, four); err != nil {
			return err
		}
	}
	if len(six) > 0 {
		return c.SetAddElements(f.edges6, six)
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
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	c.FlushSet(f.edges4)
	c.FlushSet(f.edges6)
	if err := f.addEdges(c); err != nil {
		return err
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
