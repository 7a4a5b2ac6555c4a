package tree

import (
	"iter"
	"slices"
)

// chunk is the width of an array's tree nodes, and the largest plain array.
const chunk = 32

// Array is an immutable JSON array.
type Array struct {
	size   int
	height uint16
	small  []Node // used while root is nil
	root   *span
}

// span is a node of a counted tree: a leaf of values or a list of spans.
type span struct {
	n    int
	vals []Node
	subs []*span
}

// Size implements Node.
func (a *Array) Size() int { return a.size }

// Height implements Node.
func (a *Array) Height() int { return int(a.height) }

// Len is the number of elements.
func (a *Array) Len() int {
	if a.root != nil {
		return a.root.n
	}
	return len(a.small)
}

// NewArray makes an array of the elements. It keeps elems.
func NewArray(elems []Node) *Array {
	a := &Array{size: 2, height: 1}
	for _, v := range elems {
		a.size += v.Size() + 1
		a.height = max(a.height, uint16(v.Height()+1))
	}
	if len(elems) > 0 {
		a.size--
	}
	if len(elems) <= chunk {
		a.small = slices.Clip(elems)
		return a
	}
	var level []*span
	for c := range slices.Chunk(elems, chunk) {
		level = append(level, &span{n: len(c), vals: slices.Clone(c)})
	}
	for len(level) > 1 {
		var up []*span
		for c := range slices.Chunk(level, chunk) {
			up = append(up, newSpan(slices.Clone(c)))
		}
		level = up
	}
	a.root = level[0]
	return a
}

func newSpan(subs []*span) *span {
	s := &span{subs: subs}
	for _, c := range subs {
		s.n += c.n
	}
	return s
}

// At returns element i, which must exist.
func (a *Array) At(i int) Node {
	if a.root == nil {
		return a.small[i]
	}
	s := a.root
	for s.subs != nil {
		var k int
		k, i = s.find(i)
		s = s.subs[k]
	}
	return s.vals[i]
}

// find returns which sub holds element i, and the place within it; one past
// the last element belongs to the last sub.
func (s *span) find(i int) (k, rest int) {
	for k = 0; k < len(s.subs)-1 && i >= s.subs[k].n; k++ {
		i -= s.subs[k].n
	}
	return k, i
}

// With returns the array with element i replaced.
func (a *Array) With(i int, v Node) *Array {
	n := &Array{size: a.size + v.Size() - a.At(i).Size(), height: max(a.height, uint16(v.Height()+1))}
	if a.root == nil {
		n.small = slices.Clone(a.small)
		n.small[i] = v
		return n
	}
	n.root = a.root.with(i, v)
	return n
}

func (s *span) with(i int, v Node) *span {
	c := *s
	if s.subs == nil {
		c.vals = slices.Clone(s.vals)
		c.vals[i] = v
		return &c
	}
	k, rest := s.find(i)
	c.subs = slices.Clone(s.subs)
	c.subs[k] = s.subs[k].with(rest, v)
	return &c
}

// Insert returns the array with v before element i; i may be the length.
func (a *Array) Insert(i int, v Node) *Array {
	n := &Array{size: a.size + v.Size(), height: max(a.height, uint16(v.Height()+1))}
	if a.Len() > 0 {
		n.size++
	}
	if a.root == nil && len(a.small) < chunk {
		n.small = inserted(a.small, i, v)
		return n
	}
	root := a.root
	if root == nil {
		root = &span{n: len(a.small), vals: a.small}
	}
	l, r := root.insert(i, v)
	if n.root = l; r != nil {
		n.root = newSpan([]*span{l, r})
	}
	return n
}

// insert returns the new span, and a second one where it had to be split.
func (s *span) insert(i int, v Node) (*span, *span) {
	if s.subs == nil {
		vals := inserted(s.vals, i, v)
		if len(vals) <= chunk {
			return &span{n: len(vals), vals: vals}, nil
		}
		// An append splits off a leaf of its own, so that a growing list is packed.
		h := len(vals) / 2
		if i == len(vals)-1 {
			h = chunk
		}
		return &span{n: h, vals: slices.Clip(vals[:h])}, &span{n: len(vals) - h, vals: slices.Clone(vals[h:])}
	}
	k, rest := s.find(i)
	l, r := s.subs[k].insert(rest, v)
	var subs []*span
	if r == nil {
		subs = slices.Clone(s.subs)
		subs[k] = l
		return &span{n: s.n + 1, subs: subs}, nil
	}
	subs = inserted(s.subs, k+1, r)
	subs[k] = l
	if len(subs) <= chunk {
		return &span{n: s.n + 1, subs: subs}, nil
	}
	h := len(subs) / 2
	if k == len(subs)-2 {
		h = chunk
	}
	return newSpan(slices.Clip(subs[:h])), newSpan(slices.Clone(subs[h:]))
}

// Delete returns the array without element i, and the element.
func (a *Array) Delete(i int) (*Array, Node) {
	old := a.At(i)
	n := &Array{size: a.size - old.Size(), height: a.height}
	if a.Len() > 1 {
		n.size--
	}
	if a.root == nil {
		n.small = removed(a.small, i)
		return n, old
	}
	root := a.root.remove(i)
	for len(root.subs) == 1 {
		root = root.subs[0]
	}
	if root.subs == nil {
		n.small = root.vals
	} else {
		n.root = root
	}
	return n, old
}

func (s *span) remove(i int) *span {
	if s.subs == nil {
		return &span{n: s.n - 1, vals: removed(s.vals, i)}
	}
	k, rest := s.find(i)
	c := s.subs[k].remove(rest)
	if c.n == 0 {
		return &span{n: s.n - 1, subs: removed(s.subs, k)}
	}
	// A thin span is joined to its neighbour, so that depth follows length.
	for _, j := range []int{k - 1, k + 1} {
		if j < 0 || j >= len(s.subs) {
			continue
		}
		b := s.subs[j]
		if len(c.vals)+len(b.vals) > chunk/2 || len(c.subs)+len(b.subs) > chunk/2 {
			continue
		}
		l, r := b, c
		if j > k {
			l, r = c, b
		}
		joined := &span{n: l.n + r.n}
		if c.subs == nil {
			joined.vals = slices.Concat(l.vals, r.vals)
		} else {
			joined.subs = slices.Concat(l.subs, r.subs)
		}
		subs := removed(s.subs, max(j, k))
		subs[min(j, k)] = joined
		return &span{n: s.n - 1, subs: subs}
	}
	subs := slices.Clone(s.subs)
	subs[k] = c
	return &span{n: s.n - 1, subs: subs}
}

// All yields the elements in order.
func (a *Array) All() iter.Seq2[int, Node] {
	if a.root == nil {
		return slices.All(a.small)
	}
	return func(yield func(int, Node) bool) {
		i := 0
		a.root.each(func(v Node) bool {
			i++
			return yield(i-1, v)
		})
	}
}

func (s *span) each(yield func(Node) bool) bool {
	for _, v := range s.vals {
		if !yield(v) {
			return false
		}
	}
	for _, c := range s.subs {
		if !c.each(yield) {
			return false
		}
	}
	return true
}
