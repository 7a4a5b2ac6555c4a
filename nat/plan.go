package nat

import (
	"fmt"
	"net/netip"
	"slices"
)

// plan is the state that a Config and an Environment ask for: what each set of
// our table holds. It is pure data. It can be changed forward by forward, at a
// cost that does not depend on how many there are, and it remembers what
// changed since the last settle.
type plan struct {
	env      Environment
	byName   map[string]*Forward
	claims   map[claim]string        // single ports, and the ports of offset ranges
	spans    map[claim][]portSpan    // ranges with equal bases, by address and protocol (port 0)
	targets  map[netip.Addr]*subnets // what is known of each target address
	inner    map[claim][]portSpan    // target ranges, which may overlap; the sets hold their union
	loopback map[string]bool         // forwards of a loopback address
	elements [numSets]map[string]*element
	dirty    [numSets]map[string]*value // what a changed element was before; nil: absent
}

type claim struct {
	addr  netip.Addr
	proto uint8
	port  uint16
}

type portSpan struct {
	lo, hi uint16
	name   string
}

type element struct {
	value
	refs int
}

// subnets counts the prefix lengths that forwards give for one target; the
// widest one rules.
type subnets struct {
	prefixes         map[int]int
	inside, shortcut netip.Prefix // as they stand in the sets; zero when absent
}

func (s *subnets) widest() int {
	w := 0
	for p := range s.prefixes {
		if w == 0 || p < w {
			w = p
		}
	}
	return w
}

func newPlan(cfg Config, env Environment) (*plan, error) {
	p := &plan{
		env:      env,
		byName:   make(map[string]*Forward, len(cfg.Forwards)),
		claims:   make(map[claim]string, 2*len(cfg.Forwards)),
		spans:    map[claim][]portSpan{},
		targets:  map[netip.Addr]*subnets{},
		inner:    map[claim][]portSpan{},
		loopback: map[string]bool{},
	}
	for s := range p.elements {
		n := 0
		if s := setID(s); (s == setForward || s == setTarget) && len(cfg.Forwards) > 64 {
			n = 2 * len(cfg.Forwards)
		}
		p.elements[s] = make(map[string]*element, n)
		p.dirty[s] = map[string]*value{}
	}
	for i := range cfg.Forwards {
		if err := p.add(&cfg.Forwards[i]); err != nil {
			err.Index = i
			return nil, err
		}
	}
	p.settle()
	return p, nil
}

// settle forgets what changed.
func (p *plan) settle() {
	for s := range p.dirty {
		clear(p.dirty[s])
	}
}

// touch notes what an element is before it changes.
func (p *plan) touch(s setID, key string) {
	if _, noted := p.dirty[s][key]; noted {
		return
	}
	var was *value
	if e, ok := p.elements[s][key]; ok {
		v := e.value
		was = &v
	}
	p.dirty[s][key] = was
}

func (p *plan) put(s setID, key string, v value) {
	if e, ok := p.elements[s][key]; ok {
		e.refs++
		return
	}
	p.touch(s, key)
	p.elements[s][key] = &element{value: v, refs: 1}
}

func (p *plan) drop(s setID, key string) {
	e := p.elements[s][key]
	if e.refs--; e.refs == 0 {
		p.touch(s, key)
		delete(p.elements[s], key)
	}
}

// add takes a forward in, or says why it cannot and changes nothing.
func (p *plan) add(f *Forward) *ConfigError {
	if err := f.check(); err != nil {
		return err
	}
	if _, ok := p.byName[f.Name]; ok {
		return &ConfigError{Forward: f.Name, Index: -1, Field: "name", Reason: "is used twice"}
	}
	if err := p.claim(f); err != nil {
		return err
	}
	g := f.Clone()
	p.byName[f.Name] = &g
	if f.Source.Addr().IsLoopback() {
		p.loopback[f.Name] = true
	}
	p.each(&g, p.put)
	p.aim(&g, 1)
	return nil
}

// remove takes a forward out again.
func (p *plan) remove(name string) {
	f := p.byName[name]
	delete(p.byName, name)
	delete(p.loopback, name)
	p.each(f, func(s setID, key string, _ value) { p.drop(s, key) })
	p.aim(f, -1)
	for _, proto := range f.Protocols.numbers() {
		if f.ranged() {
			at := claim{addr: f.Source.Addr(), proto: proto}
			p.spans[at] = slices.DeleteFunc(p.spans[at], func(s portSpan) bool { return s.name == name })
			if len(p.spans[at]) == 0 {
				delete(p.spans, at)
			}
			continue
		}
		for i := range f.ports() {
			delete(p.claims, claim{f.Source.Addr(), proto, f.Source.Port() + uint16(i)})
		}
	}
}

// claim reserves the forward's outside ports, or names who has one of them.
func (p *plan) claim(f *Forward) *ConfigError {
	addr, lo := f.Source.Addr(), f.Source.Port()
	hi := lo + uint16(f.ports()-1)
	protos := f.Protocols.numbers()
	for _, proto := range protos {
		taken := func(port uint16, owner string) *ConfigError {
			name := "tcp"
			if proto == protoUDP {
				name = "udp"
			}
			return &ConfigError{Forward: f.Name, Index: -1, Field: "source",
				Reason: fmt.Sprintf("%s %s is already forwarded by %q", netip.AddrPortFrom(addr, port), name, owner)}
		}
		for _, s := range p.spans[claim{addr: addr, proto: proto}] {
			if s.lo <= hi && lo <= s.hi {
				return taken(max(s.lo, lo), s.name)
			}
		}
		for i := range f.ports() {
			if owner, ok := p.claims[claim{addr, proto, lo + uint16(i)}]; ok {
				return taken(lo+uint16(i), owner)
			}
		}
	}
	for _, proto := range protos {
		if f.ranged() {
			at := claim{addr: addr, proto: proto}
			p.spans[at] = append(p.spans[at], portSpan{lo, hi, f.Name})
			continue
		}
		for i := range f.ports() {
			p.claims[claim{addr, proto, lo + uint16(i)}] = f.Name
		}
	}
	return nil
}

// each visits every element that the forward alone asks for.
func (p *plan) each(f *Forward, visit func(s setID, key string, v value)) {
	src, lo := f.Source.Addr(), f.Source.Port()
	dst, tlo := f.Target.Addr, f.Target.Port
	n := f.ports()
	hi := lo + uint16(n-1)
	at := func(s setID) setID { return familySet(s, src) }
	single, span := at(setForward), at(setRange)
	if f.limited() {
		single, span = at(setLimited), at(setLimitedRange)
	}
	mark := forwardNote(f)
	for _, proto := range f.Protocols.numbers() {
		if f.ranged() {
			visit(span, spanKey(lo, hi, proto, src), value{addrData(dst), mark})
		} else {
			for i := range uint16(n) {
				visit(single, exactKey(src, proto, lo+i), value{endpointData(dst, tlo+i), mark})
				visit(at(setTarget), exactKey(dst, proto, tlo+i), value{})
			}
		}
		if !f.limited() {
			continue
		}
		for _, from := range f.admitted() {
			visit(at(setAllowed), allowedKey(lo, hi, proto, src, from.prefix), value{note: note(f.Name, from.record)})
		}
		for i, via := range f.AllowVia {
			if !slices.Contains(f.AllowVia[:i], via) {
				visit(at(setVia), viaKey(lo, hi, proto, src, via), value{note: note(f.Name, "")})
			}
		}
	}
}

type admission struct {
	prefix netip.Prefix
	record string
}

// recordImplied marks an admission that the Config does not spell out.
const recordImplied = "i"

// admitted lists who may use a restricted forward: its AllowFrom and the
// target's own subnet.
func (f *Forward) admitted() []admission {
	own := netip.PrefixFrom(f.Target.Addr, f.Target.Prefix).Masked()
	said := sources(f.AllowFrom)
	var out []admission
	for _, p := range sources(append(slices.Clone(said), own)) {
		a := admission{prefix: p}
		if p == own && !slices.Contains(said, own) {
			a.record = recordImplied
		}
		out = append(out, a)
	}
	return out
}

// union joins spans that overlap or touch.
func union(spans []portSpan) (out []portSpan) {
	spans = slices.SortedFunc(slices.Values(spans), func(a, b portSpan) int { return int(a.lo) - int(b.lo) })
	for _, s := range spans {
		if n := len(out); n > 0 && int(s.lo) <= int(out[n-1].hi)+1 {
			out[n-1].hi = max(out[n-1].hi, s.hi)
			continue
		}
		out = append(out, portSpan{lo: s.lo, hi: s.hi})
	}
	return out
}

// aimRange counts a forward's target ports in or out where they are a range.
func (p *plan) aimRange(f *Forward, by int) {
	if !f.ranged() {
		return
	}
	set := familySet(setTargetRange, f.Target.Addr)
	span := portSpan{f.Target.Port, f.Target.Port + uint16(f.ports()-1), f.Name}
	for _, proto := range f.Protocols.numbers() {
		at := claim{addr: f.Target.Addr, proto: proto}
		was := union(p.inner[at])
		if by > 0 {
			p.inner[at] = append(p.inner[at], span)
		} else {
			p.inner[at] = slices.DeleteFunc(p.inner[at], func(s portSpan) bool { return s == span })
		}
		is := union(p.inner[at])
		if len(is) == 0 {
			delete(p.inner, at)
		}
		for _, s := range was {
			if !slices.Contains(is, s) {
				p.drop(set, spanKey(s.lo, s.hi, proto, at.addr))
			}
		}
		for _, s := range is {
			if !slices.Contains(was, s) {
				p.put(set, spanKey(s.lo, s.hi, proto, at.addr), value{})
			}
		}
	}
}

// aim counts a forward in (1) or out (-1) at its target address.
func (p *plan) aim(f *Forward, by int) {
	p.aimRange(f, by)
	t := p.targets[f.Target.Addr]
	if t == nil {
		t = &subnets{prefixes: map[int]int{}}
		p.targets[f.Target.Addr] = t
	}
	t.prefixes[f.Target.Prefix] += by
	if t.prefixes[f.Target.Prefix] == 0 {
		delete(t.prefixes, f.Target.Prefix)
	}
	p.reaim(f.Target.Addr, t)
	if len(t.prefixes) == 0 {
		delete(p.targets, f.Target.Addr)
	}
}

// reaim makes the subnet sets say what is known of a target.
func (p *plan) reaim(addr netip.Addr, t *subnets) {
	var inside, shortcut netip.Prefix
	if w := t.widest(); w > 0 {
		inside = netip.PrefixFrom(addr, w).Masked()
		shortcut = p.env.shortcut(addr, w)
	}
	for _, c := range []struct {
		set setID
		was *netip.Prefix
		is  netip.Prefix
	}{{setInside, &t.inside, inside}, {setHairpin, &t.shortcut, shortcut}} {
		if *c.was == c.is {
			continue
		}
		s := familySet(c.set, addr)
		if c.was.IsValid() {
			p.drop(s, subnetKey(addr, *c.was))
		}
		if c.is.IsValid() {
			p.put(s, subnetKey(addr, c.is), value{})
		}
		*c.was = c.is
	}
}

// setEnvironment makes the plan fit another environment.
func (p *plan) setEnvironment(env Environment) {
	if p.env.equal(&env) {
		return
	}
	p.env = env
	for addr, t := range p.targets {
		p.reaim(addr, t)
	}
}

// change turns the plan into one for cfg, given that it stands at old. On
// error the plan is as before.
func (p *plan) change(old, cfg Config) error {
	head, o, n := 0, old.Forwards, cfg.Forwards
	for head < len(o) && head < len(n) && o[head].Equal(&n[head]) {
		head++
	}
	for len(o) > head && len(n) > head && o[len(o)-1].Equal(&n[len(n)-1]) {
		o, n = o[:len(o)-1], n[:len(n)-1]
	}
	o, n = o[head:], n[head:]
	keep := map[string]*Forward{}
	for i := range n {
		if _, twice := keep[n[i].Name]; !twice {
			keep[n[i].Name] = &n[i]
		}
	}
	var removed []*Forward
	stays := map[string]bool{}
	for i := range o {
		if g := keep[o[i].Name]; g != nil && g.Equal(&o[i]) {
			stays[o[i].Name] = true
			continue
		}
		removed = append(removed, p.byName[o[i].Name])
		p.remove(o[i].Name)
	}
	var added []string
	for i := range n {
		if stays[n[i].Name] && keep[n[i].Name] == &n[i] {
			continue
		}
		err := p.add(&n[i])
		if err == nil {
			added = append(added, n[i].Name)
			continue
		}
		for _, name := range added {
			p.remove(name)
		}
		for _, f := range removed {
			p.add(f)
		}
		err.Index = head + i
		return err
	}
	return nil
}
