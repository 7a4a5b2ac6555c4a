package nat

import (
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// write brings about the work and returns the generation that it made. What
// is in force changes in one transaction, or in two where something moves.
// Before go sets that no rule looks at yet, in as many transactions as the send
// buffer asks for; after it goes what no rule looks at any more, since a packet
// may still be on its way through the old rules.
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
		if err := c.restage(w, commit, &gen); err != nil {
			return gen, err
		}
		return gen, errMoved // and read again
	}
	b := newBatch(c.table, gen)
	if w.fresh {
		b.addTable()
	}
	c.addSets(b, w.addSets)
	late := w
	if w.full {
		var early *work
		if early, late = w.split(); !early.still() {
			if b, err = c.fill(b, early, commit, &gen); err == nil {
				err = commit(b)
			}
			if err != nil {
				return gen, err
			}
			b = newBatch(c.table, gen)
		}
	}
	last := w
	if !w.fresh && !w.idle && w.moves() {
		if last, err = c.widen(b, w, late); err == nil {
			err = commit(b)
		}
		if err != nil {
			return gen, err
		}
		settleDown()
		b, late = newBatch(c.table, gen), last
	}
	b.change(late)
	if err := b.swapRules(last); err != nil {
		return gen, err
	}
	if err := commit(b); err != nil {
		return gen, err
	}
	if w.full && len(w.delSets) > 0 {
		settleDown()
	}
	b = newBatch(c.table, gen)
	for _, name := range w.delSets {
		b.delSet(name)
	}
	return gen, commit(b)
}

// addSets makes sets; the records are filled at once.
func (c *Controller) addSets(b *batch, shapes []setShape) {
	for _, shape := range shapes {
		b.addSet(shape)
		var notes []keyed
		for index, note := range c.records[shape.name] {
			notes = append(notes, keyed{string(nativeUint32(index)), value{note: note}})
		}
		b.elements(unix.NFT_MSG_NEWSETELEM, shape.name, 0, notes)
	}
}

// stages are what sets are called, behind their name, while sets of that name
// and another shape are in their way.
var stages = []string{".a", ".b"}

// restage gets sets of ours that have another shape out of the way: all sets
// are filled anew under other names, the rules are made to look at those, and
// the old ones go. The next difference is then one of names.
func (c *Controller) restage(w *work, commit func(*batch) error, gen *uint32) error {
	stage := stages[0]
	if slices.ContainsFunc(w.sets, func(name string) bool { return strings.HasSuffix(name, stage) }) {
		stage = stages[1]
	}
	b := newBatch(c.table, *gen)
	b.stage = stage
	all := &work{}
	c.addSets(b, recordShapes)
	for s := range setDefs {
		if len(c.plan.elements[s]) == 0 {
			continue
		}
		b.addSet(setDefs[s].shape())
		for key, e := range c.plan.elements[s] {
			all.add[s] = append(all.add[s], keyed{key, e.value})
		}
	}
	b, err := c.fill(b, all, commit, gen)
	if err == nil {
		err = commit(b)
	}
	if err != nil {
		return err
	}
	b = newBatch(c.table, *gen)
	b.stage = stage
	if err := b.swapRules(&work{chains: w.chains, rules: chainNames(w.chains), delChains: w.delChains}); err != nil {
		return err
	}
	if err := commit(b); err != nil {
		return err
	}
	settleDown()
	b = newBatch(c.table, *gen)
	for _, name := range w.sets {
		b.delSet(name)
	}
	return commit(b)
}

// fill writes element changes that no rule in force looks at, in as many
// transactions as the send buffer asks for; the last one is returned.
func (c *Controller) fill(b *batch, w *work, commit func(*batch) error, gen *uint32) (*batch, error) {
	part := func(msg, s int, list []keyed) error {
		for len(list) > 0 {
			n := min(len(list), fillElements)
			b.elements(msg, setDefs[s].name, 0, list[:n])
			list = list[n:]
			if len(b.buf) < c.nft.limit/2 {
				continue
			}
			if err := commit(b); err != nil {
				return err
			}
			stage := b.stage
			b = newBatch(c.table, *gen)
			b.stage = stage
		}
		return nil
	}
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

// swapRules writes chains anew and takes away those that are not ours.
func (b *batch) swapRules(w *work) error {
	for i := range w.chains {
		if def := &w.chains[i]; !w.fresh && slices.Contains(w.rules, def.name) && !slices.Contains(w.delChains, def.name) {
			b.addChain(def) // so that it can be flushed
			b.flushChain(def.name)
		}
	}
	for _, name := range w.delChains {
		b.flushChain(name)
	}
	for _, name := range w.delChains {
		b.delChain(name)
	}
	for i := range w.chains {
		def := &w.chains[i]
		if !slices.Contains(w.rules, def.name) {
			continue
		}
		b.addChain(def)
		for j := range def.rules {
			if err := b.addRule(def.name, &def.rules[j]); err != nil {
				return err
			}
		}
	}
	return nil
}

// change deletes and adds elements, deletions of all sets first.
func (b *batch) change(w *work) {
	for s := range w.del {
		b.elements(unix.NFT_MSG_DELSETELEM, setDefs[s].name, 0, w.del[s])
	}
	for s := range w.add {
		b.elements(unix.NFT_MSG_NEWSETELEM, setDefs[s].name, 0, w.add[s])
	}
}

// split divides element changes into those of sets that no rule looks at, and
// the others.
func (w *work) split() (early, late *work) {
	early, late = &work{}, &work{}
	for s := range setDefs {
		to := late
		if w.idle || slices.ContainsFunc(w.addSets, func(shape setShape) bool { return shape.name == setDefs[s].name }) {
			to = early
		}
		to.del[s], to.add[s] = w.del[s], w.add[s]
	}
	return early, late
}
