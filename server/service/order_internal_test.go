package service

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestWaves(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		needs map[string][]string
		waves [][]string
		notes []string
	}{
		"none":    {map[string][]string{}, nil, nil},
		"apart":   {map[string][]string{"a": nil, "b": nil}, [][]string{{"a", "b"}}, nil},
		"chain":   {map[string][]string{"a": {"b"}, "b": {"c"}, "c": nil}, [][]string{{"c"}, {"b"}, {"a"}}, nil},
		"diamond": {map[string][]string{"a": {"b", "c"}, "b": {"d"}, "c": {"d"}, "d": nil}, [][]string{{"d"}, {"b", "c"}, {"a"}}, nil},
		"missing": {map[string][]string{"a": {"x"}}, [][]string{{"a"}}, []string{"a needs x, which is not installed"}},
		"itself":  {map[string][]string{"a": {"a"}}, [][]string{{"a"}}, nil},
		"circle": {map[string][]string{"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": nil, "e": {"a"}},
			[][]string{{"d"}, {"b", "c"}, {"a"}, {"e"}}, []string{"b, c need each other and start together"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			list, notes := waves(c.needs)
			require.Equal(t, c.waves, list)
			require.Equal(t, c.notes, notes)
		})
	}
}

// In any graph, everybody has one wave, and who needs another that does not need
// him back, on any way, comes later.
func TestWavesOfAnyGraph(t *testing.T) {
	t.Parallel()
	for seed := range uint64(300) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		needs := map[string][]string{}
		n := 1 + rnd.IntN(12)
		for i := range n {
			id := fmt.Sprint("p", i)
			needs[id] = nil
			for range rnd.IntN(4) {
				needs[id] = append(needs[id], fmt.Sprint("p", rnd.IntN(n+1)))
			}
		}
		reach := map[string]map[string]bool{}
		for id := range needs {
			seen, todo := map[string]bool{}, []string{id}
			for len(todo) > 0 {
				next := todo[0]
				todo = todo[1:]
				for _, o := range needs[next] {
					if !seen[o] {
						seen[o] = true
						todo = append(todo, o)
					}
				}
			}
			reach[id] = seen
		}
		list, _ := waves(needs)
		at := map[string]int{}
		for i, wave := range list {
			require.NotEmpty(t, wave, "seed %d", seed)
			for _, id := range wave {
				require.NotContains(t, at, id, "seed %d", seed)
				at[id] = i
			}
		}
		require.Len(t, at, len(needs), "seed %d", seed)
		for id := range needs {
			for o := range reach[id] {
				if _, ok := needs[o]; !ok || o == id {
					continue
				}
				if reach[o][id] {
					require.Equal(t, at[o], at[id], "seed %d: %s and %s need each other", seed, id, o)
				} else {
					require.Less(t, at[o], at[id], "seed %d: %s needs %s", seed, id, o)
				}
			}
		}
	}
}
