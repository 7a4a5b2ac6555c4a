package exver

import (
	"slices"
	"sort"
)

// Satisfiable says whether any version could be in the range. Between any two
// versions there is taken to be another.
func (r Range) Satisfiable() bool {
	var anchors []ExtendedVersion
	flavors := map[string]bool{}
	r.leaves(func(leaf Range) {
		if leaf.kind == kindAnchor {
			anchors = append(anchors, leaf.version)
		}
		if leaf.version.Flavored {
			flavors[leaf.version.Flavor] = true
		}
	})
	if r.satisfiableIn(ExtendedVersion{}, anchors) {
		return true
	}
	for f := range flavors {
		if r.satisfiableIn(ExtendedVersion{Flavor: f, Flavored: true}, anchors) {
			return true
		}
	}
	other := "x" // a flavor that is not named
	for flavors[other] {
		other += "x"
	}
	return r.satisfiableIn(ExtendedVersion{Flavor: other, Flavored: true}, anchors)
}

// Intersects says whether a version could be in both ranges.
func (r Range) Intersects(o Range) bool { return And(r, o).Satisfiable() }

func (r Range) leaves(fn func(Range)) {
	switch r.kind {
	case kindAnchor, kindFlavor:
		fn(r)
	case kindAnd, kindOr:
		r.a.leaves(fn)
		r.b.leaves(fn)
	case kindNot:
		r.a.leaves(fn)
	}
}

// satisfiableIn tries, within one flavor, each anchored version and a point in
// each gap around them: position 2i+1 is the i-th version, 2i the gap below it.
func (r Range) satisfiableIn(flavor ExtendedVersion, anchors []ExtendedVersion) bool {
	var points []ExtendedVersion
	for _, v := range anchors {
		if v.SameFlavor(flavor) {
			points = append(points, v)
		}
	}
	slices.SortFunc(points, ExtendedVersion.CompareTotal)
	points = slices.CompactFunc(points, ExtendedVersion.Equal)
	index := func(v ExtendedVersion) int {
		return sort.Search(len(points), func(i int) bool { return points[i].CompareTotal(v) >= 0 })
	}
	for pos := range 2*len(points) + 1 {
		in := r.eval(func(leaf Range) bool {
			switch {
			case leaf.kind == kindFlavor:
				return leaf.version.SameFlavor(flavor)
			case !leaf.version.SameFlavor(flavor):
				return leaf.op == OpNotEqual
			}
			return leaf.op.holds(pos - (2*index(leaf.version) + 1))
		})
		if in {
			return true
		}
	}
	return false
}
