package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/selfstead/selfstead/lxcrt"
	"github.com/selfstead/selfstead/lxcrt/guest/node"
	"github.com/selfstead/selfstead/patchdb"
	"github.com/selfstead/selfstead/server/operation"
	"github.com/selfstead/selfstead/server/service/status"
	"github.com/selfstead/selfstead/server/state"
)

// Limits of the work at a start.
const (
	adoptLimit = 20 * time.Second // for a runtime to say how it stands
	handGrace  = 3 * time.Second  // for effects under way when the server hands over
)

// Start makes disk and kernel match the document and then runs the packages.
// It returns once the document is consistent and what ran is adopted; other
// services come up after that. Requests that come before wait for it.
func (m *Manager) Start(ctx context.Context) error {
	packages, err := patchdb.Get[map[string]state.Package](m.db, state.PackageData)
	if err != nil {
		return fmt.Errorf("service: packages: %w", err)
	}
	services, err := patchdb.Get[map[string]state.ServiceKeep](m.db, state.PrivatePointer("services"))
	if err != nil && !errors.Is(err, patchdb.ErrNotFound) {
		return fmt.Errorf("service: packages: %w", err)
	}
	alive := map[string]bool{}
	for id, p := range packages {
		if p.StateInfo.State != status.Installing && p.StateInfo.State != status.Updating {
			alive[services[id].Container] = true
		}
	}
	if err := m.rt.CleanUp(ctx, func(name string) bool { return alive[name] }); err != nil {
		return err
	}
	for _, id := range sortedKeys(packages) {
		switch packages[id].StateInfo.State {
		case status.Installing: // or restoring
			m.log.Info("an install was cut off and is taken back", "package", id)
			if err := m.unwind(ctx, id); err != nil {
				return err
			}
			delete(packages, id)
			m.interrupted(id)
		case status.Updating:
			m.log.Info("an update was cut off and is taken back", "package", id)
			if err := m.takeBack(ctx, id); err != nil {
				return err
			}
			if packages[id], err = patchdb.Get[state.Package](m.db, state.PackagePointer(id)); err != nil {
				return err
			}
			m.interrupted(id)
		case status.Installed:
			if err := m.dir.dropSnapshot(id); err != nil {
				m.log.Warn("a snapshot stays", "package", id, "err", err)
			}
			if job := m.ops.Resume(id); job != nil { // cut off before or after it mattered
				m.outcome(job, packages[id], services[id])
			}
		}
	}
	if err := m.sweep(packages); err != nil {
		return err
	}
	feed, err := m.db.Subscribe("", patchdb.SubscribeOptions{})
	if err != nil {
		return fmt.Errorf("service: %w", err)
	}
	feeding, cancel := context.WithCancel(context.WithoutCancel(ctx))
	m.cancel = func() { cancel(); feed.Close() }
	m.feeding.Go(func() { m.feed(feeding, feed) })
	for _, id := range sortedKeys(packages) {
		u := m.newUnit(id)
		if err := m.add(u); err != nil {
			return err
		}
	}
	m.arrange(packages)
	var reviving sync.WaitGroup
	for _, u := range m.all() {
		if packages[u.id].StateInfo.State == status.Removing {
			m.finishRemoval(u)
			continue
		}
		reviving.Go(func() { u.revive(ctx, packages[u.id], services[u.id]) })
	}
	reviving.Wait()
	for _, u := range m.all() {
		m.watchDrift(u.id)
		u.watchHealth(ctx)
	}
	if err := m.net.Sync(ctx); err != nil {
		return err
	}
	m.ops.SettleInterrupted(func(op operation.Operation) bool {
		_, there := packages[op.Package]
		return op.Kind == "uninstall" && !there
	})
	m.feeding.Go(func() { m.watchDisk(feeding) })
	close(m.up)
	return nil
}

// interrupted ends the operation of a package whose work was cut off and is
// taken back.
func (m *Manager) interrupted(id string) {
	if job := m.ops.Resume(id); job != nil {
		job.Finish(nil, operation.Interrupted())
	}
}

// outcome ends the operation of a package that is installed now: it had done
// its work when it was cut off, or not begun.
func (m *Manager) outcome(job *operation.Job, p state.Package, keep state.ServiceKeep) {
	if keep.Done != job.ID() {
		job.Finish(nil, operation.Interrupted())
		return
	}
	var have heading
	_ = json.Unmarshal(p.StateInfo.Manifest, &have)
	job.Finish(InstallResult{PackageID: job.Operation().Package, Version: have.Version}, nil)
}

// unwind takes back an install that was cut off.
func (m *Manager) unwind(ctx context.Context, id string) error {
	if m.kept(id) {
		if err := m.dir.restore(id); err != nil {
			return err
		}
	} else if err := m.dir.removePackage(id, "", true); err != nil {
		return err
	}
	return m.forget(ctx, id, false)
}

// sweep removes files that the document does not know.
func (m *Manager) sweep(packages map[string]state.Package) error {
	archives := map[string]bool{}
	for _, p := range packages {
		archives[p.S9pk] = true
	}
	data := func(name string) bool {
		_, ok := packages[name]
		return ok || m.kept(name)
	}
	return errors.Join(
		sweep(m.dir.packages(), func(name string) bool { return archives[name] }),
		sweep(m.dir.uploads(), func(string) bool { return false }),
		sweep(m.dir.volumes(), data),
		sweep(m.dir.logs(), data),
	)
}

// revive takes over the package's container, or leaves it to the reconciler to
// make one.
func (u *unit) revive(ctx context.Context, p state.Package, keep state.ServiceKeep) {
	u.settle()
	b, err := openBundle(ctx, u.m.dir.archive(p.S9pk), u.m.arch)
	if err != nil {
		u.m.log.Error("the installed archive cannot be read", "package", u.id, "err", err)
		u.discard(ctx, keep)
		u.fail(ctx, err)
		u.arrive()
		return // the entry stays for its owner to remove
	}
	u.mu.Lock()
	u.bundle = b
	u.mu.Unlock()
	var run *instance
	if p.StatusInfo.Desired.Main == status.BackingUp && p.StatusInfo.Started == nil {
		err = errors.New("service: its code may still be writing a backup")
	} else {
		run, err = u.adopt(ctx, keep, b)
	}
	if err != nil {
		u.m.log.Info("the container is made anew", "package", u.id, "err", err)
		u.discard(ctx, keep)
		if err := u.m.net.SetContainer(ctx, u.id, noAddr, noAddr); err != nil {
			u.m.log.Error("forwards", "package", u.id, "err", err)
		}
	}
	if run != nil {
		u.take(ctx, run)
		u.m.log.Info("adopted", "package", u.id, "container", run.guid)
	} else if err := u.edit(ctx, status.Load); err != nil {
		u.m.log.Error("status", "package", u.id, "err", err)
	}
	u.start()
}

// discard removes a container that is not adopted.
func (u *unit) discard(ctx context.Context, keep state.ServiceKeep) {
	if keep.Container == "" {
		return
	}
	c, err := u.m.rt.Load(ctx, keep.Container)
	if err == nil {
		err = c.Destroy(ctx)
	}
	if err != nil && !errors.Is(err, lxcrt.ErrNotFound) {
		u.m.log.Warn("remains of a container", "package", u.id, "container", keep.Container, "err", err)
	}
}

// runtimeStatus is what our runtime says of itself.
type runtimeStatus struct {
	Initialized bool    `json:"initialized"`
	Started     bool    `json:"started"`
	Callbacks   []int64 `json:"callbacks"`
	Protocol    int     `json:"protocol"`
}

// adopt takes over a running container that an earlier process made. One that
// would be made differently now, from a newer base image or with a runtime of
// another protocol, runs on and is made anew at its next restart. Without a
// container, or when its runtime does not answer, adopt returns an error and has
// changed nothing.
func (u *unit) adopt(ctx context.Context, keep state.ServiceKeep, b *bundle) (*instance, error) {
	if keep.Container == "" {
		return nil, errors.New("service: there was none")
	}
	c, err := u.m.rt.Load(ctx, keep.Container)
	if err != nil {
		return nil, err
	}
	if c.State() != lxcrt.Running {
		return nil, errors.New("service: it does not run")
	}
	run, err := u.attach(c, keep.Container, keep, b)
	if err != nil {
		return nil, err
	}
	run.recall()
	run.follow()
	s, err := run.status(ctx)
	run.old = s.Protocol != node.Protocol
	if err == nil {
		err = u.m.net.SetContainer(ctx, u.id, parseAddr(keep.Addr4), parseAddr(keep.Addr6))
	}
	if err == nil {
		err = u.matchRuntime(ctx, run, s)
	}
	if err != nil {
		run.detach(0)
		return nil, err
	}
	run.notify(s.Callbacks)
	return run, nil
}

// status asks the runtime, which may only be coming up.
func (r *instance) status(ctx context.Context) (s runtimeStatus, err error) {
	ctx, cancel := r.bound(ctx, adoptLimit)
	defer cancel()
	conn, err := r.folder.Await(ctx, "service.sock")
	if err != nil {
		return s, err
	}
	r.client.Add(conn)
	return s, r.call(ctx, 0, "selfstead.status", struct{}{}, &s)
}

// matchRuntime makes the document say what the adopted runtime says.
func (u *unit) matchRuntime(ctx context.Context, run *instance, s runtimeStatus) error {
	run.mayRun = s.Started
	if s.Initialized {
		run.ready.Store(true)
		return u.edit(ctx, func(p *state.Package) {
			switch {
			case !s.Started:
				status.Ended(p)
			case p.StatusInfo.Started == nil && p.StatusInfo.Desired.Main == status.Running:
				status.Started(p, time.Now())
			}
			p.StatusInfo.Error = nil
			status.Settle(p)
		})
	}
	return u.edit(ctx, status.Load) // the reconciler sends init, which joins one under way
}

// finishRemoval goes on with a removal that was cut off, by force: its owner
// has been told that it goes.
func (m *Manager) finishRemoval(u *unit) {
	m.log.Info("a removal was cut off and is finished", "package", u.id)
	job := m.ops.Resume(u.id)
	if job == nil {
		job = m.ops.Begin("uninstall")
		job.SetPackage(u.id)
	}
	job.Go(func(ctx context.Context) (any, error) {
		if err := u.hold(ctx); err != nil {
			return nil, err
		}
		defer u.release()
		p, err := patchdb.Get[state.Package](m.db, state.PackagePointer(u.id))
		if err != nil {
			return nil, err
		}
		keep, _ := patchdb.Get[state.ServiceKeep](m.db, keepPointer(u.id))
		if b, err := openBundle(ctx, m.dir.archive(p.S9pk), m.arch); err == nil {
			u.mu.Lock()
			u.bundle = b
			u.mu.Unlock()
			if run, err := u.adopt(ctx, keep, b); err == nil {
				u.setInstance(run)
			}
		}
		if u.instance() == nil {
			u.discard(ctx, keep)
		}
		return nil, u.erase(context.WithoutCancel(ctx), true, func(string, int64) {})
	})
}
