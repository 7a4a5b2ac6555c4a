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
	inside   netip.Prefix   // the target's own subnet, as the sets have it
	near     netip.Prefix   // the sources that need masquerade, as the sets have it
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

// aim counts a forward in (1) or out (-1) at its target address.
func (p *plan) aim(f *Forward, by int) {
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

// reaim makes the sets say what is known of the sources around a target. Where
// the whole subnet needs masquerade, that says also that it is not judged.
func (p *plan) reaim(addr netip.Addr, t *subnets) {
	var own, near netip.Prefix
	if bits := t.widest(); bits > 0 {
		own = netip.PrefixFrom(addr, bits).Masked()
		near = p.env.shortcut(addr, bits)
	}
	if own == t.inside && near == t.near {
		return
	}
	aroundTarget(addr, t.inside, t.near, p.drop)
	t.inside, t.near = own, near
	aroundTarget(addr, own, near, func(s setID, key string) { p.put(s, key, value{}) })
}

// aroundTarget visits the elements about the sources around a target.
func aroundTarget(addr netip.Addr, own, near netip.Prefix, visit func(s setID, key string)) {
	if near.IsValid() {
		if near.IsSingleIP() {
			visit(familySet(setSelf, addr), pairKey(addr, addr))
		} else {
			visit(familySet(setHairpin, addr), pairKey(addr, middleAddr(near)))
		}
	}
	if own.IsValid() && own != near && !own.IsSingleIP() {
		visit(familySet(setInside, addr), pairKey(addr, middleAddr(own)))
	}
}
