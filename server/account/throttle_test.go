package account

import (
	"context"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestThrottleRefills(t *testing.T) {
	t.Parallel()
	now := time.Unix(1e9, 0)
	th := newThrottle(func() time.Time { return now })
	a := netip.MustParseAddr("192.0.2.1")
	for range freeTries {
		_, err := th.take(a)
		require.NoError(t, err)
	}
	_, err := th.take(a)
	require.Error(t, err)
	_, err = th.take(netip.MustParseAddr("::ffff:192.0.2.1"))
	require.Error(t, err, "a mapped address is the same client")
	now = now.Add(tryEvery)
	_, err = th.take(a)
	require.NoError(t, err)
	_, err = th.take(a)
	require.Error(t, err, "one try each twelve seconds")
	th.refund(a)
	known, err := th.take(a)
	require.NoError(t, err)
	assert.True(t, known)
}

func TestThrottleForgetsStrangersFirst(t *testing.T) {
	t.Parallel()
	now := time.Unix(1e9, 0)
	th := newThrottle(func() time.Time { return now })
	owner := netip.MustParseAddr("192.0.2.1")
	th.refund(owner)
	for i := range 3 * maxClients {
		_, err := th.take(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}))
		require.NoError(t, err)
		now = now.Add(time.Millisecond)
	}
	assert.LessOrEqual(t, len(th.clients), maxClients)
	known, err := th.take(owner)
	require.NoError(t, err)
	assert.True(t, known, "known addresses are remembered through a flood")
	now = now.Add(time.Hour)
	th.take(netip.MustParseAddr("192.0.2.9")) //nolint:errcheck
	assert.LessOrEqual(t, len(th.clients), maxClients)
}

func TestGate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var g gate
		var inside, most, done atomic.Int32
		var wg sync.WaitGroup
		start := time.Now()
		for range 60 {
			wg.Go(func() {
				if !assert.NoError(t, g.enter(t.Context(), false)) {
					return
				}
				most.Store(max(most.Load(), inside.Add(1)))
				inside.Add(-1)
				done.Add(1)
				g.leave()
			})
		}
		wg.Wait()
		assert.EqualValues(t, 60, done.Load())
		assert.EqualValues(t, 1, most.Load(), "one at a time")
		assert.Equal(t, 40*strangerEvery, time.Since(start), "strangers are paced after a burst of twenty")
		require.NoError(t, g.enter(t.Context(), true))
		assert.Equal(t, 40*strangerEvery, time.Since(start), "a known address is not")
		g.leave()
		time.Sleep(2 * time.Second) // synctest's clock: the memory timer fires
	})
}

func TestGateBoundsItsQueue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var g gate
		require.NoError(t, g.enter(t.Context(), true))
		ctx, cancel := context.WithCancel(t.Context())
		var refused, cancelled atomic.Int32
		var wg sync.WaitGroup
		for range 3 * maxStrangers {
			wg.Go(func() {
				switch err := g.enter(ctx, false); err {
				case nil:
					t.Error("the gate was never left")
				case context.Canceled:
					cancelled.Add(1)
				default:
					refused.Add(1)
				}
			})
		}
		synctest.Wait()
		assert.EqualValues(t, 2*maxStrangers, refused.Load())
		cancel()
		wg.Wait()
		assert.EqualValues(t, maxStrangers, cancelled.Load())
		g.leave()
		require.NoError(t, g.enter(t.Context(), false))
		g.leave()
		time.Sleep(2 * time.Second)
	})
}

func TestPasswordHash(t *testing.T) {
	t.Parallel()
	h := hashPassword("correct horse")
	assert.Regexp(t, `^\$argon2id\$v=19\$m=19456,t=2,p=1\$[A-Za-z0-9+/]{22}\$[A-Za-z0-9+/]{43}$`, h)
	ok, err := verifyPassword(h, "correct horse")
	require.NoError(t, err)
	assert.True(t, ok)
	ok, err = verifyPassword(h, "correct horsf")
	require.NoError(t, err)
	assert.False(t, ok)
	// A published vector of the Argon2 reference program, with other parameters.
	ok, err = verifyPassword("$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHQ$ZVrRXqxlLcWfcXCnMyv0m4Rpvh/bnCi7", "password")
	require.NoError(t, err)
	assert.True(t, ok)
	for _, bad := range []string{"", "$", "plain", "$argon2i$v=19$m=64,t=2,p=1$c29t$c29t", "$argon2id$v=18$m=64,t=2,p=1$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAA",
		"$argon2id$v=19$m=9999999999,t=2,p=1$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAA", "$argon2id$v=19$m=64,t=2,p=1$!$AAAA", "$argon2id$v=19$m=64,t=2,p=0$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAA"} {
		_, err := verifyPassword(bad, "x")
		assert.ErrorIs(t, err, errHash, bad)
	}
}
