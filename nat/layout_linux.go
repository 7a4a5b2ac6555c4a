package nat

import (
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
)

type chainDef struct {
	name     string
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

// labelBit is the conntrack label bit that marks the connections of a table.
func labelBit(table string) int {
	h := fnv.New32a()
	h.Write([]byte(table))
	return int(h.Sum32() % 128)
}

// label is the bit as the 16 bytes of a conntrack label.
func label(bit int) []byte {
	b := make([]byte, 16)
	b[bit/8] = 1 << (bit % 8)
	return b
}

// layout is the fixed part of our table: no chain or rule depends on what is
// forwarded, only the elements of the sets do.
func layout(bit int) []chainDef {
	pre := chainDef{name: "prerouting", nat: true, hook: hookPrerouting, priority: priorityDstNAT}
	out := chainDef{name: "output", nat: true, hook: hookOutput, priority: priorityDstNAT}
	fwd := chainDef{name: chainForward, hook: hookForward, priority: priorityFilter}
	post := chainDef{name: "postrouting", nat: true, hook: hookPostrouting, priority: prioritySrcNAT}
	guard := chainDef{name: chainGuard, hook: hookPrerouting, priority: priorityRaw}

	// tcp flags & (syn | rst) == syn ct label <ours> tcp option maxseg size set rt mtu
	// ct direction reply accept; ct label <ours> accept
	fwd.rules = append(fwd.rules,
		ruleDef{"segments fit both links", cat(synOnly(), ours(bit), clamp())},
		ruleDef{"replies", cat(ctDirection(ctDirReply), accept())},
		ruleDef{"translated by us", cat(ours(bit), accept())})
	// ct label <ours> fib saddr type local masquerade
	post.rules = append(post.rules, ruleDef{"hairpin of this host", cat(ours(bit), fromLocal(), masquerade())})

	for fam := setID(0); fam < numSets; fam += setsPerFamily {
		f := families[fam/setsPerFamily]
		name := func(s setID) string { return setDefs[fam+s].name }
		dnat := func(s setID, span bool) []expr.Any {
			if span {
				return cat(f.spanKey(), translate(name(s)), mark(bit), f.dnat(false))
			}
			return cat(f.exactKey(), translate(name(s)), mark(bit), f.dnat(true))
		}
		is := f.match()
		// meta nfproto F meta l4proto { tcp, udp } dnat to daddr . l4proto . dport map @forward
		open := []ruleDef{
			{"open ports " + f.name, cat(is, dnat(setForward, false))},
			{"open ranges " + f.name, cat(is, dnat(setRange, true))},
		}
		pre.rules = append(pre.rules, open...)
		out.rules = append(out.rules, open...)
		// ... dport . l4proto . daddr . saddr @allowed dnat to ... map @limited
		allowed := cat(f.spanKey(), f.source(regKey+2+f.words), in(name(setAllowed)))
		via := cat(f.spanKey(), ifname(regKey+2+f.words), in(name(setVia)))
		pre.rules = append(pre.rules,
			ruleDef{"restricted ports by source " + f.name, cat(is, allowed, dnat(setLimited, false))},
			ruleDef{"restricted ranges by source " + f.name, cat(is, allowed, dnat(setLimitedRange, true))},
			ruleDef{"restricted ports by gateway " + f.name, cat(is, via, dnat(setLimited, false))},
			ruleDef{"restricted ranges by gateway " + f.name, cat(is, via, dnat(setLimitedRange, true))})
		out.rules = append(out.rules,
			ruleDef{"restricted ports " + f.name, cat(is, dnat(setLimited, false))},
			ruleDef{"restricted ranges " + f.name, cat(is, dnat(setLimitedRange, true))})
		// daddr . l4proto . dport @target daddr . saddr != @inside drop
		outside := cat(f.subnetKey(), notIn(name(setInside)), drop())
		fwd.rules = append(fwd.rules,
			ruleDef{"through a forward only " + f.name, cat(is, f.exactKey(), in(name(setTarget)), outside)},
			ruleDef{"through a forward only, ranges " + f.name, cat(is, f.spanKey(), in(name(setTargetRange)), outside)})
		// ct label <ours> daddr . saddr @hairpin masquerade
		post.rules = append(post.rules, ruleDef{"hairpin of a target's subnet " + f.name,
			cat(f.only(), ours(bit), f.subnetKey(), in(name(setHairpin)), masquerade())})
		// ct label <ours> daddr . saddr @self masquerade
		post.rules = append(post.rules, ruleDef{"hairpin of a target to itself " + f.name,
			cat(f.only(), ours(bit), f.subnetKey(), in(name(setSelf)), masquerade())})
	}
	// iif @localnet ip daddr 127.0.0.0/8 drop; the same for saddr
	for _, end := range []struct {
		comment string
		offset  uint32
	}{{"no loopback from a link", 16}, {"no loopback on a link", 12}} {
		guard.rules = append(guard.rules, ruleDef{end.comment, cat(
			families[0].only(), iif(), in(setLocalnet), loopback4(end.offset), drop())})
	}
	return []chainDef{guard, pre, out, fwd, post}
}

// family builds the expressions that differ between IPv4 and IPv6.
type family struct {
	name         string
	nfproto      byte
	words        uint32 // 32-bit registers of an address
	saddr, daddr uint32 // header offsets
}

var families = [2]family{
	{"IPv4", nfprotoIPv4, 1, 12, 16},
	{"IPv6", nfprotoIPv6, 4, 8, 24},
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

func (f family) exactKey() []expr.Any {
	return []expr.Any{f.load(f.daddr, regKey), l4proto(regKey + f.words), dport(regKey + f.words + 1)}
}

func (f family) spanKey() []expr.Any {
	return []expr.Any{dport(regKey), l4proto(regKey + 1), f.load(f.daddr, regKey+2)}
}

func (f family) subnetKey() []expr.Any {
	return []expr.Any{f.load(f.daddr, regKey), f.load(f.saddr, regKey+f.words)}
}

func (f family) source(reg uint32) []expr.Any { return one(f.load(f.saddr, reg)) }

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

func notIn(set string) []expr.Any {
	return one(&expr.Lookup{SourceRegister: regKey, SetName: set, Invert: true})
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
func drop() []expr.Any       { return one(&expr.Verdict{Kind: expr.VerdictDrop}) }
