package nat

import (
	"fmt"
	"maps"
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
	taken    map[portPage]uint64 // outside ports, a bit each
	targets  map[netip.Addr]*subnets
	loopback map[string]bool // forwards of a loopback address
	elements [numSets]map[string]*element
	lengths  [numSets]map[uint8]int     // elements by prefix length, of sets of subnets
	reshaped bool                       // a set or a length came into use or went out of it: other rules are needed
	slab     []element                  // elements to hand out
	dirty    [numSets]map[string]*value // what a changed element was before; nil: absent
	untouch  bool                       // changes are not noted
	epoch    uint32                     // of the last comparison with the kernel
}

// portPage is 64 consecutive outside ports of an address and protocol.
type portPage struct {
	addr  netip.Addr
	proto uint8
	page  uint16
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
		taken:    map[portPage]uint64{},
		targets:  map[netip.Addr]*subnets{},
		loopback: map[string]bool{},
	}
	p.untouch = true
	sizes, total := sizesOf(cfg.Forwards)
	p.slab = make([]element, total)
	for s := range p.elements {
		p.elements[s] = make(map[string]*element, sizes[s])
		p.lengths[s] = map[uint8]int{}
		p.dirty[s] = map[string]*value{}
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

// sizesOf estimates how many elements each set will have.
func sizesOf(forwards []Forward) (sizes [numSets]int, total int) {
	for i := range forwards {
		f := &forwards[i]
		if f.check() != nil {
			continue
		}
		base, _ := f.form()
		note := func(role setRole, size uint8, n int) {
			sizes[portSet(base, role, size)] += n
			total += n
		}
		lo, last := f.Target.Port, uint16(f.ports()-1)
		role := roleForward
		if f.limited() {
			role = roleLimited
		}
		outside := func(_ uint16, size uint8) {
			note(role, size, 1)
			if len(f.AllowFrom) > 0 {
				note(roleAllowed, size, 2) // and the target's own subnet
			}
		}
		if f.ranged() {
			blocks(lo, lo+last, outside)
		} else {
			for range f.ports() {
				outside(0, 0)
			}
		}
		blocks(lo, lo+last, func(_ uint16, size uint8) { note(roleTarget, size, 1) })
	}
	return sizes, total
}

// settle forgets what changed.
func (p *plan) settle() {
	for s := range p.dirty {
		clear(p.dirty[s])
	}
	p.reshaped = false
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
	p.count(s, key, 1)
}

func (p *plan) drop(s setID, key string) {
	e := p.elements[s][key]
	if e.refs--; e.refs == 0 {
		p.touch(s, key)
		delete(p.elements[s], key)
		p.count(s, key, -1)
	}
}

// count keeps the number of elements by prefix length.
func (p *plan) count(s setID, key string, by int) {
	if n := len(p.elements[s]); n == 0 || n == 1 && by == 1 {
		p.reshaped = true
	}
	def := &setDefs[s]
	if !def.wide {
		return
	}
	length := def.length(key)
	was := p.lengths[s][length]
	if was+by == 0 {
		delete(p.lengths[s], length)
	} else {
		p.lengths[s][length] = was + by
	}
	if was == 0 || was+by == 0 {
		p.reshaped = true
	}
}

// lengthsOf lists the prefix lengths of a set that are in use, ascending; for a
// set that has none it is one, of no meaning. An empty set has no lengths.
func (p *plan) lengthsOf(s setID) []uint8 {
	if len(p.elements[s]) == 0 {
		return nil
	}
	if !setDefs[s].wide {
		return []uint8{0}
	}
	return slices.Sorted(maps.Keys(p.lengths[s]))
}

// add takes a forward in, or says why it cannot and changes nothing.
func (p *plan) add(f *Forward) *ConfigError {
	if err := f.check(); err != nil {
		return err
	}
	if _, ok := p.byName[f.Name]; ok {
		return &ConfigError{Forward: f.Name, Index: -1, Field: "name", Reason: "is used twice"}
	}
	if err := p.vacant(f); err != nil {
		return err
	}
	p.claim(f, true)
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
	p.claim(f, false)
}

// pages visits the forward's outside ports, 64 at a time.
func (f *Forward) pages(visit func(at portPage, ports uint64) bool) {
	lo := int(f.Source.Port())
	end := lo + f.ports()
	for _, proto := range f.Protocols.numbers() {
		for at := lo; at < end; at = (at/64 + 1) * 64 {
			n := min(end, (at/64+1)*64) - at
			ports := ^uint64(0) >> (64 - n) << (at % 64)
			if !visit(portPage{f.Source.Addr(), proto, uint16(at / 64)}, ports) {
				return
			}
		}
	}
}

// claim takes the forward's outside ports, or gives them back.
func (p *plan) claim(f *Forward, take bool) {
	f.pages(func(at portPage, ports uint64) bool {
		switch was := p.taken[at]; {
		case take:
			p.taken[at] = was | ports
		case was == ports:
			delete(p.taken, at)
		default:
			p.taken[at] = was &^ ports
		}
		return true
	})
}

// vacant names who has one of the forward's outside ports.
func (p *plan) vacant(f *Forward) (err *ConfigError) {
	f.pages(func(at portPage, ports uint64) bool {
		if p.taken[at]&ports == 0 {
			return true
		}
		for i := range uint16(64) {
			if p.taken[at]&ports&(1<<i) == 0 {
				continue
			}
			name, port := "tcp", at.page*64+i
			if at.proto == protoUDP {
				name = "udp"
			}
			owner, _ := p.lookup(netip.AddrPortFrom(at.addr, port), at.proto)
			err = &ConfigError{Forward: f.Name, Index: -1, Field: "source",
				Reason: fmt.Sprintf("%s %s is already forwarded by %q", netip.AddrPortFrom(at.addr, port), name, owner.Name)}
			break
		}
		return false
	})
	return err
}

// form returns where the sets of the forward's form begin, and the protocols
// that its keys have; 0 stands for both.
func (f *Forward) form() (base setID, proto uint8) {
	base = familySet(0, f.Source.Addr())
	if f.Protocols.bits() == TCP|UDP {
		return base, 0
	}
	return base + formSets, f.Protocols.numbers()[0]
}

// each visits every element that the forward alone asks for.
func (p *plan) each(f *Forward, visit func(s setID, key string, v value)) {
	base, proto := f.form()
	src, lo := f.Source.Addr(), f.Source.Port()
	dst, tlo := f.Target.Addr, f.Target.Port
	hi, thi := lo+uint16(f.ports()-1), tlo+uint16(f.ports()-1)
	role := roleForward
	var guards []guard
	if f.limited() {
		role, guards = roleLimited, f.guards()
	}
	at := func(role setRole, addr netip.Addr, first uint16, size uint8, tail []byte, v value) {
		s := portSet(base, role, size)
		visit(s, setDefs[s].portKey(addr, proto, first, tail), v)
	}
	mark, to := forwardNote(f), addrData(dst)
	outside := func(first uint16, size uint8) {
		v := value{to, mark}
		if size == 0 {
			v.data = endpointData(dst, tlo+first-lo)
		}
		at(role, src, first, size, nil, v)
		for _, g := range guards {
			at(g.role, src, first, size, g.tail, value{data: v.data})
		}
	}
	if f.ranged() {
		blocks(lo, hi, outside)
	} else {
		for port := int(lo); port <= int(hi); port++ {
			outside(uint16(port), 0)
		}
	}
	blocks(tlo, thi, func(first uint16, size uint8) { at(roleTarget, dst, first, size, nil, value{}) })
}

// guard says who may use a port of a restricted forward.
type guard struct {
	role setRole
	tail []byte
}

func (f *Forward) guards() (out []guard) {
	for _, from := range f.admitted() {
		if from.IsSingleIP() {
			out = append(out, guard{roleAllowedHost, from.Addr().AsSlice()})
		} else {
			out = append(out, guard{roleAllowed, middleAddr(from).AsSlice()})
		}
	}
	for i, via := range f.AllowVia {
		if !slices.Contains(f.AllowVia[:i], via) {
			out = append(out, guard{roleVia, ifnameTail(via)})
		}
	}
	return out
}

// admitted lists who may use a restricted forward: its AllowFrom and the
// target's own subnet.
func (f *Forward) admitted() []netip.Prefix {
	return sources(append(slices.Clone(f.AllowFrom), f.own()))
}

// own is the target's own subnet.
func (f *Forward) own() netip.Prefix {
	return netip.PrefixFrom(f.Target.Addr, f.Target.Prefix).Masked()
}

// saysOwn reports whether AllowFrom spells the target's own subnet out.
func (f *Forward) saysOwn() bool { return slices.Contains(sources(f.AllowFrom), f.own()) }

// lookup finds the forward of an outside address and port, and where it leads,
// as the rules do.
func (p *plan) lookup(at netip.AddrPort, proto uint8) (*Forward, netip.AddrPort) {
	family := familySet(0, at.Addr())
	for _, base := range []setID{family, family + formSets} {
		for _, role := range []setRole{roleForward, roleLimited} {
			for size := range uint8(blockSizes) {
				s := portSet(base, role, size)
				if len(p.elements[s]) == 0 {
					continue
				}
				if e := p.elements[s][setDefs[s].portKey(at.Addr(), proto, at.Port()>>size<<size, nil)]; e != nil {
					return p.leads(e, at)
				}
			}
		}
	}
	return nil, netip.AddrPort{}
}

func (p *plan) leads(e *element, at netip.AddrPort) (*Forward, netip.AddrPort) {
	name, _, _ := readNote(e.note)
	f := p.byName[name]
	return f, netip.AddrPortFrom(f.Target.Addr, f.Target.Port+at.Port()-f.Source.Port())
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
