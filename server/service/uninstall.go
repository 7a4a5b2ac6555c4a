package service

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/selfstead/selfstead/patchdb"
	"github.com/selfstead/selfstead/server/network"
	"github.com/selfstead/selfstead/server/operation"
	"github.com/selfstead/selfstead/server/problem"
	"github.com/selfstead/selfstead/server/service/effect"
	"github.com/selfstead/selfstead/server/service/status"
	"github.com/selfstead/selfstead/server/state"
)

// The steps of a removal.
const removeSteps = 4

// Uninstall removes a package. The service may clean up first; when that fails
// the package stays, unless force is set. soft keeps volumes and logs for a
// later install.
func (m *Manager) Uninstall(ctx context.Context, id string, soft, force bool) (operation.Operation, error) {
	u, err := m.installed(ctx, id)
	if err != nil {
		return operation.Operation{}, err
	}
	_, err = m.db.Update(ctx, func(tx *patchdb.Tx) error {
		at := state.PackagePointer(id, "stateInfo", "state")
		if now, err := patchdb.TxGet[string](tx, at); err != nil || now != status.Installed {
			return problem.Newf(409, problem.CodeBusy, "package %s is %s", id, now)
		}
		if err := tx.Put(patchdb.Join(keepPointer(id), "keepData"), soft); err != nil {
			return err
		}
		if err := tx.Put(at, status.Removing); err != nil {
			return err
		}
		return effect.Edit(tx, id, status.Settle)
	})
	if err != nil {
		return operation.Operation{}, err
	}
	job := m.ops.Begin("uninstall")
	job.SetPackage(id)
	job.Progress("stop", 0, removeSteps, operation.Steps)
	job.Go(func(context.Context) (any, error) {
		// A removal that has begun goes to its end: half of one is of no use.
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
		defer cancel()
		u.halt()
		if err := u.hold(ctx); err != nil {
			return nil, err
		}
		defer u.release()
		if err := u.erase(ctx, force, func(phase string, step int64) { job.Progress(phase, step, removeSteps, operation.Steps) }); err != nil {
			m.tell(id, "Removing failed", err)
			return nil, err
		}
		job.Progress("files", removeSteps, removeSteps, operation.Steps)
		m.log.Info("removed", "package", id)
		return nil, nil
	})
	return job.Operation(), nil
}

// erase lets the service clean up and removes all of it. The caller holds the
// unit's life. After an error of the service's own clean-up the package is
// installed again.
func (u *unit) erase(ctx context.Context, force bool, progress func(phase string, step int64)) error {
	m := u.m
	progress("exit", 1)
	if run := u.instance(); run != nil {
		if run.alive() && run.ready.Load() {
			if err := run.leave(ctx, nil); err != nil && !force && isCodeFault(err) {
				return u.keep(ctx, err)
			} else if err != nil {
				m.log.Warn("the service does not clean up before its removal", "package", u.id, "err", err)
			}
		}
		progress("container", 2)
		u.setInstance(nil)
		if err := run.destroy(ctx); err != nil {
			return err
		}
	}
	progress("files", 3)
	if err := m.forget(ctx, u.id, true); err != nil {
		return err
	}
	m.remove(u)
	return nil
}

// keep makes a package whose removal failed an installed one again.
func (u *unit) keep(ctx context.Context, cause error) error {
	e := errorData(cause)
	_, err := u.m.db.Update(ctx, func(tx *patchdb.Tx) error {
		if err := tx.Put(state.PackagePointer(u.id, "stateInfo", "state"), status.Installed); err != nil {
			return err
		}
		return effect.Edit(tx, u.id, func(p *state.Package) { status.Fail(p, e) })
	})
	if run := u.instance(); run != nil {
		u.setInstance(nil) // its runtime is half gone
		err = errors.Join(err, run.destroy(ctx))
	}
	u.start()
	return problem.Newf(422, "exit-failed", "the package's own clean-up failed, so it stays: %s", e.Details).
		WithFix("DELETE", "/v1/packages/"+u.id+"?force=true", "removes it all the same").Because(errors.Join(cause, err))
}

// forget removes a package's files and then its entry with all that it held.
// The entry goes last, so that a later process finds what is left. data is
// false when volumes and logs are somebody else's to remove or keep.
func (m *Manager) forget(ctx context.Context, id string, data bool) error {
	p, err := patchdb.Get[state.Package](m.db, state.PackagePointer(id))
	if err != nil {
		return fmt.Errorf("service: %s: %w", id, err)
	}
	keep, err := patchdb.Get[state.ServiceKeep](m.db, keepPointer(id))
	if err != nil && !errors.Is(err, patchdb.ErrNotFound) {
		return fmt.Errorf("service: %s: %w", id, err)
	}
	if err := m.dir.removePackage(id, p.S9pk, data && !keep.KeepData); err != nil {
		return err
	}
	if err := m.net.SetContainer(ctx, id, noAddr, noAddr); err != nil {
		return err
	}
	_, err = m.db.Update(ctx, func(tx *patchdb.Tx) error {
		if err := errors.Join(network.Release(tx, id), effect.ClearURLs(tx, id, nil), dropGrants(tx, id)); err != nil {
			return err
		}
		if data && keep.KeepData {
			if err := tx.PutAll(patchdb.Join(state.PrivatePointer("keptData"), id), time.Now().UTC()); err != nil {
				return err
			}
		} else if kept := patchdb.Join(state.PrivatePointer("keptData"), id); data && tx.Exists(kept) {
			if err := tx.Remove(kept); err != nil {
				return err
			}
		}
		gone := []patchdb.Pointer{keepPointer(id), effect.CallsPointer(id), certificatesPointer(id), runsPointer(id)}
		if !tx.Exists(patchdb.Join(state.PrivatePointer("keptData"), id)) {
			gone = append(gone, signerPointer(id)) // with the data its owner's trust in a signer goes
		}
		for _, at := range gone {
			if tx.Exists(at) {
				if err := tx.Remove(at); err != nil {
					return err
				}
			}
		}
		return tx.Remove(state.PackagePointer(id))
	})
	if err != nil {
		return fmt.Errorf("service: %s: %w", id, err)
	}
	return m.net.Sync(ctx)
}
