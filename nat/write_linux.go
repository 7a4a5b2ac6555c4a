package nat

import (
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// write brings about the work and returns the generation that it made.
//
// Where no rules are in force yet, the sets are filled first and the rules
// follow in a second transaction, so that a restricted port is never open to
// all. Where they are, additions to the sets that only say who may or must go
// first: they concern nothing that is forwarded yet. Then comes the switch.
func (c *Controller) write(w *work) (gen uint32, err error) {
	gen = w.gen
	commit := func(b *batch) error {
		if b.empty() {
			return nil
		}
		g, err := c.nft.commit(b)
		if err != nil {
			return err
		}
		if w.moved = w.moved || gen == 0 || g != nextGen(gen); gen != 0 {
			gen = g
		}
		return nil
	}
	if w.rebuild {
		b := newBatch(c.table, gen)
		b.delTable()
		if err := commit(b); err != nil {
			return gen, err
		}
		return gen, errMoved // and read again
	}
	inForce := !w.fresh && !w.chains
	early, late := w.split(inForce)
	b := newBatch(c.table, gen)
	if w.fresh {
		b.addTable()
	}
	for _, shape := range allShapes() {
		if slices.Contains(w.addSets, shape.name) {
			b.addSet(shape)
		}
	}
	if inForce {
		b.change(early)
	} else if b, err = c.fill(b, early, commit, &gen); err != nil {
		return gen, err
	}
	if err := commit(b); err != nil {
		return gen, err
	}
	b = newBatch(c.table, gen)
	b.change(late)
	if w.chains || len(w.delChains) > 0 {
		if err := c.swapRules(b, w); err != nil {
			return gen, err
		}
	}
	for _, name := range w.delSets {
		b.delSet(name)
	}
	return gen, commit(b)
}

// fill writes element changes while no rules are in force, in as many
// transactions as the send buffer asks for; the last one is returned.
func (c *Controller) fill(b *batch, w *work, commit func(*batch) error, gen *uint32) (*batch, error) {
	part := func(msg, s int, list []keyed) error {
		for len(list) > 0 {
			n := min(len(list), fillElements)
			b.elements(msg, setDefs[s].name, 0, setDefs[s].interval, list[:n])
			list = list[n:]
			if len(b.buf) < c.nft.limit/2 {
				continue
			}
			if err := commit(b); err != nil {
				return err
			}
			b = newBatch(c.table, *gen)
		}
		return nil
	}
	w.order()
	for s := range w.del {
		if err := part(unix.NFT_MSG_DELSETELEM, s, w.del[s]); err != nil {
			return b, err
		}
	}
	for s := range w.add {
		if err := part(unix.NFT_MSG_NEWSETELEM, s, w.add[s]); err != nil {
			return b, err
		}
	}
	return b, nil
}

func nextGen(gen uint32) uint32 {
	if gen++; gen == 0 {
		gen = 1
	}
	return gen
}

func (c *Controller) swapRules(b *batch, w *work) error {
	for i := range c.chains {
		if !w.fresh {
			b.addChain(&c.chains[i]) // so that it can be flushed
			b.flushChain(c.chains[i].name)
		}
	}
	for _, name := range w.delChains {
		b.flushChain(name)
		b.delChain(name)
	}
	for i := range c.chains {
		b.addChain(&c.chains[i])
		for j := range c.chains[i].rules {
			if err := b.addRule(c.chains[i].name, &c.chains[i].rules[j]); err != nil {
				return err
			}
		}
	}
	return nil
}

// change deletes and adds elements, set by set: deletions of all sets first,
// in the order of setDefs.
func (b *batch) change(w *work) {
	w.order()
	for s := range w.del {
		b.elements(unix.NFT_MSG_DELSETELEM, setDefs[s].name, 0, setDefs[s].interval, w.del[s])
	}
	for s := range w.add {
		b.elements(unix.NFT_MSG_NEWSETELEM, setDefs[s].name, 0, setDefs[s].interval, w.add[s])
	}
}

// order sorts what is added, unless it is much: the kernel lists intervals in
// the order of their arrival.
func (w *work) order() {
	for s := range w.add {
		if len(w.add[s]) <= sortedElements {
			slices.SortFunc(w.add[s], func(a, b keyed) int { return strings.Compare(a.key, b.key) })
		}
	}
}

// split divides element changes into those that can go before the switch and
// the switch.
func (w *work) split(inForce bool) (early, late *work) {
	early, late = &work{}, &work{}
	if !inForce {
		early.del, early.add = w.del, w.add
		return early, late
	}
	switching := false
	for s := range setDefs {
		late.del[s] = w.del[s]
		if !setDefs[s].guard {
			late.add[s] = w.add[s]
			switching = switching || len(w.add[s])+len(w.del[s]) > 0
			continue
		}
		// What overlaps something deleted belongs to what is in force: both
		// change at once.
		overlaps := overlapping(setID(s), w.del[s])
		for _, k := range w.add[s] {
			if overlaps(k.key) {
				late.add[s] = append(late.add[s], k)
			} else {
				early.add[s] = append(early.add[s], k)
			}
		}
	}
	if !switching { // nothing else changes: one transaction is enough
		for s := range early.add {
			late.add[s] = append(late.add[s], early.add[s]...)
			early.add[s] = nil
		}
	}
	return early, late
}

// overlapping returns a test whether an element of a guard set may overlap a
// deleted one, judged by its outside ports, protocol and address where it has
// them; with subnets, anything may.
func overlapping(s setID, deleted []keyed) func(key string) bool {
	size := setDefs[s].key[len(setDefs[s].key)-1].size
	switch s % setsPerFamily {
	case setAllowed, setVia:
		size = setDefs[s].key[2].size
	default:
		return func(string) bool { return len(deleted) > 0 }
	}
	type span struct {
		lo, hi uint16
		protos protoSpan
	}
	read := func(key string) (netip.Addr, span) {
		lo, protos, addr := parseSpan(key, size)
		hi, _, _ := parseSpan(key[len(key)/2:]+key[:len(key)/2], size)
		return addr, span{lo, hi, protos}
	}
	gone := map[netip.Addr][]span{}
	for _, k := range deleted {
		addr, sp := read(k.key)
		gone[addr] = append(gone[addr], sp)
	}
	return func(key string) bool {
		addr, a := read(key)
		return slices.ContainsFunc(gone[addr], func(b span) bool {
			return a.lo <= b.hi && b.lo <= a.hi && a.protos.lo <= b.protos.hi && b.protos.lo <= a.protos.hi
		})
	}
}
