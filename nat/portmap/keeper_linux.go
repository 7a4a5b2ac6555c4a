package portmap

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"
)

// Times of a Keeper.
const (
	retryFirst = 5 * time.Second // after a refusal or silence, doubled up to
	retryMost  = 10 * time.Minute
	checkUp    = time.Hour // for mappings that never end: the router may have restarted
)

// State is what a Keeper has reached for one request.
type State struct {
	Request Request
	Mapping *Mapping // nil while there is none
	Err     error    // of the last try; nil when it went well
}

// Granted says whether the router has granted the port.
func (s State) Granted() bool { return s.Mapping != nil }

// Mapper is the part of Client that a Keeper needs.
type Mapper interface {
	Map(ctx context.Context, r Request, before *Mapping) (Mapping, error)
	Unmap(ctx context.Context, m Mapping) error
}

// Keeper holds a set of mappings at one router. It is safe for concurrent use.
type Keeper struct {
	router  Mapper
	log     *slog.Logger
	changed func([]State)

	mu     sync.Mutex
	wanted []*kept
	wake   chan struct{}

	cancel context.CancelFunc
	done   chan struct{}
}

// kept is one request with what became of it.
type kept struct {
	State
	next  time.Time // when to ask again
	tries int       // failures in a row
	drop  bool      // no longer wanted
}

// NewKeeper starts a Keeper with nothing to hold. changed, where not nil, is
// called, one call at a time, after each change of what has been granted.
func NewKeeper(router Mapper, log *slog.Logger, changed func([]State)) *Keeper {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	ctx, cancel := context.WithCancel(context.Background())
	k := &Keeper{router: router, log: log, changed: changed, wake: make(chan struct{}, 1), cancel: cancel, done: make(chan struct{})}
	go k.run(ctx)
	return k
}

// Apply takes the whole wanted set; the rest is given back. It does not wait for
// the router: see States and the changed function. ErrInvalid names a request
// that is wrong, and nothing has changed then.
func (k *Keeper) Apply(requests []Request) error {
	want := map[Request]bool{}
	var list []Request
	for _, r := range requests {
		r, err := r.normal()
		if err != nil {
			return err
		}
		if !want[r] {
			want[r] = true
			list = append(list, r)
		}
	}
	k.mu.Lock()
	have := map[Request]bool{}
	for _, e := range k.wanted {
		e.drop = !want[e.Request]
		have[e.Request] = true
	}
	for _, r := range list {
		if !have[r] {
			k.wanted = append(k.wanted, &kept{State: State{Request: r}})
		}
	}
	k.mu.Unlock()
	k.nudge()
	return nil
}

// Refresh asks the router again for everything now, after a change of the
// network for instance.
func (k *Keeper) Refresh() {
	k.mu.Lock()
	for _, e := range k.wanted {
		e.next = time.Time{}
	}
	k.mu.Unlock()
	k.nudge()
}

func (k *Keeper) nudge() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// States lists what has been reached, in the order in which it was asked for.
func (k *Keeper) States() []State {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := []State{}
	for _, e := range k.wanted {
		if !e.drop {
			out = append(out, e.State)
		}
	}
	return out
}

// Close gives every mapping back, within ctx, and ends the Keeper. The error is
// of the mappings that the router may still have.
func (k *Keeper) Close(ctx context.Context) error {
	k.cancel()
	<-k.done
	k.mu.Lock()
	defer k.mu.Unlock()
	var errs []error
	for _, e := range k.wanted {
		if e.Mapping != nil {
			errs = append(errs, k.router.Unmap(ctx, *e.Mapping))
		}
	}
	k.wanted = nil
	return errors.Join(errs...)
}

func (k *Keeper) run(ctx context.Context) {
	defer close(k.done)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-k.wake:
		case <-timer.C:
		}
		for {
			e, wait := k.due()
			if e == nil {
				timer.Reset(wait)
				break
			}
			if k.serve(ctx, e) && k.changed != nil {
				k.changed(k.States())
			}
			if ctx.Err() != nil {
				return
			}
		}
	}
}

// due is an entry to do something about now, or how long to wait.
func (k *Keeper) due() (*kept, time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now, wait := time.Now(), time.Hour
	for _, e := range k.wanted {
		if e.drop || !e.next.After(now) {
			return e, 0
		}
		wait = min(wait, e.next.Sub(now))
	}
	return nil, wait
}

// serve asks for, renews or gives back one entry, and says whether what is
// granted changed.
func (k *Keeper) serve(ctx context.Context, e *kept) bool {
	k.mu.Lock()
	drop, before := e.drop, e.Mapping
	k.mu.Unlock()
	if drop {
		if before != nil {
			if err := k.router.Unmap(ctx, *before); err != nil {
				k.log.Warn("a mapping is not given back; it ends by itself", "outside", before.Outside.String(), "err", err)
			}
		}
		k.mu.Lock()
		defer k.mu.Unlock()
		if !e.drop { // wanted again meanwhile
			e.Mapping, e.next = nil, time.Time{}
			return before != nil
		}
		for i, other := range k.wanted {
			if other == e {
				k.wanted = append(k.wanted[:i], k.wanted[i+1:]...)
				break
			}
		}
		return before != nil
	}
	m, err := k.router.Map(ctx, e.Request, before)
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now()
	if err != nil {
		if ctx.Err() != nil {
			return false
		}
		e.Err = err
		e.next = now.Add(min(retryFirst<<min(e.tries, 10), retryMost))
		e.tries++
		if before != nil && before.Granted > 0 && now.After(before.Since.Add(before.Granted)) {
			e.Mapping = nil // it has run out
			return true
		}
		k.log.Debug("no mapping", "port", e.Request.Internal, "err", err)
		return false
	}
	if restarted(before, m) {
		k.log.Info("the router has lost its mappings; asking again for all")
		for _, other := range k.wanted {
			if other != e {
				other.next = time.Time{}
			}
		}
	}
	changed := before == nil || before.Outside != m.Outside
	e.Mapping, e.Err, e.tries = &m, nil, 0
	e.next = now.Add(checkUp)
	if m.Granted > 0 {
		e.next = now.Add(max(m.Granted/2, time.Second)) // RFC 6886 section 3.3
	}
	return changed
}

// restarted says whether the router's state began anew between two answers
// (RFC 6887 section 8.5): its clock must have gone on about as ours has.
func restarted(before *Mapping, now Mapping) bool {
	if before == nil || !before.hasEpoch || !now.hasEpoch {
		return false
	}
	ours := now.Since.Sub(before.Since).Seconds()
	theirs := float64(now.epoch) - float64(before.epoch)
	return theirs < -1 || theirs+2 < ours*7/8
}
