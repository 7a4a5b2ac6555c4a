package rpc

import (
	"sync"
	"time"
)

// How long and how many answered calls are remembered, so that a call that a
// runtime repeats after a cut connection gets the first answer again.
const (
	dedupeFor = 10 * time.Minute
	dedupeMax = 4096
)

type outcome struct {
	result any
	err    error
}

type dedupeEntry struct {
	id      string
	done    chan struct{} // closed when outcome is set
	outcome outcome
	at      time.Time
}

// dedupe runs each call id once.
type dedupe struct {
	mu    sync.Mutex
	byID  map[string]*dedupeEntry
	order []*dedupeEntry // oldest first
}

func newDedupe() *dedupe { return &dedupe{byID: map[string]*dedupeEntry{}} }

// do runs fn, or waits for the run that has the same id. An empty id is never
// the same.
func (d *dedupe) do(id string, fn func() outcome) outcome {
	if id == "" || len(id) > 128 {
		return fn()
	}
	d.mu.Lock()
	if e, ok := d.byID[id]; ok {
		d.mu.Unlock()
		<-e.done
		return e.outcome
	}
	e := &dedupeEntry{id: id, done: make(chan struct{}), at: time.Now()}
	d.byID[id] = e
	d.order = append(d.order, e)
	for len(d.order) > 0 && (len(d.order) > dedupeMax || time.Since(d.order[0].at) > dedupeFor) {
		delete(d.byID, d.order[0].id)
		d.order = d.order[1:]
	}
	d.mu.Unlock()
	e.outcome = fn()
	close(e.done)
	return e.outcome
}
