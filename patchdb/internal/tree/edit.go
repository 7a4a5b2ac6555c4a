package tree

import "fmt"

// Verb is what an Edit does at its place.
type Verb uint8

// The verbs. They differ only at the last token.
const (
	VerbAdd     Verb = iota // RFC 6902 add: set a member, insert an element; "-" is past the end
	VerbReplace             // RFC 6902 replace: the place must exist
	VerbPut                 // set a member; set an existing element, or append at the length or "-"
	VerbRemove              // RFC 6902 remove; of the whole document: leaves null
)

// Change is what an edit came to, in terms of add, replace and remove.
type Change struct {
	Verb  Verb // VerbAdd, VerbReplace or VerbRemove
	Index int  // the element's index where the parent is an array, else -1
	Len   int  // the parent array's length before the edit
	Old   Node // what stood there; nil where nothing did
}

// Get returns the value at the tokens, nil where there is none.
func Get(n Node, tokens []string) Node {
	for _, t := range tokens {
		switch c := n.(type) {
		case *Object:
			n = c.Get(t)
		case *Array:
			i, err := arrayIndex(t, c.Len()-1, false)
			if err != nil {
				return nil
			}
			n = c.At(i)
		default:
			return nil
		}
		if n == nil {
			return nil
		}
	}
	return n
}

// Edit returns root with the edit done, sharing all that it does not touch.
// root itself stays as it is, also on error.
func Edit(root Node, tokens []string, verb Verb, val Node) (Node, Change, error) {
	if len(tokens) > MaxDepth || (verb != VerbRemove && len(tokens)+val.Height() > MaxDepth) {
		return root, Change{}, ErrDepth
	}
	if len(tokens) == 0 {
		if verb == VerbRemove {
			val = Null{}
		}
		return val, Change{Verb: VerbReplace, Index: -1, Old: root}, nil
	}
	n, ch, err := edit(root, tokens, verb, val)
	if err == nil && n.Size() > MaxSize {
		err = ErrSize
	}
	if err != nil {
		return root, Change{}, err
	}
	return n, ch, nil
}

func edit(n Node, tokens []string, verb Verb, val Node) (Node, Change, error) {
	t := tokens[0]
	if len(tokens) > 1 {
		switch c := n.(type) {
		case *Object:
			sub := c.Get(t)
			if sub == nil {
				return nil, Change{}, fmt.Errorf("%w: %q", ErrNotFound, t)
			}
			sub, ch, err := edit(sub, tokens[1:], verb, val)
			if err != nil {
				return nil, ch, err
			}
			return c.With(t, sub), ch, nil
		case *Array:
			i, err := arrayIndex(t, c.Len()-1, false)
			if err != nil {
				return nil, Change{}, err
			}
			sub, ch, err := edit(c.At(i), tokens[1:], verb, val)
			if err != nil {
				return nil, ch, err
			}
			return c.With(i, sub), ch, nil
		}
		return nil, Change{}, fmt.Errorf("%w: %q", ErrScalar, t)
	}
	switch c := n.(type) {
	case *Object:
		ch := Change{Verb: VerbReplace, Index: -1, Old: c.Get(t)}
		if ch.Old == nil {
			if verb == VerbReplace || verb == VerbRemove {
				return nil, Change{}, fmt.Errorf("%w: %q", ErrNotFound, t)
			}
			ch.Verb = VerbAdd
		}
		if verb == VerbRemove {
			ch.Verb = VerbRemove
			o, _ := c.Without(t)
			return o, ch, nil
		}
		return c.With(t, val), ch, nil
	case *Array:
		grow := verb == VerbAdd || verb == VerbPut
		limit := c.Len() - 1
		if grow {
			limit++
		}
		i, err := arrayIndex(t, limit, grow)
		if err != nil {
			return nil, Change{}, err
		}
		ch := Change{Index: i, Len: c.Len()}
		switch {
		case verb == VerbRemove:
			ch.Verb = VerbRemove
			var a *Array
			a, ch.Old = c.Delete(i)
			return a, ch, nil
		case verb == VerbAdd || i == c.Len():
			ch.Verb = VerbAdd
			return c.Insert(i, val), ch, nil
		}
		ch.Verb, ch.Old = VerbReplace, c.At(i)
		return c.With(i, val), ch, nil
	}
	return nil, Change{}, fmt.Errorf("%w: %q", ErrScalar, t)
}

// arrayIndex reads a token as an index of at most limit (RFC 6901 section 4:
// no sign, no leading zero). "-" is the limit itself where dash is allowed.
func arrayIndex(t string, limit int, dash bool) (int, error) {
	if t == "-" && dash {
		return limit, nil
	}
	if t == "" || len(t) > 10 || (t[0] == '0' && len(t) > 1) {
		return 0, fmt.Errorf("%w: %q", ErrIndex, t)
	}
	i := 0
	for _, c := range []byte(t) {
		if c < '0' || c > '9' {
			return 0, fmt.Errorf("%w: %q", ErrIndex, t)
		}
		i = i*10 + int(c-'0')
	}
	if i > limit {
		return 0, fmt.Errorf("%w: element %d", ErrNotFound, i)
	}
	return i, nil
}
