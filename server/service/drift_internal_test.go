package service

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestBackoff(t *testing.T) {
	t.Parallel()
	var got []time.Duration
	for n := range 10 {
		got = append(got, backoff(n))
	}
	s := time.Second
	require.Equal(t, []time.Duration{0, 0, s, 2 * s, 4 * s, 8 * s, 16 * s, 32 * s, 60 * s, 60 * s}, got)
	require.Equal(t, 60*s, backoff(1<<40))
}

func TestDrift(t *testing.T) {
	t.Parallel()
	type event struct {
		after time.Duration
		wrong bool
	}
	m := time.Minute
	for name, c := range map[string]struct {
		events []event
		told   []string
	}{
		"never wrong":         {[]event{{0, false}, {m, false}}, nil},
		"wrong too shortly":   {[]event{{0, true}, {9 * m, false}}, nil},
		"wrong for long":      {[]event{{0, true}, {30 * m, true}}, []string{"wrong at 10m0s since 0s"}},
		"and right again":     {[]event{{0, true}, {30 * m, false}, {2 * m, false}}, []string{"wrong at 10m0s since 0s", "right at 31m0s since 0s"}},
		"twice":               {[]event{{0, true}, {20 * m, false}, {5 * m, true}, {20 * m, true}}, []string{"wrong at 10m0s since 0s", "right at 21m0s since 0s", "wrong at 35m0s since 25m0s"}},
		"right for moments":   {[]event{{0, true}, {4 * m, false}, {m / 2, true}, {4 * m, false}, {m / 2, true}, {10 * m, true}}, []string{"wrong at 10m0s since 0s"}},
		"said once, flapping": {[]event{{0, true}, {11 * m, false}, {m / 2, true}, {11 * m, false}, {m / 2, true}, {20 * m, true}}, []string{"wrong at 10m0s since 0s"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				var told []string
				d := newDrift(10*m, m, func(id string, since time.Time, wrong bool) {
					told = append(told, fmt.Sprintf("%s at %s since %s", map[bool]string{true: "wrong", false: "right"}[wrong], time.Since(began), since.Sub(began)))
				})
				defer d.close()
				for _, e := range c.events {
					<-time.After(e.after)
					synctest.Wait()
					d.observe("alpha", e.wrong)
				}
				<-time.After(5 * m)
				synctest.Wait()
				if c.told == nil {
					require.Empty(t, told)
				} else {
					require.Equal(t, c.told, told[:len(c.told)])
				}
			})
		})
	}
}

func TestLookAgain(t *testing.T) {
	t.Parallel()
	for free, want := range map[int64]time.Duration{
		0: lookLeast, diskReserve: lookLeast, diskReserve + fillRate: time.Second, 1 << 40: lookMost,
	} {
		require.Equal(t, want, lookAgain(free), "%d", free)
	}
}
