package nat

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"
)

// forwardsOf rebuilds the forwards from what the sets hold. A prefix of
// AllowFrom that lies inside another one is not there any more.
func forwardsOf(elements *[numSets]map[string]value) []Forward {
	byName := map[string]*Forward{}
	for s := range setDefs {
		switch def := &setDefs[s]; def.role {
		case setForward, setRange, setLimited, setLimitedRange:
			for key, v := range elements[s] {
				collect(byName, def, key, v)
			}
		}
	}
	collectLimits(byName, elements)
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
func collect(byName map[string]*Forward, def *setDef, key string, v value) {
	name, rec, ok := readNote(v.note)
	if !ok || name == "" || len(rec) != 7 {
		return // not ours
	}
	first := binary.BigEndian.Uint16([]byte(rec[1:]))
	f := byName[name]
	if f == nil {
		to, _ := netip.AddrFromSlice([]byte(v.data[:def.size]))
		f = &Forward{
			Name:   name,
			Source: netip.AddrPortFrom(def.addr(key), first),
			Target: Target{Addr: to, Prefix: int(rec[0]), Port: first},
			Count:  int(binary.BigEndian.Uint32([]byte(rec[3:]))),
		}
		if !def.block {
			f.Target.Port = binary.BigEndian.Uint16([]byte(v.data[def.size:])) - (def.port(key) - first)
		}
		byName[name] = f
	}
	f.Protocols |= def.protocols(key)
}

// collectLimits adds who may use the restricted forwards.
func collectLimits(byName map[string]*Forward, elements *[numSets]map[string]value) {
	implied := map[string]netip.Prefix{}
	for s := range setDefs {
		def := &setDefs[s]
		if def.role < setAllowed || def.role > setViaRange {
			continue
		}
		for key, v := range elements[s] {
			name, rec, _ := readNote(v.note)
			f := byName[name]
			if f == nil {
				continue
			}
			if def.role == setVia || def.role == setViaRange {
				f.AllowVia = append(f.AllowVia, cString(key[def.tail:]))
				continue
			}
			prefix := middlePrefix(key[def.tail:])
			if !def.wide {
				from, _ := netip.AddrFromSlice([]byte(key[def.tail:]))
				prefix = netip.PrefixFrom(from, from.BitLen())
			}
			if rec == recordImplied {
				implied[name] = prefix
			} else {
				f.AllowFrom = append(f.AllowFrom, prefix)
			}
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
