package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/selfstead/selfstead/lxcrt"
	"github.com/selfstead/selfstead/patchdb"
	"github.com/selfstead/selfstead/server/api"
	"github.com/selfstead/selfstead/server/operation"
	"github.com/selfstead/selfstead/server/problem"
	"github.com/selfstead/selfstead/server/service/effect"
	"github.com/selfstead/selfstead/server/service/status"
	"github.com/selfstead/selfstead/server/state"
)

// insideBackup is where a package's backup is mounted while it is written or
// restored (StartOS service containers).
const insideBackup = insideMedia + "/backup"

// backup is one that was prepared and that the reconciler is to run.
type backup struct {
	ctx  context.Context
	dir  string
	tell func(progress json.RawMessage) // may be nil
	done chan error                     // gets one value
}

// Backup stops a service, lets its package write a backup into dir, and lets
// the service go on as its owner wants by then. dir belongs to the package
// alone; ids in it are the container's own. tell, when not nil, hears the
// progress that the package reports. Cancelled, or when the server dies, the
// container goes and what stands in dir is half a backup.
func (m *Manager) Backup(ctx context.Context, id, dir string, tell func(progress json.RawMessage)) error {
	u, err := m.installed(ctx, id)
	if err != nil {
		return err
	}
	b := &backup{ctx: ctx, dir: dir, tell: tell, done: make(chan error, 1)}
	if !u.prepare(b) {
		return problem.Newf(409, problem.CodeBusy, "package %s is being backed up", id)
	}
	_, err = m.db.Update(ctx, func(tx *patchdb.Tx) error {
		info, err := patchdb.TxGet[state.StatusInfo](tx, state.PackagePointer(id, "statusInfo"))
		if err != nil {
			return err
		}
		if info.Error != nil {
			return problem.Newf(409, problem.CodeConflict, "package %s cannot be backed up, it does not load: %s", id, info.Error.Details)
		}
		return effect.Edit(tx, id, status.BackUp)
	})
	if err != nil {
		u.unprepare(b)
		return err
	}
	u.poke()
	select {
	case err = <-b.done:
		return err
	case <-ctx.Done():
	case <-m.ctx.Done():
	}
	if u.unprepare(b) { // it has not begun
		err := u.edit(context.WithoutCancel(ctx), status.BackedUp)
		return errors.Join(context.Cause(ctx), context.Cause(m.ctx), err)
	}
	return <-b.done
}

// prepare hands a backup to the reconciler, unless it has one.
func (u *unit) prepare(b *backup) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.backup != nil {
		return false
	}
	u.backup = b
	return true
}

// unprepare takes a backup back that has not begun.
func (u *unit) unprepare(b *backup) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.backup != b {
		return false
	}
	u.backup = nil
	return true
}

// backUp runs the prepared backup, if there is one. The service is down. What
// comes of it is the asker's to know; here it ends either way.
func (u *unit) backUp(ctx context.Context, run *instance) error {
	u.mu.Lock()
	b := u.backup
	u.backup = nil
	u.mu.Unlock()
	if b == nil {
		return u.edit(ctx, status.BackedUp)
	}
	bounded, cancel := context.WithCancelCause(b.ctx)
	stop := context.AfterFunc(ctx, func() { cancel(errStopping) })
	err := run.writeBackup(bounded, b)
	stop()
	cancel(nil)
	if err != nil && run.alive() && !isCodeFault(err) {
		u.requestRebuild() // its code may still be writing
	}
	b.done <- err
	return u.edit(context.WithoutCancel(ctx), status.BackedUp)
}

// writeBackup lets the package write its backup.
func (r *instance) writeBackup(ctx context.Context, b *backup) error {
	err := r.c.Mount(ctx, lxcrt.Mount{
		Target: insideBackup, Kind: lxcrt.MountBind, Source: b.dir, IDMap: true, NoSuid: true, NoDev: true, Replace: true,
	})
	if err != nil {
		return fmt.Errorf("service: backup of %s: %w", r.u.id, err)
	}
	r.backupProgress.Store(&b.tell)
	_, err = r.execute(ctx, 0, "", effect.NewGUID(), "/backup/create", nil)
	r.backupProgress.Store(nil)
	if uerr := r.c.Unmount(context.WithoutCancel(ctx), insideBackup); uerr != nil && r.alive() {
		err = errors.Join(err, uerr)
		r.u.requestRebuild()
	}
	if isCodeFault(err) {
		return problem.Newf(422, "backup-failed", "the package's own backup failed: %s", errorData(err).Details).Because(err)
	}
	if err != nil {
		return fmt.Errorf("service: backup of %s: %w", r.u.id, err)
	}
	return nil
}

// Restore installs the package that body holds and lets it take its data from a
// backup in dir, which it only reads. A package that is installed is not
// restored over. It is left stopped. See [Manager.Sideload] for the rest.
func (m *Manager) Restore(ctx context.Context, body io.Reader, size int64, dir string) (operation.Operation, error) {
	if dir == "" {
		return operation.Operation{}, problem.New(422, problem.CodeInvalid, "a restore needs the folder of the backup")
	}
	return m.receive(ctx, &installing{m: m, job: m.ops.Begin("restore"), restore: dir, options: api.SideloadOptions{}}, body, size)
}

// mountBackup gives a new container the backup that it is restored from.
func (in *installing) mountBackup(ctx context.Context, run *instance) error {
	err := run.c.Mount(ctx, lxcrt.Mount{
		Target: insideBackup, Kind: lxcrt.MountBind, Source: in.restore, IDMap: true, ReadOnly: true, NoSuid: true, NoDev: true,
	})
	if err != nil {
		return fmt.Errorf("service: backup of %s: %w", in.u.id, err)
	}
	return nil
}
