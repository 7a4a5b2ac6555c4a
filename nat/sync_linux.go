package nat

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	maxTries       = 50
	looseFrom      = 3 // the try from which on no generation need last
	restoreTimeout = 10 * time.Second
	fewElements    = 64   // up to this many are read back one by one
	sortedElements = 1000 // up to this many are written in order
	fillElements   = 500  // are written between two looks at the size of a transaction
)

// work is what has to be written.
type work struct {
	gen       uint32 // the generation that it starts from; 0 when none lasted long enough
	full      bool   // found by reading everything back
	del, add  [numSets][]keyed
	fresh     bool     // the table does not exist
	rebuild   bool     // one of our sets has another shape: start over
	addSets   []string // missing sets
	delSets   []string // sets that are not ours
	delChains []string // chains that are not ours, or stand on another hook
	chains    bool     // chains and rules have to be written
	moved     bool     // another program changed something while we wrote
}

func (w *work) empty() bool {
	if w.fresh || w.rebuild || w.chains || len(w.addSets)+len(w.delSets)+len(w.delChains) > 0 {
		return false
	}
	for s := range w.add {
		if len(w.add[s])+len(w.del[s]) > 0 {
			return false
		}
	}
	return true
}

// stale reports whether connections may exist that the new state would not make.
func (w *work) stale() bool {
	for s := range w.del {
		if len(w.del[s]) == 0 {
			continue
		}
		switch setID(s) % setsPerFamily {
		case setForward, setRange, setLimited, setLimitedRange, setAllowed, setVia:
			return true
		}
	}
	return false
}

// opens reports whether something is forwarded that was not before.
func (w *work) opens() bool {
	for s := range w.add {
		if len(w.add[s]) == 0 {
			continue
		}
		switch setID(s) % setsPerFamily {
		case setForward, setRange, setLimited, setLimitedRange, setAllowed, setVia:
			return true
		}
	}
	return false
}

// describe names the first difference, for an error.
func (w *work) describe() string {
	switch {
	case w.fresh:
		return "the table is gone"
	case w.rebuild || len(w.addSets) > 0:
		return "a set is missing or has another shape"
	case w.chains || len(w.delChains) > 0:
		return "chains or rules differ"
	}
	for s := range w.add {
		if n, m := len(w.add[s]), len(w.del[s]); n+m > 0 {
			return fmt.Sprintf("set %s lacks %d and has %d too many elements", setDefs[s].name, n, m)
		}
	}
	return "a set that is not ours"
}

// difference compares the plan with the kernel: by what changed since the
// kernel was last known to match, if its generation is still that one, else by
// reading everything.
func (c *Controller) difference(loose bool) (*work, error) {
	if c.gen != 0 {
		gen, err := c.nft.generation(nil, nil)
		if err != nil {
			return nil, err
		}
		if gen == c.gen {
			return c.plan.delta(gen), nil
		}
	}
	m := c.plan.match()
	t, err := readTable(c.nft, c.table, loose, m.visit)
	if err != nil {
		return nil, err
	}
	w, err := c.compare(t, m)
	if err == nil && loose {
		w.gen = 0
	}
	return w, err
}

// match compares the kernel's elements with the plan as they come in.
type match struct {
	p     *plan
	epoch uint32
	found [numSets]int
	wrong [numSets][]keyed // elements that are not as planned, or not planned
	buf   []byte
}

func (p *plan) match() *match {
	p.epoch++
	return &match{p: p, epoch: p.epoch}
}

func (m *match) visit(s setID, r rawElement) {
	m.buf = append(append(m.buf[:0], r.key...), r.end...)
	if e, ok := m.p.elements[s][string(m.buf)]; ok && e.data == string(r.data) && e.note == string(r.note) {
		e.seen = m.epoch
		m.found[s]++
		return
	}
	m.wrong[s] = append(m.wrong[s], keyed{string(m.buf), value{string(r.data), string(r.note)}})
}

// lacking lists the planned elements of a set that were not found.
func (m *match) lacking(s int) (out []keyed) {
	if m.found[s] == len(m.p.elements[s]) {
		return nil
	}
	for key, e := range m.p.elements[s] {
		if e.seen != m.epoch {
			out = append(out, keyed{key, e.value})
		}
	}
	return out
}

// delta is what changed in the plan since it was settled.
func (p *plan) delta(gen uint32) *work {
	w := &work{gen: gen}
	for s, dirty := range p.dirty {
		for key, was := range dirty {
			is := p.elements[s][key]
			if was != nil && is != nil && *was == is.value {
				continue
			}
			if was != nil {
				w.del[s] = append(w.del[s], keyed{key, *was})
			}
			if is != nil {
				w.add[s] = append(w.add[s], keyed{key, is.value})
			}
		}
	}
	return w
}

// compare is the difference to what was read back.
func (c *Controller) compare(t *tableState, m *match) (*work, error) {
	w := &work{gen: t.gen, full: true, fresh: !t.exists}
	ours := map[string]bool{}
	for _, shape := range allShapes() {
		ours[shape.name] = true
		if is, ok := t.sets[shape.name]; !ok {
			w.addSets = append(w.addSets, shape.name)
		} else if !is.equal(shape) {
			w.rebuild = true
		}
	}
	for _, name := range names(t.sets) {
		if !ours[name] {
			w.delSets = append(w.delSets, name)
		}
	}
	known := map[string]bool{}
	for i := range c.chains {
		def := &c.chains[i]
		known[def.name] = true
		is, ok := t.chains[def.name]
		if ok && (is.nat != def.nat || is.hook != def.hook || is.priority != def.priority) {
			w.delChains = append(w.delChains, def.name)
			w.chains = true
		}
		same, err := sameRules(def, t.rules[def.name])
		if err != nil {
			return nil, err
		}
		w.chains = w.chains || !ok || !same
	}
	for _, name := range names(t.chains) {
		if !known[name] {
			w.delChains = append(w.delChains, name)
		}
	}
	for s := range c.plan.elements {
		w.del[s], w.add[s] = m.wrong[s], m.lacking(s)
	}
	return w, nil
}

func allShapes() (out []setShape) {
	for s := range setDefs {
		out = append(out, setDefs[s].shape())
	}
	return append(out, recordShapes...)
}

func sameRules(def *chainDef, is []string) (bool, error) {
	if len(is) != len(def.rules) {
		return false, nil
	}
	for i := range def.rules {
		form, err := ruleForm(&def.rules[i])
		if err != nil || form != is[i] {
			return false, err
		}
	}
	return true, nil
}

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

// verify reads back what was written. It reports false when that must be done
// by reading everything: after structural work, or when another program made a
// generation meanwhile.
func (c *Controller) verify(w *work, gen uint32) (exact bool, err error) {
	if w.moved || w.fresh || w.chains || len(w.addSets)+len(w.delSets)+len(w.delChains) > 0 {
		return false, nil
	}
	d := &dumper{s: c.nft, table: c.table, gen: gen}
	for s := range setDefs {
		if len(w.add[s])+len(w.del[s]) == 0 {
			continue
		}
		if len(w.add[s])+len(w.del[s]) > fewElements {
			m := c.plan.match()
			d.elements(setDefs[s].name, setDefs[s].interval, func(e rawElement) { m.visit(setID(s), e) })
			if errors.Is(d.err, errMoved) {
				return false, nil
			}
			if d.err != nil {
				return false, d.err
			}
			if lacks, extra := len(m.lacking(s)), len(m.wrong[s]); lacks+extra > 0 {
				return false, fmt.Errorf("%w: set %s: %d elements are missing or differ, %d are not as planned", ErrReadBack, setDefs[s].name, lacks, extra)
			}
			continue
		}
		if err := c.verifyFew(d, setID(s), w); err != nil {
			return false, err
		}
		if d.err != nil {
			return false, nil
		}
	}
	return true, nil
}

// verifyFew asks for single elements.
func (c *Controller) verifyFew(d *dumper, s setID, w *work) error {
	def := &setDefs[s]
	added := map[string]bool{}
	ask := func(list []keyed) (map[string]value, error) {
		a := attrs{[]byte{nfprotoInet, 0, 0, 0}}
		a.str(unix.NFTA_SET_ELEM_LIST_TABLE, c.table)
		a.str(unix.NFTA_SET_ELEM_LIST_SET, def.name)
		elems := a.open(unix.NFTA_SET_ELEM_LIST_ELEMENTS)
		for i := range list {
			list[i].append(&a, def.interval, false)
		}
		a.close(elems)
		is := map[string]value{}
		err := c.nft.request("read back "+def.name, "", nft(unix.NFT_MSG_GETSETELEM), 0, a.b, func(m message) {
			eachElement(m.body[4:], def.interval, func(e rawElement) {
				is[string(e.key)+string(e.end)] = value{string(e.data), string(e.note)}
			})
		})
		return is, err
	}
	if len(w.add[s]) > 0 {
		is, err := ask(w.add[s])
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
		for _, k := range w.add[s] {
			added[k.key] = true
			if v, ok := is[k.key]; !ok || v != k.value {
				return c.unlessMoved(d, fmt.Errorf("%w: set %s lacks an element that was added", ErrReadBack, def.name))
			}
		}
	}
	for _, k := range w.del[s] {
		if added[k.key] {
			continue
		}
		is, err := ask([]keyed{k})
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
		if _, ok := is[k.key]; ok {
			return c.unlessMoved(d, fmt.Errorf("%w: set %s still has an element that was deleted", ErrReadBack, def.name))
		}
	}
	return nil
}

// unlessMoved returns err, or leaves errMoved in d when another program made a
// generation since ours, so that everything has to be read.
func (c *Controller) unlessMoved(d *dumper, err error) error {
	if gen, e := c.nft.generation(nil, nil); e == nil && gen == d.gen {
		return err
	}
	d.err = errMoved
	return nil
}
