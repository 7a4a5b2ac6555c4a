package nat

import (
	"errors"
	"fmt"
	"slices"
)

// match compares the kernel's elements with the plan as they come in.
type match struct {
	p     *plan
	epoch uint32
	found [numSets]int
	wrong [numSets][]keyed // elements that are not as planned, or not planned
}

func (p *plan) match() *match {
	p.epoch++
	return &match{p: p, epoch: p.epoch}
}

func (m *match) visit(s setID, r rawElement) {
	if e, ok := m.p.elements[s][string(r.key)]; ok && e.data == string(r.data) && e.note == string(r.note) {
		e.seen = m.epoch
		m.found[s]++
		return
	}
	m.wrong[s] = append(m.wrong[s], keyed{string(r.key), value{string(r.data), string(r.note)}})
}

// lacking lists the planned elements of a set that were not found.
func (m *match) lacking(s int) (out []keyed) {
	if m.found[s] == len(m.p.elements[s]) {
		return nil
	}
	out = make([]keyed, 0, len(m.p.elements[s])-m.found[s])
	for key, e := range m.p.elements[s] {
		if e.seen != m.epoch {
			out = append(out, keyed{key, e.value})
		}
	}
	return out
}

// verify reads back what was written. It reports false when that must be done
// by reading everything: after structural work, or when another program made a
// generation meanwhile.
func (c *Controller) verify(w *work, gen uint32) (exact bool, err error) {
	if w.moved || w.fresh || w.full && len(w.rules)+len(w.addSets)+len(w.delSets)+len(w.delChains) > 0 {
		return false, nil
	}
	d := &dumper{s: c.nft, table: c.table, gen: gen}
	if err := verifyRules(d, w); err != nil || d.err != nil {
		return false, err
	}
	for s := range setDefs {
		if len(w.add[s])+len(w.del[s]) == 0 || len(c.plan.elements[s]) == 0 { // an empty set is gone
			continue
		}
		if len(w.add[s])+len(w.del[s]) > fewElements {
			m := c.plan.match()
			d.elements(setDefs[s].name, func(e rawElement) { m.visit(setID(s), e) })
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

// verifyRules reads back the chains that were written.
func verifyRules(d *dumper, w *work) error {
	if len(w.rules) == 0 {
		return nil
	}
	is := map[string][]string{}
	d.rules(is)
	if d.err != nil {
		if errors.Is(d.err, errMoved) {
			return nil
		}
		return d.err
	}
	for i := range w.chains {
		def := &w.chains[i]
		if !slices.Contains(w.rules, def.name) {
			continue
		}
		if same, err := sameRules(def, is[def.name]); err != nil || !same {
			return errors.Join(err, fmt.Errorf("%w: chain %s has other rules", ErrReadBack, def.name))
		}
	}
	return nil
}

// verifyFew asks for single elements.
func (c *Controller) verifyFew(d *dumper, s setID, w *work) error {
	def := &setDefs[s]
	added := map[string]bool{}
	ask := func(list []keyed) (map[string]value, error) {
		is := map[string]value{}
		one := &dumper{s: d.s, table: d.table, gen: d.gen}
		one.get(def.name, list, func(e rawElement) { is[string(e.key)] = value{string(e.data), string(e.note)} })
		if errors.Is(one.err, errMoved) {
			return is, nil // what is missing is looked into
		}
		return is, one.err
	}
	if len(w.add[s]) > 0 {
		is, err := ask(w.add[s])
		if err != nil {
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
		if err != nil {
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
