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
	targets  map[netip.Addr]*subnets // the prefixes that forwards give each target address
	inside   [2]*subnetSet           // by family: the targets' own subnets
	hairpin  [2]*subnetSet           // by family: the sources that need masquerade
	inner    map[claim][]portSpan    // target ranges, which may overlap; the sets hold their union
	loopback map[string]bool         // forwards of a loopback address
	elements [numSets]map[string]*element
	slab     []element                  // elements to hand out
	dirty    [numSets]map[string]*value // what a changed element was before; nil: absent
	untouch  bool                       // changes are not noted
	epoch    uint32                     // of the last comparison with the kernel
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

// slabSize is how many elements are allocated at once.
const slabSize = 128

type element struct {
	value
	refs int
	seen uint32 // the comparison that last found it in the kernel
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
	p.untouch = true
	six := 0
	for i := range cfg.Forwards {
		if cfg.Forwards[i].Source.Addr().Is6() {
			six++
		}
	}
	for s := range p.elements {
		n := 0
		switch setID(s) {
		case setForward, setTarget:
			n = 2 * (len(cfg.Forwards) - six)
		case setForward + setsPerFamily, setTarget + setsPerFamily:
			n = 2 * six
		}
		p.elements[s] = make(map[string]*element, n)
		p.dirty[s] = map[string]*value{}
	}
	for fam := range p.inside {
		base := setID(fam) * setsPerFamily
		p.inside[fam] = p.subnetSet(fam == 1, base+setInside, numSets, func(t *subnets) netip.Prefix { return t.inside })
		p.hairpin[fam] = p.subnetSet(fam == 1, base+setHairpin, base+setSelf, func(t *subnets) netip.Prefix { return t.hairpin })
	}
	for i := range cfg.Forwards {
		if err := p.add(&cfg.Forwards[i]); err != nil {
			err.Index = i
			return nil, err
		}
	}
	p.untouch = false
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
	if p.untouch {
		return
	}
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
	if len(p.slab) == 0 {
		p.slab = make([]element, slabSize)
	}
	e := &p.slab[0]
	p.slab = p.slab[1:]
	*e = element{value: v, refs: 1}
	p.elements[s][key] = e
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
	protos := f.Protocols.span()
	if f.ranged() {
		visit(span, spanKey(lo, hi, protos, src), value{addrData(dst), mark})
	} else {
		for i := range uint16(n) {
			to := endpointData(dst, tlo+i)
			for _, proto := range f.Protocols.numbers() {
				visit(single, exactKey(src, proto, lo+i), value{to, mark})
				visit(at(setTarget), exactKey(dst, proto, tlo+i), value{})
			}
		}
	}
	if !f.limited() {
		return
	}
	for _, from := range f.admitted() {
		visit(at(setAllowed), allowedKey(lo, hi, protos, src, from.prefix), value{note: note(f.Name, from.record)})
	}
	for i, via := range f.AllowVia {
		if !slices.Contains(f.AllowVia[:i], via) {
			visit(at(setVia), viaKey(lo, hi, protos, src, via), value{note: note(f.Name, "")})
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
