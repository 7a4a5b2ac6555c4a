package nat

import (
	"fmt"
	"time"
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
