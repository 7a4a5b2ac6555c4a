package startos

import (
	"encoding/binary"
	"math"
	"strconv"
	"strings"

	"github.com/fxamacker/cbor/v2"

	"github.com/selfstead/selfstead/patchdb"
	"github.com/selfstead/selfstead/patchdb/internal/tree"
)

// CBOR major types (RFC 8949 section 3.1).
const (
	majorUint  = 0
	majorText  = 3
	majorArray = 4
	majorMap   = 5
)

var strict = func() cbor.DecMode {
	m, err := cbor.DecOptions{UTF8: cbor.UTF8RejectInvalid, IntDec: cbor.IntDecConvertNone}.DecMode()
	if err != nil {
		panic(err) // the options are constant
	}
	return m
}()

// reader takes items off the front of rest; where one cannot be read rest stays.
type reader struct {
	rest  []byte
	depth int
}

// whole runs fn, and takes back what it took where it failed.
func whole[T any](r *reader, fn func() (T, bool)) (T, bool) {
	saved := r.rest
	v, ok := fn()
	if !ok {
		r.rest, r.depth = saved, 0
	}
	return v, ok
}

func (r *reader) revision() (uint64, bool) {
	if len(r.rest) == 0 || r.rest[0]>>5 != majorUint {
		return 0, false
	}
	return r.head()
}

func (r *reader) item() (tree.Node, bool) { return whole(r, r.value) }

// patch reads one array of operations.
func (r *reader) patch() ([]tree.Op, bool) {
	return whole(r, func() ([]tree.Op, bool) {
		v, ok := r.value()
		if !ok {
			return nil, false
		}
		a, ok := v.(*tree.Array)
		if !ok {
			return nil, false
		}
		ops := make([]tree.Op, 0, a.Len())
		for _, n := range a.All() {
			o, ok := operation(n)
			if !ok {
				return nil, false
			}
			ops = append(ops, o)
		}
		return ops, true
	})
}

func operation(n tree.Node) (tree.Op, bool) {
	var op tree.Op
	o, ok := n.(*tree.Object)
	if !ok {
		return op, false
	}
	name, _ := o.Get("op").(tree.String)
	path, ok := o.Get("path").(tree.String)
	if !ok {
		return op, false
	}
	switch name {
	case "add":
		op.Verb = tree.VerbAdd
	case "replace":
		op.Verb = tree.VerbReplace
	case "remove":
		op.Verb = tree.VerbRemove
	default:
		return op, false
	}
	if op.Verb != tree.VerbRemove {
		if op.Val = o.Get("value"); op.Val == nil {
			return op, false
		}
	}
	var err error
	op.Path, err = patchdb.Pointer(path).Tokens()
	return op, err == nil
}

// head reads an initial byte and its argument.
func (r *reader) head() (uint64, bool) {
	if len(r.rest) == 0 {
		return 0, false
	}
	low := r.rest[0] & 31
	if low < 24 {
		r.rest = r.rest[1:]
		return uint64(low), true
	}
	n := 1 << (low - 24)
	if low > 27 || len(r.rest) < 1+n {
		return 0, false
	}
	var full [8]byte
	copy(full[8-n:], r.rest[1:1+n])
	r.rest = r.rest[1+n:]
	return binary.BigEndian.Uint64(full[:]), true
}

const breakByte = 0xff

// count reads the head of an array or map; -1 where a break ends it.
func (r *reader) count() (int, bool) {
	if r.rest[0]&31 == 31 {
		r.rest = r.rest[1:]
		return -1, true
	}
	n, ok := r.head()
	return int(n), ok && n <= uint64(len(r.rest)) // each element takes a byte
}

// more reports whether an array or map of n elements goes on after i.
func (r *reader) more(i, n int) bool {
	if n >= 0 {
		return i < n
	}
	if len(r.rest) > 0 && r.rest[0] == breakByte {
		r.rest = r.rest[1:]
		return false
	}
	return true
}

func (r *reader) value() (tree.Node, bool) {
	if len(r.rest) == 0 || r.depth > tree.MaxDepth {
		return nil, false
	}
	switch r.rest[0] >> 5 {
	case majorArray:
		n, ok := r.count()
		if !ok {
			return nil, false
		}
		r.depth++
		var elems []tree.Node
		for i := 0; r.more(i, n); i++ {
			v, ok := r.value()
			if !ok {
				return nil, false
			}
			elems = append(elems, v)
		}
		r.depth--
		return tree.NewArray(elems), true
	case majorMap:
		n, ok := r.count()
		if !ok {
			return nil, false
		}
		r.depth++
		var members []tree.Member
		for i := 0; r.more(i, n); i++ {
			key, ok := r.scalar()
			name, text := key.(tree.String)
			if !ok || !text {
				return nil, false
			}
			v, ok := r.value()
			if !ok {
				return nil, false
			}
			members = append(members, tree.Member{Key: string(name), Val: v})
		}
		r.depth--
		return tree.NewObject(members), true
	}
	return r.scalar()
}

func (r *reader) scalar() (tree.Node, bool) {
	if len(r.rest) == 0 || r.rest[0] == breakByte || r.rest[0]>>5 == majorMap || r.rest[0]>>5 == majorArray {
		return nil, false
	}
	var v any
	rest, err := strict.UnmarshalFirst(r.rest, &v)
	if err != nil {
		return nil, false
	}
	var n tree.Node
	switch v := v.(type) {
	case nil: // null and undefined
		n = tree.Null{}
	case bool:
		n = tree.Bool(v)
	case string:
		n = tree.String(v)
	case uint64:
		n = tree.Number(strconv.FormatUint(v, 10))
	case int64:
		n = tree.Number(strconv.FormatInt(v, 10))
	case float64:
		n = floatNode(v)
	default:
		return nil, false
	}
	r.rest = rest
	return n, true
}

// floatNode keeps a float a float: with a point or an exponent in its text. JSON
// has no infinity and no NaN; the reference makes them null.
func floatNode(v float64) tree.Node {
	if math.IsInf(v, 0) || math.IsNaN(v) {
		return tree.Null{}
	}
	format := byte('f')
	if a := math.Abs(v); a != 0 && (a < 1e-6 || a >= 1e21) {
		format = 'e'
	}
	s := strconv.FormatFloat(v, format, -1, 64)
	if !strings.ContainsAny(s, ".e") {
		s += ".0"
	}
	return tree.Number(s)
}
