package nat

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"

	"golang.org/x/sys/unix"
)

// tableState is what the kernel holds of our table, except for the elements.
type tableState struct {
	exists bool
	gen    uint32
	sets   map[string]setShape
	chains map[string]chainDef // without rules
	rules  map[string][]string // by chain, in canonical form
}

// rawElement is an element as it lies in a received message.
type rawElement struct{ key, data, note []byte }

// errMoved means that the generation changed between two messages of a dump.
var errMoved = errors.New("nat: rule set changed while it was read")

// dumper reads objects of one generation, or with loose set each kind of
// object of some generation: where other programs change their rules all the
// time, no generation lasts long enough to read everything.
type dumper struct {
	s     *socket
	table string
	gen   uint32
	loose bool
	err   error
}

// dump asks for all objects of a kind; messages of another generation fail it:
// the kernel does not flag them.
func (d *dumper) dump(op string, msg int, fill func(a *attrs), visit func(body []byte)) {
	if d.err != nil {
		return
	}
	a := attrs{[]byte{nfprotoInet, 0, 0, 0}}
	if fill != nil {
		a.str(1, d.table)
		fill(&a)
	}
	if !d.loose {
		d.once(op, msg, a.b, visit)
		return
	}
	for range looseTries {
		var bodies [][]byte
		if d.gen, d.err = d.s.generation(nil, nil); d.err != nil {
			return
		}
		d.once(op, msg, a.b, func(body []byte) { bodies = append(bodies, bytes.Clone(body)) })
		if errors.Is(d.err, errMoved) {
			continue
		}
		for _, b := range bodies {
			visit(b)
		}
		return
	}
}

// looseTries bounds the tries to read one kind of object.
const looseTries = 100

func (d *dumper) once(op string, msg int, ask []byte, visit func(body []byte)) {
	d.err = nil
	err := d.s.request(op, d.table, nft(msg), unix.NLM_F_DUMP, ask, func(m message) {
		if len(m.body) < 4 {
			return
		}
		if binary.BigEndian.Uint16(m.body[2:]) != uint16(d.gen) {
			d.err = errMoved
			return
		}
		if m.body[0] == nfprotoInet || msg == unix.NFT_MSG_GETSETELEM {
			visit(m.body[4:])
		}
	})
	if d.err == nil && err != nil {
		d.err = err
		if errors.Is(err, errInterrupted) {
			d.err = errMoved
		}
	}
}

func (d *dumper) mine(body []byte, tableAttr uint16) bool {
	for typ, v := range each(body) {
		if typ == tableAttr {
			return attrString(v) == d.table
		}
	}
	return false
}

// readTable reads our table as of the current generation, handing out its
// elements one by one. It returns errMoved when somebody changed the rule set
// meanwhile; with loose, only when that never ends. Of a set for which planned
// lists elements only those are read.
func readTable(s *socket, table string, loose bool, visit func(s setID, e rawElement), planned func(gen uint32, s setID) []keyed) (*tableState, error) {
	gen, err := s.generation(nil, nil)
	if err != nil {
		return nil, err
	}
	t := &tableState{gen: gen, sets: map[string]setShape{}, chains: map[string]chainDef{}, rules: map[string][]string{}}
	d := &dumper{s: s, table: table, gen: gen, loose: loose}
	d.dump("dump tables", unix.NFT_MSG_GETTABLE, nil, func(b []byte) {
		t.exists = t.exists || d.mine(b, unix.NFTA_TABLE_NAME)
	})
	if d.err != nil || !t.exists {
		return t, d.err
	}
	d.dump("dump sets", unix.NFT_MSG_GETSET, func(*attrs) {}, func(b []byte) {
		if d.mine(b, unix.NFTA_SET_TABLE) {
			if shape, anonymous := readShape(b); !anonymous {
				t.sets[shape.name] = shape
			}
		}
	})
	d.dump("dump chains", unix.NFT_MSG_GETCHAIN, nil, func(b []byte) {
		if d.mine(b, unix.NFTA_CHAIN_TABLE) {
			c := readChain(b)
			t.chains[c.name] = c.chainDef
		}
	})
	d.rules(t.rules)
	for s := range setDefs {
		def := &setDefs[s]
		if shape, ok := t.sets[def.name]; !ok || !shape.equal(def.shape()) {
			continue
		}
		if list := planned(d.gen, setID(s)); list != nil {
			d.get(def.name, list, func(e rawElement) { visit(setID(s), e) })
			continue
		}
		d.elements(def.name, func(e rawElement) { visit(setID(s), e) })
	}
	return t, d.err
}

// rules reads the rules of our table, by chain and in canonical form.
func (d *dumper) rules(into map[string][]string) {
	d.dump("dump rules", unix.NFT_MSG_GETRULE, func(*attrs) {}, func(b []byte) {
		if d.mine(b, unix.NFTA_RULE_TABLE) {
			chain, rule := readRule(b)
			into[chain] = append(into[chain], rule)
		}
	})
}

// readAll reads our table with all its elements.
func readAll(s *socket, table string) (*tableState, *[numSets]map[string]value, error) {
	var elements [numSets]map[string]value
	for s := range elements {
		elements[s] = map[string]value{}
	}
	t, err := readTable(s, table, true, func(s setID, e rawElement) {
		elements[s][string(e.key)] = value{string(e.data), string(e.note)}
	}, func(uint32, setID) []keyed { return nil })
	return t, &elements, err
}

func (d *dumper) elements(set string, visit func(rawElement)) {
	d.dump("dump elements of "+set, unix.NFT_MSG_GETSETELEM, func(a *attrs) { a.str(unix.NFTA_SET_ELEM_LIST_SET, set) }, func(b []byte) {
		eachElement(b, visit)
	})
}

// get asks for elements of a set. The first one that is not there ends the list.
func (d *dumper) get(set string, list []keyed, visit func(rawElement)) {
	for len(list) > 0 && d.err == nil {
		n := min(len(list), askElements)
		a := attrs{[]byte{nfprotoInet, 0, 0, 0}}
		a.str(unix.NFTA_SET_ELEM_LIST_TABLE, d.table)
		a.str(unix.NFTA_SET_ELEM_LIST_SET, set)
		elems := a.open(unix.NFTA_SET_ELEM_LIST_ELEMENTS)
		for i := range list[:n] {
			list[i].append(&a, false)
		}
		a.close(elems)
		err := d.s.request("read back "+set, "", nft(unix.NFT_MSG_GETSETELEM), 0, a.b, func(m message) {
			if len(m.body) < 4 {
				return
			}
			if binary.BigEndian.Uint16(m.body[2:]) != uint16(d.gen) {
				d.err = errMoved
			}
			eachElement(m.body[4:], visit)
		})
		if errors.Is(err, unix.ENOENT) {
			return
		}
		if d.err == nil {
			d.err = err
		}
		list = list[n:]
	}
}

// eachElement walks an element list.
func eachElement(b []byte, visit func(rawElement)) {
	for typ, list := range each(b) {
		if typ != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			continue
		}
		for _, e := range each(list) {
			var r rawElement
			for typ, v := range each(e) {
				switch typ {
				case unix.NFTA_SET_ELEM_KEY:
					r.key = dataValue(v)
				case unix.NFTA_SET_ELEM_DATA:
					r.data = dataValue(v)
				case unix.NFTA_SET_ELEM_USERDATA:
					r.note = v
				}
			}
			visit(r)
		}
	}
}

func dataValue(b []byte) []byte {
	for typ, v := range each(b) {
		if typ == unix.NFTA_DATA_VALUE {
			return v
		}
	}
	return nil
}

func readShape(b []byte) (s setShape, anonymous bool) {
	for typ, v := range each(b) {
		switch typ {
		case unix.NFTA_SET_NAME:
			s.name = attrString(v)
		case unix.NFTA_SET_FLAGS:
			s.flags = attrUint32(v)
		case unix.NFTA_SET_KEY_TYPE:
			s.keyType = attrUint32(v)
		case unix.NFTA_SET_KEY_LEN:
			s.keyLen = attrUint32(v)
		case unix.NFTA_SET_DATA_TYPE:
			s.dataType = attrUint32(v)
		case unix.NFTA_SET_DATA_LEN:
			s.dataLen = attrUint32(v)
		case unix.NFTA_SET_DESC:
			for typ, v := range each(v) {
				if typ != 2 { // NFTA_SET_DESC_CONCAT
					continue
				}
				for _, e := range each(v) {
					for _, n := range each(e) {
						s.fields = append(s.fields, field{size: int(attrUint32(n))})
					}
				}
			}
		}
	}
	return s, s.flags&unix.NFT_SET_ANONYMOUS != 0
}

func (s setShape) equal(t setShape) bool {
	return s.name == t.name && s.flags == t.flags && s.keyType == t.keyType && s.keyLen == t.keyLen &&
		s.dataType == t.dataType && s.dataLen == t.dataLen &&
		slices.EqualFunc(s.fields, t.fields, func(a, b field) bool { return a.size == b.size })
}

// foreignChain is a chain as the kernel describes it.
type foreignChain struct {
	chainDef
	table  string
	family byte
	typ    string
	policy uint32
	base   bool
}

func readChain(b []byte) (c foreignChain) {
	c.policy, c.regular = 1, true
	for typ, v := range each(b) {
		switch typ {
		case unix.NFTA_CHAIN_TABLE:
			c.table = attrString(v)
		case unix.NFTA_CHAIN_NAME:
			c.name = attrString(v)
		case unix.NFTA_CHAIN_TYPE:
			c.typ = attrString(v)
			c.nat = c.typ == "nat"
		case unix.NFTA_CHAIN_POLICY:
			c.policy = attrUint32(v)
		case unix.NFTA_CHAIN_HOOK:
			c.base, c.regular = true, false
			for typ, v := range each(v) {
				switch typ {
				case unix.NFTA_HOOK_HOOKNUM:
					c.hook = attrUint32(v)
				case unix.NFTA_HOOK_PRIORITY:
					c.priority = int32(attrUint32(v))
				}
			}
		}
	}
	return c
}

func readRule(b []byte) (chain, canonical string) {
	for typ, v := range each(b) {
		switch typ {
		case unix.NFTA_RULE_CHAIN:
			chain = attrString(v)
		case unix.NFTA_RULE_EXPRESSIONS:
			canonical = canonicalExprs(v)
		}
	}
	return chain, canonical
}
