package nat

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"net/netip"
)

// setID names one of the sets and maps of our table.
type setID uint16

// What sets are for. Those up to roleTarget begin with an address and ports;
// they come in two forms, for forwards of both protocols and with the protocol
// in the key, and for each size of port blocks. All are hash sets: neither a
// lookup nor a change depends on how much they hold.
type setRole uint8

const (
	roleForward     setRole = iota // map daddr . dport : addr . port, or daddr . block : addr
	roleLimited                    // as roleForward, restricted; for this host, which is not
	roleAllowed                    // map daddr . dport . subnet of saddr : addr . port, or with a block : addr
	roleAllowedHost                // as roleAllowed, whole addresses
	roleVia                        // as roleAllowed, but iifname
	roleTarget                     // daddr . dport after DNAT; reachable through their forward only
	roleHairpin                    // daddr . subnet of saddr; a target's own, where replies could take a short cut
	roleSelf                       // daddr . saddr, both the target; where only its own replies could
	roleInside                     // daddr . subnet of saddr; a target's own where it is not in roleHairpin
)

const (
	portRoles  = int(roleTarget) + 1
	blockSizes = 16 // a block is 1 to 32768 ports
	formSets   = setID(portRoles * blockSizes)

	setHairpin = 2 * formSets
	setSelf    = setHairpin + 1
	setInside  = setHairpin + 2

	setsPerFamily = setHairpin + 3
	numSets       = 2 * setsPerFamily
)

// portSet is the set of a role and block size (as a power of two), counted from
// where those of a form begin.
func portSet(base setID, role setRole, size uint8) setID {
	return base + setID(role)*blockSizes + setID(size)
}

// A range of ports is cut into blocks of 2^n ports that begin at a multiple of
// their size. A rule makes their first port from a packet's with a mask; there
// is a set and a rule for each size in use.
//
// Subnets of all lengths share a set. In a key a subnet stands as its middle,
// by which its length is known too: the lowest bit that is set is the first
// after the prefix. Whole addresses have no middle, and sets of their own.

// blocks visits the fewest blocks that make up a range of ports; a size of 0 is
// a single port.
func blocks(lo, hi uint16, visit func(first uint16, size uint8)) {
	for at, end := int(lo), int(hi)+1; at < end; {
		size := min(bits.TrailingZeros16(uint16(at)), bits.Len(uint(end-at))-1)
		visit(uint16(at), uint8(size))
		at += 1 << size
	}
}

// middleAddr writes the middle of a masked prefix that is no whole address.
func middleAddr(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	b[p.Bits()/8] |= 0x80 >> (p.Bits() % 8)
	a, _ := netip.AddrFromSlice(b)
	return a
}

// middleLength is the prefix length that a middle stands for.
func middleLength(b string) int {
	for i := len(b) - 1; i >= 0; i-- {
		if b[i] != 0 {
			return 8*i + 7 - bits.TrailingZeros8(b[i])
		}
	}
	return 0
}

// middlePrefix is the prefix that a middle stands for.
func middlePrefix(b string) netip.Prefix {
	a, _ := netip.AddrFromSlice([]byte(b))
	return netip.PrefixFrom(a, middleLength(b)).Masked()
}

// The kernel's data types as the nft program numbers them; a concatenation is
// written as base-64 digits.
const (
	typeAddr4   = 7
	typeAddr6   = 8
	typeProto   = 12
	typeService = 13
	typeIfName  = 41
	typeIfIndex = 20
)

// field is one part of a concatenated key, padded to 4 bytes in the kernel.
type field struct {
	typ  uint32
	size int // bytes that carry the value
}

func (f field) padded() int { return (f.size + 3) &^ 3 }

// setDef describes a set.
type setDef struct {
	name  string
	key   []field
	data  []field // nil for a plain set
	role  setRole
	one   bool  // the protocol is in the key
	ports uint8 // size of its blocks of ports, as a power of two
	size  int   // bytes of an address
	tail  int   // where sources begin in a key; 0: nowhere
	wide  bool  // they are the middles of subnets
}

func (d *setDef) keyLen() int  { return fieldsLen(d.key) }
func (d *setDef) dataLen() int { return fieldsLen(d.data) }

func fieldsLen(fs []field) (n int) {
	for _, f := range fs {
		n += f.padded()
	}
	return n
}

// typeOf is the number of a (concatenated) type.
func typeOf(fs []field) (t uint32) {
	for _, f := range fs {
		t = t<<6 | f.typ
	}
	return t
}

// setDefs describes every set.
var setDefs = makeSetDefs()

func makeSetDefs() (defs [numSets]setDef) {
	for fam, suffix := range []string{"4", "6"} {
		addr := field{typeAddr4, 4}
		if fam == 1 {
			addr = field{typeAddr6, 16}
		}
		at := setID(fam) * setsPerFamily
		for size := range uint8(blockSizes) {
			portSetDefs(defs[at:], addr, size, false, suffix)
			portSetDefs(defs[at+formSets:], addr, size, true, suffix)
		}
		pair := []field{addr, addr}
		defs[at+setHairpin] = setDef{name: "hairpin" + suffix, key: pair, role: roleHairpin, wide: true}
		defs[at+setSelf] = setDef{name: "self" + suffix, key: pair, role: roleSelf}
		defs[at+setInside] = setDef{name: "inside" + suffix, key: pair, role: roleInside, wide: true}
		for s := setHairpin; s <= setInside; s++ {
			defs[at+s].size, defs[at+s].tail = addr.size, addr.size
		}
	}
	return defs
}

// portSetDefs describes the sets of a form, family and block size.
func portSetDefs(defs []setDef, addr field, size uint8, one bool, suffix string) {
	proto, port, ifname := field{typeProto, 1}, field{typeService, 2}, field{typeIfName, 16}
	key, data, word := []field{addr, port}, []field{addr, port}, ""
	if one {
		key, word = []field{addr, proto, port}, "proto"
	}
	if size > 0 {
		data = []field{addr}
		suffix += fmt.Sprintf("_%d", 1<<size)
	}
	with := func(f field) []field { return append(key[:len(key):len(key)], f) }
	for role, def := range []setDef{
		roleForward:     {name: "forward", key: key, data: data},
		roleLimited:     {name: "limited", key: key, data: data},
		roleAllowed:     {name: "allowed", key: with(addr), data: data, wide: true},
		roleAllowedHost: {name: "allowedhost", key: with(addr), data: data},
		roleVia:         {name: "via", key: with(ifname), data: data},
		roleTarget:      {name: "target", key: key},
	} {
		def.role, def.one, def.ports, def.size = setRole(role), one, size, addr.size
		if len(def.key) > len(key) {
			def.tail = fieldsLen(key)
		}
		def.name += word + suffix
		defs[portSet(0, def.role, size)] = def
	}
}

// familySet returns the set of addr's family.
func familySet(s setID, addr netip.Addr) setID {
	if addr.Is6() {
		return s + setsPerFamily
	}
	return s
}

// length tells the prefix length of an element by its key.
func (d *setDef) length(key string) uint8 {
	return uint8(middleLength(key[d.tail : d.tail+d.size]))
}

// port reads the port in a key that has one, or the first of its block.
func (d *setDef) port(key string) uint16 {
	at := d.size
	if d.one {
		at += 4
	}
	return uint16(key[at])<<8 | uint16(key[at+1])
}

// protocols reads the protocols that an element is for.
func (d *setDef) protocols(key string) Protocols {
	switch {
	case !d.one:
		return TCP | UDP
	case key[d.size] == protoTCP:
		return TCP
	}
	return UDP
}

// addr reads the first address of a key.
func (d *setDef) addr(key string) netip.Addr {
	a, _ := netip.AddrFromSlice([]byte(key[:d.size]))
	return a
}

// value is what stands behind a key: the data of a map, and the notes that
// travel with the element (its comment and our private record).
type value struct {
	data, note string
}

// putAddr writes an address to the front of b and returns its length.
func putAddr(b []byte, a netip.Addr) int {
	if a.Is4() {
		v := a.As4()
		return copy(b, v[:])
	}
	v := a.As16()
	return copy(b, v[:])
}

// portKey is the key of an address, protocol (where keys have it), port (of a
// block, the first) and a tail.
func (d *setDef) portKey(addr netip.Addr, proto uint8, port uint16, tail []byte) string {
	var b [48]byte
	n := putAddr(b[:], addr)
	if d.one {
		b[n] = proto
		n += 4
	}
	binary.BigEndian.PutUint16(b[n:], port)
	n += 4
	n += copy(b[n:], tail)
	return string(b[:n])
}

// pairKey is the key of a target and a source.
func pairKey(target, from netip.Addr) string {
	var b [32]byte
	n := putAddr(b[:], target)
	n += putAddr(b[n:], from)
	return string(b[:n])
}

func ifnameTail(name string) []byte {
	var b [16]byte
	copy(b[:], name)
	return b[:]
}

func endpointData(addr netip.Addr, port uint16) string {
	var b [20]byte
	n := putAddr(b[:], addr)
	binary.BigEndian.PutUint16(b[n:], port)
	return string(b[:n+4])
}

// Element notes are TLVs: type 0 is the comment that nft shows, type 200 is
// our own record, from which List rebuilds the forwards.
const (
	noteComment = 0
	noteRecord  = 200
)

// forwardNote is the note on an element that leads to a target.
func forwardNote(f *Forward) string {
	rec := make([]byte, 0, 8)
	rec = append(rec, byte(f.Target.Prefix))
	rec = binary.BigEndian.AppendUint16(rec, f.Source.Port())
	rec = binary.BigEndian.AppendUint32(rec, uint32(f.ports()))
	if f.saysOwn() {
		rec = append(rec, 1)
	}
	return note(f.Name, string(rec))
}

func note(comment, record string) string {
	b := make([]byte, 0, len(comment)+len(record)+5)
	if comment != "" {
		b = append(b, noteComment, byte(len(comment)+1))
		b = append(append(b, comment...), 0)
	}
	if record != "" {
		b = append(b, noteRecord, byte(len(record)))
		b = append(b, record...)
	}
	return string(b)
}

// readNote is the inverse of note; ok is false for notes of someone else.
func readNote(s string) (comment, record string, ok bool) {
	for len(s) >= 2 {
		typ, n := s[0], int(s[1])
		if len(s) < 2+n {
			return "", "", false
		}
		body := s[2 : 2+n]
		switch typ {
		case noteComment:
			if n > 0 {
				comment = body[:n-1]
			}
		case noteRecord:
			record = body
		}
		s = s[2+n:]
	}
	return comment, record, len(s) == 0
}

func addrData(addr netip.Addr) string { return string(addr.AsSlice()) }
