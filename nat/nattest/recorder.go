package nattest

import (
	"context"
	"slices"
	"sync"

	"github.com/selfstead/selfstead/nat"
)

// Applier is what nat.Controller and Recorder have in common.
type Applier interface {
	Apply(ctx context.Context, cfg nat.Config) error
	Forwards(ctx context.Context) ([]nat.Forward, error)
	CleanUp(ctx context.Context) error
	Close() error
}

// Recorder is an Applier that only keeps what it is told. It refuses what
// nat.Controller refuses before it talks to the kernel. The zero value is ready
// and safe for concurrent use.
type Recorder struct {
	// Fail, when not nil, is asked before anything else of each call of Apply;
	// an error is returned and the old state stays.
	Fail func(cfg nat.Config) error

	mu       sync.Mutex
	applied  []nat.Config
	current  nat.Config
	cleanUps int
	closed   bool
}

// Apply keeps a copy of cfg.
func (r *Recorder) Apply(ctx context.Context, cfg nat.Config) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nat.ErrClosed
	}
	if r.Fail != nil {
		if err := r.Fail(cfg); err != nil {
			return err
		}
	}
	if err := cfg.Validate(); err != nil {
		return err
	}
	r.current = cfg.Clone()
	r.applied = append(r.applied, r.current)
	return nil
}

// Forwards lists what was applied last, in the order of the sources.
func (r *Recorder) Forwards(ctx context.Context) ([]nat.Forward, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, nat.ErrClosed
	}
	list := r.current.Clone().Forwards
	slices.SortFunc(list, func(a, b nat.Forward) int { return a.Source.Compare(b.Source) })
	return list, ctx.Err()
}

// CleanUp forgets the current state, not the history.
func (r *Recorder) CleanUp(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nat.ErrClosed
	}
	r.current = nat.Config{}
	r.cleanUps++
	return ctx.Err()
}

// Close makes every further call but Close fail with nat.ErrClosed.
func (r *Recorder) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	return nil
}

// Applied returns a copy of every Config that was accepted, oldest first.
func (r *Recorder) Applied() []nat.Config {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]nat.Config, len(r.applied))
	for i := range r.applied {
		out[i] = r.applied[i].Clone()
	}
	return out
}

// Current returns a copy of the state in force.
func (r *Recorder) Current() nat.Config {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.current.Clone()
}

// CleanUps says how often CleanUp was called.
func (r *Recorder) CleanUps() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.cleanUps
}
