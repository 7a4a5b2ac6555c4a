package patchdb

import (
	"encoding/json"
	"fmt"

	"github.com/selfstead/selfstead/patchdb/internal/tree"
)

// Tx is the document as one View or Update sees it. It is valid until the
// function that got it returns, and not for use by several goroutines.
type Tx struct {
	id       RevisionID
	edit     editor
	writable bool
	done     bool
}

// Revision is the revision that the transaction started from.
func (tx *Tx) Revision() RevisionID { return tx.id }

// Expect fails with ErrConflict unless the transaction started from id. It is
// the optimistic lock: read at a revision, think, update only if nothing came
// in between.
func (tx *Tx) Expect(id RevisionID) error {
	if tx.id != id {
		return fmt.Errorf("%w: %d, not %d", ErrConflict, tx.id, id)
	}
	return nil
}

// Update is what DB.Update would do to a database with this content: it returns
// the content afterwards and the revision. The dump stays as it is.
func (d Dump) Update(fn func(tx *Tx) error) (Dump, Revision, error) {
	root, err := tree.Parse(d.Value)
	if err != nil {
		return Dump{}, Revision{}, &PointerError{"update", "", cause{ErrInvalid, err}}
	}
	tx := &Tx{id: d.ID, edit: editor{root: root}, writable: true}
	defer func() { tx.done = true }()
	if err := fn(tx); err != nil {
		return Dump{}, Revision{}, err
	}
	if len(tx.edit.ops) == 0 || tree.Equal(root, tx.edit.root) {
		return d, Revision{ID: d.ID}, nil
	}
	r := newRevision(d.ID+1, tx.edit.ops)
	return Dump{r.id, tree.Encode(tx.edit.root)}, Revision{ID: r.id, Patch: r.patch()}, nil
}

func (tx *Tx) node(op string, p Pointer) (tree.Node, error) {
	if tx.done {
		return nil, &PointerError{op, p, fmt.Errorf("%w: the transaction has ended", ErrClosed)}
	}
	tokens, err := p.Tokens()
	if err != nil {
		return nil, &PointerError{op, p, err}
	}
	n := tree.Get(tx.edit.root, tokens)
	if n == nil {
		return nil, &PointerError{op, p, ErrNotFound}
	}
	return n, nil
}

// Get decodes the value at p into what into points to, by the rules of
// encoding/json; into a *json.RawMessage it copies the text. The error is
// ErrNotFound where p leads nowhere, ErrInvalid where the value does not fit.
func (tx *Tx) Get(p Pointer, into any) error {
	n, err := tx.node("get", p)
	if err != nil {
		return err
	}
	text := tree.Encode(n)
	if raw, ok := into.(*json.RawMessage); ok {
		*raw = text
		return nil
	}
	if err := json.Unmarshal(text, into); err != nil {
		return &PointerError{"get", p, cause{ErrInvalid, err}}
	}
	return nil
}

// Exists reports whether p leads to a value; null is one.
func (tx *Tx) Exists(p Pointer) bool {
	_, err := tx.node("get", p)
	return err == nil
}

// Keys returns the member names of the object at p, in document order: that in
// which they arrived.
func (tx *Tx) Keys(p Pointer) ([]string, error) {
	n, err := tx.node("keys", p)
	if err != nil {
		return nil, err
	}
	o, ok := n.(*tree.Object)
	if !ok {
		return nil, &PointerError{"keys", p, fmt.Errorf("%w: not an object", ErrInvalid)}
	}
	keys := make([]string, 0, o.Len())
	for m := range o.Members() {
		keys = append(keys, m.Key)
	}
	return keys, nil
}

// Len is the number of members or elements at p, 0 for a value that has none.
func (tx *Tx) Len(p Pointer) (int, error) {
	n, err := tx.node("len", p)
	if err != nil {
		return 0, err
	}
	return tree.Len(n), nil
}

// Put sets the value at p to v, as encoding/json writes it. What is there is
// changed only where it differs. The parent must exist; a missing member is
// added; an array takes an existing index, its length, or "-" for the end.
func (tx *Tx) Put(p Pointer, v any) error { return tx.put(p, v, false) }

// PutAll is Put that makes missing parents, also those that are null, into objects.
func (tx *Tx) PutAll(p Pointer, v any) error { return tx.put(p, v, true) }

func (tx *Tx) put(p Pointer, v any, all bool) error {
	tokens, err := tx.forWrite("put", p)
	if err != nil {
		return err
	}
	val, err := tx.value(v)
	if err != nil {
		return &PointerError{"put", p, cause{ErrInvalid, err}}
	}
	return tx.putNode(p, tokens, val, all)
}

func (tx *Tx) putNode(p Pointer, tokens []string, val tree.Node, all bool) error {
	if all {
		for i := 0; i < len(tokens); i++ {
			n := tree.Get(tx.edit.root, tokens[:i])
			if n == nil || n == (tree.Null{}) {
				for k := len(tokens) - 1; k >= i; k-- {
					val = tree.NewObject([]tree.Member{{Key: tokens[k], Val: val}})
				}
				if val.Height() > tree.MaxDepth {
					return editError("put", p, tree.ErrDepth)
				}
				tokens = tokens[:i]
			}
		}
	}
	return tx.edit.put(p, tokens, val)
}

// Remove removes the value at p; the whole document becomes null.
func (tx *Tx) Remove(p Pointer) error {
	tokens, err := tx.forWrite("remove", p)
	if err != nil {
		return err
	}
	return tx.edit.edit("remove", p, tokens, tree.VerbRemove, nil)
}

// Apply applies all operations of the patch, or none and returns the error.
func (tx *Tx) Apply(patch Patch) error {
	if _, err := tx.forWrite("apply", ""); err != nil {
		return err
	}
	return tx.edit.patch(patch)
}

func (tx *Tx) forWrite(op string, p Pointer) ([]string, error) {
	if tx.done {
		return nil, &PointerError{op, p, fmt.Errorf("%w: the transaction has ended", ErrClosed)}
	}
	if !tx.writable {
		return nil, &PointerError{op, p, fmt.Errorf("%w: a View cannot change the document", ErrReadOnly)}
	}
	tokens, err := p.Tokens()
	if err != nil {
		return nil, &PointerError{op, p, err}
	}
	return tokens, nil
}

func (tx *Tx) value(v any) (tree.Node, error) {
	raw, ok := v.(json.RawMessage)
	if !ok {
		var err error
		if raw, err = json.Marshal(v); err != nil {
			return nil, err
		}
	}
	return tx.edit.parser.Parse(raw)
}
