package patchdb

import (
	"fmt"
	"slices"

	"github.com/selfstead/selfstead/patchdb/internal/tree"
)

// editor applies operations to a document and remembers them in terms of add,
// replace and remove.
type editor struct {
	root   tree.Node
	ops    []tree.Op
	parser tree.Parser
}

func (e *editor) edit(op string, p Pointer, tokens []string, verb tree.Verb, val tree.Node) error {
	root, ch, err := tree.Edit(e.root, tokens, verb, val)
	if err != nil {
		return editError(op, p, err)
	}
	o := tree.Op{Verb: ch.Verb, Path: tokens, Val: val, Array: ch.Index >= 0 && ch.Verb != tree.VerbReplace}
	if verb == tree.VerbAdd {
		o.Verb = verb // also where it replaced a member: as its author put it
	}
	if ch.Verb == tree.VerbRemove {
		o.Val = nil
	} else if val == nil {
		o.Val = tree.Null{} // removal of the whole document
	}
	if len(tokens) > 0 && tokens[len(tokens)-1] == "-" && ch.Index >= 0 {
		o.Path = slices.Clone(tokens)
		o.Path[len(tokens)-1] = fmt.Sprint(ch.Index)
	}
	e.root = root
	e.ops = append(e.ops, o)
	return nil
}

// put sets the value at the place, by the ops in which it differs from what is
// there.
func (e *editor) put(p Pointer, tokens []string, val tree.Node) error {
	old := tree.Get(e.root, tokens)
	if old == nil {
		return e.edit("put", p, tokens, tree.VerbPut, val)
	}
	saved, n := e.root, len(e.ops)
	for _, o := range tree.Diff(old, val) {
		path := append(slices.Clip(slices.Clone(tokens)), o.Path...)
		if err := e.edit("put", p, path, o.Verb, o.Val); err != nil {
			e.root, e.ops = saved, e.ops[:n]
			return err
		}
	}
	return nil
}

// patch applies all operations or none.
func (e *editor) patch(p Patch) error {
	saved, n := e.root, len(e.ops)
	for i := range p {
		if err := e.apply(&p[i]); err != nil {
			e.root, e.ops = saved, e.ops[:n]
			return err
		}
	}
	return nil
}

func (e *editor) apply(o *Op) error {
	p := Pointer(o.Path)
	path, err := p.Tokens()
	if err != nil {
		return &PointerError{o.Op, p, err}
	}
	var val tree.Node
	switch o.Op {
	case "add", "replace", "test":
		if o.Value == nil {
			return &PointerError{o.Op, p, fmt.Errorf("%w: no value", ErrInvalid)}
		}
		if val, err = e.parser.Parse(o.Value); err != nil {
			return &PointerError{o.Op, p, cause{ErrInvalid, err}}
		}
	}
	switch o.Op {
	case "add":
		return e.edit(o.Op, p, path, tree.VerbAdd, val)
	case "replace":
		return e.edit(o.Op, p, path, tree.VerbReplace, val)
	case "remove":
		return e.edit(o.Op, p, path, tree.VerbRemove, nil)
	case "test":
		n := tree.Get(e.root, path)
		if n == nil {
			return &PointerError{o.Op, p, ErrNotFound}
		}
		if !tree.Equal(n, val) {
			return &PointerError{o.Op, p, ErrTest}
		}
		return nil
	case "move", "copy":
		from, err := Pointer(o.From).Tokens()
		if err != nil {
			return &PointerError{o.Op, Pointer(o.From), err}
		}
		val := tree.Get(e.root, from)
		if val == nil {
			return &PointerError{o.Op, Pointer(o.From), ErrNotFound}
		}
		if o.Op == "copy" {
			return e.edit(o.Op, p, path, tree.VerbAdd, val)
		}
		if slices.Equal(from, path) {
			return nil
		}
		if hasPrefix(path, from) {
			return &PointerError{o.Op, p, fmt.Errorf("%w: a value cannot be moved into itself", ErrInvalid)}
		}
		if err := e.edit(o.Op, Pointer(o.From), from, tree.VerbRemove, nil); err != nil {
			return err
		}
		return e.edit(o.Op, p, path, tree.VerbAdd, val)
	}
	return &PointerError{o.Op, p, fmt.Errorf("%w: unknown operation", ErrInvalid)}
}
