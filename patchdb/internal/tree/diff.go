package tree

import (
	"slices"
	"strconv"
)

// Op is one step of a difference: VerbAdd, VerbReplace or VerbRemove. Array is
// set where the place's parent is an array and elements after it move.
type Op struct {
	Verb  Verb
	Path  []string
	Val   Node // nil for VerbRemove
	Array bool
}

// cost of an op apart from its path and value, in bytes of JSON text.
const opCost = len(`{"op":"replace","path":"","value":},`)

// Diff returns ops that turn a into b when done in order. Members and elements
// that did not change cost nothing; an array's ops are as few as insertions,
// removals and replacements can be (unless it changed so much that one
// replacement is better); where the ops inside a value would be longer than
// the value, they are one replacement of it.
func Diff(a, b Node) []Op {
	d := differ{}
	d.value(a, b)
	return d.ops
}

type differ struct {
	ops  []Op
	path []string
	size int
}

func (d *differ) emit(verb Verb, val Node, array bool) {
	d.ops = append(d.ops, Op{verb, slices.Clone(d.path), val, array})
	d.size += opCost
	if val != nil {
		d.size += val.Size()
	}
	for _, t := range d.path {
		d.size += len(t) + 1
	}
}

func (d *differ) push(t string) { d.path = append(d.path, t) }
func (d *differ) pop()          { d.path = d.path[:len(d.path)-1] }

func (d *differ) value(a, b Node) {
	if same(a, b) {
		return
	}
	n, size := len(d.ops), d.size
	switch x := a.(type) {
	case *Object:
		if y, ok := b.(*Object); ok {
			d.object(x, y)
			d.settle(n, size, b)
			return
		}
	case *Array:
		if y, ok := b.(*Array); ok {
			d.array(x, y)
			d.settle(n, size, b)
			return
		}
	}
	d.emit(VerbReplace, b, false)
}

// settle exchanges the ops since n for one replacement where that is shorter.
func (d *differ) settle(n, size int, b Node) {
	if len(d.ops)-n < 2 {
		return
	}
	whole := opCost + b.Size()
	for _, t := range d.path {
		whole += len(t) + 1
	}
	if whole < d.size-size {
		clear(d.ops[n:])
		d.ops, d.size = d.ops[:n], size
		d.emit(VerbReplace, b, false)
	}
}

func (d *differ) object(a, b *Object) {
	var added []Member
	eachChanged(a, b, func(key string, x, y Node) bool {
		if x == nil {
			added = append(added, Member{key, y})
			return true
		}
		d.push(key)
		if y == nil {
			d.emit(VerbRemove, nil, false)
		} else {
			d.value(x, y)
		}
		d.pop()
		return true
	})
	if b.root != nil && len(added) > 1 {
		// New members of a trie come in hash order; put them in b's.
		seq := func(m Member) uint32 { return b.root.get(hashKey(m.Key), 0, m.Key).seq }
		slices.SortFunc(added, func(x, y Member) int { return int(int64(seq(x)) - int64(seq(y))) })
	}
	for _, m := range added {
		d.push(m.Key)
		d.emit(VerbAdd, m.Val, false)
		d.pop()
	}
}

// maxCells bounds the work for one array: elements times edits.
const maxCells = 1 << 22

func (d *differ) array(x, y *Array) {
	pre, script := align(x, y)
	if script == nil {
		d.emit(VerbReplace, y, false)
		return
	}
	// at is the place in the array as it stands while the ops are done.
	i, j, at := pre, pre, pre
	for _, e := range script {
		d.push(strconv.Itoa(at))
		switch e {
		case keep:
			i, j, at = i+1, j+1, at+1
		case change:
			d.value(x.At(i), y.At(j))
			i, j, at = i+1, j+1, at+1
		case drop:
			d.emit(VerbRemove, nil, true)
			i++
		case grow:
			d.emit(VerbAdd, y.At(j), true)
			j, at = j+1, at+1
		}
		d.pop()
	}
}

// align returns how many elements two arrays have in common at the front, and
// the edges from there that lead from one to the other, up to where they are
// the same again; nil where finding them would cost too much.
func align(x, y *Array) (pre int, script []edge) {
	n, m := x.Len(), y.Len()
	for pre < n && pre < m && Equal(x.At(pre), y.At(pre)) {
		pre++
	}
	suf := 0
	for suf < n-pre && suf < m-pre && Equal(x.At(n-1-suf), y.At(m-1-suf)) {
		suf++
	}
	n, m = n-pre-suf, m-pre-suf
	if n == 0 || m == 0 {
		return pre, straight(n, m)
	}
	return pre, shortest(classes(x, y, pre, n, m))
}

type edge byte

const (
	keep edge = iota
	change
	drop
	grow
)

func straight(n, m int) []edge {
	s := make([]edge, 0, n+m)
	for range n {
		s = append(s, drop)
	}
	for range m {
		s = append(s, grow)
	}
	return s
}

// classes numbers the elements of the changed middles: equal ones alike.
func classes(x, y *Array, pre, n, m int) (a, b []int32) {
	seen := map[uint64][]int32{} // hash to the classes that have it
	var reps []Node
	class := func(v Node) int32 {
		h := hashNode(v)
		for _, c := range seen[h] {
			if Equal(reps[c], v) {
				return c
			}
		}
		c := int32(len(reps))
		reps = append(reps, v)
		seen[h] = append(seen[h], c)
		return c
	}
	a, b = make([]int32, n), make([]int32, m)
	for i := range a {
		a[i] = class(x.At(pre + i))
	}
	for j := range b {
		b[j] = class(y.At(pre + j))
	}
	return a, b
}

// shortest returns the fewest insertions, removals and changes that lead from
// a to b, nil where finding them would cost more than maxCells. It is the
// banded form of the Wagner-Fischer table: the band is doubled until the
// distance found lies inside it (Ukkonen 1985).
func shortest(a, b []int32) []edge {
	n, m := len(a), len(b)
	gap := n - m
	if gap < 0 {
		gap = -gap
	}
	for k := max(gap, 4); ; k *= 2 {
		k = min(k, max(n, m))
		width := 2*k + 1
		if width*(n+1) > maxCells {
			return nil
		}
		if s, dist := band(a, b, k); dist <= k || k == max(n, m) {
			return s
		}
	}
}

// band fills the cells with |i-j| <= k and walks back from the end.
func band(a, b []int32, k int) ([]edge, int) {
	n, m := len(a), len(b)
	width := 2*k + 1
	const far = 1 << 29
	prev, cur := make([]int, width+2), make([]int, width+2)
	from := make([]edge, (n+1)*width)
	for i := 0; i <= n; i++ {
		for c := range cur {
			cur[c] = far
		}
		for j := max(0, i-k); j <= min(m, i+k); j++ {
			c := j - i + k // column in the band; cur[c+1] holds it
			best, e := far, keep
			if i == 0 && j == 0 {
				best = 0
			}
			if i > 0 && j > 0 {
				if a[i-1] == b[j-1] {
					best, e = prev[c+1], keep
				} else if v := prev[c+1] + 1; v < best {
					best, e = v, change
				}
			}
			if i > 0 && c+1 < width {
				if v := prev[c+2] + 1; v < best {
					best, e = v, drop
				}
			}
			if j > 0 && c > 0 {
				if v := cur[c] + 1; v < best {
					best, e = v, grow
				}
			}
			cur[c+1] = best
			from[i*width+c] = e
		}
		prev, cur = cur, prev
	}
	dist := prev[m-n+k+1]
	if dist >= far {
		return nil, dist
	}
	var s []edge
	for i, j := n, m; i > 0 || j > 0; {
		e := from[i*width+j-i+k]
		s = append(s, e)
		switch e {
		case keep, change:
			i, j = i-1, j-1
		case drop:
			i--
		case grow:
			j--
		}
	}
	slices.Reverse(s)
	return s, dist
}
