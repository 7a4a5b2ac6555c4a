package nat

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"

	"github.com/google/nftables/expr"
)

// Numbers of the netfilter interface that the rules need. They are spelled out
// so that the layout is plain data on every platform.
const (
	nfprotoInet = 1
	nfprotoIPv4 = 2
	nfprotoIPv6 = 10

	hookPrerouting  = 0
	hookForward     = 2
	hookOutput      = 3
	hookPostrouting = 4

	priorityRaw    = -300
	priorityDstNAT = -100
	priorityFilter = 0
	prioritySrcNAT = 100

	// 32-bit registers; a key starts at regKey, its next fields follow on.
	regKey   = 8  // shown as register 1
	regLabel = 16 // shown as register 3

	ctDirReply = 1
	rtnLocal   = 2 // fib address type
)

// protocolSet stands for the anonymous set { tcp, udp } in rules.
const protocolSet = "__set%d"

const (
	setLocalnet  = "localnet"   // links on which we switched route_localnet on
	setPorts     = "bridgeport" // bridge ports on which we switched hairpin mode on
	chainGuard   = "guard"
	chainForward = "forward"
	chainNear    = "neighbours" // and 4 or 6
)

type chainDef struct {
	name     string
	regular  bool // hangs on no hook
	nat      bool // type nat, else filter
	hook     uint32
	priority int32
	rules    []ruleDef
}

// ruleDef is one rule, its expressions under the text that nft shows for them.
type ruleDef struct {
	comment string
	exprs   []expr.Any
}

// labelCount is the number of bits in a conntrack label.
const labelCount = 128

// labelBit is the conntrack label bit that marks the connections of a table,
// unless another table has it.
func labelBit(table string) int {
	h := fnv.New32a()
	h.Write([]byte(table))
	return int(h.Sum32() % labelCount)
}

// label is the bit as the 16 bytes of a conntrack label.
func label(bit int) []byte {
	b := make([]byte, 16)
	b[bit/8] = 1 << (bit % 8)
	return b
}

// layout is the chains of our table with their rules. They do not depend on how
// much is forwarded, only on which sets and which sizes of blocks and subnets
// are in use.
func layout(bit int, used usage, shut bool) []chainDef {
	l := &layouter{lengthsOf: used, bit: bit,
		pre:   chainDef{name: "prerouting", nat: true, hook: hookPrerouting, priority: priorityDstNAT},
		out:   chainDef{name: "output", nat: true, hook: hookOutput, priority: priorityDstNAT},
		fwd:   chainDef{name: chainForward, hook: hookForward, priority: priorityFilter},
		post:  chainDef{name: "postrouting", nat: true, hook: hookPostrouting, priority: prioritySrcNAT},
		guard: chainDef{name: chainGuard, hook: hookPrerouting, priority: priorityRaw},
	}
	// tcp flags & (syn | rst) == syn ct label <ours> tcp option maxseg size set rt mtu
	// ct direction reply accept; ct label <ours> accept
	l.fwd.rules = append(l.fwd.rules,
		ruleDef{"segments fit both links", cat(synOnly(), ours(bit), clamp())},
		ruleDef{"replies", cat(ctDirection(ctDirReply), accept())},
		ruleDef{"translated by us", cat(ours(bit), accept())})
	// udp dport 5351 drop; udp dport 1900 drop
	if shut {
		for _, s := range []struct {
			protocol string
			port     uint16
		}{{"PCP and NAT-PMP", 5351}, {"SSDP", 1900}} {
			l.fwd.rules = append(l.fwd.rules, ruleDef{"no " + s.protocol, cat(udpTo(s.port), drop())})
		}
	}
	// ct label <ours> fib saddr type local masquerade
	l.post.rules = append(l.post.rules, ruleDef{"hairpin of this host", cat(ours(bit), fromLocal(), masquerade())})
	for fam := range families {
		l.around(fam)
		for _, one := range []bool{false, true} {
			l.form(fam, one)
		}
	}
	// iif @localnet ip daddr 127.0.0.0/8 drop; the same for saddr
	for _, end := range []struct {
		comment string
		offset  uint32
	}{{"no loopback from a link", 16}, {"no loopback on a link", 12}} {
		l.guard.rules = append(l.guard.rules, ruleDef{end.comment, cat(
			families[0].only(), iif(), in(setLocalnet), loopback4(end.offset), drop())})
	}
	return append([]chainDef{l.guard, l.pre, l.out}, append(l.near, l.fwd, l.post)...)
}

// usage lists the prefix lengths of a set that are in use, as plan.lengthsOf does.
type usage func(s setID) []uint8

type layouter struct {
	lengthsOf                  usage
	bit                        int
	pre, out, fwd, post, guard chainDef
	near                       []chainDef // who may talk to a target directly, by family
}

// rules visits what a set's rules begin with: the family, the protocols, and
// the key up to where the sources begin. There is one for each prefix length.
func (l *layouter) rules(s setID, visit func(what string, length uint8, key []expr.Any)) {
	def := &setDefs[s]
	f := families[s/setsPerFamily]
	for _, length := range l.lengthsOf(s) {
		what := "ports"
		if def.ports > 0 {
			what = fmt.Sprintf("blocks of %d ports", 1<<def.ports)
		}
		switch def.role {
		case roleAllowed:
			what += fmt.Sprintf(" from /%d", length)
		case roleAllowedHost:
			what += " from hosts"
		case roleVia:
			what += " by gateway"
		}
		if what += ", " + f.name; def.one {
			what += ", one protocol"
		}
		visit(what, length, cat(f.match(), f.portKey(def.one, def.ports)))
	}
}

// dnat translates by a map of ports or of blocks.
//
//	dnat to daddr . dport map @forward
func (l *layouter) dnat(s setID) []expr.Any {
	return cat(translate(setDefs[s].name), mark(l.bit), families[s/setsPerFamily].dnat(setDefs[s].ports == 0))
}

// form writes the rules for one form of keys.
func (l *layouter) form(fam int, one bool) {
	base := setID(fam) * setsPerFamily
	if one {
		base += formSets
	}
	f := families[fam]
	for size := range uint8(blockSizes) {
		s := portSet(base, roleForward, size)
		l.rules(s, func(what string, _ uint8, key []expr.Any) {
			r := ruleDef{"open " + what, cat(key, l.dnat(s))}
			l.pre.rules, l.out.rules = append(l.pre.rules, r), append(l.out.rules, r)
		})
		to := portSet(base, roleLimited, size)
		l.rules(to, func(what string, _ uint8, key []expr.Any) {
			l.out.rules = append(l.out.rules, ruleDef{"restricted " + what, cat(key, l.dnat(to))})
		})
		// dnat to daddr . dport . saddr & mask | bit map @allowed
		for role := roleAllowed; role <= roleVia; role++ {
			s := portSet(base, role, size)
			l.rules(s, func(what string, length uint8, key []expr.Any) {
				reg := uint32(regKey + setDefs[s].tail/4)
				source := ifname(reg)
				if role != roleVia {
					source = f.source(reg, setDefs[s].wide, length)
				}
				l.pre.rules = append(l.pre.rules, ruleDef{"restricted " + what,
					cat(key, source, l.dnat(s))})
			})
		}
		// What was not translated by us goes to the chain that judges it.
		target := portSet(base, roleTarget, size)
		l.rules(target, func(what string, _ uint8, key []expr.Any) {
			l.fwd.rules = append(l.fwd.rules, ruleDef{"forwarded " + what, cat(key, in(setDefs[target].name), jump(l.near[fam].name))})
		})
	}
}

// around writes the rules about the sources around targets.
func (l *layouter) around(fam int) {
	f := families[fam]
	near := chainDef{name: chainNear + f.digit, regular: true}
	base := setID(fam) * setsPerFamily
	for _, s := range []setID{base + setHairpin, base + setInside} {
		for _, length := range l.lengthsOf(s) {
			key := cat(one(f.load(f.daddr, regKey)), f.source(regKey+f.words, true, length), in(setDefs[s].name))
			what := fmt.Sprintf(" /%d, %s", length, f.name)
			who := "neighbours in"
			if setDefs[s].role == roleInside {
				who = "neighbours by way of this host in"
			}
			near.rules = append(near.rules, ruleDef{who + what, cat(f.only(), key, accept())})
			if setDefs[s].role == roleHairpin {
				l.post.rules = append(l.post.rules, ruleDef{"hairpin of a target's subnet" + what, cat(f.only(), ours(l.bit), key, masquerade())})
			}
		}
	}
	near.rules = append(near.rules, ruleDef{"only through a forward", drop()})
	if s := base + setSelf; len(l.lengthsOf(s)) > 0 {
		l.post.rules = append(l.post.rules, ruleDef{"hairpin of a target to itself, " + f.name, cat(f.only(), ours(l.bit),
			one(f.load(f.daddr, regKey)), f.source(regKey+f.words, false, 0), in(setDefs[s].name), masquerade())})
	}
	l.near = append(l.near, near)
}

// family builds the expressions that differ between IPv4 and IPv6.
type family struct {
	name, digit  string
	nfproto      byte
	words        uint32 // 32-bit registers of an address
	saddr, daddr uint32 // header offsets
}

var families = [2]family{
	{"IPv4", "4", nfprotoIPv4, 1, 12, 16},
	{"IPv6", "6", nfprotoIPv6, 4, 8, 24},
}

func cat(parts ...[]expr.Any) (all []expr.Any) {
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

func one(e expr.Any) []expr.Any { return []expr.Any{e} }

func payload(base expr.PayloadBase, offset, size, reg uint32) expr.Any {
	return &expr.Payload{OperationType: expr.PayloadLoad, DestRegister: reg, Base: base, Offset: offset, Len: size}
}

// [ meta load nfproto => reg 1 ] [ cmp eq reg 1 family ]
func (f family) only() []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: regKey},
		&expr.Cmp{Op: expr.CmpOpEq, Register: regKey, Data: []byte{f.nfproto}}}
}

// only, then [ meta load l4proto => reg 1 ] [ lookup reg 1 set { tcp, udp } ]
func (f family) match() []expr.Any {
	return append(f.only(), &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: regKey},
		&expr.Lookup{SourceRegister: regKey, SetName: protocolSet})
}

func (f family) load(offset, reg uint32) expr.Any {
	return payload(expr.PayloadBaseNetworkHeader, offset, 4*f.words, reg)
}

func l4proto(reg uint32) expr.Any { return &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg} }
func dport(reg uint32) expr.Any   { return payload(expr.PayloadBaseTransportHeader, 2, 2, reg) }

// portKey loads daddr, the protocol where keys have it, and the port or the
// first of its block of 2^size ports.
func (f family) portKey(protocol bool, size uint8) []expr.Any {
	key := one(f.load(f.daddr, regKey))
	reg := regKey + f.words
	if protocol {
		key = append(key, l4proto(reg))
		reg++
	}
	key = append(key, dport(reg))
	if size > 0 {
		key = append(key, masked(reg, binary.BigEndian.AppendUint16(nil, ^uint16(0)<<size), make([]byte, 2)))
	}
	return key
}

// source loads saddr, or the middle of its subnet of that length.
func (f family) source(reg uint32, subnet bool, length uint8) []expr.Any {
	key := one(f.load(f.saddr, reg))
	if subnet {
		mask, bit := make([]byte, 4*f.words), make([]byte, 4*f.words)
		for i := range length {
			mask[i/8] |= 0x80 >> (i % 8)
		}
		bit[length/8] |= 0x80 >> (length % 8)
		key = append(key, masked(reg, mask, bit))
	}
	return key
}

// [ bitwise reg 9 = ( reg 9 & mask ) ^ bit ]
func masked(reg uint32, mask, bit []byte) expr.Any {
	return &expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: uint32(len(mask)), Mask: mask, Xor: bit}
}

// [ nat dnat F addr_min reg 1 (proto_min reg ...) ]
func (f family) dnat(port bool) []expr.Any {
	n := &expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(f.nfproto), RegAddrMin: regKey}
	if port {
		n.RegProtoMin = regKey + f.words
	}
	return one(n)
}

func ifname(reg uint32) []expr.Any {
	return one(&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg})
}

func iif() []expr.Any { return one(&expr.Meta{Key: expr.MetaKeyIIF, Register: regKey}) }

func in(set string) []expr.Any {
	return one(&expr.Lookup{SourceRegister: regKey, SetName: set})
}

func translate(set string) []expr.Any {
	return one(&expr.Lookup{SourceRegister: regKey, SetName: set, DestRegister: regKey, IsDestRegSet: true})
}

// mark sets our conntrack label. It stands between the lookup that found a
// target and the translation, so that only what we translate carries it.
func mark(bit int) []expr.Any {
	return []expr.Any{&expr.Immediate{Register: regLabel, Data: label(bit)},
		&expr.Ct{Key: expr.CtKeyLABELS, Register: regLabel, SourceRegister: true}}
}

// ours matches connections that carry our label.
func ours(bit int) []expr.Any {
	return []expr.Any{&expr.Ct{Key: expr.CtKeyLABELS, Register: regKey},
		&expr.Bitwise{SourceRegister: regKey, DestRegister: regKey, Len: 16, Mask: label(bit), Xor: make([]byte, 16)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: regKey, Data: make([]byte, 16)}}
}

func ctDirection(dir byte) []expr.Any {
	return []expr.Any{&expr.Ct{Key: expr.CtKeyDIRECTION, Register: regKey},
		&expr.Cmp{Op: expr.CmpOpEq, Register: regKey, Data: []byte{dir}}}
}

func fromLocal() []expr.Any {
	return []expr.Any{&expr.Fib{Register: regKey, ResultADDRTYPE: true, FlagSADDR: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: regKey, Data: nativeUint32(rtnLocal)}}
}

func udpTo(port uint16) []expr.Any {
	return []expr.Any{l4proto(regKey), &expr.Cmp{Op: expr.CmpOpEq, Register: regKey, Data: []byte{protoUDP}},
		dport(regKey), &expr.Cmp{Op: expr.CmpOpEq, Register: regKey, Data: binary.BigEndian.AppendUint16(nil, port)}}
}

// synOnly matches the first TCP packet of either direction.
func synOnly() []expr.Any {
	return []expr.Any{l4proto(regKey), &expr.Cmp{Op: expr.CmpOpEq, Register: regKey, Data: []byte{protoTCP}},
		payload(expr.PayloadBaseTransportHeader, 13, 1, regKey),
		&expr.Bitwise{SourceRegister: regKey, DestRegister: regKey, Len: 1, Mask: []byte{0x06}, Xor: []byte{0}},
		&expr.Cmp{Op: expr.CmpOpEq, Register: regKey, Data: []byte{0x02}}}
}

// clamp lowers the segment size that a SYN announces to what the narrower of
// the two routes takes.
func clamp() []expr.Any {
	return []expr.Any{&expr.Rt{Register: regKey, Key: expr.RtTCPMSS},
		&expr.Byteorder{SourceRegister: regKey, DestRegister: regKey, Op: expr.ByteorderHton, Len: 2, Size: 2},
		&expr.Exthdr{SourceRegister: regKey, Type: 2, Offset: 2, Len: 2, Op: expr.ExthdrOpTcpopt}}
}

func loopback4(offset uint32) []expr.Any {
	return []expr.Any{payload(expr.PayloadBaseNetworkHeader, offset, 1, regKey),
		&expr.Cmp{Op: expr.CmpOpEq, Register: regKey, Data: []byte{127}}}
}

func masquerade() []expr.Any { return one(&expr.Masq{}) }
func accept() []expr.Any     { return one(&expr.Verdict{Kind: expr.VerdictAccept}) }
func jump(chain string) []expr.Any {
	return one(&expr.Verdict{Kind: expr.VerdictJump, Chain: chain})
}
func drop() []expr.Any { return one(&expr.Verdict{Kind: expr.VerdictDrop}) }
