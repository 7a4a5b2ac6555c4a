package nat

import "net/netip"

// subnetSet says of each target address which sources around it belong to it,
// as few kernel elements: all targets of one subnet share a single element
// (subnet . subnet), unless an address of the same subnet is listed with
// another prefix; then each of its targets has an element (target . subnet) of
// its own, so that nothing is said of that other address. Elements never
// overlap.
type subnetSet struct {
	all     func(visit func(target netip.Addr, prefix netip.Prefix)) // every target and what it belongs to
	groups  map[netip.Prefix]*subnetGroup                            // of each prefix but whole addresses
	uses    [129]int                                                 // targets by prefix length
	lengths map[int]lengthCount                                      // of each length in use but whole addresses; nil as long as there was but one
	put     func(target, from netip.Prefix)
	drop    func(target, from netip.Prefix)
}

// subnetGroup is the targets of one prefix.
type subnetGroup struct {
	targets int
	apart   bool // written target by target
}

// lengthCount counts all targets by their subnet of one length, whatever prefix
// they belong to.
type lengthCount map[netip.Prefix]int

func whole(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// set makes target belong to prefix (masked), or to nothing when prefix is
// invalid. slot holds what it belongs to, and is where all finds it.
func (s *subnetSet) set(target netip.Addr, slot *netip.Prefix, prefix netip.Prefix) {
	if *slot == prefix {
		return
	}
	if was := *slot; was.IsValid() {
		*slot = netip.Prefix{}
		s.leave(target, was)
	}
	if prefix.IsValid() {
		*slot = prefix
		s.join(target, prefix)
	}
}

func (s *subnetSet) join(target netip.Addr, prefix netip.Prefix) {
	s.count(target, 1)
	s.use(prefix.Bits(), 1)
	if prefix.IsSingleIP() {
		s.put(prefix, prefix)
		s.rewrite(target)
		return
	}
	g := s.groups[prefix]
	if g == nil {
		g = &subnetGroup{}
		s.groups[prefix] = g
	}
	g.targets++
	switch {
	case g.apart:
		s.put(whole(target), prefix)
	case g.targets == 1:
		s.put(prefix, prefix)
	}
	s.rewrite(target)
}

func (s *subnetSet) leave(target netip.Addr, prefix netip.Prefix) {
	s.count(target, -1)
	s.use(prefix.Bits(), -1)
	if prefix.IsSingleIP() {
		s.drop(prefix, prefix)
		s.rewrite(target)
		return
	}
	g := s.groups[prefix]
	g.targets--
	switch {
	case g.apart:
		s.drop(whole(target), prefix)
	case g.targets == 0:
		s.drop(prefix, prefix)
	}
	if g.targets == 0 {
		delete(s.groups, prefix)
	}
	s.rewrite(target)
}

// count keeps the number of targets by subnet for every length in use.
func (s *subnetSet) count(target netip.Addr, by int) {
	for bits, all := range s.lengths {
		p := netip.PrefixFrom(target, bits).Masked()
		if all[p] += by; all[p] == 0 {
			delete(all, p)
		}
	}
}

// use counts a target in or out at its prefix length. While there is but one
// length no address can lie inside a subnet that is not its own, and nothing
// is counted.
func (s *subnetSet) use(bits, by int) {
	s.uses[bits] += by
	if s.uses[bits] == 0 {
		delete(s.lengths, bits)
		return
	}
	if s.lengths == nil {
		lengths := 0
		for _, n := range s.uses {
			if n > 0 {
				lengths++
			}
		}
		if lengths < 2 {
			return
		}
		s.lengths = map[int]lengthCount{}
	}
	for bits, n := range s.uses {
		if n == 0 || s.lengths[bits] != nil {
			continue
		}
		all := lengthCount{}
		s.all(func(target netip.Addr, _ netip.Prefix) {
			if bits < target.BitLen() { // nothing else lies inside a whole address
				all[netip.PrefixFrom(target, bits).Masked()]++
			}
		})
		s.lengths[bits] = all
	}
}

// rewrite brings the groups around a target into the form that they need now.
func (s *subnetSet) rewrite(target netip.Addr) {
	for bits, all := range s.lengths {
		prefix := netip.PrefixFrom(target, bits).Masked()
		g := s.groups[prefix]
		if g == nil {
			continue
		}
		apart := all[prefix] > g.targets
		if apart == g.apart {
			continue
		}
		g.apart = apart
		if apart {
			s.drop(prefix, prefix)
		} else {
			s.put(prefix, prefix)
		}
		s.all(func(t netip.Addr, p netip.Prefix) {
			switch {
			case p != prefix:
			case apart:
				s.put(whole(t), prefix)
			default:
				s.drop(whole(t), prefix)
			}
		})
	}
}
