package tree

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

var words = []string{"", "a", "b", "a/b", "m~n", "ä", "0", "1", "-", "long name of a member"}

// randomNode makes a value of few different parts, so that parts come again.
func randomNode(r *rand.Rand, depth int) Node {
	n := r.IntN(10)
	if depth <= 0 {
		n = r.IntN(6)
	}
	switch {
	case n == 0:
		return Null{}
	case n == 1:
		return Bool(r.IntN(2) == 0)
	case n < 4:
		return Number([]string{"0", "1", "2.5", "-3", "1e3", "18446744073709551615"}[r.IntN(6)])
	case n < 6:
		return String(words[r.IntN(len(words))])
	case n < 8:
		elems := make([]Node, r.IntN(8))
		if r.IntN(20) == 0 {
			elems = make([]Node, r.IntN(100))
		}
		for i := range elems {
			elems[i] = randomNode(r, depth-1-len(elems)/20)
		}
		return NewArray(elems)
	}
	members := make([]Member, r.IntN(8))
	if r.IntN(20) == 0 {
		members = make([]Member, r.IntN(60))
	}
	for i := range members {
		key := words[r.IntN(len(words))]
		if len(members) > 8 {
			key = fmt.Sprint(r.IntN(80))
		}
		members[i] = Member{key, randomNode(r, depth-1-len(members)/20)}
	}
	return NewObject(members)
}

// nudge changes a value a little.
func nudge(r *rand.Rand, n Node) Node {
	switch c := n.(type) {
	case *Object:
		for m := range c.Members() {
			if r.IntN(3) == 0 {
				c = c.With(m.Key, nudge(r, m.Val))
			} else if r.IntN(8) == 0 {
				c, _ = c.Without(m.Key)
			}
		}
		if r.IntN(3) == 0 {
			c = c.With(words[r.IntN(len(words))], randomNode(r, 2))
		}
		return c
	case *Array:
		for i := range c.Len() {
			if r.IntN(4) == 0 {
				c = c.With(i, nudge(r, c.At(i)))
			}
		}
		for range r.IntN(3) {
			c = c.Insert(r.IntN(c.Len()+1), randomNode(r, 2))
		}
		for range r.IntN(3) {
			if c.Len() > 0 {
				c, _ = c.Delete(r.IntN(c.Len()))
			}
		}
		return c
	}
	if r.IntN(2) == 0 {
		return randomNode(r, 1)
	}
	return n
}

func applyOps(t testing.TB, n Node, ops []Op) Node {
	t.Helper()
	for i, o := range ops {
		val := o.Val
		m, ch, err := Edit(n, o.Path, o.Verb, val)
		if err != nil {
			t.Fatalf("op %d of %v: %v", i, ops, err)
		}
		if ch.Verb != o.Verb {
			t.Fatalf("op %d of %v came to verb %d", i, ops, ch.Verb)
		}
		if array := ch.Index >= 0 && ch.Verb != VerbReplace; array != o.Array {
			t.Fatalf("op %d of %v: Array is %v", i, ops, o.Array)
		}
		n = m
	}
	return n
}

func checkDiff(t testing.TB, a, b Node) []Op {
	t.Helper()
	ops := Diff(a, b)
	got := applyOps(t, a, ops)
	if !Equal(got, b) {
		t.Fatalf("law broken\nfrom %s\nto   %s\ngot  %s", Encode(a), Encode(b), Encode(got))
	}
	checkSize(t, got)
	if (len(ops) == 0) != Equal(a, b) {
		t.Fatalf("%d ops between %s and %s", len(ops), Encode(a), Encode(b))
	}
	return ops
}

func TestDiffLaw(t *testing.T) {
	t.Parallel()
	r := seeded(t)
	for range 3000 {
		a := randomNode(r, 4)
		checkDiff(t, a, nudge(r, a))
		checkDiff(t, a, randomNode(r, 4))
	}
}

// FuzzDiff is the diff law for values grown from the fuzzer's bytes.
func FuzzDiff(f *testing.F) {
	f.Add([]byte("0123456789"), false)
	f.Add([]byte{}, true)
	f.Fuzz(func(t *testing.T, b []byte, apart bool) {
		var seed [32]byte
		copy(seed[:], b)
		if len(b) > 32 {
			binary.LittleEndian.PutUint64(seed[:], binary.LittleEndian.Uint64(seed[:])^uint64(len(b)))
		}
		r := rand.New(rand.NewChaCha8(seed))
		a := randomNode(r, 5)
		to := nudge(r, a)
		if apart {
			to = randomNode(r, 5)
		}
		checkDiff(t, a, to)
	})
}

// FuzzDiffJSON is the diff law for two texts.
func FuzzDiffJSON(f *testing.F) {
	f.Add([]byte(`[1,2,3]`), []byte(`[1,5,2,3]`))
	f.Add([]byte(`{"a":{"b":[]}}`), []byte(`{"a":{"c":[{}]}}`))
	f.Fuzz(func(t *testing.T, x, y []byte) {
		a, err := Parse(x)
		if err != nil {
			return
		}
		b, err := Parse(y)
		if err != nil {
			return
		}
		checkDiff(t, a, b)
	})
}

func TestDiffIsMinimal(t *testing.T) {
	t.Parallel()
	long := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `{"id":%d,"name":"number %d"},`, i, i)
		}
		return b.String()
	}
	for _, c := range []struct {
		name, from, to string
		ops            int
	}{
		{"insert in the middle", `[` + long(500) + `0]`, `[` + long(250) + `"new",` + long(500)[len(long(250)):] + `0]`, 1},
		{"remove in the middle", `[` + long(250) + `"new",` + long(500)[len(long(250)):] + `0]`, `[` + long(500) + `0]`, 1},
		{"two edits far apart", `[1,` + long(100) + `2]`, `[` + long(100) + `3]`, 2},
		{"change inside an element", `[` + long(100) + `{"a":1,"b":{"c":2}}]`, `[` + long(100) + `{"a":1,"b":{"c":3}}]`, 1},
		{"swap", `[` + long(3) + `"b","c",4]`, `[` + long(3) + `"c","b",4]`, 2},
		{"rotate", `[` + long(100) + `1]`, `[1,` + strings.TrimSuffix(long(100), ",") + `]`, 2},
		{"scalar", `1`, `2`, 1},
		{"same number", `{"a":1}`, `{"a":1.0}`, 0},
		{"other kind", `{"a":[]}`, `{"a":{}}`, 1},
		{"all new", `[1,2,3,4,5,6,7,8]`, `[9,10,11,12,13,14,15,16]`, 1},
		{"to null", `{"a":1}`, `null`, 1},
	} {
		ops := checkDiff(t, parse(t, c.from), parse(t, c.to))
		if len(ops) != c.ops {
			t.Errorf("%s: %d ops, want %d: %v", c.name, len(ops), c.ops, ops)
		}
	}
}

// A shared part costs nothing, however large.
func TestDiffOfOneMemberIsCheap(t *testing.T) { // not parallel: it counts allocations
	var members []Member
	for i := range 5000 {
		members = append(members, Member{fmt.Sprint(i), NewArray([]Node{String("x"), String("y")})})
	}
	a := NewObject(members)
	b, _, err := Edit(a, []string{"77", "1"}, VerbReplace, String("z"))
	if err != nil {
		t.Fatal(err)
	}
	allocs := testing.AllocsPerRun(10, func() { Diff(a, b) })
	if allocs > 20 {
		t.Errorf("%v allocations for one changed member of 5000", allocs)
	}
}

// Merge keeps what the typed view left out.
func TestMerge(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ node, before, after, want string }{
		{`{"a":1,"x":9}`, `{"a":1}`, `{"a":2}`, `{"a":2,"x":9}`},
		{`{"a":1,"x":9}`, `{"a":1}`, `{}`, `{"x":9}`},
		{`{"x":9}`, `{"a":0}`, `{"a":0,"b":1}`, `{"x":9,"b":1}`},
		{`{"x":9}`, `{"a":0}`, `{"a":5}`, `{"x":9,"a":5}`},
		{`{"l":[{"id":1,"x":1},{"id":2,"x":2},{"id":3,"x":3}]}`, `{"l":[{"id":1},{"id":2},{"id":3}]}`, `{"l":[{"id":2},{"id":3},{"id":4}]}`,
			`{"l":[{"id":2,"x":2},{"id":3,"x":3},{"id":4}]}`},
		{`[{"id":1,"x":1}]`, `[{"id":1}]`, `[{"id":7}]`, `[{"id":7,"x":1}]`},
		{`{"a":{"x":1}}`, `{"a":{}}`, `{"a":null}`, `{"a":null}`},
		{`1`, `1`, `2`, `2`},
		{`[1,2]`, `[1]`, `[3]`, `[3]`},
	} {
		got := Merge(parse(t, c.node), parse(t, c.before), parse(t, c.after))
		if !Equal(got, parse(t, c.want)) {
			t.Errorf("Merge(%s, %s, %s) = %s, want %s", c.node, c.before, c.after, Encode(got), c.want)
		}
	}
	// With nothing left out a merge is the new value.
	r := seeded(t)
	for range 500 {
		a := randomNode(r, 4)
		b := nudge(r, a)
		if got := Merge(a, a, b); !Equal(got, b) {
			t.Fatalf("Merge(a, a, b) = %s, want %s", Encode(got), Encode(b))
		}
	}
}

func TestEditBounds(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		doc, path string
		verb      Verb
		err       error
	}{
		{`{}`, "a b", VerbPut, ErrNotFound}, {`[]`, "01", VerbAdd, ErrIndex}, {`[]`, "+1", VerbAdd, ErrIndex}, {`[]`, "-1", VerbAdd, ErrIndex},
		{`[]`, "-", VerbRemove, ErrIndex}, {`[]`, "1", VerbAdd, ErrNotFound}, {`[]`, "99999999999999999999", VerbAdd, ErrIndex},
		{`[1]`, "1", VerbReplace, ErrNotFound}, {`1`, "a", VerbAdd, ErrScalar}, {`{"a":1}`, "a b", VerbAdd, ErrScalar}, {`{}`, "a", VerbRemove, ErrNotFound},
	} {
		if _, _, err := Edit(parse(t, c.doc), strings.Fields(c.path), c.verb, Null{}); err == nil || !strings.Contains(err.Error(), c.err.Error()) {
			t.Errorf("%s at %q: %v, want %v", c.doc, c.path, err, c.err)
		}
	}
	deep := make([]string, MaxDepth+1)
	if _, _, err := Edit(Null{}, deep, VerbAdd, Null{}); err != ErrDepth {
		t.Errorf("deep path: %v", err)
	}
	// Copying a document into itself again and again stops at a limit.
	n := parse(t, `{"a":[1]}`)
	var err error
	for i := 0; err == nil; i++ {
		if i > 2*MaxDepth {
			t.Fatal("no limit")
		}
		path := make([]string, 0, i+1)
		for c := n.(*Object); ; {
			path = append(path, "self")
			next, ok := c.Get("self").(*Object)
			if !ok {
				break
			}
			c = next
		}
		if len(path) > MaxDepth {
			break
		}
		n, _, err = Edit(n, path, VerbAdd, n)
	}
	if err != ErrDepth && err != ErrSize {
		t.Fatalf("copying into itself ends with %v", err)
	}
}
