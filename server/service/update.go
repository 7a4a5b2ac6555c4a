package service

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/selfstead/selfstead/patchdb"
	"github.com/selfstead/selfstead/server/operation"
	"github.com/selfstead/selfstead/server/problem"
	"github.com/selfstead/selfstead/server/service/effect"
	"github.com/selfstead/selfstead/server/service/status"
	"github.com/selfstead/selfstead/server/state"
)

// An update of an installed package. Until the new archive is proven whole the
// package works on as ever. Then
//
//	document says updating - old service stops - snapshot of its data -
//	old version's exit - its container goes - new container - init -
//	document says installed - old archive and snapshot go
//
// Whatever fails or cuts it off before the document says installed, the
// snapshot is put back and the old version runs again; see [Manager.takeBack].

const updateSteps = 6

// updatePointer is where the package stands as it was before its update.
func updatePointer(pkg string) patchdb.Pointer { return state.PrivatePointer("updates", pkg) }

// signerPointer is where the signer of the first install stands.
func signerPointer(pkg string) patchdb.Pointer { return state.PrivatePointer("signers", pkg) }

// claimUpdate makes the upload one that updates an installed package, which
// goes on meanwhile.
func (in *installing) claimUpdate(u *unit) error {
	m, mf := in.m, in.sv.Manifest()
	p, err := patchdb.Get[state.Package](m.db, state.PackagePointer(mf.ID))
	if err == nil && in.restore != "" {
		return problem.Newf(409, problem.CodeAlreadyInstalled, "package %s is installed; a backup is not restored over it", mf.ID)
	}
	if err != nil {
		return problem.Newf(409, problem.CodeBusy, "package %s is being worked on", mf.ID)
	}
	if err := in.checkUpdate(p); err != nil {
		return err
	}
	if !u.updating.CompareAndSwap(false, true) {
		return problem.Newf(409, problem.CodeBusy, "package %s is being updated", mf.ID)
	}
	in.undo.push("claim", func(context.Context) error { u.updating.Store(false); return nil })
	in.u, in.old = u, &p
	in.job.SetKind("update")
	return nil
}

// checkUpdate refuses what need not be received to the end.
func (in *installing) checkUpdate(p state.Package) error {
	m, mf := in.m, in.sv.Manifest()
	old, err := readVersions(p.StateInfo.Manifest)
	if err != nil {
		return err
	}
	if p.StateInfo.State != status.Installed || old.Version.String() == mf.Version.String() && !in.options.Reinstall {
		return taken(mf, p)
	}
	if err := m.checkSigner(mf.ID, p.DeveloperKey, in.signer(), in.options.AcceptSigner); err != nil {
		return err
	}
	data, err := m.dir.dataVersion(mf.ID)
	if err != nil {
		return err
	}
	if _, err := planLeap(old, data, mf); err != nil {
		return err
	}
	need, err := m.dir.snapshotNeeds(mf.ID)
	if err != nil {
		return err
	}
	return m.roomFor("the package and a copy of its data", max(in.size, 0)-in.sv.Received()+need)
}

// checkSigner lets only the signer of the first install, or one that the owner
// accepts by name, bring another version. without is the signer where none was
// pinned.
func (m *Manager) checkSigner(id, without, signer, accepted string) error {
	pinned, err := patchdb.Get[string](m.db, signerPointer(id))
	if errors.Is(err, patchdb.ErrNotFound) {
		pinned, err = without, nil
	}
	if err != nil {
		return fmt.Errorf("service: signer of %s: %w", id, err)
	}
	if pinned == "" || signer == pinned || signer == accepted {
		return nil
	}
	return problem.Newf(409, "signer-changed", "package %s was signed by %s when it was first installed, this file by %s: if you trust the new signer, say so", id, pinned, signer).
		WithFix("POST", "/v1/packages:sideload?acceptSigner="+signer, "the same file again, with the new signer accepted")
}

// update replaces the installed version. On error all is as it was, after undo.
func (in *installing) update(ctx context.Context) (InstallResult, error) {
	m, u := in.m, in.u
	step := func(n int64) { in.job.Progress("update", n, updateSteps, operation.Steps) }
	step(0)
	old, err := readVersions(in.old.StateInfo.Manifest)
	if err != nil {
		return InstallResult{}, err
	}
	if err := m.beginUpdate(ctx, in); err != nil {
		return InstallResult{}, err
	}
	before := u.archive()
	held := false
	in.undo.push("update", func(ctx context.Context) error {
		var err error
		if run := u.instance(); run != nil && held { // the old one, half gone: nothing may write now
			u.setInstance(nil)
			err = run.destroy(ctx)
		}
		err = errors.Join(err, m.takeBack(ctx, u.id))
		u.mu.Lock()
		u.bundle = before
		u.mu.Unlock()
		u.start()
		if held {
			u.release()
		}
		return err
	})
	u.halt()
	if err := u.hold(ctx); err != nil {
		return InstallResult{}, err
	}
	held = true
	step(1)
	data, err := m.dir.dataVersion(u.id)
	if err != nil {
		return InstallResult{}, err
	}
	way, err := planLeap(old, data, in.bundle.Manifest)
	if err != nil {
		return InstallResult{}, err
	}
	run, err := in.quiet(ctx)
	if err != nil {
		return InstallResult{}, err
	}
	if err := in.leaveOld(ctx, run, way); err != nil {
		return InstallResult{}, err
	}
	step(3)
	if err := in.bringUp(ctx, initUpdate); err != nil {
		return InstallResult{}, err
	}
	step(5)
	if err := m.commitUpdate(ctx, in); err != nil {
		return InstallResult{}, err
	}
	in.undo = undoStack{} // it is updated
	if in.old.S9pk != in.archive {
		if err := m.dir.removePackage(u.id, in.old.S9pk, false); err != nil {
			m.log.Warn("the old archive stays until the next start", "package", u.id, "err", err)
		}
	}
	if err := m.dir.dropSnapshot(u.id); err != nil {
		m.log.Warn("the snapshot stays until the next start", "package", u.id, "err", err)
	}
	step(updateSteps)
	m.log.Info("updated", "package", u.id, "from", old.Version.String(), "version", in.bundle.Manifest.Version.String())
	u.updating.Store(false)
	u.start()
	u.recheckSoon("")
	u.release()
	u.countSoon()
	return InstallResult{PackageID: u.id, Version: in.bundle.Manifest.Version.String()}, nil
}

// beginUpdate makes the document say that the package is updating, and remember
// what it was.
func (m *Manager) beginUpdate(ctx context.Context, in *installing) error {
	id := in.u.id
	_, err := m.db.Update(ctx, func(tx *patchdb.Tx) error {
		at := state.PackagePointer(id)
		p, err := patchdb.TxGet[state.Package](tx, at)
		if err != nil || m.unit(id) != in.u {
			return problem.Newf(409, problem.CodeConflict, "package %s was removed meanwhile", id)
		}
		if p.StateInfo.State != status.Installed || p.S9pk != in.old.S9pk {
			return problem.Newf(409, problem.CodeBusy, "package %s is %s", id, p.StateInfo.State)
		}
		*in.old = p
		if err := tx.PutAll(updatePointer(id), p); err != nil {
			return err
		}
		err = tx.Put(patchdb.Join(at, "stateInfo"), state.StateInfo{
			State: status.Updating, Manifest: p.StateInfo.Manifest, S9pk: in.archive,
			InstallingInfo: &state.InstallingInfo{NewManifest: in.bundle.Raw},
		})
		if err != nil {
			return err
		}
		return effect.Edit(tx, id, status.Settle)
	})
	return err
}

// quiet stops the old service and takes a snapshot of its data. It returns the
// container in which the old version can still be asked to leave, nil when there
// is none.
func (in *installing) quiet(ctx context.Context) (*instance, error) {
	m, u := in.m, in.u
	run := u.instance()
	if run != nil && !(run.alive() && run.ready.Load()) {
		u.setInstance(nil)
		if err := run.destroy(context.WithoutCancel(ctx)); err != nil {
			return nil, err
		}
		run = nil
	}
	if run != nil {
		if err := run.call(ctx, exitLimit, "stop", struct{}{}, nil); err != nil {
			return nil, fmt.Errorf("service: the installed version of %s does not stop: %w", u.id, err)
		}
		run.mayRun = false
		// Its runtime lives on, and whatever the package left running in there.
		if err := run.c.Freeze(ctx); err != nil {
			return nil, err
		}
		defer func() {
			if err := run.c.Thaw(context.WithoutCancel(ctx)); err != nil && run.alive() {
				m.log.Error("the container does not thaw", "package", u.id, "err", err)
			}
		}()
	}
	return run, in.keepData(ctx)
}

// keepData takes the snapshot that a failure puts back.
func (in *installing) keepData(ctx context.Context) error {
	m, id := in.m, in.u.id
	need, err := m.dir.snapshotNeeds(id)
	if err != nil {
		return err
	}
	if err := m.roomFor("a copy of the data of "+id, need); err != nil {
		return err
	}
	in.job.Progress("snapshot", 0, -1, operation.Bytes)
	return m.dir.snapshot(ctx, id, func(done int64) { in.job.Progress("snapshot", done, max(need, done), operation.Bytes) })
}

// leaveOld lets the old version prepare the data and removes its container.
func (in *installing) leaveOld(ctx context.Context, run *instance, way leap) error {
	u := in.u
	in.job.Progress("update", 2, updateSteps, operation.Steps)
	if run == nil {
		if way.byOld {
			return problem.Newf(422, "exit-failed", "the installed version of %s has to prepare the data for the new one, and it does not run", u.id)
		}
		return nil
	}
	if err := run.leave(ctx, &way.target); err != nil {
		if way.byOld || ctx.Err() != nil {
			return problem.Newf(422, "exit-failed", "the installed version does not prepare its data for the new one: %s", errorData(err).Details).Because(err)
		}
		u.m.log.Warn("the old version does not leave in order", "package", u.id, "err", err)
	}
	u.setInstance(nil)
	return run.destroy(context.WithoutCancel(ctx)) // half a container is of no use
}

// bringUp makes the container of the new archive and lets its code set itself
// up; kind is what data of an earlier version makes of it.
func (in *installing) bringUp(ctx context.Context, kind string) error {
	m, u := in.m, in.u
	version, err := m.dir.dataVersion(u.id)
	if err != nil {
		return err
	}
	if version == nil && kind == initUpdate {
		kind = initInstall
	}
	u.mu.Lock()
	u.bundle = in.bundle
	u.mu.Unlock()
	in.undo.push("network", func(ctx context.Context) error { return m.net.SetContainer(ctx, u.id, noAddr, noAddr) })
	run, err := u.create(ctx)
	if err != nil {
		return err
	}
	in.undo.push("container", func(ctx context.Context) error {
		u.setInstance(nil)
		return run.destroy(ctx)
	})
	u.take(ctx, run)
	if in.restore != "" {
		if err := in.mountBackup(ctx, run); err != nil {
			return err
		}
	}
	in.job.Progress("init", 0, -1, operation.Steps)
	report := in.report()
	run.initProgress.Store(&report)
	err = run.init(ctx, kind)
	run.initProgress.Store(nil)
	if err == nil && in.restore != "" {
		err = run.c.Unmount(ctx, insideBackup)
	}
	if err != nil && !isCodeFault(err) && ctx.Err() == nil {
		return problem.New(422, "init-failed", "the package's program ended in the middle of its set-up").Because(err)
	}
	return err
}

// commitUpdate makes the new version the installed one.
func (m *Manager) commitUpdate(ctx context.Context, in *installing) error {
	id := in.u.id
	_, err := m.db.Update(ctx, func(tx *patchdb.Tx) error {
		for name, v := range map[string]any{
			"stateInfo": state.StateInfo{State: status.Installed, Manifest: in.bundle.Raw},
			"s9pk":      in.archive, "icon": in.bundle.Icon, "developerKey": in.bundle.Signer,
		} {
			if err := tx.Put(state.PackagePointer(id, name), v); err != nil {
				return err
			}
		}
		if err := errors.Join(tx.PutAll(signerPointer(id), in.bundle.Signer), tx.PutAll(patchdb.Join(keepPointer(id), "done"), in.job.ID()),
			tx.Remove(updatePointer(id)), dropOldTasks(tx, id)); err != nil {
			return err
		}
		first, err := blocking(tx, id)
		if err != nil {
			return err
		}
		if first != "" {
			return effect.Edit(tx, id, status.Stop)
		}
		return effect.Edit(tx, id, status.Settle)
	})
	if err != nil {
		return fmt.Errorf("service: %s: %w", id, err)
	}
	return nil
}

// takeBack makes a package whose update failed, or was cut off, what it was
// before: its data, its entry and its archive. There is no container of the
// package then. It may be cut off and called again.
func (m *Manager) takeBack(ctx context.Context, id string) error {
	p, err := patchdb.Get[state.Package](m.db, state.PackagePointer(id))
	if err != nil {
		return fmt.Errorf("service: %s: %w", id, err)
	}
	if p.StateInfo.State != status.Updating {
		return nil
	}
	before, err := patchdb.Get[state.Package](m.db, updatePointer(id))
	if err != nil {
		return fmt.Errorf("service: %s before its update: %w", id, err)
	}
	if err := m.dir.restore(id); err != nil {
		return err
	}
	_, err = m.db.Update(ctx, func(tx *patchdb.Tx) error {
		// Hosts stay: the old version's own set-up says which of them it has, and
		// their ports are allotted.
		for name, v := range map[string]any{
			"stateInfo": before.StateInfo, "currentDependencies": before.CurrentDependencies, "actions": before.Actions,
			"tasks": before.Tasks, "plugin": before.Plugin,
		} {
			if err := tx.Put(state.PackagePointer(id, name), v); err != nil {
				return err
			}
		}
		if err := tx.Remove(updatePointer(id)); err != nil {
			return err
		}
		return effect.Edit(tx, id, status.Load)
	})
	if err != nil {
		return fmt.Errorf("service: %s: %w", id, err)
	}
	if p.StateInfo.S9pk == p.S9pk {
		return nil
	}
	if err := os.Remove(m.dir.archive(p.StateInfo.S9pk)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		m.log.Warn("an archive that is not wanted stays until the next start", "package", id, "err", err)
	}
	return nil
}

// otherName is a name for an archive whose own name is in use.
func otherName(archive string) string {
	return strings.TrimSuffix(archive, ".s9pk") + "x.s9pk"
}

// setUpLimit bounds a set-up of a package: the time without a word of progress.
const setUpLimit = time.Hour

// errSetUp ends a set-up that takes too long.
var errSetUp = problem.New(504, problem.CodeTimeout, "the package's set-up has made no progress for too long")

// deadline is ctx that ends once touch has not been called for limit.
func deadline(ctx context.Context, limit time.Duration) (_ context.Context, touch func(), end context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	t := time.AfterFunc(limit, func() { cancel(errSetUp) })
	return ctx, func() { t.Reset(limit) }, func() { t.Stop(); cancel(nil) }
}
