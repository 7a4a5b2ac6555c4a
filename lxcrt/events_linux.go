package lxcrt

import (
	"context"
	"sync"
	"time"
)

// Event is a change of a container's state.
type Event struct {
	Time      time.Time
	Container string
	State     State
	Exit      ExitStatus // with Stopped: how PID 1 ended
}

// eventBuffer is how far a listener may fall behind.
const eventBuffer = 256

// Events reports every change from now on, of all containers that this Runtime
// holds. The channel is closed when ctx ends, when the Runtime is closed, and when
// its reader is 256 events behind: then it has to look at List and State again.
func (r *Runtime) Events(ctx context.Context) <-chan Event {
	ch := make(chan Event, eventBuffer)
	if !r.events.add(ch) {
		close(ch)
		return ch
	}
	context.AfterFunc(ctx, func() { r.events.drop(ch) })
	return ch
}

// listeners never make the sender wait.
type listeners struct {
	mu     sync.Mutex
	chans  map[chan Event]bool // guarded by mu; a channel is closed when it leaves
	closed bool                // guarded by mu
}

func (l *listeners) add(ch chan Event) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	if l.chans == nil {
		l.chans = map[chan Event]bool{}
	}
	l.chans[ch] = true
	return true
}

func (l *listeners) drop(ch chan Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.chans[ch] {
		delete(l.chans, ch)
		close(ch)
	}
}

func (l *listeners) send(e Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for ch := range l.chans {
		select {
		case ch <- e:
		default:
			delete(l.chans, ch)
			close(ch)
		}
	}
}

func (l *listeners) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	for ch := range l.chans {
		delete(l.chans, ch)
		close(ch)
	}
}

// setStateLocked changes the state and says so; the caller holds c.mu.
func (c *Container) setStateLocked(s State) {
	if c.state == s {
		return
	}
	c.state = s
	e := Event{Time: time.Now(), Container: c.spec.Name, State: s}
	if s == Stopped {
		e.Exit = c.last
	}
	c.r.events.send(e)
}
