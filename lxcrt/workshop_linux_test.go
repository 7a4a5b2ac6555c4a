package lxcrt

import (
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// Whoever waits sees the end of all that began before, and is not held up by what
// begins meanwhile. With the race detector, a WaitGroup alone fails here.
func TestCalls(t *testing.T) {
	var c calls
	c.wait() // for nothing

	early := c.begin()
	waiting := make(chan struct{})
	go func() { c.wait(); close(waiting) }()
	for swapped := false; !swapped; { // until it waits
		c.mu.Lock()
		swapped = c.now == nil
		c.mu.Unlock()
	}
	late := c.begin()
	select {
	case <-waiting:
		require.Fail(t, "did not wait")
	default:
	}
	early()
	<-waiting
	late()

	var began, over atomic.Int64
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 1000 {
				done := c.begin()
				began.Add(1)
				over.Add(1)
				done()
			}
		})
	}
	for range 1000 {
		before := began.Load()
		c.wait()
		require.GreaterOrEqual(t, over.Load(), before)
	}
	all.Wait()
	require.EqualValues(t, 8000, over.Load())
}
