package nat

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
)

// setID names one of the sets and maps of our table.
type setID uint8

// The roles of sets whose keys begin with an address and ports. Each comes in
// two forms: for forwards of both protocols, and with the protocol in the key
// (s+portRoles); and for each address family (s+setsPerFamily). All are hash
// sets: neither a lookup nor a change depends on how much they hold.
const (
	setForward          setID = iota // map daddr . dport : addr . port; open single ports, offset ranges
	setRange                         // map daddr . block : addr; open ranges with equal bases
	setLimited                       // as setForward, restricted
	setLimitedRange                  // as setRange, restricted
	setAllowed                       // daddr . dport . subnet of saddr; who may use setLimited
	setAllowedRange                  // daddr . block . subnet of saddr; who may use setLimitedRange
	setAllowedHost                   // as setAllowed, whole addresses
	setAllowedHostRange              // as setAllowedRange, whole addresses
	setVia                           // daddr . dport . iifname; by which interface setLimited may be used
	setViaRange                      // daddr . block . iifname
	setTarget                        // daddr . dport after DNAT; reachable through their forward only
	setTargetRange                   // daddr . block after DNAT
	portRoles
)

// The sets about a target and the sources around it.
const (
	setHairpin = 2*portRoles + iota // daddr . subnet of saddr; a target's own, where replies could take a short cut
	setSelf                         // daddr . saddr, both the target; where only its own replies could
	setInside                       // daddr . subnet of saddr; a target's own where it is not in setHairpin
	setsPerFamily

	numSets = 2 * setsPerFamily
)

// A block is 2^n ports, or a subnet, that begins at a multiple of its size. In a
// key it stands as its middle, by which its size is known too: the lowest bit
// that is set is the one half the size. A rule makes the middle from what a
// packet has with a mask and that bit; there is one rule for each size in use.
// Single ports and whole addresses have no middle, and sets of their own.

// shape tells which of a set's rules finds an element.
type shape struct {
	ports  uint8 // ports of a block, as a power of two; 0 where keys have a port
	length uint8 // prefix length of the sources; 0 where keys have none, or an address
}

// middle of the block of 2^size ports that begins at first; size is at least 1.
func middle(first uint16, size uint8) uint16 { return first | 1<<(size-1) }

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
	role  setID   // the same set of the first form and family
	one   bool    // the protocol is in the key
	block bool    // keys have blocks of ports
	size  int     // bytes of an address
	tail  int     // where sources begin in a key; 0: nowhere
	wide  bool    // they are the middles of subnets
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
	proto, port, ifname := field{typeProto, 1}, field{typeService, 2}, field{typeIfName, 16}
	for fam, suffix := range []string{"4", "6"} {
		addr := field{typeAddr4, 4}
		if fam == 1 {
			addr = field{typeAddr6, 16}
		}
		at := setID(fam) * setsPerFamily
		for _, one := range []bool{false, true} {
			key, word := []field{addr, port}, ""
			if one {
				key, word = []field{addr, proto, port}, "proto"
			}
			with := func(f field) []field { return append(key[:len(key):len(key)], f) }
			for role, def := range map[setID]setDef{
				setForward:          {name: "forward", key: key, data: []field{addr, port}},
				setRange:            {name: "range", key: key, data: []field{addr}, block: true},
				setLimited:          {name: "limited", key: key, data: []field{addr, port}},
				setLimitedRange:     {name: "limitedrange", key: key, data: []field{addr}, block: true},
				setAllowed:          {name: "allowed", key: with(addr), wide: true},
				setAllowedRange:     {name: "allowedrange", key: with(addr), block: true, wide: true},
				setAllowedHost:      {name: "allowedhost", key: with(addr)},
				setAllowedHostRange: {name: "allowedhostrange", key: with(addr), block: true},
				setVia:              {name: "via", key: with(ifname)},
				setViaRange:         {name: "viarange", key: with(ifname), block: true},
				setTarget:           {name: "target", key: key},
				setTargetRange:      {name: "targetrange", key: key, block: true},
			} {
				def.role, def.one, def.size = role, one, addr.size
				if len(def.key) > len(key) {
					def.tail = fieldsLen(key)
				}
				def.name += word + suffix
				if one {
					role += portRoles
				}
				defs[at+role] = def
			}
		}
		pair := []field{addr, addr}
		defs[at+setHairpin] = setDef{name: "hairpin" + suffix, key: pair, role: setHairpin, size: addr.size, tail: addr.size, wide: true}
		defs[at+setSelf] = setDef{name: "self" + suffix, key: pair, role: setSelf, size: addr.size, tail: addr.size}
		defs[at+setInside] = setDef{name: "inside" + suffix, key: pair, role: setInside, size: addr.size, tail: addr.size, wide: true}
	}
	return defs
}

// familySet returns the set of addr's family.
func familySet(s setID, addr netip.Addr) setID {
	if addr.Is6() {
		return s + setsPerFamily
	}
	return s
}

// shaped reports whether elements of the set differ in shape.
func (d *setDef) shaped() bool { return d.block || d.wide }

// shapeOf tells the shape of an element by its key.
func (d *setDef) shapeOf(key string) (sh shape) {
	if d.block {
		sh.ports = uint8(bits.TrailingZeros16(d.port(key))) + 1
	}
	if d.wide {
		sh.length = uint8(middleLength(key[d.tail : d.tail+d.size]))
	}
	return sh
}

// port reads the port, or the middle of the block, in a key that has one.
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

// portKey is the key of an address, protocol (where keys have it), port or
// middle of a block, and a tail.
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
