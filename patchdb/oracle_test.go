package patchdb

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"reflect"
	"slices"
	"strconv"
	"testing"
)

// oracle is RFC 6902 once more, the plain way: on maps and slices, each
// operation by a walk from the root. It shares nothing with the package.
func oracle(t testing.TB, doc []byte, p Patch) (json.RawMessage, error) {
	t.Helper()
	root := decodePlain(t, doc)
	for _, o := range p {
		var err error
		path := mustTokens(Pointer(o.Path))
		switch o.Op {
		case "add", "replace", "remove":
			var v any
			if o.Value != nil {
				v = decodePlain(t, o.Value)
			}
			root, err = oracleEdit(root, path, o.Op, v)
		case "test":
			var v any
			if v, err = oracleGet(root, path); err == nil && !oracleEqual(v, decodePlain(t, o.Value)) {
				err = fmt.Errorf("another value")
			}
		case "move", "copy":
			from := mustTokens(Pointer(o.From))
			var v any
			if v, err = oracleGet(root, from); err != nil {
				break
			}
			v = decodePlain(t, []byte(asJSON(t, v))) // a copy of its own
			if o.Op == "move" {
				if slices.Equal(from, path) {
					break
				}
				if len(path) > len(from) && slices.Equal(path[:len(from)], from) {
					err = fmt.Errorf("into itself")
					break
				}
				if root, err = oracleEdit(root, from, "remove", nil); err != nil {
					break
				}
			}
			root, err = oracleEdit(root, path, "add", v)
		}
		if err != nil {
			return nil, err
		}
	}
	return json.RawMessage(asJSON(t, root)), nil
}

func decodePlain(t testing.TB, b []byte) any {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

func oracleGet(v any, path []string) (any, error) {
	for _, tok := range path {
		switch c := v.(type) {
		case map[string]any:
			next, ok := c[tok]
			if !ok {
				return nil, fmt.Errorf("no member %q", tok)
			}
			v = next
		case []any:
			i, err := strconv.Atoi(tok)
			if err != nil || i < 0 || i >= len(c) || strconv.Itoa(i) != tok {
				return nil, fmt.Errorf("no element %q", tok)
			}
			v = c[i]
		default:
			return nil, fmt.Errorf("scalar")
		}
	}
	return v, nil
}

func oracleEqual(a, b any) bool {
	switch a := a.(type) {
	case json.Number:
		b, ok := b.(json.Number)
		x, ok1 := new(big.Rat).SetString(a.String())
		y, ok2 := new(big.Rat).SetString(b.String())
		return ok && ok1 && ok2 && x.Cmp(y) == 0
	case []any:
		b, ok := b.([]any)
		return ok && slices.EqualFunc(a, b, oracleEqual)
	case map[string]any:
		b, ok := b.(map[string]any)
		return ok && maps.EqualFunc(a, b, oracleEqual)
	}
	return reflect.DeepEqual(a, b)
}

func oracleEdit(root any, path []string, op string, v any) (any, error) {
	if len(path) == 0 {
		return v, nil // removed: null
	}
	last := path[len(path)-1]
	parent, err := oracleGet(root, path[:len(path)-1])
	if err != nil {
		return nil, err
	}
	switch c := parent.(type) {
	case map[string]any:
		if _, ok := c[last]; !ok && op != "add" {
			return nil, fmt.Errorf("no member %q", last)
		}
		if op == "remove" {
			delete(c, last)
		} else {
			c[last] = v
		}
		return root, nil
	case []any:
		i, err := strconv.Atoi(last)
		if last == "-" && op == "add" {
			i = len(c)
		} else if err != nil || strconv.Itoa(i) != last {
			return nil, fmt.Errorf("no index %q", last)
		}
		limit := len(c)
		if op != "add" {
			limit--
		}
		if i < 0 || i > limit {
			return nil, fmt.Errorf("no element %d", i)
		}
		switch op {
		case "add":
			c = slices.Insert(c, i, v)
		case "remove":
			c = slices.Delete(c, i, i+1)
		default:
			c[i] = v
		}
		return oracleEdit(root, path[:len(path)-1], "replace", c)
	}
	return nil, fmt.Errorf("scalar")
}
