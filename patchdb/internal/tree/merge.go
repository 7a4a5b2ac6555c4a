package tree

// Merge returns node with the change from before to after done to it. before is
// what someone made of node, and may be less: what it leaves out stays.
func Merge(node, before, after Node) Node {
	if Equal(before, after) {
		return node
	}
	switch n := node.(type) {
	case *Object:
		b, ok1 := before.(*Object)
		a, ok2 := after.(*Object)
		if ok1 && ok2 {
			return mergeObject(n, b, a)
		}
	case *Array:
		b, ok1 := before.(*Array)
		a, ok2 := after.(*Array)
		if ok1 && ok2 && n.Len() == b.Len() {
			return mergeArray(n, b, a)
		}
	}
	return after
}

func mergeObject(n, before, after *Object) *Object {
	eachChanged(before, after, func(key string, was, now Node) bool {
		old := n.Get(key)
		switch {
		case now == nil:
			n, _ = n.Without(key)
		case was != nil && old != nil:
			n = n.With(key, Merge(old, was, now))
		case was == nil || !Equal(was, now):
			n = n.With(key, now)
		}
		return true
	})
	return n
}

func mergeArray(n, before, after *Array) Node {
	pre, script := align(before, after)
	if script == nil {
		return after
	}
	at, i, j := pre, pre, pre // in the result, before, after
	for _, e := range script {
		switch e {
		case keep:
			at, i, j = at+1, i+1, j+1
		case change:
			n = n.With(at, Merge(n.At(at), before.At(i), after.At(j)))
			at, i, j = at+1, i+1, j+1
		case drop:
			n, _ = n.Delete(at)
			i++
		case grow:
			n = n.Insert(at, after.At(j))
			at, j = at+1, j+1
		}
	}
	return n
}
