package idempotency_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/selfstead/selfstead/server/idempotency"
)

type clock struct{ at atomic.Int64 }

func (c *clock) now() time.Time { return time.Unix(c.at.Load(), 0) }

func open(t *testing.T, path string, c *clock) *idempotency.Store {
	t.Helper()
	o := idempotency.Options{}
	if c != nil {
		o.Now = c.now
	}
	s, err := idempotency.Open(t.Context(), path, o)
	require.NoError(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

// say runs a request that answers with text, and reports whether it ran.
func say(t *testing.T, s *idempotency.Store, key, print, text string, keep bool) (string, bool, error) {
	t.Helper()
	ran := false
	a, replayed, err := s.Do(t.Context(), key, print, func() (idempotency.Answer, bool) {
		ran = true
		return idempotency.Answer{Status: 200, Body: []byte(text)}, keep
	})
	if err == nil {
		assert.NotEqual(t, ran, replayed)
	}
	return string(a.Body), ran, err
}

func TestStore(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "requests.db")
	c := &clock{}
	s := open(t, path, c)
	text, ran, err := say(t, s, "k", "p", "one", true)
	require.NoError(t, err)
	assert.True(t, ran)
	assert.Equal(t, "one", text)
	text, ran, err = say(t, s, "k", "p", "two", true)
	require.NoError(t, err)
	assert.False(t, ran)
	assert.Equal(t, "one", text)
	_, _, err = say(t, s, "k", "other", "", true)
	assert.ErrorIs(t, err, idempotency.ErrReused)
	_, ran, err = say(t, s, "again", "p", "x", false)
	require.NoError(t, err)
	assert.True(t, ran)
	_, ran, err = say(t, s, "again", "p", "x", false)
	require.NoError(t, err)
	assert.True(t, ran, "an answer that is not kept is asked for anew")
	_, _, err = say(t, s, "long", "p", strings.Repeat("x", idempotency.MaxBody+1), true)
	require.NoError(t, err)
	_, _, err = say(t, s, "long", "p", "", true)
	assert.ErrorIs(t, err, idempotency.ErrNotKept)

	// A restart forgets nothing, a day does.
	require.NoError(t, s.Close())
	s = open(t, path, c)
	text, _, err = say(t, s, "k", "p", "three", true)
	require.NoError(t, err)
	assert.Equal(t, "one", text)
	c.at.Add(int64(idempotency.Keep / time.Second))
	text, _, err = say(t, s, "k", "p", "four", true)
	require.NoError(t, err)
	assert.Equal(t, "four", text)
}

// TestInterrupted: the server died while the request ran.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "requests.db")
	s := open(t, path, nil)
	_, _, err := s.Do(t.Context(), "k", "p", func() (idempotency.Answer, bool) {
		require.NoError(t, s.Close()) // nothing more reaches the file
		return idempotency.Answer{}, true
	})
	require.Error(t, err)
	_, _, err = say(t, open(t, path, nil), "k", "p", "", true)
	assert.ErrorIs(t, err, idempotency.ErrInterrupted)
}

func TestPanic(t *testing.T) {
	t.Parallel()
	s := open(t, filepath.Join(t.TempDir(), "requests.db"), nil)
	assert.Panics(t, func() {
		s.Do(t.Context(), "k", "p", func() (idempotency.Answer, bool) { panic("x") }) //nolint:errcheck // it panics
	})
	_, ran, err := say(t, s, "k", "p", "", true)
	require.NoError(t, err)
	assert.True(t, ran)
}

func TestJoined(t *testing.T) {
	t.Parallel()
	s := open(t, filepath.Join(t.TempDir(), "requests.db"), nil)
	var runs atomic.Int32
	begun, finish := make(chan struct{}), make(chan struct{})
	run := func() (idempotency.Answer, bool) {
		if runs.Add(1) == 1 {
			close(begun)
		}
		<-finish
		return idempotency.Answer{Status: 201}, true
	}
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			a, _, err := s.Do(t.Context(), "k", "p", run)
			assert.NoError(t, err)
			assert.Equal(t, 201, a.Status)
		})
	}
	<-begun
	_, _, err := s.Do(t.Context(), "k", "other", run)
	assert.ErrorIs(t, err, idempotency.ErrReused)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, err = s.Do(ctx, "k", "p", run)
	assert.ErrorIs(t, err, context.Canceled)
	close(finish)
	wg.Wait()
	assert.EqualValues(t, 1, runs.Load())
}

// TestBounded: a flood of keys and long answers takes bounded room, and the
// newest are there.
func TestBounded(t *testing.T) {
	t.Parallel()
	c := &clock{}
	s := open(t, filepath.Join(t.TempDir(), "requests.db"), c)
	long := strings.Repeat("x", idempotency.MaxBody)
	for i := range 70 {
		c.at.Add(1)
		_, _, err := say(t, s, fmt.Sprint(i), "p", long, true)
		require.NoError(t, err)
	}
	_, ran, err := say(t, s, "69", "p", "", true)
	require.NoError(t, err)
	assert.False(t, ran)
	_, ran, err = say(t, s, "0", "p", "", true)
	require.NoError(t, err)
	assert.True(t, ran, "4 MiB are full with the newest 64")
}
