package service

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/selfstead/selfstead/server/service/rpc"
	"github.com/selfstead/selfstead/server/service/status"
	"github.com/selfstead/selfstead/server/state"
)

// The pauses of the reconciler.
const (
	retryPause  = 10 * time.Second // when the document cannot be read
	steadyAfter = time.Minute      // a container that lived so long has not crashed early
)

// reconcile brings what runs to what is desired, for ever.
func (u *unit) reconcile(ctx context.Context) {
	log := u.m.log.With("package", u.id)
	crashes := 0 // containers in a row that did not last
	refused := 0 // starts or stops in a row that failed
	if u.instance() == nil {
		u.awaitNeeds(ctx)
	}
	for ctx.Err() == nil {
		run := u.instance()
		if run == nil || !run.alive() || u.wantsRebuild() {
			if run != nil && !run.alive() {
				if time.Since(run.born) >= steadyAfter {
					crashes = 0
				}
				crashes++
				log.Warn("the service's runtime ended", "exit", run.exit.String())
			}
			if u.takeRebuild() {
				crashes = 0
			}
			crashes = u.loaded(ctx, u.reload(ctx, run, crashes), crashes)
			continue
		}
		if !run.ready.Load() { // adopted before its code was loaded
			crashes = u.loaded(ctx, u.begin(ctx, run, ""), crashes)
			continue
		}
		info, err := u.status()
		if err != nil {
			log.Error("status", "err", err)
			u.pause(ctx, retryPause)
			continue
		}
		step := status.Decide(info)
		if step == status.Nothing && info.Desired.Main == status.Stopped && run.mayRun {
			step = status.Stopping // a start was asked for and never answered
		}
		if step == status.Nothing {
			u.arrive()
			if info.Error != nil { // of a start or stop that is no longer wanted
				u.trouble(ctx, nil)
			}
			select {
			case <-u.wake:
			case <-run.exited:
			case <-ctx.Done():
			}
			continue
		}
		if step == status.Stopping && info.Desired.Main == status.Restarting && u.stale(ctx) {
			u.requestRebuild()
			continue
		}
		if err := u.transition(ctx, run, step); err != nil && ctx.Err() == nil && run.alive() {
			log.Warn("the service does not "+string(step), "err", err)
			u.trouble(ctx, err)
			u.arrive()
			refused++
			u.pause(ctx, max(backoff(refused), time.Second))
		} else {
			refused = 0
		}
	}
}

// loaded deals with the outcome of a load and returns the count of crashes.
func (u *unit) loaded(ctx context.Context, err error, crashes int) int {
	switch {
	case ctx.Err() != nil, errors.Is(err, errRebuild):
	case err == nil:
		u.recheckSoon("")
	case isCodeFault(err):
		u.m.log.Warn("the service's code does not load", "package", u.id, "err", err)
		u.fail(ctx, err)
		u.arrive()
		u.awaitRebuild(ctx)
	default:
		u.m.log.Warn("the service does not load", "package", u.id, "err", err)
		u.fail(ctx, err)
		u.arrive()
		crashes++
		u.pause(ctx, max(backoff(crashes), time.Second))
	}
	return crashes
}

// transition does one step. A start is not waited for any longer once
// something else is desired; a stop always is, so that the next start cannot
// come before its end.
func (u *unit) transition(ctx context.Context, run *instance, step status.Step) error {
	if step == status.Backup {
		return u.backUp(ctx, run)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if step == status.Starting {
		run.mayRun = true
	}
	answer := make(chan error, 1)
	go func() { answer <- run.call(ctx, 0, string(step), struct{}{}, nil) }()
	for {
		select {
		case err := <-answer:
			if err != nil {
				return err
			}
			if step == status.Starting {
				now := time.Now()
				return u.edit(ctx, func(p *state.Package) { status.Started(p, now) })
			}
			run.mayRun = false
			return u.edit(ctx, status.Ended)
		case <-u.wake:
			if u.wantsRebuild() {
				return nil
			}
			if info, err := u.status(); step == status.Starting && err == nil && status.Decide(info) != step {
				return nil
			}
		case <-run.exited:
			return errGone
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// reload takes the old container away and brings up a new one with the
// package's code loaded, after a pause that grows with the crashes before.
func (u *unit) reload(ctx context.Context, old *instance, crashes int) error {
	if err := u.hold(ctx); err != nil {
		return err
	}
	defer u.release()
	if old != nil {
		if old.alive() && old.ready.Load() {
			version := u.archive().Manifest.Version.String()
			if err := old.leave(ctx, &version); err != nil {
				u.m.log.Warn("the service does not leave in order", "package", u.id, "err", err)
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
		u.setInstance(nil)
		if err := old.destroy(context.WithoutCancel(ctx)); err != nil {
			u.m.log.Error("remains of a container", "package", u.id, "err", err)
		}
	}
	if delay := backoff(crashes); delay > 0 {
		u.fail(ctx, fmt.Errorf("service: the runtime of %s ended %d times in a row; the next try is in %s", u.id, crashes, delay))
		u.pause(ctx, delay)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return u.load(ctx, "")
}

// load makes a container and loads the package's code in it. On error there is
// no container.
func (u *unit) load(ctx context.Context, kind string) error {
	run, err := u.create(ctx)
	if err != nil {
		return err
	}
	u.take(ctx, run)
	return u.begin(ctx, run, kind)
}

// begin loads the package's code. On error the container goes, unless the
// server hands over: whoever comes next joins the init.
func (u *unit) begin(ctx context.Context, run *instance, kind string) error {
	err := u.initialise(ctx, run, kind)
	if err == nil {
		return nil
	}
	u.setInstance(nil)
	if u.m.handing.Load() {
		run.detach(0)
		return err
	}
	if derr := run.destroy(context.WithoutCancel(ctx)); derr != nil {
		u.m.log.Error("remains of a container", "package", u.id, "err", derr)
	}
	return err
}

// initialise waits for the package's own set-up, for as long as that takes,
// unless a new container is asked for meanwhile.
func (u *unit) initialise(ctx context.Context, run *instance, kind string) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	answer := make(chan error, 1)
	go func() { answer <- run.init(ctx, kind) }()
	for {
		select {
		case err := <-answer:
			return err
		case <-u.wake:
			if u.wantsRebuild() {
				cancel(errRebuild)
			}
		}
	}
}

// errRebuild ends the waiting for a container that is not wanted any longer.
var errRebuild = errors.New("service: a new container is asked for")

// isCodeFault reports whether the package's own code threw: to try again by
// itself would not help.
func isCodeFault(err error) bool {
	var e *rpc.Error
	return errors.As(err, &e)
}

// awaitRebuild waits until someone asks for a new container.
func (u *unit) awaitRebuild(ctx context.Context) {
	for !u.wantsRebuild() {
		select {
		case <-u.wake:
		case <-ctx.Done():
			return
		}
	}
}

// pause waits, but no longer than until something else is desired.
func (u *unit) pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	before, _ := u.status()
	for {
		select {
		case <-t.C:
			return
		case <-u.wake:
			if now, err := u.status(); u.wantsRebuild() || err == nil && now.Desired.Main != before.Desired.Main {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}
