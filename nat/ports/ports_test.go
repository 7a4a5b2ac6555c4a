package ports

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestReserve(t *testing.T) {
	t.Parallel()
	var a Allocator
	require.NoError(t, a.Reserve("web", Port(8443)))
	require.NoError(t, a.Reserve("web", Port(8443)), "the same again counts")
	var taken *TakenError
	err := a.Reserve("media", Range{8440, 10})
	require.ErrorAs(t, err, &taken)
	require.ErrorIs(t, err, ErrTaken)
	require.Equal(t, TakenError{8443, "web"}, *taken)
	_, held := a.Owner(8440)
	require.False(t, held, "all or nothing")

	require.NoError(t, a.Release("web", Port(8443)))
	require.ErrorIs(t, a.Reserve("media", Port(8443)), ErrTaken, "one reference is left")
	require.NoError(t, a.Release("web", Port(8443)))
	require.ErrorIs(t, a.Release("web", Port(8443)), ErrNotHeld)
	require.NoError(t, a.Reserve("media", Range{8440, 10}))
	require.ErrorIs(t, a.Release("web", Port(8440)), ErrNotHeld)
	owner, _ := a.Owner(8449)
	require.Equal(t, "media", owner)
}

func TestRestrictedPorts(t *testing.T) {
	t.Parallel()
	var a Allocator
	var restricted *RestrictedError
	for _, p := range []uint16{1, 80, 443, 1024, 5353, 5355, 5432, 6010, 9050, 9051} {
		require.ErrorAs(t, a.Reserve("x", Port(p)), &restricted)
		require.ErrorIs(t, restricted, ErrRestricted)
		require.Equal(t, p, restricted.Port)
		require.NoError(t, a.ReserveRestricted("host", Port(p)))
		require.ErrorIs(t, a.Reserve("x", Port(p)), ErrTaken)
	}
	require.ErrorAs(t, a.Reserve("x", Range{9040, 20}), new(*TakenError))
	require.NoError(t, a.Reserve("x", Port(1025)))
}

func TestRangeEnds(t *testing.T) {
	t.Parallel()
	var a Allocator
	require.NoError(t, a.Reserve("x", Range{65000, 536}))
	require.Equal(t, uint16(65535), Range{65000, 536}.Last())
	require.NoError(t, a.Release("x", Range{65000, 536}))
	for _, r := range []Range{{65000, 537}, {0, 1}, {65535, 2}, {1000, -1}, {1, 65536}, {1000, math.MaxInt}} {
		require.ErrorIs(t, a.Reserve("x", r), ErrRange, r)
		require.ErrorIs(t, a.Release("x", r), ErrRange, r)
	}
	require.Empty(t, a.Allocations())
	require.Equal(t, "443", Port(443).String())
	require.Equal(t, "5000-5009", Range{5000, 10}.String())
}

func TestAllocate(t *testing.T) {
	t.Parallel()
	var a Allocator
	p, err := a.Allocate("web", 8443)
	require.NoError(t, err)
	require.EqualValues(t, 8443, p)
	for _, preferred := range []uint16{8443, 443, 0} {
		p, err = a.Allocate("web", preferred)
		require.NoError(t, err)
		require.GreaterOrEqual(t, int(p), FirstDynamic)
		require.LessOrEqual(t, int(p), LastDynamic)
	}
	for range LastDynamic - FirstDynamic + 1 - 3 {
		_, err = a.Allocate("many", 0)
		require.NoError(t, err)
	}
	_, err = a.Allocate("one too many", 0)
	require.ErrorIs(t, err, ErrExhausted)
	_, held := a.Owner(65535)
	require.False(t, held)
	a.ReleaseAll("many")
	_, err = a.Allocate("again", 0)
	require.NoError(t, err)
}

func TestMove(t *testing.T) {
	t.Parallel()
	var a Allocator
	require.NoError(t, a.Reserve("media", Range{6000, 5}))
	require.NoError(t, a.Reserve("other", Port(7000)))
	require.NoError(t, a.Move("media", Range{6000, 5}, Range{6003, 5}), "onto itself")
	require.ErrorIs(t, a.Move("media", Range{6003, 5}, Range{6998, 5}), ErrTaken)
	require.ErrorIs(t, a.Move("media", Range{6000, 5}, Range{8000, 5}), ErrNotHeld)
	require.NoError(t, a.Move("media", Range{6003, 5}, Range{6003, 5}), "nothing to do")
	require.Equal(t, []Allocation{{"media", Range{6003, 5}, 1}, {"other", Port(7000), 1}}, a.Allocations())
}

// TestAgainstModel compares random operations with a plain list of references.
func TestAgainstModel(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 3))
		var a Allocator
		refs := map[string]map[uint16]int{}
		holder := func(p uint16) string {
			for owner, ports := range refs {
				if ports[p] > 0 {
					return owner
				}
			}
			return ""
		}
		for range 400 {
			owner := fmt.Sprint("o", r.IntN(3))
			rg := Range{uint16(2000 + r.IntN(30)), 1 + r.IntN(4)}
			if refs[owner] == nil {
				refs[owner] = map[uint16]int{}
			}
			may, has := true, true
			for i := range rg.Count {
				p := rg.First + uint16(i)
				h := holder(p)
				may = may && (h == "" || h == owner)
				has = has && h == owner
			}
			by := 1
			if r.IntN(2) == 0 {
				by = -1
			}
			if by > 0 {
				require.Equal(t, may, a.Reserve(owner, rg) == nil, "seed %d", seed)
			} else {
				require.Equal(t, has, a.Release(owner, rg) == nil, "seed %d", seed)
			}
			if by > 0 && may || by < 0 && has {
				for i := range rg.Count {
					refs[owner][rg.First+uint16(i)] += by
				}
			}
			for p := uint16(2000); p < 2034; p++ {
				got, _ := a.Owner(p)
				require.Equal(t, holder(p), got, "seed %d port %d", seed, p)
			}
		}
		b, err := json.Marshal(&a)
		require.NoError(t, err)
		var back Allocator
		require.NoError(t, json.Unmarshal(b, &back))
		require.Equal(t, a.Allocations(), back.Allocations())
	}
	var a Allocator
	require.ErrorIs(t, json.Unmarshal([]byte(`[{"owner":"a","first":5,"count":3},{"owner":"b","first":7}]`), &a), ErrTaken)
	require.ErrorIs(t, json.Unmarshal([]byte(`[{"owner":"a","first":65535,"count":2}]`), &a), ErrRange)
}
