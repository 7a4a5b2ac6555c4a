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
	byName := map[string]*listed{}
	for s := range setDefs {
		switch def := &setDefs[s]; def.role {
		case roleForward, roleLimited:
			for key, v := range elements[s] {
				collect(byName, def, key, v)
			}
		}
	}
	for s := range setDefs {
		collectLimits(byName, elements, setID(s))
	}
	out := make([]Forward, 0, len(byName))
	for _, f := range byName {
		if own := f.own(); !f.spelt && len(f.AllowFrom)+len(f.AllowVia) > 1 { // else it is all that there is to say
			f.AllowFrom = slices.DeleteFunc(f.AllowFrom, func(p netip.Prefix) bool { return p == own })
		}
		slices.SortFunc(f.AllowFrom, func(a, b netip.Prefix) int { return cmp.Or(a.Addr().Compare(b.Addr()), a.Bits()-b.Bits()) })
		slices.Sort(f.AllowVia)
		out = append(out, f.Forward)
	}
	slices.SortFunc(out, func(a, b Forward) int { return cmp.Or(a.Source.Compare(b.Source), cmp.Compare(a.Name, b.Name)) })
	return out
}

type listed struct {
	Forward
	spelt bool // AllowFrom has the target's own subnet
}

// collect takes one element into the forward that its note names.
func collect(byName map[string]*listed, def *setDef, key string, v value) {
	name, rec, ok := readNote(v.note)
	if !ok || name == "" || len(rec) < 7 {
		return // not ours
	}
	first := binary.BigEndian.Uint16([]byte(rec[1:]))
	f := byName[name]
	if f == nil {
		to, _ := netip.AddrFromSlice([]byte(v.data[:def.size]))
		f = &listed{Forward: Forward{
			Name:   name,
			Source: netip.AddrPortFrom(def.addr(key), first),
			Target: Target{Addr: to, Prefix: int(rec[0]), Port: first},
			Count:  int(binary.BigEndian.Uint32([]byte(rec[3:]))),
		}, spelt: len(rec) > 7}
		if def.ports == 0 {
			f.Target.Port = binary.BigEndian.Uint16([]byte(v.data[def.size:])) - (def.port(key) - first)
		}
		byName[name] = f
	}
	f.Protocols |= def.protocols(key)
}

// collectLimits adds what a set says of who may use the restricted forwards.
// Its keys begin with those that lead to the target.
func collectLimits(byName map[string]*listed, elements *[numSets]map[string]value, s setID) {
	def := &setDefs[s]
	if def.role < roleAllowed || def.role > roleVia {
		return
	}
	leads := portSet(s-setID(def.role)*blockSizes-setID(def.ports), roleLimited, def.ports)
	for key := range elements[s] {
		name, _, _ := readNote(elements[leads][key[:def.tail]].note)
		f := byName[name]
		if f == nil {
			continue
		}
		if def.role == roleVia {
			if via := cString(key[def.tail:]); !slices.Contains(f.AllowVia, via) {
				f.AllowVia = append(f.AllowVia, via)
			}
			continue
		}
		prefix := middlePrefix(key[def.tail:])
		if !def.wide {
			from, _ := netip.AddrFromSlice([]byte(key[def.tail:]))
			prefix = whole(from)
		}
		if !slices.Contains(f.AllowFrom, prefix) {
			f.AllowFrom = append(f.AllowFrom, prefix)
		}
	}
}

func whole(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

func cString(s string) string {
	for i := range len(s) {
		if s[i] == 0 {
			return s[:i]
		}
	}
	return s
}
