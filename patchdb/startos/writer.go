package startos

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"

	"github.com/selfstead/selfstead/patchdb"
	"github.com/selfstead/selfstead/patchdb/internal/tree"
)

// writer appends items to b, until the first error.
type writer struct {
	b   []byte
	err error
}

// head appends an initial byte with its argument in the shortest form.
func head(b []byte, major byte, n uint64) []byte {
	major <<= 5
	switch {
	case n < 24:
		return append(b, major|byte(n))
	case n < 1<<8:
		return append(b, major|24, byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(b, major|25), uint16(n))
	case n < 1<<32:
		return binary.BigEndian.AppendUint32(append(b, major|26), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(b, major|27), n)
}

func (w *writer) text(s string) { w.b = append(head(w.b, majorText, uint64(len(s))), s...) }

func (w *writer) node(n tree.Node) {
	switch n := n.(type) {
	case tree.Null:
		w.b = append(w.b, 0xf6)
	case tree.Bool:
		if n {
			w.b = append(w.b, 0xf5)
		} else {
			w.b = append(w.b, 0xf4)
		}
	case tree.String:
		w.text(string(n))
	case tree.Number:
		w.number(string(n))
	case *tree.Array:
		w.b = head(w.b, majorArray, uint64(n.Len()))
		for _, v := range n.All() {
			w.node(v)
		}
	case *tree.Object:
		w.b = head(w.b, majorMap, uint64(n.Len()))
		for m := range n.Members() {
			w.text(m.Key)
			w.node(m.Val)
		}
	}
}

func (w *writer) number(s string) {
	if w.err != nil {
		return
	}
	if !strings.ContainsAny(s, ".eE") {
		if u, err := strconv.ParseUint(s, 10, 64); err == nil {
			w.b = head(w.b, majorUint, u)
			return
		}
		if i, err := strconv.ParseInt(s, 10, 64); err == nil && i < 0 {
			w.b = head(w.b, 1, uint64(-1-i))
			return
		}
	}
	f, err := strconv.ParseFloat(s, 64)
	if err == nil && s != "-0" && !tree.Equal(tree.Number(strconv.FormatFloat(f, 'g', -1, 64)), tree.Number(s)) {
		err = strconv.ErrRange
	}
	var b []byte
	if err == nil {
		b, err = float.Marshal(f)
	}
	if err != nil {
		w.err = fmt.Errorf("startos: number %s cannot be kept exactly: neither an integer from -2^63 to 2^64-1 nor a float64", s)
		return
	}
	w.b = append(w.b, b...)
}

func (w *writer) patch(p patchdb.Patch) {
	w.b = head(w.b, majorArray, uint64(len(p)))
	for _, o := range p {
		n := uint64(3)
		if o.Op == "remove" {
			n = 2
		}
		w.b = head(w.b, majorMap, n)
		w.text("op")
		w.text(o.Op)
		w.text("path")
		w.text(o.Path)
		switch o.Op {
		case "add", "replace":
			v, err := tree.Parse(o.Value)
			if err != nil {
				w.err = fmt.Errorf("startos: %s %q: %w", o.Op, o.Path, err)
				return
			}
			w.text("value")
			w.node(v)
		case "remove":
		default:
			w.err = fmt.Errorf("startos: %s %q: the format has add, replace and remove only", o.Op, o.Path)
			return
		}
	}
}
