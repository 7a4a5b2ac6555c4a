package lxcrt

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// bridgeWall is the part of the firewall that judges frames, for links that are
// ports of a bridge. Its table (family bridge, the name of the other one) is there
// only while it is needed:
//
//	prerouting  what comes out of a port has that port's MAC and addresses, in
//	            Ethernet, ARP, ND and IP, else it is dropped; nobody else has them
//	forward     into a port: declared edges and replies, and from a neighbour ARP
//	            and ND only if there is an edge with it; the rest is dropped
//
// The bridge family has no connection tracking on every kernel, so replies are
// told by themselves: a TCP segment that does not open a connection, a datagram
// to where one came from in the last minutes. What the bridge hands to the host,
// to be routed or for itself, the other table judges by its addresses.
type bridgeWall struct {
	prefix         string
	table          *nftables.Table
	macs, own      *nftables.Set // port . MAC; all MACs
	addrs4, addrs6 *nftables.Set // port . address
	nd             *nftables.Set // port . address, those of the link alone included
	own4, own6     *nftables.Set // all addresses
	pairs          *nftables.Set // port . port with an edge, either way
	edges4, edges6 *nftables.Set
	flows4, flows6 *nftables.Set // datagrams that went out
}

const (
	etherIP4 = 0x0800
	etherARP = 0x0806
	etherIP6 = 0x86dd
	// flowTime is how long an answer may take.
	flowTime = 3 * time.Minute
)

// install adds the whole table to the transaction, in place of an older one.
func (w *bridgeWall) install(c *nftables.Conn, name string) error {
	t := &nftables.Table{Family: nftables.TableFamilyBridge, Name: name}
	c.AddTable(t)
	c.DelTable(t)
	w.table = c.AddTable(t)
	var err error
	set := func(name string, dynamic bool, types ...nftables.SetDatatype) *nftables.Set {
		s := &nftables.Set{Table: w.table, Name: name}
		if len(types) > 1 {
			s.KeyType, s.Concatenation = nftables.MustConcatSetType(types...), true
		} else {
			s.KeyType = types[0]
		}
		if dynamic {
			s.Dynamic, s.HasTimeout, s.Timeout, s.Size = true, true, flowTime, 65536
		}
		if err == nil {
			err = c.AddSet(s, nil)
		}
		return s
	}
	link, mac, ip4, ip6, port := nftables.TypeIFName, nftables.TypeEtherAddr, nftables.TypeIPAddr, nftables.TypeIP6Addr, nftables.TypeInetService
	w.macs, w.own = set("macs", false, link, mac), set("own", false, mac)
	w.addrs4, w.addrs6 = set("addrs4", false, link, ip4), set("addrs6", false, link, ip6)
	w.nd = set("nd", false, link, ip6)
	w.own4, w.own6 = set("own4", false, ip4), set("own6", false, ip6)
	w.pairs = set("pairs", false, link, link)
	w.edges4 = set("edges4", false, ip4, ip4, nftables.TypeInetProto, port)
	w.edges6 = set("edges6", false, ip6, ip6, nftables.TypeInetProto, port)
	w.flows4, w.flows6 = set("flows4", true, ip4, ip4, port, port), set("flows6", true, ip6, ip6, port, port)
	if err != nil {
		return fmt.Errorf("nftables sets: %w", err)
	}
	w.rules(c)
	return nil
}

func (w *bridgeWall) rules(c *nftables.Conn) {
	policy := nftables.ChainPolicyAccept
	chain := func(name string, hook *nftables.ChainHook, prio nftables.ChainPriority) func(...exprs) {
		ch := &nftables.Chain{Table: w.table, Name: name}
		if hook != nil {
			ch.Type, ch.Hooknum, ch.Priority, ch.Policy = nftables.ChainTypeFilter, hook, &prio, &policy
		}
		c.AddChain(ch)
		return func(parts ...exprs) { c.AddRule(&nftables.Rule{Table: w.table, Chain: ch, Exprs: rule(parts...)}) }
	}
	none := netip.IPv6Unspecified().AsSlice()
	// A chain has to be there before what jumps to it.
	honest, neighbours, replies := chain("honest", nil, 0), chain("neighbours", nil, 0), chain("replies", nil, 0)

	pre := chain("prerouting", nftables.ChainHookPrerouting, -300)
	strangers := iifname(w.prefix, true)
	pre(strangers, in(w.own, field(expr.PayloadBaseLLHeader, 6, 6)), drop())
	pre(strangers, etherType(etherARP), in(w.own4, field(expr.PayloadBaseNetworkHeader, 14, 4)), drop())
	pre(strangers, etherType(etherIP4), in(w.own4, field(expr.PayloadBaseNetworkHeader, 12, 4)), drop())
	pre(strangers, etherType(etherIP6), in(w.own6, field(expr.PayloadBaseNetworkHeader, 8, 16)), drop())
	pre(strangers, accept())
	pre(in(w.macs, portName(), field(expr.PayloadBaseLLHeader, 6, 6)), jump("honest"))
	pre(drop())

	// Ethernet and IPv4, and both addresses of the sender its own.
	honest(etherType(etherARP), equals(expr.PayloadBaseNetworkHeader, 0, []byte{0, 1, 8, 0, 6, 4}),
		in(w.macs, portName(), field(expr.PayloadBaseNetworkHeader, 8, 6)),
		in(w.addrs4, portName(), field(expr.PayloadBaseNetworkHeader, 14, 4)), accept())
	honest(etherType(etherIP4), in(w.addrs4, portName(), field(expr.PayloadBaseNetworkHeader, 12, 4)), accept())
	source := field(expr.PayloadBaseNetworkHeader, 8, 16)
	target := field(expr.PayloadBaseTransportHeader, 8, 16)
	nobody := equals(expr.PayloadBaseNetworkHeader, 8, none)
	six := func(parts ...exprs) { honest(append([]exprs{etherType(etherIP6)}, parts...)...) }
	for _, t := range []byte{134, 137} { // a router's
		six(icmp6(t), drop())
	}
	six(icmp6(136), in(w.nd, portName(), target), in(w.nd, portName(), source), accept())
	six(icmp6(136), drop())
	six(icmp6(135), nobody, in(w.nd, portName(), target), accept()) // does anybody have mine?
	six(icmp6(135), in(w.nd, portName(), source), accept())
	for _, t := range []byte{131, 132, 143} { // so that a bridge which listens in knows where to send
		six(icmp6(t), nobody, accept())
		six(icmp6(t), in(w.nd, portName(), source), accept())
	}
	six(in(w.addrs6, portName(), source), accept())
	honest(drop())

	forward := chain("forward", nftables.ChainHookForward, -200)
	remember := func(v6 bool) exprs { return exprs{updateFlow(w, v6)} }
	udp := l4proto(unix.IPPROTO_UDP)
	forward(oifname(w.prefix, false), iifname(w.prefix, false), jump("neighbours"))
	forward(oifname(w.prefix, false), jump("replies"))
	for _, v6 := range []bool{false, true} { // what goes out is answered
		forward(iifname(w.prefix, false), etherType(etherOf(v6)), udp, flowKey(v6, false), remember(v6))
	}

	pair := in(w.pairs, portName(), outName())
	neighbours(etherType(etherARP), pair, accept())
	for _, t := range []byte{135, 136} {
		neighbours(etherType(etherIP6), icmp6(t), pair, accept())
	}
	for _, v6 := range []bool{false, true} {
		edges := w.edges4
		if v6 {
			edges = w.edges6
		}
		is := etherType(etherOf(v6))
		neighbours(is, udp, edgeKeyIn(edges, v6, false), flowKey(v6, false), remember(v6), accept())
		neighbours(is, edgeKeyIn(edges, v6, false), accept())
		// Back along an edge of now.
		neighbours(is, edgeKeyIn(edges, v6, true), l4proto(unix.IPPROTO_TCP), notOpening(), accept())
		neighbours(is, edgeKeyIn(edges, v6, true), udp, w.flow(v6), accept())
	}
	neighbours(drop())

	replies(etherType(etherARP), accept())
	for _, t := range []byte{135, 136, 1, 2, 3, 4, 129} { // ND; errors; the answer to an echo
		replies(etherType(etherIP6), icmp6(t), accept())
	}
	for _, t := range []byte{0, 3, 11, 12} {
		replies(etherType(etherIP4), icmp4(t), accept())
	}
	for _, v6 := range []bool{false, true} {
		replies(etherType(etherOf(v6)), l4proto(unix.IPPROTO_TCP), notOpening(), accept())
		replies(etherType(etherOf(v6)), udp, w.flow(v6), accept())
	}
	replies(drop())
}

func etherOf(v6 bool) uint16 {
	if v6 {
		return etherIP6
	}
	return etherIP4
}

func (w *bridgeWall) addElements(c *nftables.Conn, p linkPlan) error {
	for _, e := range w.elements(p) {
		if err := c.SetAddElements(e.set, []nftables.SetElement{{Key: e.key}}); err != nil {
			return err
		}
	}
	return nil
}

// elements of one port.
func (w *bridgeWall) elements(p linkPlan) []element {
	_, inside := linkMACs(p.container)
	mac := []byte(inside)
	all := []element{{w.macs, nameKey(p.name, mac)}, {w.own, mac}, {w.nd, nameKey(p.name, linkLocal(inside).AsSlice())}}
	if p.addr4.IsValid() {
		all = append(all, element{w.addrs4, nameKey(p.name, p.addr4.AsSlice())}, element{w.own4, p.addr4.AsSlice()})
	}
	if p.addr6.IsValid() {
		all = append(all, element{w.addrs6, nameKey(p.name, p.addr6.AsSlice())}, element{w.nd, nameKey(p.name, p.addr6.AsSlice())}, element{w.own6, p.addr6.AsSlice()})
	}
	return all
}

// setEdges replaces those between ports of a bridge.
func (w *bridgeWall) setEdges(c *nftables.Conn, links map[string]linkPlan, edges []Edge) error {
	for _, s := range []*nftables.Set{w.edges4, w.edges6, w.pairs} {
		c.FlushSet(s)
	}
	var bridged []Edge
	var pairs []string
	for _, e := range edges {
		from, to := links[e.From], links[e.To]
		if from.bridge == "" || from.bridge != to.bridge {
			continue
		}
		bridged = append(bridged, e)
		pairs = append(pairs, string(nameKey(from.name, nameKey(to.name, nil))), string(nameKey(to.name, nameKey(from.name, nil))))
	}
	slices.Sort(pairs)
	for _, p := range slices.Compact(pairs) {
		if err := c.SetAddElements(w.pairs, []nftables.SetElement{{Key: []byte(p)}}); err != nil {
			return err
		}
	}
	return addEdges(c, w.edges4, w.edges6, links, bridged)
}

// removeBridgeTable takes the table away if it is there.
func removeBridgeTable(c *nftables.Conn, name string) error {
	tables, err := c.ListTablesOfFamily(nftables.TableFamilyBridge)
	if err != nil {
		if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.ENOENT) {
			return nil // a kernel without the family
		}
		return fmt.Errorf("nftables: %w", err)
	}
	for _, t := range tables {
		if t.Name == name {
			c.DelTable(t)
			if err := c.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
				return fmt.Errorf("nftables table bridge %s: %w", name, err)
			}
		}
	}
	return nil
}

// linkLocal is the address that a kernel makes itself from a MAC (RFC 4291,
// appendix A).
func linkLocal(mac net.HardwareAddr) netip.Addr {
	return netip.AddrFrom16([16]byte{0xfe, 0x80, 8: mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5]})
}

// Builders for frames.

// part is something that a set is asked for: how it is loaded into a register, and
// how many registers of 4 bytes it takes.
type part struct {
	load func(reg uint32) expr.Any
	size uint32
}

func field(base expr.PayloadBase, offset, size uint32) part {
	return part{func(reg uint32) expr.Any {
		return &expr.Payload{DestRegister: reg, Base: base, Offset: offset, Len: size}
	}, (size + 3) / 4}
}

func portName() part {
	return part{func(reg uint32) expr.Any { return &expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg} }, 4}
}

func outName() part {
	return part{func(reg uint32) expr.Any { return &expr.Meta{Key: expr.MetaKeyOIFNAME, Register: reg} }, 4}
}

func protocol() part {
	return part{func(reg uint32) expr.Any { return &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg} }, 1}
}

func load(parts ...part) exprs {
	var all exprs
	reg := uint32(unix.NFT_REG32_00)
	for _, p := range parts {
		all = append(all, p.load(reg))
		reg += p.size
	}
	return all
}

// part . part ... @set
func in(set *nftables.Set, parts ...part) exprs {
	return append(load(parts...), &expr.Lookup{SourceRegister: unix.NFT_REG32_00, SetName: set.Name, SetID: set.ID})
}

func equals(base expr.PayloadBase, offset uint32, data []byte) exprs {
	return exprs{
		&expr.Payload{DestRegister: 1, Base: base, Offset: offset, Len: uint32(len(data))},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: data},
	}
}

// ether type N; a frame with a VLAN tag has another.
func etherType(n uint16) exprs {
	return equals(expr.PayloadBaseLLHeader, 12, binaryutil.BigEndian.PutUint16(n))
}

// icmp type N
func icmp4(n byte) exprs {
	return rule(l4proto(unix.IPPROTO_ICMP), equals(expr.PayloadBaseTransportHeader, 0, []byte{n}))
}

// tcp flags & (syn | ack) != syn
func notOpening() exprs {
	return exprs{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 13, Len: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 1, Mask: []byte{0x12}, Xor: []byte{0}},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: []byte{0x02}},
	}
}

func addrParts(v6, back bool) (first, second part) {
	first, second = field(expr.PayloadBaseNetworkHeader, 12, 4), field(expr.PayloadBaseNetworkHeader, 16, 4)
	if v6 {
		first, second = field(expr.PayloadBaseNetworkHeader, 8, 16), field(expr.PayloadBaseNetworkHeader, 24, 16)
	}
	if back {
		first, second = second, first
	}
	return first, second
}

// ip saddr . ip daddr . meta l4proto . th dport @set, or with back the other way
// round; the family is judged before.
func edgeKeyIn(set *nftables.Set, v6, back bool) exprs {
	from, to := addrParts(v6, back)
	port := uint32(2)
	if back {
		port = 0
	}
	return in(set, from, to, protocol(), field(expr.PayloadBaseTransportHeader, port, 2))
}

// ip saddr . ip daddr . th sport . th dport, or with back the other way round
func flowKey(v6, back bool) exprs {
	from, to := addrParts(v6, back)
	a, b := field(expr.PayloadBaseTransportHeader, 0, 2), field(expr.PayloadBaseTransportHeader, 2, 2)
	if back {
		a, b = b, a
	}
	return load(from, to, a, b)
}

// the other way round @flows
func (w *bridgeWall) flow(v6 bool) exprs {
	set := w.flows4
	if v6 {
		set = w.flows6
	}
	return append(flowKey(v6, true), &expr.Lookup{SourceRegister: unix.NFT_REG32_00, SetName: set.Name, SetID: set.ID})
}

// update @flows { the loaded key }
func updateFlow(w *bridgeWall, v6 bool) expr.Any {
	set := w.flows4
	if v6 {
		set = w.flows6
	}
	return &expr.Dynset{SrcRegKey: unix.NFT_REG32_00, SetName: set.Name, SetID: set.ID, Operation: uint32(unix.NFT_DYNSET_OP_UPDATE), Timeout: flowTime}
}

// nameKey is an interface name with something behind it, in steps of 4 bytes.
func nameKey(link string, rest []byte) []byte {
	k := make([]byte, 16, 32)
	copy(k, link)
	k = append(k, rest...)
	for len(k)%4 != 0 {
		k = append(k, 0)
	}
	return k
}
