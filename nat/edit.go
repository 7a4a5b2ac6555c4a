package nat

// edit is what distinguishes two lists of forwards: everything but a common
// head and a common tail.
type edit struct {
	head     int
	was, now []Forward
}

func editOf(old, cfg Config) edit {
	head, o, n := 0, old.Forwards, cfg.Forwards
	for head < len(o) && head < len(n) && o[head].Equal(&n[head]) {
		head++
	}
	for len(o) > head && len(n) > head && o[len(o)-1].Equal(&n[len(n)-1]) {
		o, n = o[:len(o)-1], n[:len(n)-1]
	}
	return edit{head, o[head:], n[head:]}
}

// change makes the plan follow an edit. On error the plan is as before.
func (p *plan) change(e edit) error {
	keep := map[string]*Forward{}
	for i := range e.now {
		if _, twice := keep[e.now[i].Name]; !twice {
			keep[e.now[i].Name] = &e.now[i]
		}
	}
	var removed []*Forward
	stays := map[string]bool{}
	for i := range e.was {
		name := e.was[i].Name
		if g := keep[name]; g != nil && g.Equal(&e.was[i]) {
			stays[name] = true
			continue
		}
		removed = append(removed, p.byName[name])
		p.remove(name)
	}
	var added []string
	for i := range e.now {
		f := &e.now[i]
		if stays[f.Name] && keep[f.Name] == f {
			continue
		}
		err := p.add(f)
		if err == nil {
			added = append(added, f.Name)
			continue
		}
		for _, name := range added {
			p.remove(name)
		}
		for _, f := range removed {
			p.add(f)
		}
		err.Index = e.head + i
		return err
	}
	return nil
}
