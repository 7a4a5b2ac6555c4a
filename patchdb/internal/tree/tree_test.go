package tree

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

func seeded(t testing.TB) *rand.Rand {
	t.Helper()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

func parse(t testing.TB, s string) Node {
	t.Helper()
	n, err := Parse([]byte(s))
	if err != nil {
		t.Fatalf("%v in %s", err, s)
	}
	return n
}

// checkSize makes sure of what edits keep up to date: sizes and heights.
func checkSize(t testing.TB, n Node) (height int) {
	t.Helper()
	if got := len(Append(nil, n)); got != n.Size() {
		t.Fatalf("size is %d, text has %d: %.200s", n.Size(), got, Append(nil, n))
	}
	switch n := n.(type) {
	case *Object:
		height = 1
		for m := range n.Members() {
			height = max(height, 1+checkSize(t, m.Val))
		}
	case *Array:
		height = 1
		for _, v := range n.All() {
			height = max(height, 1+checkSize(t, v))
		}
	}
	if n.Height() < height && n.Height()+1 != height { // an empty object may say 0
		t.Fatalf("height is %d, says %d", height, n.Height())
	}
	return height
}

// An object against a list of members, through growth into a trie and back.
func TestObjectModel(t *testing.T) {
	t.Parallel()
	r := seeded(t)
	o := NewObject(nil)
	var model []Member
	for step := range 6000 {
		key := fmt.Sprint(r.IntN(200))
		i := indexMember(model, key)
		before, copyBefore := o, slices.Clone(model)
		// Two phases: mostly adding, then mostly removing.
		if r.IntN(10) < 7 == (step%2000 < 1200) {
			val := Number(fmt.Sprint(step))
			o = o.With(key, val)
			if i >= 0 {
				model[i].Val = val
			} else {
				model = append(model, Member{key, val})
			}
		} else {
			var old Node
			o, old = o.Without(key)
			if (old != nil) != (i >= 0) {
				t.Fatalf("step %d: Without found %v, the model %d", step, old, i)
			}
			if i >= 0 {
				model = slices.Delete(model, i, i+1)
			}
		}
		if step%17 == 0 {
			checkMembers(t, o, model)
			checkMembers(t, before, copyBefore)
		}
		if o.Len() != len(model) {
			t.Fatalf("step %d: %d members, want %d", step, o.Len(), len(model))
		}
	}
}

func checkMembers(t *testing.T, o *Object, model []Member) {
	t.Helper()
	if got := slices.Collect(o.Members()); !slices.Equal(got, model) {
		t.Fatalf("members %v, want %v", got, model)
	}
	for _, m := range model {
		if o.Get(m.Key) != m.Val {
			t.Fatalf("member %q is %v, want %v", m.Key, o.Get(m.Key), m.Val)
		}
	}
	checkSize(t, o)
	if !Equal(o, NewObject(slices.Clone(model))) {
		t.Fatal("an object differs from one with the same members")
	}
}

// Below the last bits of the hash names are told apart one by one.
func TestTrieCollisions(t *testing.T) {
	t.Parallel()
	root := &trie{}
	for i := range 40 {
		root, _ = root.set(0, lastTrie, entry{Member{fmt.Sprint(i), Number("1")}, uint32(i)}, false)
	}
	if _, old := root.set(0, lastTrie, entry{Member{"7", Number("2")}, 0}, false); old != Number("1") {
		t.Fatalf("replaced %v", old)
	}
	for i := range 40 {
		if e := root.get(0, lastTrie, fmt.Sprint(i)); e == nil {
			t.Fatalf("name %d is lost", i)
		}
	}
	for i := range 40 {
		root = root.del(0, lastTrie, fmt.Sprint(i))
		if int(root.count) != 39-i {
			t.Fatalf("%d entries after %d removals", root.count, i+1)
		}
	}
}

// An array against a slice.
func TestArrayModel(t *testing.T) {
	t.Parallel()
	r := seeded(t)
	for _, start := range []int{0, 31, 33, 3000} {
		var model []Node
		for i := range start {
			model = append(model, Number(fmt.Sprint(i)))
		}
		a := NewArray(slices.Clone(model))
		for step := range 3000 {
			val := Number(fmt.Sprint(step))
			before, want := a, slices.Clone(model)
			grow := 4
			if step%1000 > 600 {
				grow = 1
			}
			switch n := r.IntN(10); {
			case n < grow || len(model) == 0:
				i := r.IntN(len(model) + 1)
				if step%3 == 0 {
					i = len(model)
				}
				a = a.Insert(i, val)
				model = slices.Insert(model, i, Node(val))
			case n < 7:
				i := r.IntN(len(model))
				var old Node
				a, old = a.Delete(i)
				if old != model[i] {
					t.Fatalf("deleted %v, want %v", old, model[i])
				}
				model = slices.Delete(model, i, i+1)
			default:
				i := r.IntN(len(model))
				a = a.With(i, val)
				model = slices.Clone(model)
				model[i] = val
			}
			if a.Len() != len(model) {
				t.Fatalf("length %d, want %d", a.Len(), len(model))
			}
			if len(model) > 0 {
				if i := r.IntN(len(model)); a.At(i) != model[i] {
					t.Fatalf("element %d is %v, want %v", i, a.At(i), model[i])
				}
			}
			if step%37 == 0 {
				checkElems(t, a, model)
				checkElems(t, before, want)
			}
		}
	}
}

func checkElems(t *testing.T, a *Array, model []Node) {
	t.Helper()
	var got []Node
	for _, v := range a.All() {
		got = append(got, v)
	}
	if !slices.Equal(got, model) {
		t.Fatalf("elements %v, want %v", got, model)
	}
	checkSize(t, a)
	if !Equal(a, NewArray(slices.Clone(model))) {
		t.Fatal("an array differs from one with the same elements")
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for _, s := range []string{
		"", " ", "nul", "truefalse", "1 2", "01", "-", "1.", ".5", "1e", "+1", "1e999", "-1e400", "NaN", "Infinity",
		`"`, `"\x"`, `"\u12"`, `"\ud800"`, `"\udc00x"`, `"\ud800\u0041"`, "\"\n\"", "\"\xff\"", `"\u00zz"`,
		"[", "[1", "[1,", "[,]", "[1,]", "[1 2]", "{", `{"a"`, `{"a":`, `{"a":1`, `{"a":1,`, `{"a":1,}`, `{a:1}`, `{"a" 1}`, `{,}`,
		`{"a":1,"a":2}`, "]", "}", `{"a":1]`, "[1}", "\ufeff1", "1e+99999999999999999999",
	} {
		if n, err := Parse([]byte(s)); err == nil {
			t.Errorf("Parse(%q) = %s, want an error", s, Encode(n))
		}
	}
	if _, err := Parse([]byte(strings.Repeat("[", MaxDepth+1) + strings.Repeat("]", MaxDepth+1))); !errors.Is(err, ErrDepth) {
		t.Errorf("deep nesting: %v", err)
	}
	if _, err := Parse([]byte(strings.Repeat("[", MaxDepth) + strings.Repeat("]", MaxDepth))); err != nil {
		t.Errorf("nesting of just the limit: %v", err)
	}
}

func TestNumbersKeepTheirText(t *testing.T) {
	t.Parallel()
	for _, s := range []string{
		"0", "-0", "-0.0", "9223372036854775807", "-9223372036854775808", "18446744073709551615", "1e+300", "0.1", "1.0",
		"123456789012345678901234567890", "1E5", "4.9e-324", "1e-400",
	} {
		if got := string(Encode(parse(t, s))); got != s {
			t.Errorf("%s came back as %s", s, got)
		}
	}
}

func TestNumberEqual(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		a, b  string
		equal bool
	}{
		{"1", "1.0", true}, {"10", "1e1", true}, {"0", "-0.0", true}, {"0.001", "1e-3", true}, {"100.0", "1.00E+2", true},
		{"0e5", "0", true}, {"1", "-1", false}, {"1", "10", false}, {"0.1", "0.01", false}, {"12", "1.2", false},
		{"18446744073709551615", "18446744073709551616", false}, {"9007199254740993", "9007199254740992", false},
		{"1.5", "15e-1", true},
	} {
		if got := Equal(Number(c.a), Number(c.b)); got != c.equal {
			t.Errorf("%s = %s: %v", c.a, c.b, got)
		}
		if h := hashNode(Number(c.a)) == hashNode(Number(c.b)); h != c.equal {
			t.Errorf("hashes of %s and %s: %v", c.a, c.b, h)
		}
	}
}

func TestStream(t *testing.T) {
	t.Parallel()
	r := seeded(t)
	for range 50 {
		n := randomNode(r, 5)
		var b []byte
		if err := Stream(n, 16, func(p []byte) error { b = append(b, p...); return nil }); err != nil {
			t.Fatal(err)
		}
		if string(b) != string(Encode(n)) {
			t.Fatalf("stream %s, encode %s", b, Encode(n))
		}
	}
	stop := errors.New("stop")
	if err := Stream(randomNode(r, 5), 1, func([]byte) error { return stop }); err != stop {
		t.Fatalf("an error of emit: %v", err)
	}
}

// What encoding/json reads, Parse reads alike, where it does not refuse more.
func FuzzParse(f *testing.F) {
	for _, s := range []string{`{"a":[1,2.5e3,"x\u00e9\ud83d\ude00",null,true,false]}`, `[]`, `"\\\"\/\b\f\n\r\t"`, `-0`, `{"":{}}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := Parse(b)
		readAlike(t, b, n, err)
		if err != nil {
			return
		}
		if !json.Valid(b) {
			t.Fatalf("Parse took what encoding/json does not: %q", b)
		}
		text := Encode(n)
		if len(text) != n.Size() {
			t.Fatalf("size %d, text %d", n.Size(), len(text))
		}
		var x, y any
		if err := json.Unmarshal(b, &x); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(text, &y); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(x, y) {
			t.Fatalf("%q came back as %q", b, text)
		}
		again, err := Parse(text)
		if err != nil || !Equal(n, again) || string(Encode(again)) != string(text) {
			t.Fatalf("%q does not come back from itself: %v", text, err)
		}
	})
}

// readAlike checks that a text read in pieces, with windows of a few bytes, gives
// what Parse gave, errors included.
func readAlike(t *testing.T, b []byte, want Node, wantErr error) {
	t.Helper()
	for _, size := range []int{1, 7, minAhead + 1} {
		p := Parser{window: make([]byte, size)}
		n, err := p.Read(iotest.OneByteReader(bytes.NewReader(b)))
		if fmt.Sprint(err) != fmt.Sprint(wantErr) || err == nil && string(Encode(n)) != string(Encode(want)) {
			t.Fatalf("%q in pieces of %d: %v, %v; want %v, %v", b, size, n, err, want, wantErr)
		}
	}
}

// A text in pieces is read as the whole is, wherever it is cut.
func TestRead(t *testing.T) {
	t.Parallel()
	r := seeded(t)
	for _, s := range []string{
		`{"a":[1,2.5e3,"x\u00e9\ud83d\ude00",null,true,false]}`, ` [ ] `, `"\\\"\/\b\f\n\r\t"`, `-0`, `{"":{}}`, "",
		`12345678901234567890123456789012345678901234567890e-12`, `1234567890123456e`, `[1234567890123.`, `-`, `tru`, `truee`, `"abc`, `"\ud83d\u12"`, `{"a":1}x`, `{"a" 1}`,
		`["` + strings.Repeat("long ", 40) + `", 1]`,
	} {
		n, err := Parse([]byte(s))
		readAlike(t, []byte(s), n, err)
	}
	for range 300 {
		n := randomNode(r, 5)
		b := Encode(n)
		readAlike(t, b, n, nil)
		b = b[:r.IntN(len(b)+1)]
		n, err := Parse(b)
		readAlike(t, b, n, err)
	}
	stop := errors.New("stop")
	p := Parser{}
	if _, err := p.Read(io.MultiReader(strings.NewReader(`{"a":`), iotest.ErrReader(stop))); err != stop {
		t.Fatalf("an error of the reader: %v", err)
	}
	if n, err := p.Read(strings.NewReader(`[1]`)); err != nil || string(Encode(n)) != `[1]` {
		t.Fatalf("after an error: %v, %v", n, err)
	}
}
