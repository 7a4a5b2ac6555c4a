package tree

import (
	"errors"
	"strconv"
)

// Limits that keep recursion and memory bounded whatever a patch says.
const (
	MaxDepth = 1000    // nesting of containers
	MaxSize  = 1 << 30 // bytes of JSON text
)

// What an edit or a parse can stop at. Package patchdb wraps them.
var (
	ErrNotFound = errors.New("no such member or element")
	ErrIndex    = errors.New("bad array index")
	ErrScalar   = errors.New("parent is neither object nor array")
	ErrDepth    = errors.New("nested deeper than " + strconv.Itoa(MaxDepth))
	ErrSize     = errors.New("document larger than " + strconv.Itoa(MaxSize) + " bytes")
)

// Node is one JSON value: Null, Bool, Number, String, *Object or *Array.
type Node interface {
	// Size is the length of the value's compact JSON text.
	Size() int
	// Height is an upper bound of the nesting below and including the value; 0 for scalars.
	Height() int
}

// Null is JSON null.
type Null struct{}

// Bool is JSON true or false.
type Bool bool

// Number is the text of a JSON number.
type Number string

// String is the decoded text of a JSON string: valid UTF-8.
type String string

// Size implements Node.
func (Null) Size() int { return 4 }

// Height implements Node.
func (Null) Height() int { return 0 }

// Size implements Node.
func (b Bool) Size() int {
	if b {
		return 4
	}
	return 5
}

// Height implements Node.
func (Bool) Height() int { return 0 }

// Size implements Node.
func (n Number) Size() int { return len(n) }

// Height implements Node.
func (Number) Height() int { return 0 }

// Size implements Node.
func (s String) Size() int { return quotedLen(string(s)) }

// Height implements Node.
func (String) Height() int { return 0 }

// Len is the number of members or elements, 0 for scalars.
func Len(n Node) int {
	switch n := n.(type) {
	case *Object:
		return n.Len()
	case *Array:
		return n.Len()
	}
	return 0
}

// same reports whether two nodes are one and the same without looking inside
// containers; scalars are compared by value.
func same(a, b Node) bool {
	switch a := a.(type) {
	case *Object:
		b, ok := b.(*Object)
		return ok && a == b
	case *Array:
		b, ok := b.(*Array)
		return ok && a == b
	case Number:
		b, ok := b.(Number)
		return ok && (a == b || numberEqual(string(a), string(b)))
	default:
		return a == b
	}
}
