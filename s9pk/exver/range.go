package exver

import (
	"strings"
)

// Op is the comparison of an anchor.
type Op string

// The comparisons.
const (
	OpEqual        Op = "="
	OpNotEqual     Op = "!="
	OpLess         Op = "<"
	OpLessEqual    Op = "<="
	OpGreater      Op = ">"
	OpGreaterEqual Op = ">="
)

func (o Op) holds(c int) bool {
	switch o {
	case OpEqual:
		return c == 0
	case OpNotEqual:
		return c != 0
	case OpLess:
		return c < 0
	case OpLessEqual:
		return c <= 0
	case OpGreater:
		return c > 0
	}
	return c >= 0
}

type rangeKind uint8

const (
	kindAny rangeKind = iota // the zero Range
	kindNone
	kindAnchor
	kindFlavor
	kindAnd
	kindOr
	kindNot
)

// Range is a set of versions. The zero value is every version. A Range is
// immutable and may be shared.
type Range struct {
	kind rangeKind
	op   Op
	// anchor: what is compared with; flavor: only its flavor counts
	version ExtendedVersion
	a, b    *Range
}

// Any is every version, "*".
func Any() Range { return Range{} }

// None is no version, "!".
func None() Range { return Range{kind: kindNone} }

// Anchor is the versions that compare with v as op says. Versions of another
// flavor are never in it, except with OpNotEqual always.
func Anchor(op Op, v ExtendedVersion) Range { return Range{kind: kindAnchor, op: op, version: v} }

// Exactly is the versions equal to v.
func Exactly(v ExtendedVersion) Range { return Anchor(OpEqual, v) }

// OfFlavor is every version of a flavor.
func OfFlavor(flavor string) Range {
	return Range{kind: kindFlavor, version: ExtendedVersion{Flavor: flavor, Flavored: true}}
}

// Unflavored is every version without a flavor, "#".
func Unflavored() Range { return Range{kind: kindFlavor} }

// Caret is v and what is compatible with it: up to the next change of the first
// number that is not zero. ok is false where that number cannot grow.
func Caret(v ExtendedVersion) (r Range, ok bool) {
	n := v.Upstream.significant()
	k := firstNonZero(n)
	return between(v, append(append([]uint64(nil), n[:k]...), n[k]), len(n[:k]))
}

// Tilde is v and later changes of the numbers behind the one after the first
// that is not zero. ok is false where that number cannot grow.
func Tilde(v ExtendedVersion) (r Range, ok bool) {
	n := v.Upstream.significant()
	k := firstNonZero(n)
	return between(v, append(append([]uint64(nil), n[:k+1]...), at(n, k+1)), k+1)
}

func firstNonZero(n []uint64) int {
	for i, v := range n {
		if v != 0 {
			return i
		}
	}
	return len(n) - 1
}

// between is >=v and below the numbers with the one at bump raised; the upper
// bound keeps v's flavor and prerelease.
func between(v ExtendedVersion, numbers []uint64, bump int) (Range, bool) {
	if numbers[bump]++; numbers[bump] == 0 {
		return Range{}, false
	}
	upper := ExtendedVersion{Flavor: v.Flavor, Flavored: v.Flavored,
		Upstream:   Version{Numbers: numbers, Prerelease: v.Upstream.Prerelease},
		Downstream: Version{Numbers: []uint64{0}}}
	return And(Anchor(OpGreaterEqual, v), Anchor(OpLess, upper)), true
}

// And is what is in both; "*" and "!" fold away.
func And(a, b Range) Range {
	switch {
	case a.kind == kindAny:
		return b
	case b.kind == kindAny:
		return a
	case a.kind == kindNone || b.kind == kindNone:
		return None()
	}
	return Range{kind: kindAnd, a: &a, b: &b}
}

// Or is what is in either; "*" and "!" fold away.
func Or(a, b Range) Range {
	switch {
	case a.kind == kindAny || b.kind == kindAny:
		return Any()
	case a.kind == kindNone:
		return b
	case b.kind == kindNone:
		return a
	}
	return Range{kind: kindOr, a: &a, b: &b}
}

// Not is everything else, of every flavor.
func Not(r Range) Range {
	switch r.kind {
	case kindAny:
		return None()
	case kindNone:
		return Any()
	case kindNot:
		return *r.a
	case kindAnd:
		a, b := Not(*r.a), Not(*r.b)
		return Range{kind: kindOr, a: &a, b: &b}
	case kindOr:
		a, b := Not(*r.a), Not(*r.b)
		return Range{kind: kindAnd, a: &a, b: &b}
	case kindAnchor:
		switch r.op {
		case OpEqual:
			return Anchor(OpNotEqual, r.version)
		case OpNotEqual:
			return Anchor(OpEqual, r.version)
		}
	}
	return Range{kind: kindNot, a: &r}
}

// Satisfies says whether v is in the range.
func (r Range) Satisfies(v ExtendedVersion) bool {
	return r.eval(func(leaf Range) bool {
		if leaf.kind == kindFlavor {
			return leaf.version.SameFlavor(v)
		}
		c, ok := v.Compare(leaf.version)
		if !ok {
			return leaf.op == OpNotEqual
		}
		return leaf.op.holds(c)
	})
}

func (r Range) eval(leaf func(Range) bool) bool {
	switch r.kind {
	case kindAny:
		return true
	case kindNone:
		return false
	case kindAnd:
		return r.a.eval(leaf) && r.b.eval(leaf)
	case kindOr:
		return r.a.eval(leaf) || r.b.eval(leaf)
	case kindNot:
		return !r.a.eval(leaf)
	}
	return leaf(r)
}

// String prints the range: conditions that all hold side by side, alternatives
// with ||, anything nested in parentheses.
func (r Range) String() string {
	var b strings.Builder
	r.print(&b)
	return b.String()
}

func (r Range) print(b *strings.Builder) {
	switch r.kind {
	case kindAny:
		b.WriteByte('*')
	case kindNone:
		b.WriteByte('!')
	case kindAnchor:
		b.WriteString(string(r.op) + r.version.String())
	case kindFlavor:
		b.WriteString("#" + r.version.Flavor)
	case kindAnd:
		r.a.printChild(b)
		b.WriteByte(' ')
		r.b.printChild(b)
	case kindOr:
		r.a.printChild(b)
		b.WriteString(" || ")
		r.b.printChild(b)
	case kindNot:
		b.WriteByte('!')
		r.a.printChild(b)
	}
}

func (r Range) printChild(b *strings.Builder) {
	switch r.kind {
	case kindAny, kindNone, kindAnchor:
		r.print(b)
		return
	}
	b.WriteByte('(')
	r.print(b)
	b.WriteByte(')')
}

// MarshalText prints the range.
func (r Range) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText is ParseRange.
func (r *Range) UnmarshalText(text []byte) (err error) {
	*r, err = ParseRange(string(text))
	return err
}
