package lxcrt

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// naive maps every id one by one, as the specification says it.
func naive(ids IDRange, entries []IDMapEntry) map[uint32]uint32 {
	out, taken := map[uint32]uint32{}, map[uint32]bool{}
	for _, wantMoved := range []bool{true, false} {
		for d := range ids.count() {
			c := uint64(d)
			moved := false
			for _, e := range entries {
				if c >= uint64(e.From) && c < uint64(e.From)+uint64(e.Range) {
					c, moved = c-uint64(e.From)+uint64(e.To), true
				}
			}
			if moved != wantMoved || c >= uint64(ids.count()) || taken[uint32(c)] {
				continue
			}
			taken[uint32(c)] = true
			out[d] = ids.Base + uint32(c)
		}
	}
	return out
}

func TestComposeMap(t *testing.T) {
	ids := IDRange{Base: 100000, Count: 65536}
	for _, c := range []struct {
		entries []IDMapEntry
		want    string
	}{
		{nil, "[{0 100000 65536}]"},
		{[]IDMapEntry{{0, 1000, 1}}, "[{0 101000 1} {1 100001 999} {1001 101001 64535}]"},
		{[]IDMapEntry{{5, 5, 10}}, "[{0 100000 65536}]"},
		{[]IDMapEntry{{0, 70000, 10}}, "[{10 100010 65526}]"},
		{[]IDMapEntry{{0, 1, 1}, {1, 0, 1}}, "[{0 100000 1} {2 100002 65534}]"},
	} {
		if got := fmt.Sprint(composeMap(ids, c.entries)); got != c.want {
			t.Errorf("%v: got %s, want %s", c.entries, got, c.want)
		}
	}
}

func TestComposeMapAgainstNaive(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	for range 400 {
		ids := IDRange{Base: 1000, Count: uint32(20 + rnd.IntN(60))}
		var entries []IDMapEntry
		for range rnd.IntN(5) {
			entries = append(entries, IDMapEntry{uint32(rnd.IntN(90)), uint32(rnd.IntN(90)), uint32(1 + rnd.IntN(40))})
		}
		got := map[uint32]uint32{}
		targets := map[uint32]bool{}
		for _, e := range composeMap(ids, entries) {
			for i := range e.size {
				if _, twice := got[e.from+i]; twice || targets[e.to+i] {
					t.Fatalf("%v over %v: id %d or %d twice", entries, ids, e.from+i, e.to+i)
				}
				got[e.from+i], targets[e.to+i] = e.to+i, true
			}
		}
		want := naive(ids, entries)
		if fmt.Sprint(sorted(got)) != fmt.Sprint(sorted(want)) {
			t.Fatalf("%v over %v:\ngot  %v\nwant %v", entries, ids, sorted(got), sorted(want))
		}
	}
}

func sorted(m map[uint32]uint32) [][2]uint32 {
	var out [][2]uint32
	for k, v := range m {
		out = append(out, [2]uint32{k, v})
	}
	slices.SortFunc(out, func(a, b [2]uint32) int { return int(a[0]) - int(b[0]) })
	return out
}
