package lxcrt

import (
	"encoding/binary"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Builders of rule expressions, each under the line that nft would print.

type exprs = []expr.Any

func rule(parts ...exprs) exprs {
	var all exprs
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

// iifname "prefix*", or != with not.
func iifname(prefix string, not bool) exprs { return nameMatch(expr.MetaKeyIIFNAME, prefix, not) }

// oifname "prefix*", or != with not.
func oifname(prefix string, not bool) exprs { return nameMatch(expr.MetaKeyOIFNAME, prefix, not) }

func nameMatch(key expr.MetaKey, prefix string, not bool) exprs {
	op := expr.CmpOpEq
	if not {
		op = expr.CmpOpNeq
	}
	return exprs{&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: op, Register: 1, Data: []byte(prefix)}}
}

// meta nfproto ipv4 / ipv6
func nfproto(v6 bool) exprs {
	p := byte(unix.NFPROTO_IPV4)
	if v6 {
		p = unix.NFPROTO_IPV6
	}
	return exprs{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{p}}}
}

// meta l4proto N
func l4proto(n byte) exprs {
	return exprs{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{n}}}
}

// th dport N, after l4proto
func dport(n uint16) exprs {
	return exprs{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(n)},
	}
}

// load saddr/daddr into a register
func loadAddr(v6, dst bool, reg uint32) *expr.Payload {
	p := &expr.Payload{DestRegister: reg, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4}
	if v6 {
		p.Offset, p.Len = 8, 16
	}
	if dst {
		p.Offset += p.Len
	}
	return p
}

// ip/ip6 saddr or daddr in a prefix
func addrIn(p netip.Prefix, dst bool) exprs {
	v6 := p.Addr().Is6()
	mask := make([]byte, p.Addr().BitLen()/8)
	for i := range p.Bits() {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	return rule(nfproto(v6), exprs{
		loadAddr(v6, dst, 1),
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: uint32(len(mask)), Mask: mask, Xor: make([]byte, len(mask))},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: p.Masked().Addr().AsSlice()},
	})
}

// icmpv6 type N
func icmp6(n byte) exprs {
	return rule(l4proto(unix.IPPROTO_ICMPV6), exprs{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{n}},
	})
}

// ct state established,related
func established() exprs {
	return ctBits(expr.CtKeySTATE, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED)
}

// ct state related
func related() exprs { return ctBits(expr.CtKeySTATE, expr.CtStateBitRELATED) }

// ct direction reply
func replies() exprs {
	return exprs{
		&expr.Ct{Key: expr.CtKeyDIRECTION, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{1}},
	}
}

// ct status dnat
func dnated() exprs { return ctBits(expr.CtKeySTATUS, 1<<5) } // IPS_DST_NAT

func ctBits(key expr.CtKey, bits uint32) exprs {
	return exprs{
		&expr.Ct{Key: key, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(bits), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
	}
}

// iifname . ip saddr @set
func linkAddrIn(set *nftables.Set, v6 bool) exprs {
	return rule(nfproto(v6), exprs{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: unix.NFT_REG32_00},
		loadAddr(v6, false, unix.NFT_REG32_04),
		&expr.Lookup{SourceRegister: unix.NFT_REG32_00, SetName: set.Name, SetID: set.ID},
	})
}

// ip saddr . ip daddr . meta l4proto . th dport @set
func edgeIn(set *nftables.Set, v6 bool) exprs { return edge(set, v6, false) }

// ip daddr . ip saddr . meta l4proto . th sport @set
func edgeBack(set *nftables.Set, v6 bool) exprs { return edge(set, v6, true) }

func edge(set *nftables.Set, v6, back bool) exprs {
	port := uint32(2)
	if back {
		port = 0
	}
	step := uint32(1) // registers of 4 bytes an address takes
	if v6 {
		step = 4
	}
	r := uint32(unix.NFT_REG32_00)
	return rule(nfproto(v6), exprs{
		loadAddr(v6, back, r),
		loadAddr(v6, !back, r+step),
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: r + 2*step},
		&expr.Payload{DestRegister: r + 2*step + 1, Base: expr.PayloadBaseTransportHeader, Offset: port, Len: 2},
		&expr.Lookup{SourceRegister: r, SetName: set.Name, SetID: set.ID},
	})
}

func accept() exprs     { return exprs{&expr.Verdict{Kind: expr.VerdictAccept}} }
func drop() exprs       { return exprs{&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop}} }
func masquerade() exprs { return exprs{&expr.Masq{}} }
func jump(chain string) exprs {
	return exprs{&expr.Verdict{Kind: expr.VerdictJump, Chain: chain}}
}

func linkKey(link string, a netip.Addr) []byte {
	k := make([]byte, 16, 32)
	copy(k, link)
	return append(k, a.AsSlice()...)
}

func edgeKey(from, to netip.Addr, proto byte, port uint16) []byte {
	k := append(from.AsSlice(), to.AsSlice()...)
	k = append(k, proto, 0, 0, 0)
	return append(binary.BigEndian.AppendUint16(k, port), 0, 0)
}

// oifname != name, the whole name
func nameMatchExact(name string) exprs {
	b := make([]byte, 16)
	copy(b, name)
	return nameMatch(expr.MetaKeyOIFNAME, string(b), true)
}
