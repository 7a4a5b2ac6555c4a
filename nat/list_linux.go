package nat

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"
)

// forwards rebuilds the forwards from what the sets hold. A prefix of
// AllowFrom that lies inside another one is not there any more.
func forwardsOf(elements *[numSets]map[string]value) []Forward {
	byName := map[string]*Forward{}
	for fam := setID(0); fam < numSets; fam += setsPerFamily {
		size := 4 * int(families[fam/setsPerFamily].words)
		for _, s := range []setID{setForward, setLimited} {
			for key, v := range elements[fam+s] {
				addr, proto, port := parseExact(key, size)
				collect(byName, v, addr, protoSpan{proto, proto}, port, endpoint(v.data, size))
			}
		}
		for _, s := range []setID{setRange, setLimitedRange} {
			for key, v := range elements[fam+s] {
				port, protos, addr := parseSpan(key, size)
				to, _ := netip.AddrFromSlice([]byte(v.data))
				collect(byName, v, addr, protos, port, netip.AddrPortFrom(to, port))
			}
		}
		collectLimits(byName, elements, fam, size)
	}
	out := make([]Forward, 0, len(byName))
	for _, f := range byName {
		slices.SortFunc(f.AllowFrom, func(a, b netip.Prefix) int { return cmp.Or(a.Addr().Compare(b.Addr()), a.Bits()-b.Bits()) })
		f.AllowFrom = slices.Compact(f.AllowFrom)
		slices.Sort(f.AllowVia)
		f.AllowVia = slices.Compact(f.AllowVia)
		out = append(out, *f)
	}
	slices.SortFunc(out, func(a, b Forward) int { return cmp.Or(a.Source.Compare(b.Source), cmp.Compare(a.Name, b.Name)) })
	return out
}

// collect takes one element into the forward that its note names.
func collect(byName map[string]*Forward, v value, addr netip.Addr, protos protoSpan, port uint16, to netip.AddrPort) {
	name, rec, ok := readNote(v.note)
	if !ok || name == "" || len(rec) != 7 {
		return // not ours
	}
	first := binary.BigEndian.Uint16([]byte(rec[1:]))
	f := byName[name]
	if f == nil {
		f = &Forward{
			Name:   name,
			Source: netip.AddrPortFrom(addr, first),
			Target: Target{Addr: to.Addr(), Prefix: int(rec[0]), Port: to.Port() - (port - first)},
			Count:  int(binary.BigEndian.Uint32([]byte(rec[3:]))),
		}
		byName[name] = f
	}
	if protos.lo == protoTCP {
		f.Protocols |= TCP
	}
	if protos.hi == protoUDP {
		f.Protocols |= UDP
	}
}

// collectLimits adds who may use the restricted forwards of a family.
func collectLimits(byName map[string]*Forward, elements *[numSets]map[string]value, fam setID, size int) {
	implied := map[string]netip.Prefix{}
	for key, v := range elements[fam+setAllowed] {
		name, rec, _ := readNote(v.note)
		half := len(key) / 2
		from, _ := netip.AddrFromSlice([]byte(key[half-size : half]))
		to, _ := netip.AddrFromSlice([]byte(key[len(key)-size:]))
		prefix := spanPrefix(from, to)
		switch f := byName[name]; {
		case f == nil:
		case rec == recordImplied:
			implied[name] = prefix
		default:
			f.AllowFrom = append(f.AllowFrom, prefix)
		}
	}
	for key, v := range elements[fam+setVia] {
		name, _, _ := readNote(v.note)
		if f := byName[name]; f != nil {
			via := key[len(key)/2-16 : len(key)/2]
			f.AllowVia = append(f.AllowVia, cString(via))
		}
	}
	for name, prefix := range implied {
		if f := byName[name]; len(f.AllowFrom) == 0 && len(f.AllowVia) == 0 {
			f.AllowFrom = []netip.Prefix{prefix} // all that it said lies inside its own subnet
		}
	}
}

func cString(s string) string {
	for i := range len(s) {
		if s[i] == 0 {
			return s[:i]
		}
	}
	return s
}

func parseExact(key string, size int) (addr netip.Addr, proto uint8, port uint16) {
	addr, _ = netip.AddrFromSlice([]byte(key[:size]))
	return addr, key[size], binary.BigEndian.Uint16([]byte(key[size+4:]))
}

func parseSpan(key string, size int) (port uint16, protos protoSpan, addr netip.Addr) {
	addr, _ = netip.AddrFromSlice([]byte(key[8 : 8+size]))
	return binary.BigEndian.Uint16([]byte(key)), protoSpan{key[4], key[len(key)/2+4]}, addr
}

func endpoint(data string, size int) netip.AddrPort {
	addr, _ := netip.AddrFromSlice([]byte(data[:size]))
	return netip.AddrPortFrom(addr, binary.BigEndian.Uint16([]byte(data[size:])))
}

// spanPrefix is the prefix that reaches from one address to another.
func spanPrefix(from, to netip.Addr) netip.Prefix {
	for bits := from.BitLen(); bits >= 0; bits-- {
		if p := netip.PrefixFrom(from, bits); p.Contains(to) {
			return p.Masked()
		}
	}
	return netip.Prefix{}
}
