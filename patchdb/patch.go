package patchdb

import (
	"encoding/json"
	"fmt"

	jsonpatch "github.com/evanphx/json-patch/v5"

	"github.com/selfstead/selfstead/patchdb/internal/tree"
)

// RevisionID counts the changes of a document: 0 before the first.
type RevisionID uint64

// Op is one operation of RFC 6902. From counts for move and copy, Value for
// add, replace and test; there a nil Value is a missing one, and invalid.
type Op struct {
	Op, Path, From string
	Value          json.RawMessage
}

// Patch is a JSON Patch (RFC 6902): operations done in order, all or none.
type Patch []Op

// Revision is one change of the document. Patch holds add, replace and remove
// only: moves and copies are spelled out, tests left out.
type Revision struct {
	ID    RevisionID `json:"id"`
	Patch Patch      `json:"patch"`
}

// Dump is the value at a place in the document at a revision.
type Dump struct {
	ID    RevisionID      `json:"id"`
	Value json.RawMessage `json:"value"`
}

// At returns the part of the dump at p; the error is ErrNotFound where p leads
// nowhere.
func (d Dump) At(p Pointer) (Dump, error) {
	tokens, err := p.Tokens()
	if err != nil {
		return Dump{}, &PointerError{"get", p, err}
	}
	n, err := tree.Parse(d.Value)
	if err != nil {
		return Dump{}, &PointerError{"get", p, cause{ErrInvalid, err}}
	}
	if n = tree.Get(n, tokens); n == nil {
		return Dump{}, &PointerError{"get", p, ErrNotFound}
	}
	return Dump{d.ID, tree.Encode(n)}, nil
}

// MarshalJSON implements json.Marshaler in the form of RFC 6902.
func (o Op) MarshalJSON() ([]byte, error) {
	b := append([]byte(`{"op":`), tree.AppendQuoted(nil, o.Op)...)
	b = tree.AppendQuoted(append(b, `,"path":`...), o.Path)
	switch o.Op {
	case "move", "copy":
		b = tree.AppendQuoted(append(b, `,"from":`...), o.From)
	case "add", "replace", "test":
		if o.Value == nil {
			return nil, fmt.Errorf("%w: %s without a value", ErrInvalid, o.Op)
		}
		b = append(append(b, `,"value":`...), o.Value...)
	}
	return append(b, '}'), nil
}

// UnmarshalJSON implements json.Unmarshaler. It takes an operation's own
// members, spelled exactly, and ignores others (RFC 6902 section 4).
func (o *Op) UnmarshalJSON(b []byte) error {
	n, err := tree.Parse(b)
	if err != nil {
		return fmt.Errorf("%w: operation: %w", ErrInvalid, err)
	}
	*o, err = opOf(n)
	return err
}

// MarshalJSON implements json.Marshaler: no operations are [], not null.
func (p Patch) MarshalJSON() ([]byte, error) {
	b := []byte{'['}
	for i, o := range p {
		if i > 0 {
			b = append(b, ',')
		}
		text, err := o.MarshalJSON()
		if err != nil {
			return nil, err
		}
		b = append(b, text...)
	}
	return append(b, ']'), nil
}

// UnmarshalJSON implements json.Unmarshaler.
func (p *Patch) UnmarshalJSON(b []byte) error {
	q, err := ParsePatch(b)
	if err == nil {
		*p = q
	}
	return err
}

// ParsePatch reads the JSON text of a patch. Errors wrap ErrInvalid and name
// the operation.
func ParsePatch(b []byte) (Patch, error) {
	n, err := tree.Parse(b)
	if err != nil {
		return nil, fmt.Errorf("%w: patch: %w", ErrInvalid, err)
	}
	a, ok := n.(*tree.Array)
	if !ok {
		return nil, fmt.Errorf("%w: a patch is an array of operations", ErrInvalid)
	}
	p := make(Patch, 0, a.Len())
	for i, n := range a.All() {
		o, err := opOf(n)
		if err != nil {
			return nil, fmt.Errorf("operation %d: %w", i, err)
		}
		p = append(p, o)
	}
	return p, nil
}

func opOf(n tree.Node) (Op, error) {
	var o Op
	obj, ok := n.(*tree.Object)
	if !ok {
		return o, fmt.Errorf("%w: an operation is an object", ErrInvalid)
	}
	text := func(member string, to *string) error {
		s, ok := obj.Get(member).(tree.String)
		if !ok {
			return fmt.Errorf("%w: an operation needs a text %q", ErrInvalid, member)
		}
		*to = string(s)
		return nil
	}
	if err := text("op", &o.Op); err != nil {
		return o, err
	}
	if err := text("path", &o.Path); err != nil {
		return o, err
	}
	switch o.Op {
	case "move", "copy":
		if err := text("from", &o.From); err != nil {
			return o, err
		}
	case "add", "replace", "test":
		v := obj.Get("value")
		if v == nil {
			return o, fmt.Errorf("%w: %s needs a \"value\"", ErrInvalid, o.Op)
		}
		o.Value = tree.Encode(v)
	case "remove":
	default:
		return o, fmt.Errorf("%w: unknown operation %q", ErrInvalid, o.Op)
	}
	return o, nil
}

// JSONPatch returns the patch as the type of github.com/evanphx/json-patch.
func (p Patch) JSONPatch() (jsonpatch.Patch, error) {
	b, err := p.MarshalJSON()
	if err != nil {
		return nil, err
	}
	return jsonpatch.DecodePatch(b)
}

// FromJSONPatch takes over a patch of github.com/evanphx/json-patch, with our
// strictness: no negative indices, no missing members.
func FromJSONPatch(p jsonpatch.Patch) (Patch, error) {
	b, err := json.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("%w: patch: %w", ErrInvalid, err)
	}
	return ParsePatch(b)
}

// ApplyTo returns the document with the patch applied. doc stays as it is.
// Errors wrap ErrInvalid, ErrNotFound or ErrTest and name the place.
func (p Patch) ApplyTo(doc json.RawMessage) (json.RawMessage, error) {
	n, err := tree.Parse(doc)
	if err != nil {
		return nil, fmt.Errorf("%w: document: %w", ErrInvalid, err)
	}
	e := editor{root: n}
	if err := e.patch(p); err != nil {
		return nil, err
	}
	return tree.Encode(e.root), nil
}

// Diff returns a patch that turns from into to, with few operations also where
// elements were put into or taken out of an array.
func Diff(from, to json.RawMessage) (Patch, error) {
	a, err := tree.Parse(from)
	if err != nil {
		return nil, fmt.Errorf("%w: from: %w", ErrInvalid, err)
	}
	b, err := tree.Parse(to)
	if err != nil {
		return nil, fmt.Errorf("%w: to: %w", ErrInvalid, err)
	}
	return patchOf(tree.Diff(a, b)), nil
}

// Rebase returns the part of the patch that someone who watches p sees: what
// happens at or below p, relative to it. Where an operation sets a place above
// p, the value that it leaves at p, or null, stands in its place. It knows only
// the patch, not the document: that elements of an array above p moved does not
// show. Subscriptions do show it.
func (p Patch) Rebase(at Pointer) (Patch, error) {
	base, err := at.Tokens()
	if err != nil {
		return nil, err
	}
	out := Patch{}
	for _, o := range p {
		path, err := Pointer(o.Path).Tokens()
		switch {
		case err != nil:
			return nil, err
		case o.Op != "add" && o.Op != "replace" && o.Op != "remove":
			return nil, fmt.Errorf("%w: %s cannot be rebased", ErrInvalid, o.Op)
		case hasPrefix(path, base):
			if o.Path = joinTokens(path[len(base):]); o.Op == "remove" && o.Path == "" {
				o = Op{Op: "replace", Value: json.RawMessage("null")}
			}
			out = append(out, o)
		case hasPrefix(base, path):
			o.Path = ""
			if o.Op == "remove" {
				o.Op, o.Value = "replace", json.RawMessage("null")
			} else {
				n, err := tree.Parse(o.Value)
				if err != nil {
					return nil, fmt.Errorf("%w: value: %w", ErrInvalid, err)
				}
				if n = tree.Get(n, base[len(path):]); n == nil {
					n = tree.Null{}
				}
				o.Value = tree.Encode(n)
			}
			out = append(out, o)
		}
	}
	return out, nil
}

func patchOf(ops []tree.Op) Patch {
	p := make(Patch, len(ops))
	for i, o := range ops {
		p[i] = Op{Op: o.Verb.Name(), Path: joinTokens(o.Path)}
		if o.Val != nil {
			p[i].Value = tree.Encode(o.Val)
		}
	}
	return p
}

// encodeOps returns the JSON text of ops, and the patch whose values lie in it.
func encodeOps(ops []tree.Op) ([]byte, Patch) {
	size := 2
	for _, o := range ops {
		size += 40
		for _, t := range o.Path {
			size += len(t) + 4
		}
		if o.Val != nil {
			size += o.Val.Size()
		}
	}
	b := append(make([]byte, 0, size), '[')
	p := make(Patch, len(ops))
	starts := make([]int, 2*len(ops))
	for i, o := range ops {
		if i > 0 {
			b = append(b, ',')
		}
		p[i] = Op{Op: o.Verb.Name(), Path: joinTokens(o.Path)}
		b, starts[2*i] = tree.AppendOp(b, o, p[i].Path)
		starts[2*i+1] = len(b) - 1
	}
	b = append(b, ']')
	for i := range p {
		if from, to := starts[2*i], starts[2*i+1]; from > 0 {
			p[i].Value = json.RawMessage(b[from:to:to])
		}
	}
	return b, p
}
