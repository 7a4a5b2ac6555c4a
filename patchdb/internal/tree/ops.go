package tree

import "bytes"

// verbText is how a verb begins in the text of a patch; the path follows.
var verbText = [...]struct {
	verb Verb
	text string
}{
	{VerbReplace, `{"op":"replace","path":`},
	{VerbAdd, `{"op":"add","path":`},
	{VerbRemove, `{"op":"remove","path":`},
}

// Name is the verb's name in RFC 6902.
func (v Verb) Name() string {
	return [...]string{VerbAdd: "add", VerbReplace: "replace", VerbPut: "put", VerbRemove: "remove"}[v]
}

// Ops reads a patch of add, replace and remove exactly as AppendOp writes it:
// members in that order and no spaces.
func (p *Parser) Ops(b []byte) ([]Op, error) {
	p.b, p.i, p.depth, p.input = b, 0, 0, window{}
	defer p.reset()
	if !p.skip("[") {
		return nil, p.fail("not a patch")
	}
	var ops []Op
	for !p.skip("]") {
		if len(ops) > 0 && !p.skip(",") {
			return nil, p.fail("not a patch")
		}
		o, err := p.op()
		if err != nil {
			return nil, err
		}
		ops = append(ops, o)
	}
	if p.i < len(b) {
		return nil, p.fail("text after the patch")
	}
	return ops, nil
}

func (p *Parser) skip(s string) bool {
	if !bytes.HasPrefix(p.b[p.i:], []byte(s)) {
		return false
	}
	p.i += len(s)
	return true
}

func (p *Parser) op() (o Op, err error) {
	known := false
	for _, v := range verbText {
		if known = p.skip(v.text); known {
			o.Verb = v.verb
			break
		}
	}
	if !known || p.peek() != '"' {
		return o, p.fail("not an operation")
	}
	path, err := p.str()
	if err != nil {
		return o, err
	}
	if o.Path, err = p.tokens(path); err != nil {
		return o, err
	}
	if o.Verb != VerbRemove {
		if !p.skip(`,"value":`) {
			return o, p.fail("not an operation")
		}
		if o.Val, err = p.value(); err != nil {
			return o, err
		}
	}
	if !p.skip("}") {
		return o, p.fail("not an operation")
	}
	return o, nil
}

// tokens splits a pointer (RFC 6901) that was written by us.
func (p *Parser) tokens(path []byte) ([]string, error) {
	if len(path) == 0 {
		return nil, nil
	}
	if path[0] != '/' {
		return nil, p.fail("not a pointer")
	}
	path = path[1:]
	tokens := make([]string, 0, bytes.Count(path, []byte("/"))+1)
	for rest := true; rest; {
		var t []byte
		t, path, rest = bytes.Cut(path, []byte("/"))
		if bytes.IndexByte(t, '~') >= 0 {
			t = bytes.ReplaceAll(bytes.ReplaceAll(t, []byte("~1"), []byte("/")), []byte("~0"), []byte("~"))
		}
		tokens = append(tokens, p.name(t))
	}
	return tokens, nil
}

// AppendOp appends an operation's JSON text; path is its pointer. It returns
// where the value begins in the text, 0 where there is none.
func AppendOp(b []byte, o Op, path string) (_ []byte, value int) {
	for _, v := range verbText {
		if v.verb == o.Verb {
			b = append(b, v.text...)
		}
	}
	b = AppendQuoted(b, path)
	if o.Val != nil {
		b = append(b, `,"value":`...)
		value = len(b)
		b = Append(b, o.Val)
	}
	return append(b, '}'), value
}
