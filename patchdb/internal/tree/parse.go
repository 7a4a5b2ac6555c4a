package tree

import (
	"bytes"
	"fmt"
	"unicode/utf16"
	"unicode/utf8"
)

// SyntaxError says where a text stops being JSON that a document can hold.
type SyntaxError struct {
	Offset int
	Reason string
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("bad JSON at byte %d: %s", e.Offset, e.Reason)
}

// Parse reads one JSON text (RFC 8259), with nothing after it. It refuses what
// readers disagree about, as I-JSON does (RFC 7493): invalid UTF-8, halves of
// surrogate pairs, numbers beyond float64's range and two members of one name.
// The result holds no reference to b.
func Parse(b []byte) (Node, error) {
	p := Parser{}
	return p.Parse(b)
}

// Parser is Parse for several texts. With Share it has a memory: member names
// and short texts that come again are stored once, for reading a whole document.
type Parser struct {
	Share bool

	b      []byte
	i      int
	start  int // where the newest string or number begins
	depth  int
	input  window
	window []byte // the first one of each Read
	known  *known
	elems  []Node   // stack of elements of the arrays being read
	membs  []Member // stack of members of the objects being read
}

// known is a parser's memory: for each hash the last text that had it. Unlike a
// map it never grows, and what comes once costs one comparison.
type known struct {
	names  [1 << 11]string
	leaves [1 << 11]struct {
		raw  string // as it stood in the source; the quote keeps a String from a Number
		node Node
	}
}

// longestShared is how long a leaf's source may be to be stored once.
const longestShared = 12

func (p *Parser) slot(b []byte) uint32 {
	if p.known == nil {
		p.known = &known{}
	}
	h := uint32(2166136261) // FNV-1a
	for _, c := range b {
		h = (h ^ uint32(c)) * 16777619
	}
	return (h ^ h>>15) & (1<<11 - 1)
}

// Parse reads one text.
func (p *Parser) Parse(b []byte) (Node, error) {
	p.b, p.i, p.depth, p.input = b, 0, 0, window{}
	defer p.reset()
	if len(b) > MaxSize {
		return nil, ErrSize
	}
	return p.text()
}

func (p *Parser) text() (Node, error) {
	p.space()
	n, err := p.value()
	if err != nil {
		return nil, err
	}
	p.space()
	if p.i < len(p.b) {
		return nil, p.fail("text after the value")
	}
	return n, nil
}

// reset lets go of the source and of what an error left on the stacks.
func (p *Parser) reset() {
	p.b, p.input = nil, window{}
	clear(p.elems)
	clear(p.membs)
	p.elems, p.membs = p.elems[:0], p.membs[:0]
}

func (p *Parser) fail(reason string) error { return &SyntaxError{p.input.before + p.i, reason} }

func (p *Parser) space() {
	for p.i < len(p.b) || p.more() {
		switch p.b[p.i] {
		case ' ', '\t', '\n', '\r':
			p.i++
		default:
			return
		}
	}
}

func (p *Parser) peek() byte {
	if p.i < len(p.b) || p.more() {
		return p.b[p.i]
	}
	return 0
}

// here is peek within the window.
func (p *Parser) here() byte {
	if p.i < len(p.b) {
		return p.b[p.i]
	}
	return 0
}

func (p *Parser) value() (Node, error) {
	p.ahead()
	switch c := p.peek(); c {
	case '{':
		return p.object()
	case '[':
		return p.array()
	case '"':
		s, err := p.str()
		if err != nil {
			return nil, err
		}
		return p.leaf(s, true), nil
	case 't':
		return p.word("true", Bool(true))
	case 'f':
		return p.word("false", Bool(false))
	case 'n':
		return p.word("null", Null{})
	default:
		p.wholeNumber()
		n := numberEnd(p.b[p.i:])
		if n == 0 {
			if p.i >= len(p.b) {
				return nil, p.fail("the text ends early")
			}
			return nil, p.fail(fmt.Sprintf("unexpected %q", c))
		}
		text := p.b[p.i : p.i+n]
		if !finite(string(text)) {
			return nil, p.fail("number out of range")
		}
		p.start = p.i
		p.i += n
		return p.leaf(text, false), nil
	}
}

// leaf makes a String or Number of text, sharing it with an earlier one.
func (p *Parser) leaf(text []byte, str bool) Node {
	node := func() Node {
		if str {
			return String(text)
		}
		return Number(text)
	}
	raw := p.b[p.start:p.i]
	if !p.Share || len(raw) > longestShared {
		return node()
	}
	i := p.slot(raw)
	l := &p.known.leaves[i]
	if l.raw != string(raw) {
		l.raw, l.node = string(raw), node()
	}
	return l.node
}

func (p *Parser) word(w string, n Node) (Node, error) {
	if !bytes.HasPrefix(p.b[p.i:], []byte(w)) {
		return nil, p.fail("unexpected word")
	}
	p.i += len(w)
	return n, nil
}

func (p *Parser) enter() error {
	p.i++
	p.depth++
	if p.depth > MaxDepth {
		return ErrDepth
	}
	p.space()
	return nil
}

func (p *Parser) array() (Node, error) {
	if err := p.enter(); err != nil {
		return nil, err
	}
	base := len(p.elems)
	for first := true; ; first = false {
		if p.peek() == ']' && first {
			break
		}
		v, err := p.value()
		if err != nil {
			return nil, err
		}
		p.elems = append(p.elems, v)
		p.space()
		if p.peek() == ']' {
			break
		}
		if p.peek() != ',' {
			return nil, p.fail("expected , or ] in an array")
		}
		p.i++
		p.space()
	}
	p.i++
	p.depth--
	vals := make([]Node, len(p.elems)-base)
	copy(vals, p.elems[base:])
	clear(p.elems[base:])
	p.elems = p.elems[:base]
	return NewArray(vals), nil
}

func (p *Parser) object() (Node, error) {
	if err := p.enter(); err != nil {
		return nil, err
	}
	base := len(p.membs)
	for first := true; ; first = false {
		if p.peek() == '}' && first {
			break
		}
		if p.peek() != '"' {
			return nil, p.fail("expected a member name")
		}
		k, err := p.str()
		if err != nil {
			return nil, err
		}
		key := p.name(k)
		p.space()
		if p.peek() != ':' {
			return nil, p.fail("expected : after a member name")
		}
		p.i++
		p.space()
		v, err := p.value()
		if err != nil {
			return nil, err
		}
		p.membs = append(p.membs, Member{key, v})
		p.space()
		if p.peek() == '}' {
			break
		}
		if p.peek() != ',' {
			return nil, p.fail("expected , or } in an object")
		}
		p.i++
		p.space()
	}
	p.i++
	p.depth--
	membs := make([]Member, len(p.membs)-base)
	copy(membs, p.membs[base:])
	clear(p.membs[base:])
	p.membs = p.membs[:base]
	n := len(membs)
	if o := NewObject(membs); o.Len() == n {
		return o, nil
	}
	return nil, p.fail("an object with two members of one name")
}

// name is a member's name, shared with an earlier one.
func (p *Parser) name(b []byte) string {
	if !p.Share {
		return string(b)
	}
	i := p.slot(b)
	n := &p.known.names[i]
	if *n != string(b) {
		*n = string(b)
	}
	return *n
}

// str reads a string; the result may lie in the source, and is good until more
// of that is read.
func (p *Parser) str() ([]byte, error) {
	for {
		p.start = p.i
		s, err := p.quoted()
		if err == nil || p.input.r == nil {
			return s, err
		}
		// It may only be cut off here.
		p.i = p.start
		p.more()
	}
}

func (p *Parser) quoted() ([]byte, error) {
	p.i++
	start := p.i
	ascii := true
	for ; p.i < len(p.b); p.i++ {
		switch c := p.b[p.i]; {
		case c == '"':
			s := p.b[start:p.i]
			if !ascii && !utf8.Valid(s) {
				return nil, p.fail("invalid UTF-8 in a string")
			}
			p.i++
			return s, nil
		case c == '\\':
			return p.escaped(start)
		case c < ' ':
			return nil, p.fail("control character in a string")
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	return nil, p.fail("unterminated string")
}

func (p *Parser) escaped(start int) ([]byte, error) {
	out := append([]byte(nil), p.b[start:p.i]...)
	for p.i < len(p.b) {
		c := p.b[p.i]
		switch {
		case c == '"':
			if !utf8.Valid(out) {
				return nil, p.fail("invalid UTF-8 in a string")
			}
			p.i++
			return out, nil
		case c < ' ':
			return nil, p.fail("control character in a string")
		case c != '\\':
			out = append(out, c)
			p.i++
			continue
		}
		p.i++
		esc := p.here()
		p.i++
		switch esc {
		case '"', '\\', '/':
			out = append(out, esc)
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			r, ok := p.hex4()
			if ok && utf16.IsSurrogate(r) {
				ok = false
				if p.here() == '\\' && p.i+1 < len(p.b) && p.b[p.i+1] == 'u' {
					p.i += 2
					if r2, ok2 := p.hex4(); ok2 {
						r = utf16.DecodeRune(r, r2)
						ok = r != utf8.RuneError
					}
				}
			}
			if !ok {
				return nil, p.fail("bad \\u escape")
			}
			out = utf8.AppendRune(out, r)
		default:
			return nil, p.fail("bad escape")
		}
	}
	return nil, p.fail("unterminated string")
}

func (p *Parser) hex4() (rune, bool) {
	if p.i+4 > len(p.b) {
		return 0, false
	}
	var r rune
	for _, c := range p.b[p.i : p.i+4] {
		switch {
		case c >= '0' && c <= '9':
			r = r<<4 | rune(c-'0')
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			r = r<<4 | rune(c|0x20-'a'+10)
		default:
			return 0, false
		}
	}
	p.i += 4
	return r, true
}
