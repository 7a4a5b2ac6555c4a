package service

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

const (
	maxText  = 1 << 20 // of a service.yaml
	maxNodes = 100_000 // aliases may stand for much
	maxDepth = 100
)

// place is where something stands in the file, from 1.
type place struct{ line, column int }

// node is a value of the file that JSON can say, with its place.
type node struct {
	place
	scalar  any // nil, bool, string or json.Number, where members and items are nil
	members []member
	items   []*node
	object  bool
	array   bool
}

type member struct {
	place // of the key
	key   string
	value *node
}

// json writes the node with its members in the order of the file.
func (n *node) json(b *bytes.Buffer) {
	switch {
	case n.object:
		b.WriteByte('{')
		for i, m := range n.members {
			if i > 0 {
				b.WriteByte(',')
			}
			quote(b, m.key)
			b.WriteByte(':')
			m.value.json(b)
		}
		b.WriteByte('}')
	case n.array:
		b.WriteByte('[')
		for i, item := range n.items {
			if i > 0 {
				b.WriteByte(',')
			}
			item.json(b)
		}
		b.WriteByte(']')
	default:
		quote(b, n.scalar)
	}
}

func quote(b *bytes.Buffer, v any) {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // scalars always do
	}
	b.Write(text)
}

// value is the node as package jsonschema takes it.
func (n *node) value() any {
	switch {
	case n.object:
		m := make(map[string]any, len(n.members))
		for _, e := range n.members {
			m[e.key] = e.value.value()
		}
		return m
	case n.array:
		list := make([]any, len(n.items))
		for i, item := range n.items {
			list[i] = item.value()
		}
		return list
	}
	return n.scalar
}

// find goes along a path as far as it leads: to the place of the last key or item.
func (n *node) find(path []string) place {
	at := n.place
	for _, token := range path {
		next := (*node)(nil)
		if n.object {
			for _, m := range n.members {
				if m.key == token {
					at, next = m.place, m.value
				}
			}
		} else if i, err := strconv.Atoi(token); err == nil && i >= 0 && i < len(n.items) {
			next = n.items[i]
			at = next.place
		}
		if next == nil {
			break
		}
		n = next
	}
	return at
}

// readYAML parses one document.
func readYAML(file string, text []byte) (*node, error) {
	if len(text) > maxText {
		return nil, &Fault{File: file, Reason: fmt.Sprintf("larger than %d bytes", maxText)}
	}
	parsed, err := parser.ParseBytes(text, 0)
	if err != nil {
		fault := &Fault{File: file, Reason: err.Error()}
		var syntax yaml.Error
		if errors.As(err, &syntax) {
			fault.Reason = syntax.GetMessage()
			if t := syntax.GetToken(); t != nil && t.Position != nil {
				fault.Line, fault.Column = t.Position.Line, t.Position.Column
			}
		}
		return nil, fault
	}
	var body ast.Node
	for _, d := range parsed.Docs {
		if d.Body == nil {
			continue
		}
		if body != nil {
			at := placeOf(d.Body)
			return nil, &Fault{File: file, Line: at.line, Column: at.column, Reason: "a second document"}
		}
		body = d.Body
	}
	if body == nil {
		return nil, &Fault{File: file, Reason: "empty"}
	}
	r := &reader{file: file, anchors: map[string]ast.Node{}}
	return r.read(body, 0)
}

type reader struct {
	file    string
	anchors map[string]ast.Node
	nodes   int
}

func placeOf(n ast.Node) place {
	if m, ok := n.(*ast.MappingNode); ok && len(m.Values) > 0 {
		return placeOf(m.Values[0].Key)
	}
	if m, ok := n.(*ast.MappingValueNode); ok {
		return placeOf(m.Key)
	}
	if t := n.GetToken(); t != nil && t.Position != nil {
		return place{t.Position.Line, t.Position.Column}
	}
	return place{1, 1}
}

func (r *reader) fault(n ast.Node, format string, args ...any) error {
	at := placeOf(n)
	return &Fault{File: r.file, Line: at.line, Column: at.column, Reason: fmt.Sprintf(format, args...)}
}

func (r *reader) read(n ast.Node, depth int) (*node, error) {
	if r.nodes++; r.nodes > maxNodes || depth > maxDepth {
		return nil, r.fault(n, "too much, or nested too deep")
	}
	out := &node{place: placeOf(n)}
	switch n := n.(type) {
	case *ast.MappingNode:
		return r.mapping(out, n.Values, depth)
	case *ast.MappingValueNode:
		return r.mapping(out, []*ast.MappingValueNode{n}, depth)
	case *ast.SequenceNode:
		out.array = true
		for _, v := range n.Values {
			item, err := r.read(v, depth+1)
			if err != nil {
				return nil, err
			}
			out.items = append(out.items, item)
		}
	case *ast.AnchorNode:
		inner, err := r.read(n.Value, depth+1) // before it is known: none holds itself
		if err != nil {
			return nil, err
		}
		r.anchors[n.Name.GetToken().Value] = n.Value
		return inner, nil
	case *ast.AliasNode:
		name := n.Value.GetToken().Value
		to, ok := r.anchors[name]
		if !ok {
			return nil, r.fault(n, "no anchor %s before it", name)
		}
		return r.read(to, depth+1)
	case *ast.TagNode:
		return nil, r.fault(n, "tags are not used here")
	case *ast.StringNode:
		out.scalar = n.Value
	case *ast.LiteralNode:
		out.scalar = n.Value.Value
	case *ast.IntegerNode:
		out.scalar = json.Number(fmt.Sprint(n.Value))
	case *ast.FloatNode:
		out.scalar = json.Number(strconv.FormatFloat(n.Value, 'g', -1, 64))
	case *ast.BoolNode:
		out.scalar = n.Value
	case *ast.NullNode:
	default:
		return nil, r.fault(n, "%s cannot stand here", strings.ToLower(n.Type().String()))
	}
	return out, nil
}

func (r *reader) mapping(out *node, values []*ast.MappingValueNode, depth int) (*node, error) {
	out.object = true
	seen := map[string]bool{}
	for _, v := range values {
		if v.Key.IsMergeKey() {
			return nil, r.fault(v.Key, "merge keys are not used here")
		}
		key := v.Key.GetToken().Value
		if s, ok := v.Key.(*ast.StringNode); ok {
			key = s.Value
		}
		if seen[key] {
			return nil, r.fault(v.Key, "the key %s stands here twice", key)
		}
		seen[key] = true
		value, err := r.read(v.Value, depth+1)
		if err != nil {
			return nil, err
		}
		out.members = append(out.members, member{placeOf(v.Key), key, value})
	}
	return out, nil
}
