package exver

import (
	"strings"
)

// Bounds on what one range may hold, as it stands and as it is printed, which
// takes more parentheses: what was read can be printed and read again. Real ones
// have a handful of conditions.
const (
	maxNesting    = 4096 // parentheses and negations in one another, each for two
	maxConditions = 16_384
)

// ParseRange reads a range as StartOS servers do. What follows the longest
// readable beginning is dropped without a word.
func ParseRange(s string) (Range, error) {
	r, _, err := parseRange(s)
	return r, err
}

// ParseRangeStrict is ParseRange for text that a person just typed: what
// ParseRange would drop is an error.
func ParseRangeStrict(s string) (Range, error) {
	r, rest, err := parseRange(s)
	if err == nil && strings.Trim(rest, " ") != "" {
		err = syntax("version range", s, "cannot read "+quoteShort(rest))
	}
	return r, err
}

func quoteShort(s string) string {
	if len(s) > 40 {
		s = s[:40] + "..."
	}
	return "\"" + s + "\""
}

// MustParseRange is ParseRangeStrict for constants; it panics on an error.
func MustParseRange(s string) Range {
	r, err := ParseRangeStrict(s)
	if err != nil {
		panic(err)
	}
	return r
}

func parseRange(s string) (Range, string, error) {
	p := &parser{s: s}
	r, ok := p.expr()
	if ok && p.reason == "" {
		p.depth, p.atoms = 0, 0
		p.again(&r)
	}
	switch {
	case p.reason != "":
		return Range{}, "", syntax("version range", s, p.reason)
	case !ok:
		return Range{}, "", syntax("version range", s, "no condition found")
	}
	return r, s[p.i:], nil
}

// parser is a PEG with ordered choice: what fails sets i back. reason is set
// for what matches the grammar and still has no value.
type parser struct {
	s      string
	i      int
	depth  int
	atoms  int
	reason string
}

// again counts as expr would for the printed form of r.
func (p *parser) again(r *Range) {
	p.enter(0)
	p.againAtom(r)
	p.enter(1) // the atom that it looks for behind the last
	p.depth -= 2
}

// enter counts one level and perhaps an attempt at an atom.
func (p *parser) enter(atoms int) {
	if p.depth++; p.depth > maxNesting {
		p.reason = "nested too deeply"
	}
	if p.atoms += atoms; p.atoms > maxConditions {
		p.reason = "too many conditions"
	}
}

func (p *parser) againAtom(r *Range) {
	child := func(c *Range) {
		switch c.kind {
		case kindAnd, kindOr, kindNot, kindFlavor: // in parentheses
			p.enter(1)
			p.again(c)
			p.depth--
		default:
			p.againAtom(c)
		}
	}
	switch {
	case p.reason != "": // enough is known
	case r.kind == kindAnd, r.kind == kindOr:
		child(r.a)
		child(r.b)
	case r.kind == kindNot:
		p.enter(1)
		child(r.a)
		p.depth--
	default:
		p.enter(1)
		p.depth--
	}
}

func (p *parser) spaces() {
	for p.i < len(p.s) && p.s[p.i] == ' ' {
		p.i++
	}
}

func (p *parser) token(t string) bool {
	if strings.HasPrefix(p.s[p.i:], t) {
		p.i += len(t)
		return true
	}
	return false
}

// expr := atom ( ("||" | "&&")? atom )*
func (p *parser) expr() (Range, bool) {
	p.enter(0)
	defer func() { p.depth-- }()
	if p.reason != "" {
		return Range{}, false
	}
	r, ok := p.atom()
	if !ok {
		return r, false
	}
	or := false
	for p.reason == "" {
		start, next := p.i, or
		p.spaces()
		if p.token("||") {
			next = true
			p.spaces()
		} else if p.token("&&") {
			next = false
			p.spaces()
		}
		b, ok := p.atom()
		if !ok {
			p.i = start
			break
		}
		if or = next; or {
			r = Or(r, b)
		} else {
			r = And(r, b)
		}
	}
	return r, true
}

func (p *parser) atom() (Range, bool) {
	p.enter(1)
	defer func() { p.depth-- }()
	if p.reason != "" {
		return Range{}, false
	}
	start := p.i
	if p.token("(") {
		p.spaces()
		if r, ok := p.expr(); ok {
			p.spaces()
			if p.token(")") {
				return r, true
			}
		}
		p.i = start
		return Range{}, false
	}
	if r, ok := p.anchor(); ok || p.reason != "" {
		return r, ok
	}
	if p.token("!") {
		after := p.i
		p.spaces()
		if r, ok := p.atom(); ok {
			return Not(r), true
		}
		p.i = after
		return None(), p.reason == ""
	}
	if p.token("*") {
		return Any(), true
	}
	if p.token("#") {
		name := p.letters()
		if name == "" {
			return Unflavored(), true
		}
		return OfFlavor(name), true
	}
	return Range{}, false
}

func (p *parser) letters() string {
	start := p.i
	for p.i < len(p.s) && p.s[p.i] >= 'a' && p.s[p.i] <= 'z' {
		p.i++
	}
	return p.s[start:p.i]
}

var operators = []Op{OpGreaterEqual, OpLessEqual, OpNotEqual, OpEqual, OpLess, OpGreater, "^", "~"}

func (p *parser) anchor() (Range, bool) {
	start := p.i
	op := Op("^")
	for _, o := range operators {
		if p.token(string(o)) {
			op = o
			break
		}
	}
	p.spaces()
	v, ok := p.spec()
	if !ok {
		p.i = start
		return Range{}, false
	}
	var r Range
	switch op {
	case "^":
		r, ok = Caret(v)
	case "~":
		r, ok = Tilde(v)
	default:
		return Anchor(op, v), true
	}
	if !ok {
		p.reason = "number is too large"
	}
	return r, ok
}

// spec := ("#"[a-z]*":")? ver (":" ver)?, without spaces.
func (p *parser) spec() (v ExtendedVersion, ok bool) {
	start := p.i
	if p.token("#") {
		name := p.letters()
		if !p.token(":") {
			p.i = start
			return v, false
		}
		v.Flavor, v.Flavored = name, name != ""
	}
	if v.Upstream, ok = p.version(); !ok {
		p.i = start
		return v, false
	}
	v.Downstream = Version{Numbers: []uint64{0}}
	after := p.i
	if p.token(":") {
		if d, ok := p.version(); ok {
			v.Downstream = d
		} else {
			p.i = after
		}
	}
	return v, p.reason == ""
}

// version := (num ".")* num ("-" pre)?
func (p *parser) version() (Version, bool) {
	start := p.i
	for {
		if !p.number() {
			p.i = start
			return Version{}, false
		}
		if !p.token(".") {
			break
		}
	}
	end := p.i
	if p.token("-") && p.segment() {
		end = p.i
		for p.token(".") && p.segment() {
			end = p.i
		}
	}
	p.i = end
	v, reason := parseVersion(p.s[start:end])
	if reason != "" {
		p.reason = reason
	}
	return v, reason == ""
}

// number := "0" | [1-9][0-9]*
func (p *parser) number() bool {
	if p.token("0") {
		return true
	}
	start := p.i
	for p.i < len(p.s) && p.s[p.i] >= '0' && p.s[p.i] <= '9' {
		p.i++
	}
	return p.i > start
}

func (p *parser) segment() bool {
	start := p.i
	for p.i < len(p.s) {
		c := p.s[p.i]
		if c != '-' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			break
		}
		p.i++
	}
	return p.i > start
}
