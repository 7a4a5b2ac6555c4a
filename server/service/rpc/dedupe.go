package rpc

import (
	"encoding/json"
	"sync"
	"time"
)

// What is remembered of answered calls, so that a call that a runtime repeats
// after a cut connection gets the first answer again. One container's memory
// stays within these bounds whatever it calls.
const (
	dedupeFor    = 10 * time.Minute
	dedupeMax    = 1024
	dedupeBytes  = 256 << 10
	dedupeAnswer = 64 << 10 // a larger answer is forgotten at once: it can only come from reading
)

type outcome struct {
	result json.RawMessage
	err    error
}

func (o outcome) size() int {
	n := 128 + len(o.result)
	if e, ok := o.err.(*Error); ok {
		n += len(e.Message) + len(e.Data)
	}
	return n
}

type dedupeEntry struct {
	id      string
	done    chan struct{} // closed when outcome is set
	outcome outcome
	at      time.Time
	size    int // 0 while the call runs
}

// dedupe runs each call id once.
type dedupe struct {
	mu    sync.Mutex
	byID  map[string]*dedupeEntry
	order []*dedupeEntry // answered calls, oldest first
	bytes int            // of those
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
	e := &dedupeEntry{id: id, done: make(chan struct{})}
	d.byID[id] = e
	d.mu.Unlock()
	e.outcome = fn()
	close(e.done)
	d.mu.Lock()
	defer d.mu.Unlock()
	if e.size, e.at = e.outcome.size(), time.Now(); e.size > dedupeAnswer {
		delete(d.byID, id)
		return e.outcome
	}
	d.order, d.bytes = append(d.order, e), d.bytes+e.size
	for len(d.order) > dedupeMax || d.bytes > dedupeBytes || time.Since(d.order[0].at) > dedupeFor {
		delete(d.byID, d.order[0].id)
		d.bytes -= d.order[0].size
		d.order[0] = nil
		d.order = d.order[1:]
	}
	return e.outcome
}
