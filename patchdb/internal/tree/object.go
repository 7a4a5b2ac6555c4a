package tree

import (
	"hash/maphash"
	"iter"
	"math/bits"
	"slices"
)

// Member is one name and value of an Object.
type Member struct {
	Key string
	Val Node
}

// smallObject is the largest member count kept as a plain list; above it an
// edit would copy more than a few cache lines, and a trie wins.
const smallObject = 16

// Object is an immutable JSON object.
type Object struct {
	size   int
	height uint16
	next   uint32   // order number for the next new member of a trie
	small  []Member // in order; used while root is nil
	root   *trie
}

// Size implements Node.
func (o *Object) Size() int { return o.size }

// Height implements Node.
func (o *Object) Height() int { return int(o.height) }

// Len is the number of members.
func (o *Object) Len() int {
	if o.root != nil {
		return int(o.root.count)
	}
	return len(o.small)
}

// NewObject makes an object of members in their order; of several with one
// name the last value stays, at the first one's place. It keeps members.
func NewObject(members []Member) *Object {
	o := &Object{size: 2}
	if len(members) <= smallObject {
		o.small = members[:0]
		for _, m := range members {
			if i := indexMember(o.small, m.Key); i >= 0 {
				o.small[i].Val = m.Val
			} else {
				o.small = append(o.small, m)
			}
		}
		for _, m := range o.small {
			o.account(m)
		}
		o.small = slices.Clip(o.small)
	} else {
		o.root = &trie{}
		for _, m := range members {
			o.root, _ = o.root.set(hashKey(m.Key), 0, entry{m, o.next}, true)
			o.next++
		}
		for m := range o.root.all() {
			o.account(m.Member)
		}
	}
	if n := o.Len(); n > 0 {
		o.size += n - 1
	}
	return o
}

func (o *Object) account(m Member) {
	o.size += quotedLen(m.Key) + 1 + m.Val.Size()
	o.height = max(o.height, uint16(m.Val.Height()+1))
}

// Get returns the member's value, nil where there is none.
func (o *Object) Get(key string) Node {
	if o.root != nil {
		if e := o.root.get(hashKey(key), 0, key); e != nil {
			return e.Val
		}
		return nil
	}
	if i := indexMember(o.small, key); i >= 0 {
		return o.small[i].Val
	}
	return nil
}

// With returns the object with the member set; an existing one keeps its place.
func (o *Object) With(key string, val Node) *Object {
	n := &Object{size: o.size, height: max(o.height, uint16(val.Height()+1)), next: o.next}
	var old Node
	switch {
	case o.root != nil:
		n.root, old = o.root.set(hashKey(key), 0, entry{Member{key, val}, o.next}, false)
		n.next++
	default:
		i := indexMember(o.small, key)
		switch {
		case i >= 0:
			old = o.small[i].Val
			n.small = slices.Clone(o.small)
			n.small[i].Val = val
		case len(o.small) < smallObject:
			n.small = make([]Member, len(o.small)+1)
			copy(n.small, o.small)
			n.small[len(o.small)] = Member{key, val}
		default:
			return NewObject(append(slices.Clone(o.small), Member{key, val}))
		}
	}
	if old != nil {
		n.size += val.Size() - old.Size()
	} else {
		n.size += quotedLen(key) + 1 + val.Size()
		if o.Len() > 0 {
			n.size++
		}
	}
	return n
}

// Without returns the object less one member, and the member's value; nil
// where there was none.
func (o *Object) Without(key string) (*Object, Node) {
	old := o.Get(key)
	if old == nil {
		return o, nil
	}
	n := &Object{size: o.size - quotedLen(key) - 1 - old.Size(), height: o.height, next: o.next}
	if o.Len() > 1 {
		n.size--
	}
	if o.root != nil {
		n.root = o.root.del(hashKey(key), 0, key)
		if n.root.count <= smallObject/2 {
			members := make([]Member, 0, n.root.count)
			for m := range o.Members() {
				if m.Key != key {
					members = append(members, m)
				}
			}
			n.root, n.small, n.next = nil, members, 0
		}
		return n, old
	}
	i := indexMember(o.small, key)
	n.small = make([]Member, 0, len(o.small)-1)
	n.small = append(append(n.small, o.small[:i]...), o.small[i+1:]...)
	return n, old
}

// Members yields the members in order.
func (o *Object) Members() iter.Seq[Member] {
	if o.root == nil {
		return slices.Values(o.small)
	}
	return func(yield func(Member) bool) {
		all := make([]*entry, 0, o.root.count)
		for e := range o.root.all() {
			all = append(all, e)
		}
		slices.SortFunc(all, func(a, b *entry) int { return int(int64(a.seq) - int64(b.seq)) })
		for _, e := range all {
			if !yield(e.Member) {
				return
			}
		}
	}
}

func indexMember(ms []Member, key string) int {
	for i := range ms {
		if ms[i].Key == key {
			return i
		}
	}
	return -1
}

// The trie: five bits of the name's hash a level, entries and subtries in
// separate packed lists (the CHAMP layout). Past the hash's last bits a node
// is a plain list.
const (
	trieBits = 5
	lastTrie = 60 // shift at which the hash is used up
)

var seed = maphash.MakeSeed()

func hashKey(key string) uint64 { return maphash.String(seed, key) }

type entry struct {
	Member
	seq uint32
}

type trie struct {
	entryMap, subMap uint32
	count            uint32
	entries          []entry
	subs             []*trie
}

func slot(m, bit uint32) int { return bits.OnesCount32(m & (bit - 1)) }

func (t *trie) get(hash uint64, shift uint, key string) *entry {
	for ; shift < lastTrie; shift += trieBits {
		bit := uint32(1) << (hash >> shift & 31)
		if t.subMap&bit != 0 {
			t = t.subs[slot(t.subMap, bit)]
			continue
		}
		if t.entryMap&bit != 0 {
			if e := &t.entries[slot(t.entryMap, bit)]; e.Key == key {
				return e
			}
		}
		return nil
	}
	for i := range t.entries {
		if t.entries[i].Key == key {
			return &t.entries[i]
		}
	}
	return nil
}

// set adds or replaces an entry, keeping the place of an existing one, and
// returns the value that it replaced. With own the trie is changed in place:
// for one that nobody else has seen.
func (t *trie) set(hash uint64, shift uint, e entry, own bool) (*trie, Node) {
	if !own {
		c := *t
		t = &c
	}
	if shift >= lastTrie {
		for i := range t.entries {
			if t.entries[i].Key == e.Key {
				old := t.entries[i].Val
				t.entries = edited(t.entries, own)
				t.entries[i].Val = e.Val
				return t, old
			}
		}
		t.entries = append(slices.Clip(t.entries), e)
		t.count++
		return t, nil
	}
	bit := uint32(1) << (hash >> shift & 31)
	switch {
	case t.subMap&bit != 0:
		i := slot(t.subMap, bit)
		sub, old := t.subs[i].set(hash, shift+trieBits, e, own)
		t.subs = edited(t.subs, own)
		t.subs[i] = sub
		if old == nil {
			t.count++
		}
		return t, old
	case t.entryMap&bit == 0:
		i := slot(t.entryMap, bit)
		t.entryMap |= bit
		t.entries = inserted(t.entries, i, e)
		t.count++
		return t, nil
	}
	i := slot(t.entryMap, bit)
	if t.entries[i].Key == e.Key {
		old := t.entries[i].Val
		t.entries = edited(t.entries, own)
		t.entries[i].Val = e.Val
		return t, old
	}
	sub := &trie{}
	sub, _ = sub.set(hashKey(t.entries[i].Key), shift+trieBits, t.entries[i], true)
	sub, _ = sub.set(hash, shift+trieBits, e, true)
	t.entries = removed(t.entries, i)
	t.entryMap &^= bit
	t.subs = inserted(t.subs, slot(t.subMap, bit), sub)
	t.subMap |= bit
	t.count++
	return t, nil
}

// del removes an entry that is there.
func (t *trie) del(hash uint64, shift uint, key string) *trie {
	c := *t
	c.count--
	if shift >= lastTrie {
		i := slices.IndexFunc(t.entries, func(e entry) bool { return e.Key == key })
		c.entries = removed(t.entries, i)
		return &c
	}
	bit := uint32(1) << (hash >> shift & 31)
	if t.subMap&bit == 0 {
		c.entries = removed(t.entries, slot(t.entryMap, bit))
		c.entryMap &^= bit
		return &c
	}
	i := slot(t.subMap, bit)
	sub := t.subs[i].del(hash, shift+trieBits, key)
	if sub.count > 1 || len(sub.subs) > 0 {
		c.subs = edited(t.subs, false)
		c.subs[i] = sub
		return &c
	}
	c.subs = removed(t.subs, i)
	c.subMap &^= bit
	if sub.count == 1 {
		c.entries = inserted(t.entries, slot(t.entryMap, bit), sub.entries[0])
		c.entryMap |= bit
	}
	return &c
}

// all yields every entry, in no order that means anything.
func (t *trie) all() iter.Seq[*entry] {
	return func(yield func(*entry) bool) { t.each(yield) }
}

func (t *trie) each(yield func(*entry) bool) bool {
	for i := range t.entries {
		if !yield(&t.entries[i]) {
			return false
		}
	}
	for _, s := range t.subs {
		if !s.each(yield) {
			return false
		}
	}
	return true
}

func edited[T any](s []T, own bool) []T {
	if own {
		return s
	}
	return slices.Clone(s)
}

func inserted[T any](s []T, i int, v T) []T {
	r := make([]T, len(s)+1)
	copy(r, s[:i])
	r[i] = v
	copy(r[i+1:], s[i:])
	return r
}

func removed[T any](s []T, i int) []T {
	r := make([]T, len(s)-1)
	copy(r, s[:i])
	copy(r[i:], s[i+1:])
	return r
}
