package nat

import (
	"cmp"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// A packet walks through sets one after another, and each lookup sees the
// elements of the generation that is current just then. So what moves from one
// element to another cannot do so in one transaction: a packet that has passed
// the new place before the switch and comes to the old one after it would find
// nothing. Such changes are made before they are broken: one transaction adds,
// a second one deletes, and between them every packet of before has come out.
// Meanwhile a client meets one of the two elements. Each says by itself who may
// come and where to, so that nobody gets through whom neither would let.

// span is what an element is about: ports of an address, or a target's sources.
type span struct {
	class       uint8 // what to translate, what to guard, whom to masquerade
	addr        netip.Addr
	proto       uint8
	first, last uint16
	goes        bool
}

// spans adds what an element is about.
func (d *setDef) spans(to []span, key string, goes bool) []span {
	s := span{class: uint8(roleVia), addr: d.addr(key), last: ^uint16(0), goes: goes}
	switch {
	case d.role > roleTarget:
		s.class = uint8(roleHairpin)
		return append(to, s)
	case d.role == roleTarget:
		s.class = uint8(roleTarget)
	}
	s.first = d.port(key)
	s.last = s.first + uint16(1<<d.ports-1)
	for _, s.proto = range d.protocols(key).numbers() {
		to = append(to, s)
	}
	return to
}

// moves reports whether something that an element is for is for another one
// afterwards. One whose data alone changes stays where it is.
func (w *work) moves() bool {
	var all []span
	goes, comes := false, false
	for s := range setDefs {
		if len(w.going[s])+len(w.add[s]) == 0 {
			continue
		}
		stays := w.stays(s)
		for _, k := range w.going[s] {
			if !stays[k.key] {
				all, goes = setDefs[s].spans(all, k.key, true), true
			}
		}
		for _, k := range w.add[s] {
			if !stays[k.key] {
				all, comes = setDefs[s].spans(all, k.key, false), true
			}
		}
	}
	if !goes || !comes {
		return false
	}
	slices.SortFunc(all, func(a, b span) int {
		return cmp.Or(cmp.Compare(a.class, b.class), a.addr.Compare(b.addr), cmp.Compare(a.proto, b.proto), cmp.Compare(a.first, b.first))
	})
	end := map[bool]int{} // of what goes and what comes so far, at this address and protocol
	for i, s := range all {
		if i == 0 || all[i-1].class != s.class || all[i-1].addr != s.addr || all[i-1].proto != s.proto {
			end[true], end[false] = -1, -1
		}
		if int(s.first) <= end[!s.goes] {
			return true
		}
		end[s.goes] = max(end[s.goes], int(s.last))
	}
	return false
}

// stays lists the keys of a set that go and come back with other data.
func (w *work) stays(s int) map[string]bool {
	if len(w.going[s]) == 0 || len(w.add[s]) == 0 {
		return nil
	}
	goes := make(map[string]bool, len(w.going[s]))
	for _, k := range w.going[s] {
		goes[k.key] = true
	}
	both := map[string]bool{}
	for _, k := range w.add[s] {
		if goes[k.key] {
			both[k.key] = true
		}
	}
	return both
}

// both is which prefix lengths are in use while what comes and what goes is there.
func (c *Controller) both(w *work) usage {
	return func(s setID) []uint8 {
		lengths := slices.Clone(c.plan.lengthsOf(s))
		for _, k := range w.going[s] {
			length := uint8(0)
			if setDefs[s].wide {
				length = setDefs[s].length(k.key)
			}
			if at, ok := slices.BinarySearch(lengths, length); !ok {
				lengths = slices.Insert(lengths, at, length)
			}
		}
		return lengths
	}
}

// widen makes the first of two transactions: what w adds is added to b, with
// the rules that look at it and at all that goes. It returns what is left.
func (c *Controller) widen(b *batch, w, rest *work) (*work, error) {
	first, left := &work{}, &work{del: rest.del}
	for s := range rest.add {
		stays := w.stays(s)
		for _, k := range rest.add[s] {
			to := &first.add[s]
			if stays[k.key] {
				to = &left.add[s]
			}
			*to = append(*to, k)
		}
	}
	b.change(first)
	if w.chains == nil { // no rule changes, then or now
		return left, nil
	}
	first.chains = layout(c.bit, c.both(w), c.shut)
	for i := range first.chains {
		if name := first.chains[i].name; w.full || !sameComments(first.chains[i].rules, c.chains[i].rules) {
			first.rules = append(first.rules, name)
		}
		if !sameComments(first.chains[i].rules, w.chains[i].rules) {
			left.rules = append(left.rules, first.chains[i].name)
		}
	}
	first.delChains, left.chains = w.delChains, w.chains
	for _, name := range append(first.rules, left.rules...) {
		if !slices.Contains(w.rules, name) {
			w.rules = append(w.rules, name) // to be read back
		}
	}
	return left, b.swapRules(first)
}

// membarrierGlobal is MEMBARRIER_CMD_GLOBAL, which waits for what is going on
// in the kernel outside of system calls, as packets are.
const membarrierGlobal = 1

// settleDown returns when each packet that was on its way through rules has
// left them, which takes some milliseconds. It returns at once where the kernel
// does not offer that, and where there is one processor.
func settleDown() {
	_, _, _ = unix.Syscall(unix.SYS_MEMBARRIER, membarrierGlobal, 0, 0)
}
