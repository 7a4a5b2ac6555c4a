package tree

import "hash/maphash"

// Equal reports whether two values are equal by RFC 6902 section 4.6: numbers
// by value, objects whatever their order. Shared parts cost nothing.
func Equal(a, b Node) bool {
	if same(a, b) {
		return true
	}
	switch a := a.(type) {
	case *Object:
		b, ok := b.(*Object)
		if !ok || a.Len() != b.Len() {
			return false
		}
		equal := true
		eachChanged(a, b, func(_ string, x, y Node) bool {
			equal = x != nil && y != nil && Equal(x, y)
			return equal
		})
		return equal
	case *Array:
		b, ok := b.(*Array)
		if !ok || a.Len() != b.Len() {
			return false
		}
		if a.root != nil && b.root != nil {
			return spanEqual(a.root, b.root)
		}
		for i, v := range a.All() {
			if !Equal(v, b.At(i)) {
				return false
			}
		}
		return true
	}
	return false
}

// spanEqual compares two spans of one length.
func spanEqual(a, b *span) bool {
	if a == b {
		return true
	}
	aligned := len(a.subs) == len(b.subs) && len(a.subs) > 0
	for i := 0; aligned && i < len(a.subs); i++ {
		aligned = a.subs[i].n == b.subs[i].n
	}
	if aligned {
		for i := range a.subs {
			if !spanEqual(a.subs[i], b.subs[i]) {
				return false
			}
		}
		return true
	}
	x, y := Array{root: a}, Array{root: b}
	for i, v := range x.All() {
		if !Equal(v, y.At(i)) {
			return false
		}
	}
	return true
}

// eachChanged yields the members that are not one and the same in both, nil
// for an absent side, until told to stop. First what a has in a's order, then
// what only b has in b's order, where both are small; tries skip what they share.
func eachChanged(a, b *Object, yield func(key string, x, y Node) bool) {
	if a.root != nil && b.root != nil {
		c := changes{a, b, yield}
		c.tries(a.root, b.root)
		return
	}
	for m := range a.Members() {
		if y := b.Get(m.Key); y == nil || !same(m.Val, y) {
			if !yield(m.Key, m.Val, y) {
				return
			}
		}
	}
	for m := range b.Members() {
		if a.Get(m.Key) == nil && !yield(m.Key, nil, m.Val) {
			return
		}
	}
}

type changes struct {
	a, b  *Object
	yield func(key string, x, y Node) bool
}

func (c *changes) tries(a, b *trie) bool {
	if a == b {
		return true
	}
	if a.entryMap|a.subMap == 0 || b.entryMap|b.subMap == 0 {
		// An empty side, or lists past the hash: compare member by member.
		return c.left(a) && c.right(b)
	}
	for m := a.entryMap | a.subMap | b.entryMap | b.subMap; m != 0; m &= m - 1 {
		bit := m & -m
		as, bs := a.sub(bit), b.sub(bit)
		if as != nil && bs != nil {
			if !c.tries(as, bs) {
				return false
			}
			continue
		}
		if as != nil && !c.left(as) || bs != nil && !c.right(bs) {
			return false
		}
		if e := a.entry(bit); e != nil && !c.leftEntry(e) {
			return false
		}
		if e := b.entry(bit); e != nil && !c.rightEntry(e) {
			return false
		}
	}
	return true
}

func (t *trie) sub(bit uint32) *trie {
	if t.subMap&bit == 0 {
		return nil
	}
	return t.subs[slot(t.subMap, bit)]
}

func (t *trie) entry(bit uint32) *entry {
	if t.entryMap&bit == 0 {
		return nil
	}
	return &t.entries[slot(t.entryMap, bit)]
}

func (c *changes) left(t *trie) bool  { return t.each(c.leftEntry) }
func (c *changes) right(t *trie) bool { return t.each(c.rightEntry) }

func (c *changes) leftEntry(e *entry) bool {
	y := c.b.Get(e.Key)
	return y != nil && same(e.Val, y) || c.yield(e.Key, e.Val, y)
}

func (c *changes) rightEntry(e *entry) bool {
	return c.a.Get(e.Key) != nil || c.yield(e.Key, nil, e.Val)
}

// hashNode is a hash under which equal values meet.
func hashNode(n Node) uint64 {
	switch n := n.(type) {
	case Null:
		return maphash.String(seed, "n")
	case Bool:
		if n {
			return maphash.String(seed, "t")
		}
		return maphash.String(seed, "f")
	case Number:
		return maphash.Comparable(seed, parseDecimal(string(n)))
	case String:
		return maphash.String(seed, string(n)) * 3
	case *Array:
		h := uint64(n.Len())*0x9e3779b97f4a7c15 + 1
		for _, v := range n.All() {
			h = mix(h ^ hashNode(v))
		}
		return h
	case *Object:
		h := uint64(n.Len()) + 2
		each := func(key string, v Node) { h += mix(hashKey(key) ^ mix(hashNode(v))) }
		if n.root != nil {
			for e := range n.root.all() {
				each(e.Key, e.Val)
			}
		} else {
			for _, m := range n.small {
				each(m.Key, m.Val)
			}
		}
		return mix(h)
	}
	return 0
}

func mix(h uint64) uint64 {
	h ^= h >> 32
	h *= 0xd6e8feb86659fd93
	h ^= h >> 29
	return h
}
