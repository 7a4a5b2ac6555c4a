package nat

import (
	"fmt"
	"slices"
	"time"
)

const (
	maxTries       = 50
	looseFrom      = 3 // the try from which on no generation need last
	restoreTimeout = 10 * time.Second
	sweepTries     = 3
	fewElements    = 64    // up to this many are read back one by one
	manyElements   = 40000 // so are more than this: the kernel goes through all of them for each part of a dump
	askElements    = 400   // are asked for at once
	fillElements   = 500   // are written between two looks at the size of a transaction
)

// work is what has to be written.
type work struct {
	gen       uint32 // the generation that it starts from; 0 when none lasted long enough
	full      bool   // found by reading everything back
	del, add  [numSets][]keyed
	going     *[numSets][]keyed // what del has, and what goes with its set
	fresh     bool              // the table does not exist
	idle      bool              // nothing of it is in force: no rule translates
	rebuild   bool              // one of our sets has another shape
	sets      []string          // all sets there are
	addSets   []setShape        // missing sets
	delSets   []string          // sets that are not ours, or not needed
	chains    []chainDef        // all chains as they must be; nil: as they are
	rules     []string          // names of those that have to be written
	delChains []string          // chains that are not ours, or stand on another hook
	moved     bool              // another program changed something while we wrote
}

func (w *work) empty() bool {
	return !w.fresh && !w.rebuild && len(w.rules)+len(w.addSets)+len(w.delSets)+len(w.delChains) == 0 && w.still()
}

// still reports whether no element changes.
func (w *work) still() bool {
	for s := range w.add {
		if len(w.add[s])+len(w.del[s]) > 0 {
			return false
		}
	}
	return true
}

// leads reports whether an element of the set decides what is translated.
func (d *setDef) leads() bool { return d.role <= roleVia }

// stale reports whether connections may exist that the new state would not make.
func (w *work) stale() bool {
	for s := range w.del {
		if len(w.del[s]) > 0 && setDefs[s].leads() {
			return true
		}
	}
	return false
}

// opens reports whether something is forwarded that was not before.
func (w *work) opens() bool {
	for s := range w.add {
		if len(w.add[s]) > 0 && setDefs[s].leads() {
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
	case len(w.rules)+len(w.delChains) > 0:
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
// reading everything. At the generation that filled a new table, the sets have
// nothing that is not planned.
func (c *Controller) difference(loose bool, filled uint32) (*work, error) {
	if c.gen != 0 {
		gen, err := c.nft.generation(nil, nil)
		if err != nil {
			return nil, err
		}
		if gen == c.gen {
			w := c.plan.delta(gen)
			c.restructure(w)
			return w, nil
		}
	}
	m := c.plan.match()
	t, err := readTable(c.nft, c.table, loose, m.visit, func(gen uint32, s setID) []keyed {
		if gen != filled || len(c.plan.elements[s]) <= manyElements {
			return nil
		}
		return c.plan.keyed(s)
	})
	if err != nil {
		return nil, err
	}
	if !c.chosen || !t.exists {
		if gen, err := c.chooseBit(loose); err != nil {
			return nil, err
		} else if gen != t.gen && !loose {
			return nil, errMoved
		}
	}
	w, err := c.compare(t, m)
	if err == nil && loose {
		w.gen = 0
	}
	return w, err
}

// keyed lists the elements of a set.
func (p *plan) keyed(s setID) []keyed {
	out := make([]keyed, 0, len(p.elements[s]))
	for key, e := range p.elements[s] {
		out = append(out, keyed{key, e.value})
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
	w.going = &w.del
	return w
}

// restructure adds the sets and rules that changes in the plan need, and takes
// away those that they need no more.
func (c *Controller) restructure(w *work) {
	if !c.plan.reshaped {
		return
	}
	for s := range setDefs {
		switch needed := len(c.plan.elements[s]) > 0; {
		case needed && !c.have[s]:
			w.addSets = append(w.addSets, setDefs[s].shape())
		case !needed && c.have[s]:
			w.delSets = append(w.delSets, setDefs[s].name)
		}
	}
	w.chains = layout(c.bit, c.plan.lengthsOf, c.shut)
	for i := range w.chains {
		if !sameComments(w.chains[i].rules, c.chains[i].rules) {
			w.rules = append(w.rules, w.chains[i].name)
		}
	}
}

// sameComments compares rules of ours, whose comments tell them apart.
func sameComments(a, b []ruleDef) bool {
	return slices.EqualFunc(a, b, func(a, b ruleDef) bool { return a.comment == b.comment })
}

// known notes that the kernel holds the plan at a generation.
func (c *Controller) known(w *work, gen uint32) {
	c.gen = gen
	if w.chains != nil {
		c.chains = w.chains
		for s := range c.have {
			c.have[s] = len(c.plan.elements[s]) > 0
		}
	}
	c.plan.settle()
}

// compare is the difference to what was read back.
func (c *Controller) compare(t *tableState, m *match) (*work, error) {
	w := &work{gen: t.gen, full: true, fresh: !t.exists, sets: names(t.sets), chains: layout(c.bit, c.plan.lengthsOf, c.shut), going: &m.wrong}
	w.idle = len(t.rules["prerouting"])+len(t.rules["output"]) == 0
	needed := map[string]bool{}
	for _, shape := range c.plan.setShapes() {
		needed[shape.name] = true
		if is, ok := t.sets[shape.name]; !ok {
			w.addSets = append(w.addSets, shape)
		} else if !is.equal(shape) {
			w.rebuild = true
		}
	}
	for _, name := range w.sets {
		if !needed[name] {
			w.delSets = append(w.delSets, name)
		}
	}
	ours := map[string]bool{}
	for i := range w.chains {
		def := &w.chains[i]
		ours[def.name] = true
		is, ok := t.chains[def.name]
		if ok && (is.regular != def.regular || is.nat != def.nat || is.hook != def.hook || is.priority != def.priority) {
			w.delChains = append(w.delChains, def.name)
		}
		same, err := sameRules(def, t.rules[def.name])
		if err != nil {
			return nil, err
		}
		if !ok || !same {
			w.rules = append(w.rules, def.name)
		}
	}
	for _, name := range names(t.chains) {
		if !ours[name] {
			w.delChains = append(w.delChains, name)
		}
	}
	if len(w.delChains) > 0 {
		w.rules = chainNames(w.chains) // some may jump there
	}
	for s := range c.plan.elements {
		if w.add[s] = m.lacking(s); needed[setDefs[s].name] {
			w.del[s] = m.wrong[s] // else they go with their set
		}
	}
	return w, nil
}

// setShapes lists the sets that the plan needs.
func (p *plan) setShapes() []setShape {
	out := slices.Clone(recordShapes)
	for s := range setDefs {
		if len(p.elements[s]) > 0 {
			out = append(out, setDefs[s].shape())
		}
	}
	return out
}

func chainNames(chains []chainDef) (out []string) {
	for i := range chains {
		out = append(out, chains[i].name)
	}
	return out
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
