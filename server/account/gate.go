package account

import (
	"context"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"time"
)

// The pace of strangers together: a burst, then one try each.
const (
	strangerBurst = 20
	strangerEvery = 250 * time.Millisecond
	maxStrangers  = 64 // that wait at once
)

// gate lets one password hash run at a time. Callers whose address has signed
// in before go first; the others wait for the pace above and are drawn by lot.
type gate struct {
	mu        sync.Mutex
	busy      bool
	known     []*waiter
	strangers []*waiter
	pace      time.Time // strangers may go while pace is not after now+burst
	timer     *time.Timer
	memory    *time.Timer // gives the hash's memory back once it is quiet
}

type waiter struct {
	turn    chan struct{} // closed when it may run
	dropped chan struct{} // closed when a newer stranger took its place
}

// enter waits for the caller's turn; leave must be called after it returned nil.
func (g *gate) enter(ctx context.Context, known bool) error {
	w := &waiter{turn: make(chan struct{}), dropped: make(chan struct{})}
	g.mu.Lock()
	if known {
		g.known = append(g.known, w)
	} else {
		if len(g.strangers) >= maxStrangers {
			i := rand.IntN(len(g.strangers) + 1)
			if i == len(g.strangers) {
				g.mu.Unlock()
				return throttled(time.Second)
			}
			close(g.strangers[i].dropped)
			g.strangers = append(g.strangers[:i], g.strangers[i+1:]...)
		}
		g.strangers = append(g.strangers, w)
	}
	g.nextLocked()
	g.mu.Unlock()

	select {
	case <-w.turn:
		return nil
	case <-w.dropped:
		return throttled(time.Second)
	case <-ctx.Done():
		g.mu.Lock()
		defer g.mu.Unlock()
		g.known, g.strangers = without(g.known, w), without(g.strangers, w)
		select {
		case <-w.turn: // it was our turn all the same
			g.busy = false
			g.nextLocked()
		default:
		}
		return ctx.Err()
	}
}

// leave ends the caller's turn. A second after the last one the memory that
// hashing took goes back to the system: without that the process keeps it.
func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.busy = false
	g.nextLocked()
	if g.memory == nil {
		g.memory = time.AfterFunc(time.Second, debug.FreeOSMemory)
	} else {
		g.memory.Reset(time.Second)
	}
}

// nextLocked gives the turn to whom it belongs to.
func (g *gate) nextLocked() {
	if g.busy {
		return
	}
	if len(g.known) > 0 {
		w := g.known[0]
		g.known = g.known[1:]
		g.busy = true
		close(w.turn)
		return
	}
	if len(g.strangers) == 0 {
		return
	}
	now := time.Now()
	if g.pace.Before(now) {
		g.pace = now
	}
	if wait := g.pace.Sub(now) - (strangerBurst-1)*strangerEvery; wait > 0 {
		if g.timer == nil {
			g.timer = time.AfterFunc(wait, g.kick)
		}
		return
	}
	g.pace = g.pace.Add(strangerEvery)
	i := rand.IntN(len(g.strangers))
	w := g.strangers[i]
	g.strangers = append(g.strangers[:i], g.strangers[i+1:]...)
	g.busy = true
	close(w.turn)
}

func (g *gate) kick() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.timer = nil
	g.nextLocked()
}

func without(list []*waiter, w *waiter) []*waiter {
	for i := range list {
		if list[i] == w {
			return append(list[:i], list[i+1:]...)
		}
	}
	return list
}
