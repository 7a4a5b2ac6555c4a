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
	try := func(a netip.Addr) error {
		_, err := th.begin(a)
		if err == nil {
			defer th.end(a)
			err = th.take(a)
		}
		return err
	}
	for range freeTries {
		require.NoError(t, try(a))
	}
	require.Error(t, try(a))
	require.Error(t, try(netip.MustParseAddr("::ffff:192.0.2.1")), "a mapped address is the same client")
	now = now.Add(tryEvery)
	require.NoError(t, try(a))
	require.Error(t, try(a), "one try each twelve seconds")
	th.succeed(a)
	known, err := th.begin(a)
	require.NoError(t, err)
	assert.True(t, known)
	th.end(a)
}

func TestThrottleBoundsTriesInProgress(t *testing.T) {
	t.Parallel()
	th := newThrottle(time.Now)
	stranger, owner := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	th.succeed(owner)
	begin := func(a netip.Addr) int {
		n := 0
		for range 2 * maxAtOnce {
			if _, err := th.begin(a); err == nil {
				n++
			}
		}
		return n
	}
	assert.Equal(t, freeTries, begin(stranger))
	assert.Equal(t, maxAtOnce, begin(owner))
	th.end(stranger)
	_, err := th.begin(stranger)
	require.NoError(t, err)
}

func TestThrottleForgetsStrangersFirst(t *testing.T) {
	t.Parallel()
	now := time.Unix(1e9, 0)
	th := newThrottle(func() time.Time { return now })
	owner := netip.MustParseAddr("192.0.2.1")
	th.succeed(owner)
	for i := range 3 * maxClients {
		a := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		_, err := th.begin(a)
		require.NoError(t, err)
		require.NoError(t, th.take(a))
		th.end(a)
		now = now.Add(time.Millisecond)
	}
	assert.LessOrEqual(t, len(th.clients), maxClients)
	known, err := th.begin(owner)
	require.NoError(t, err)
	assert.True(t, known, "known addresses are remembered through a flood")
	now = now.Add(time.Hour)
	_, err = th.begin(netip.MustParseAddr("192.0.2.9"))
	require.NoError(t, err)
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
