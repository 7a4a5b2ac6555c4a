package nat

import (
	"encoding/binary"
	"net/netip"
)

// setID names one of the sets and maps of our table.
type setID uint8

// The sets of one address family; the IPv6 twin of set s is s+setsPerFamily.
// Intervals put the port first: the kernel matches concatenated fields in key
// order and carries every element along whose first field is equal, so a key
// that began with the address would cost time in proportion to the forwards.
const (
	setForward      setID = iota // map daddr . l4proto . dport : addr . port; open single ports, offset ranges
	setRange                     // map dport range . l4proto . daddr : addr; open ranges with equal bases
	setLimited                   // as setForward, restricted
	setLimitedRange              // as setRange, restricted
	setAllowed                   // dport range . l4proto . daddr . saddr prefix; who may use the restricted ones
	setVia                       // dport range . l4proto . daddr . iifname; by which interface they may be used
	setTarget                    // daddr . l4proto . dport after DNAT; reachable through their forward only
	setTargetRange               // dport range . l4proto . daddr after DNAT
	setInside                    // daddr subnet . saddr subnet; a target's own subnet, which is not judged
	setHairpin                   // daddr subnet . saddr subnet; sources whose replies could take a short cut
	setSelf                      // daddr . saddr, both the target; where only its own replies could
	setsPerFamily

	numSets = 2 * setsPerFamily
)

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

// setDef describes a set to the kernel.
type setDef struct {
	name     string
	key      []field
	data     []field // nil for a plain set
	interval bool
	guard    bool // says who may or must, not where to: filled before, emptied after what it guards
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

// setDefs describes every set, in the order in which they are changed: what
// decides where a packet goes stands before what guards it, so that a removal
// never opens a moment in which a restricted port is open.
var setDefs = makeSetDefs()

func makeSetDefs() (defs [numSets]setDef) {
	for fam, suffix := range []string{"4", "6"} {
		addr := field{typeAddr4, 4}
		if fam == 1 {
			addr = field{typeAddr6, 16}
		}
		proto, port, ifname := field{typeProto, 1}, field{typeService, 2}, field{typeIfName, 16}
		exact := []field{addr, proto, port}
		span := []field{port, proto, addr}
		at := func(s setID) *setDef { return &defs[s+setID(fam)*setsPerFamily] }
		*at(setForward) = setDef{name: "forward", key: exact, data: []field{addr, port}}
		*at(setRange) = setDef{name: "range", key: span, data: []field{addr}, interval: true}
		*at(setLimited) = setDef{name: "limited", key: exact, data: []field{addr, port}}
		*at(setLimitedRange) = setDef{name: "limitedrange", key: span, data: []field{addr}, interval: true}
		*at(setAllowed) = setDef{name: "allowed", key: []field{port, proto, addr, addr}, interval: true, guard: true}
		*at(setVia) = setDef{name: "via", key: []field{port, proto, addr, ifname}, interval: true, guard: true}
		*at(setTarget) = setDef{name: "target", key: exact}
		*at(setTargetRange) = setDef{name: "targetrange", key: span, interval: true}
		*at(setInside) = setDef{name: "inside", key: []field{addr, addr}, interval: true, guard: true}
		*at(setHairpin) = setDef{name: "hairpin", key: []field{addr, addr}, interval: true, guard: true}
		*at(setSelf) = setDef{name: "self", key: []field{addr, addr}, guard: true}
		for s := setForward; s < setsPerFamily; s++ {
			at(s).name += suffix
		}
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

// value is what stands behind a key: the data of a map, and the notes that
// travel with the element (its comment and our private record).
type value struct {
	data, note string
}

// keyBuf builds the bytes of a key. Interval keys are two keys of equal
// length, first and last (inclusive), one after the other.
type keyBuf struct{ b []byte }

func (k *keyBuf) addr(a netip.Addr) { k.b = append(k.b, a.AsSlice()...) }
func (k *keyBuf) proto(p uint8)     { k.b = append(k.b, p, 0, 0, 0) }
func (k *keyBuf) port(p uint16)     { k.b = append(binary.BigEndian.AppendUint16(k.b, p), 0, 0) }
func (k *keyBuf) ifname(name string) {
	k.b = append(append(k.b, name...), make([]byte, 16-len(name))...)
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

// exactKey is written without keyBuf: there are many of these.
func exactKey(addr netip.Addr, proto uint8, port uint16) string {
	var b [24]byte
	n := putAddr(b[:], addr)
	b[n] = proto
	binary.BigEndian.PutUint16(b[n+4:], port)
	return string(b[:n+8])
}

// protoSpan is the protocols of an interval, first and last. Both transports
// are one interval: the rules let nothing else come to the lookup.
type protoSpan struct{ lo, hi uint8 }

func (p Protocols) span() protoSpan {
	n := p.numbers()
	return protoSpan{n[0], n[len(n)-1]}
}

func spanKey(lo, hi uint16, p protoSpan, addr netip.Addr) string {
	k := keyBuf{make([]byte, 0, 48)}
	k.port(lo)
	k.proto(p.lo)
	k.addr(addr)
	k.port(hi)
	k.proto(p.hi)
	k.addr(addr)
	return string(k.b)
}

func allowedKey(lo, hi uint16, p protoSpan, addr netip.Addr, from netip.Prefix) string {
	k := keyBuf{make([]byte, 0, 80)}
	k.port(lo)
	k.proto(p.lo)
	k.addr(addr)
	k.addr(from.Addr())
	k.port(hi)
	k.proto(p.hi)
	k.addr(addr)
	k.addr(lastAddr(from))
	return string(k.b)
}

func viaKey(lo, hi uint16, p protoSpan, addr netip.Addr, via string) string {
	k := keyBuf{make([]byte, 0, 80)}
	k.port(lo)
	k.proto(p.lo)
	k.addr(addr)
	k.ifname(via)
	k.port(hi)
	k.proto(p.hi)
	k.addr(addr)
	k.ifname(via)
	return string(k.b)
}

func subnetKey(target, from netip.Prefix) string {
	k := keyBuf{make([]byte, 0, 64)}
	k.addr(target.Addr())
	k.addr(from.Addr())
	k.addr(lastAddr(target))
	k.addr(lastAddr(from))
	return string(k.b)
}

func selfKey(target netip.Addr) string {
	k := keyBuf{make([]byte, 0, 32)}
	k.addr(target)
	k.addr(target)
	return string(k.b)
}

// lastAddr is the highest address of a masked prefix.
func lastAddr(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := range b {
		switch n := p.Bits() - 8*i; {
		case n <= 0:
			b[i] = 0xff
		case n < 8:
			b[i] |= 0xff >> n
		}
	}
	a, _ := netip.AddrFromSlice(b)
	return a
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
