package nat

import (
	"net/netip"
	"slices"
)

// subnets counts the prefix lengths that forwards give for one target; the
// widest one rules.
type subnets struct {
	prefixes []prefixCount
	first    [1]prefixCount // where the usual single one lives
	inside   netip.Prefix   // as it stands in plan.inside
	hairpin  netip.Prefix   // as it stands in plan.hairpin
}

type prefixCount struct{ bits, refs int }

func (s *subnets) count(bits, by int) {
	for i := range s.prefixes {
		if c := &s.prefixes[i]; c.bits == bits {
			if c.refs += by; c.refs == 0 {
				s.prefixes = slices.Delete(s.prefixes, i, i+1)
			}
			return
		}
	}
	if s.prefixes == nil {
		s.prefixes = s.first[:0]
	}
	s.prefixes = append(s.prefixes, prefixCount{bits, by})
}

func (s *subnets) widest() int {
	w := 0
	for _, c := range s.prefixes {
		if w == 0 || c.bits < w {
			w = c.bits
		}
	}
	return w
}

// union joins spans that overlap or touch.
func union(spans []portSpan) (out []portSpan) {
	spans = slices.SortedFunc(slices.Values(spans), func(a, b portSpan) int { return int(a.lo) - int(b.lo) })
	for _, s := range spans {
		if n := len(out); n > 0 && int(s.lo) <= int(out[n-1].hi)+1 {
			out[n-1].hi = max(out[n-1].hi, s.hi)
			continue
		}
		out = append(out, portSpan{lo: s.lo, hi: s.hi})
	}
	return out
}

// innerSpan is an interval of target ports and protocols.
type innerSpan struct {
	lo, hi uint16
	protos protoSpan
}

// innerUnion lists the intervals that cover the target ranges of an address:
// what TCP and UDP have in common is one interval.
func (p *plan) innerUnion(addr netip.Addr) (out []innerSpan) {
	tcp := union(p.inner[claim{addr: addr, proto: protoTCP}])
	udp := union(p.inner[claim{addr: addr, proto: protoUDP}])
	for _, s := range tcp {
		protos := TCP
		if i := slices.Index(udp, s); i >= 0 {
			protos = TCP | UDP
			udp = slices.Delete(udp, i, i+1)
		}
		out = append(out, innerSpan{s.lo, s.hi, protos.span()})
	}
	for _, s := range udp {
		out = append(out, innerSpan{s.lo, s.hi, UDP.span()})
	}
	return out
}

// aimRange counts a forward's target ports in or out where they are a range.
func (p *plan) aimRange(f *Forward, by int) {
	if !f.ranged() {
		return
	}
	set, addr := familySet(setTargetRange, f.Target.Addr), f.Target.Addr
	span := portSpan{f.Target.Port, f.Target.Port + uint16(f.ports()-1), f.Name}
	was := p.innerUnion(addr)
	for _, proto := range f.Protocols.numbers() {
		at := claim{addr: addr, proto: proto}
		if by > 0 {
			p.inner[at] = append(p.inner[at], span)
			continue
		}
		p.inner[at] = slices.DeleteFunc(p.inner[at], func(s portSpan) bool { return s == span })
		if len(p.inner[at]) == 0 {
			delete(p.inner, at)
		}
	}
	is := p.innerUnion(addr)
	for _, s := range was {
		if !slices.Contains(is, s) {
			p.drop(set, spanKey(s.lo, s.hi, s.protos, addr))
		}
	}
	for _, s := range is {
		if !slices.Contains(was, s) {
			p.put(set, spanKey(s.lo, s.hi, s.protos, addr), value{})
		}
	}
}

// aim counts a forward in (1) or out (-1) at its target address.
func (p *plan) aim(f *Forward, by int) {
	p.aimRange(f, by)
	t := p.targets[f.Target.Addr]
	if t == nil {
		t = &subnets{}
		p.targets[f.Target.Addr] = t
	}
	was := t.widest()
	t.count(f.Target.Prefix, by)
	if is := t.widest(); is != was {
		p.reaim(f.Target.Addr, t)
		if is == 0 {
			delete(p.targets, f.Target.Addr)
		}
	}
}

// reaim makes the subnet sets say what is known of a target.
func (p *plan) reaim(addr netip.Addr, t *subnets) {
	var own, near netip.Prefix
	if bits := t.widest(); bits > 0 {
		own = netip.PrefixFrom(addr, bits).Masked()
		near = p.env.shortcut(addr, bits)
	}
	fam := familySet(0, addr) / setsPerFamily
	p.inside[fam].set(addr, &t.inside, own)
	p.hairpin[fam].set(addr, &t.hairpin, near)
}

// subnetSet returns a set of subnets of one family that writes subnets into one
// kernel set, and single addresses into another, or nowhere when there is none.
func (p *plan) subnetSet(six bool, wide, single setID, slot func(*subnets) netip.Prefix) *subnetSet {
	at := func(target, from netip.Prefix, do func(s setID, key string)) {
		switch {
		case !from.IsSingleIP():
			do(wide, subnetKey(target, from))
		case single < numSets:
			do(single, selfKey(target.Addr()))
		}
	}
	return &subnetSet{
		groups: map[netip.Prefix]*subnetGroup{},
		put: func(target, from netip.Prefix) {
			at(target, from, func(s setID, key string) { p.put(s, key, value{}) })
		},
		drop: func(target, from netip.Prefix) { at(target, from, p.drop) },
		all: func(visit func(netip.Addr, netip.Prefix)) {
			for addr, t := range p.targets {
				if prefix := slot(t); prefix.IsValid() && addr.Is6() == six {
					visit(addr, prefix)
				}
			}
		},
	}
}
