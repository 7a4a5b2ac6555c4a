package service

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/selfstead/selfstead/patchdb"
	"github.com/selfstead/selfstead/server/service/effect"
	"github.com/selfstead/selfstead/server/service/rpc"
	"github.com/selfstead/selfstead/server/service/status"
	"github.com/selfstead/selfstead/server/state"
)

// unit is one package. Whoever changes its container holds its life: an
// install, a removal, the closing server, or the reconciler, which runs in
// between.
type unit struct {
	m  *Manager
	id string

	life  chan struct{} // holds one token while free
	wake  chan struct{} // the status may have changed
	stay  chan struct{} // closed once the package is installed, or will never be
	stayO sync.Once
	runs  runLock // one action at a time

	needs []*unit       // whom to wait for at the server's start
	came  chan struct{} // closed once it has come up, or failed to, for the first time
	cameO sync.Once

	checks checks // history of its health

	updating atomic.Bool // an upload is to update it

	limiting sync.Mutex // limits and what has them change together

	mu      sync.Mutex
	bundle  *bundle
	run     *instance // nil while there is no container
	rebuild bool      // asked for a new container
	backup  *backup   // prepared, not begun
	recheck map[string]bool
	stop    context.CancelFunc // of the reconciler
	done    chan struct{}
}

func (m *Manager) newUnit(id string) *unit {
	u := &unit{
		m: m, id: id, life: make(chan struct{}, 1), wake: make(chan struct{}, 1),
		stay: make(chan struct{}), came: make(chan struct{}), recheck: map[string]bool{},
	}
	u.life <- struct{}{}
	u.runs.init()
	return u
}

// hold takes the unit's life.
func (u *unit) hold(ctx context.Context) error {
	select {
	case <-u.life:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (u *unit) release() { u.life <- struct{}{} }

// settled is closed once the package is no longer being installed.
func (u *unit) settled() <-chan struct{} { return u.stay }
func (u *unit) settle()                  { u.stayO.Do(func() { close(u.stay) }) }

func (u *unit) archive() *bundle {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.bundle
}

func (u *unit) instance() *instance {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.run
}

// setInstance also tells those who wait for the package's address.
func (u *unit) setInstance(run *instance) {
	u.mu.Lock()
	u.run = run
	u.mu.Unlock()
	for who, ids := range u.m.watch.take([]patchdb.Pointer{keepPointer(u.id)}) {
		who.notify(ids)
	}
}

// poke makes the reconciler look again.
func (u *unit) poke() {
	select {
	case u.wake <- struct{}{}:
	default:
	}
}

// requestRebuild asks the reconciler for a new container.
func (u *unit) requestRebuild() {
	u.mu.Lock()
	u.rebuild = true
	u.mu.Unlock()
	u.poke()
}

// takeRebuild says whether a new container was asked for, and forgets it.
func (u *unit) takeRebuild() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	asked := u.rebuild
	u.rebuild = false
	return asked
}

func (u *unit) wantsRebuild() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.rebuild
}

// edit changes the package's status in the document.
func (u *unit) edit(ctx context.Context, command func(*state.Package)) error {
	_, err := u.m.db.Update(ctx, func(tx *patchdb.Tx) error { return effect.Edit(tx, u.id, command) })
	if err != nil {
		return fmt.Errorf("service: status of %s: %w", u.id, err)
	}
	return nil
}

func (u *unit) status() (state.StatusInfo, error) {
	return patchdb.Get[state.StatusInfo](u.m.db, state.PackagePointer(u.id, "statusInfo"))
}

// start runs the reconciler until halt.
func (u *unit) start() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	u.mu.Lock()
	u.stop, u.done = cancel, done
	u.mu.Unlock()
	go func() {
		defer close(done)
		defer u.arrive() // nobody waits for what nobody brings up
		u.reconcile(ctx)
	}()
}

// halt ends the reconciler and waits for it; the container stays as it is.
func (u *unit) halt() {
	u.mu.Lock()
	stop, done := u.stop, u.done
	u.stop, u.done = nil, nil
	u.mu.Unlock()
	if stop != nil {
		stop()
		<-done
	}
}

// fail shows in the document why the package does not run.
func (u *unit) fail(ctx context.Context, err error) {
	e := errorData(err)
	if err := u.edit(ctx, func(p *state.Package) { status.Fail(p, e) }); err != nil && ctx.Err() == nil {
		u.m.log.Error("status", "package", u.id, "err", err)
	}
}

// trouble shows why a start or stop did not succeed; nil takes it back.
func (u *unit) trouble(ctx context.Context, err error) {
	var e *state.ErrorData
	if err != nil {
		data := errorData(err)
		e = &data
	}
	if err := u.edit(ctx, func(p *state.Package) { status.Trouble(p, e) }); err != nil && ctx.Err() == nil {
		u.m.log.Error("status", "package", u.id, "err", err)
	}
}

// errorData is an error as the document shows it.
func errorData(err error) state.ErrorData {
	var e *rpc.Error
	if errors.As(err, &e) {
		return state.ErrorData{Details: e.Details(), Debug: e.Debug()}
	}
	return state.ErrorData{Details: err.Error()}
}
