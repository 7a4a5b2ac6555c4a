package service

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/selfstead/selfstead/lxcrt"
	"github.com/selfstead/selfstead/patchdb"
	"github.com/selfstead/selfstead/server/api"
	"github.com/selfstead/selfstead/server/journal"
	"github.com/selfstead/selfstead/server/network"
	"github.com/selfstead/selfstead/server/operation"
	"github.com/selfstead/selfstead/server/problem"
	"github.com/selfstead/selfstead/server/state"
)

// Deps are what a Manager works on; all but Issuer and Logger are needed.
type Deps struct {
	DB         *patchdb.DB
	Runtime    *lxcrt.Runtime
	Network    *network.Manager
	Operations *operation.Manager
	Dir        string // the server's folder
	// Layers are those of every container's root, topmost first. It may wait, for
	// a base image to be built say; installs and starts of containers do then.
	Layers func(ctx context.Context) ([]lxcrt.Layer, error)
	Arch   string       // "x86_64" or "aarch64"
	Issuer Issuer       // of certificates; nil: services get none
	Logger *slog.Logger // nil means silent

	Now func() time.Time // the clock that certificates are judged by; nil means time.Now

	// SetUpLimit is how long a package may set itself up, at an install or an
	// update, without a word of progress; 0 means an hour.
	SetUpLimit time.Duration

	// DriftLimit is how long a service may be something else than its owner wants
	// until the owner is told; 0 means ten minutes.
	DriftLimit time.Duration
}

// Manager runs the packages. It is safe to share.
type Manager struct {
	db     *patchdb.DB
	rt     *lxcrt.Runtime
	net    netRoom
	ops    *operation.Manager
	dir    layout
	layers func(ctx context.Context) ([]lxcrt.Layer, error)
	arch   string
	issuer Issuer
	log    *slog.Logger
	now    func() time.Time
	setUp  time.Duration
	drift  *drift
	watch  *watchers[*instance]

	edgeMu    sync.Mutex
	edgesNow  string // what the runtime was told last
	accessNow string // what the network room was told last

	handing atomic.Bool     // Close hands over: containers go on
	ctx     context.Context // ends when Close begins
	halt    context.CancelCauseFunc
	up      chan struct{}      // closed once Start has made everything consistent
	cancel  context.CancelFunc // of the feed
	feeding sync.WaitGroup

	mu       sync.Mutex
	units    map[string]*unit
	renewals map[patchdb.Pointer]*time.Timer
	closed   bool
}

// netRoom is the network room as this one uses it.
type netRoom struct{ *network.Manager }

// ClearBindings disables every binding of a package: those that it still has
// are made anew by its init.
func (netRoom) ClearBindings(tx *patchdb.Tx, pkg string) error {
	return network.ClearBindings(tx, pkg, nil)
}

var noAddr netip.Addr

// New makes a Manager. Nothing runs before Start.
func New(d Deps) (*Manager, error) {
	if d.DB == nil || d.Runtime == nil || d.Network == nil || d.Operations == nil || d.Dir == "" || d.Arch == "" || d.Layers == nil {
		return nil, errors.New("service: a dependency is missing")
	}
	log := d.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	m := &Manager{
		db: d.DB, rt: d.Runtime, net: netRoom{d.Network}, ops: d.Operations, dir: layout(d.Dir), layers: d.Layers,
		arch: d.Arch, issuer: d.Issuer, log: log, setUp: cmp.Or(d.SetUpLimit, setUpLimit),
		watch: newWatchers[*instance](), units: map[string]*unit{}, renewals: map[patchdb.Pointer]*time.Timer{}, up: make(chan struct{}),
	}
	if m.now = d.Now; m.now == nil {
		m.now = time.Now
	}
	m.ctx, m.halt = context.WithCancelCause(context.Background())
	limit := cmp.Or(d.DriftLimit, 10*time.Minute)
	m.drift = newDrift(limit, min(steadyAfter, limit), m.tellDrift)
	if err := m.dir.make(); err != nil {
		return nil, err
	}
	return m, nil
}

var errStopping = problem.New(503, problem.CodeStopping, "the server is stopping")

// bound is ctx that also ends when the Manager closes.
func (m *Manager) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(m.ctx, func() { cancel(context.Cause(m.ctx)) })
	return ctx, func() { stop(); cancel(nil) }
}

func (m *Manager) spec(layers []lxcrt.Layer, guid string, keep state.ServiceKeep, b *bundle) lxcrt.Spec {
	v4, v6 := m.rt.Gateway()
	return containerSpec(m.dir, layers, v4, v6, guid, keep, b)
}

// fingerprint is what a container made now would be made from.
func (m *Manager) fingerprint(layers []lxcrt.Layer, keep state.ServiceKeep, b *bundle) string {
	return fingerprint(m.spec(layers, "any", keep, b))
}

func keepPointer(pkg string) patchdb.Pointer { return state.PrivatePointer("services", pkg) }

// unit returns the package's unit, nil when there is none.
func (m *Manager) unit(id string) *unit {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.units[id]
}

// add registers a unit, unless there is one.
func (m *Manager) add(u *unit) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return errStopping
	}
	if m.units[u.id] != nil {
		return problem.Newf(409, problem.CodeBusy, "package %s is being worked on", u.id)
	}
	m.units[u.id] = u
	return nil
}

func (m *Manager) remove(u *unit) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.units[u.id] == u {
		delete(m.units, u.id)
		m.drift.forget(u.id)
	}
	u.settle()
	u.arrive() // nobody waits for it any longer
}

func (m *Manager) all() []*unit {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := make([]*unit, 0, len(m.units))
	for _, id := range sortedKeys(m.units) {
		list = append(list, m.units[id])
	}
	return list
}

// feed follows the document: it fires callbacks and wakes reconcilers.
func (m *Manager) feed(ctx context.Context, s *patchdb.Subscription) {
	for {
		event, err := s.Next(ctx)
		if err != nil {
			if ctx.Err() == nil {
				m.log.Error("changes of the document are not followed", "err", err)
			}
			return
		}
		var paths []patchdb.Pointer // nil: anything may have changed
		if event.Revision != nil {
			paths = make([]patchdb.Pointer, 0, len(event.Revision.Patch))
			for _, op := range event.Revision.Patch {
				paths = append(paths, patchdb.Pointer(op.Path))
				if op.From != "" {
					paths = append(paths, patchdb.Pointer(op.From))
				}
			}
		}
		if paths == nil || slices.ContainsFunc(paths, concernsAccess) {
			if err := m.syncAccess(ctx); err != nil && ctx.Err() == nil {
				m.log.Error("who may reach whom", "err", err)
			}
		}
		for run, ids := range m.watch.take(paths) {
			run.notify(ids)
		}
		for _, u := range m.all() {
			if paths == nil || touched(state.PackagePointer(u.id, "statusInfo", "desired"), paths) ||
				touched(state.PackagePointer(u.id, "statusInfo", "started"), paths) {
				u.poke()
			}
			if paths == nil || touched(state.PackagePointer(u.id, "state"), paths) || touched(state.PackagePointer(u.id, "desiredState"), paths) {
				m.watchDrift(u.id)
			}
			if paths == nil || touched(state.PackagePointer(u.id, "statusInfo", "health"), paths) {
				u.watchHealth(ctx)
			}
		}
	}
}

// Close ends the work. With stop every service leaves and its container goes,
// those that need others before these; without, containers go on and the next Start adopts them. It may be called
// twice.
func (m *Manager) Close(ctx context.Context, stop bool) error {
	m.mu.Lock()
	again := m.closed
	m.closed = true
	for _, t := range m.renewals {
		t.Stop()
	}
	m.mu.Unlock()
	if again {
		return nil
	}
	m.handing.Store(!stop)
	m.drift.close()
	m.halt(errStopping) // installs under way are taken back
	order := [][]*unit{m.all()}
	if stop {
		order = m.stopOrder(m.all())
	}
	var mu sync.Mutex
	var errs []error
	for _, wave := range order {
		var wg sync.WaitGroup
		for _, u := range wave {
			wg.Go(func() {
				err := u.close(ctx, stop)
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, err)
			})
		}
		wg.Wait()
	}
	if m.cancel != nil {
		m.cancel()
		m.feeding.Wait()
	}
	return errors.Join(errs...)
}

// close ends one unit.
func (u *unit) close(ctx context.Context, stop bool) error {
	u.halt()
	if err := u.hold(ctx); err != nil {
		return fmt.Errorf("service: %s is still being worked on: %w", u.id, err)
	}
	defer u.release()
	u.halt() // whoever held it may have gone on
	run := u.instance()
	if run == nil {
		return nil
	}
	if !stop {
		run.detach(handGrace)
		return nil
	}
	u.setInstance(nil)
	if run.alive() && run.ready.Load() {
		version := u.archive().Manifest.Version.String()
		if err := run.leave(ctx, &version); err != nil {
			u.m.log.Warn("the service does not leave in order", "package", u.id, "err", err)
		}
	}
	return run.destroy(context.WithoutCancel(ctx))
}

// await waits until Start is done, so that a request that comes early is
// answered and not refused.
func (m *Manager) await(ctx context.Context) error {
	select {
	case <-m.up:
		return nil
	case <-m.ctx.Done():
		return context.Cause(m.ctx)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// installed returns the unit of a package that is neither half installed nor
// half removed, or a problem.
func (m *Manager) installed(ctx context.Context, id string) (*unit, error) {
	if err := m.await(ctx); err != nil {
		return nil, err
	}
	info, err := patchdb.Get[state.StateInfo](m.db, state.PackagePointer(id, "stateInfo"))
	if err != nil {
		return nil, problem.NotFound("package", id)
	}
	if info.State != "installed" {
		return nil, problem.Newf(409, problem.CodeBusy, "package %s is %s", id, info.State)
	}
	u := m.unit(id)
	if u == nil {
		return nil, problem.New(503, problem.CodeStopping, "the server is not ready for packages")
	}
	return u, nil
}

// Hosts lists every address that reaches the package.
func (m *Manager) Hosts(id string) ([]api.Host, error) {
	hosts, err := m.net.Hosts(id)
	if errors.Is(err, patchdb.ErrNotFound) {
		return nil, problem.NotFound("package", id)
	}
	return hosts, err
}

// Logs is the package's log.
func (m *Manager) Logs(id string) (*journal.Log, error) {
	if _, err := patchdb.Get[state.StateInfo](m.db, state.PackagePointer(id, "stateInfo")); err != nil {
		return nil, problem.NotFound("package", id)
	}
	return journal.Open(m.dir.log(id)), nil
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
