package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/selfstead/selfstead/patchdb"
	"github.com/selfstead/selfstead/s9pk"
	"github.com/selfstead/selfstead/server/api"
	"github.com/selfstead/selfstead/server/operation"
	"github.com/selfstead/selfstead/server/problem"
	"github.com/selfstead/selfstead/server/service/effect"
	"github.com/selfstead/selfstead/server/service/status"
	"github.com/selfstead/selfstead/server/service/task"
	"github.com/selfstead/selfstead/server/state"
)

// diskReserve is what an upload leaves free for the server and its services.
const diskReserve = 64 << 20

// lookEvery is after how many bytes an upload looks again whether it fits.
const lookEvery = 8 << 20

// The steps after the upload.
const installSteps = 4

// InstallResult is the result of an install operation.
type InstallResult struct {
	PackageID string `json:"packageId"`
	Version   string `json:"version"`
}

// installing is one install from its first byte on.
type installing struct {
	m   *Manager
	job *operation.Job

	options api.SideloadOptions
	size    int64          // announced, -1 when unknown
	old     *state.Package // of an update: what is installed
	restore string         // the folder of the backup that the data come from, "" for none

	part string // the file being received
	file *os.File
	sv   *s9pk.StreamVerifier
	undo undoStack

	u       *unit // from the proven manifest on
	bundle  *bundle
	touch   func() // moves the deadline on
	archive string // its file name once it is in place
}

// Sideload installs the package that body holds, or updates the installed one to
// it; size is -1 when unknown. It
// returns after the last byte, with the operation that goes on, or with a
// problem as soon as the bytes show a fault; then nothing is left on disk or in
// the document.
func (m *Manager) Sideload(ctx context.Context, body io.Reader, size int64, o api.SideloadOptions) (operation.Operation, error) {
	return m.receive(ctx, &installing{m: m, job: m.ops.Begin("install"), options: o}, body, size)
}

// receive takes the file in, and then the work goes on by itself.
func (m *Manager) receive(ctx context.Context, in *installing, body io.Reader, size int64) (operation.Operation, error) {
	if err := m.await(ctx); err != nil {
		in.job.Finish(nil, err)
		return operation.Operation{}, err
	}
	in.job.Progress("upload", 0, size, operation.Bytes)
	ctx, cancel := m.bound(ctx)
	defer cancel()
	err := in.receive(ctx, body, size)
	if err != nil {
		in.undo.run(m.log)
		err = uploadProblem(err)
		in.job.Finish(nil, err)
		return in.job.Operation(), err
	}
	in.job.Go(func(ctx context.Context) (any, error) {
		ctx, cancel := m.bound(ctx)
		defer cancel()
		ctx, touch, end := deadline(ctx, m.setUp)
		defer end()
		in.touch = touch
		work, title := in.install, "Installing failed"
		switch {
		case in.old != nil:
			work, title = in.update, "Updating failed"
		case in.restore != "":
			title = "Restoring failed"
		}
		result, err := work(ctx)
		if err == nil {
			return result, nil
		}
		if context.Cause(ctx) == errSetUp {
			err = errSetUp
		}
		err = m.installProblem(err) // while a full disk still is
		in.undo.run(m.log)
		if context.Cause(in.job.Context()) == nil { // not cancelled
			m.tell(in.u.id, title, err)
		}
		return nil, err
	})
	return in.job.Operation(), nil
}

// install brings the package's container up and lets its code set itself up.
func (in *installing) install(ctx context.Context) (InstallResult, error) {
	m, u := in.m, in.u
	in.job.Progress("install", 1, installSteps, operation.Steps)
	kept := m.kept(u.id)
	in.undo.push("data", func(context.Context) error {
		if kept {
			return m.dir.restore(u.id)
		}
		return m.dir.removePackage(u.id, "", true)
	})
	if kept {
		if err := in.keepData(ctx); err != nil {
			return InstallResult{}, err
		}
	}
	in.job.Progress("install", 2, installSteps, operation.Steps)
	kind := initUpdate
	if in.restore != "" {
		kind = initRestore
	}
	if err := in.bringUp(ctx, kind); err != nil {
		return InstallResult{}, err
	}
	in.job.Progress("install", 3, installSteps, operation.Steps)
	if err := m.commit(ctx, u.id, in.job.ID(), in.restore == ""); err != nil {
		return InstallResult{}, err
	}
	in.undo = undoStack{} // it is installed
	if err := m.dir.dropSnapshot(u.id); err != nil {
		m.log.Warn("the snapshot stays until the next start", "package", u.id, "err", err)
	}
	in.job.Progress("install", installSteps, installSteps, operation.Steps)
	m.log.Info("installed", "package", u.id, "version", in.bundle.Manifest.Version.String())
	u.settle()
	u.start()
	u.recheckSoon("")
	u.release()
	u.countSoon()
	return InstallResult{PackageID: u.id, Version: in.bundle.Manifest.Version.String()}, nil
}

// commit makes the package installed; with run it is to run, unless a task must
// come first.
func (m *Manager) commit(ctx context.Context, id, operation string, run bool) error {
	_, err := m.db.Update(ctx, func(tx *patchdb.Tx) error {
		if err := tx.Put(state.PackagePointer(id, "stateInfo", "state"), status.Installed); err != nil {
			return err
		}
		if kept := patchdb.Join(state.PrivatePointer("keptData"), id); tx.Exists(kept) {
			if err := tx.Remove(kept); err != nil {
				return err
			}
		}
		if err := errors.Join(tx.PutAll(patchdb.Join(keepPointer(id), "done"), operation), dropOldTasks(tx, id)); err != nil {
			return err
		}
		first, err := blocking(tx, id)
		if err != nil {
			return err
		}
		command := status.Start
		if first != "" || !run {
			command = status.Stop
		}
		return effect.Edit(tx, id, command)
	})
	if err != nil {
		return fmt.Errorf("service: %s: %w", id, err)
	}
	return nil
}

// dropOldTasks removes the package's tasks on actions of its own that are gone.
func dropOldTasks(tx *patchdb.Tx, id string) error {
	return eachTask(tx, id, "", func(owner, name string, e task.Entry) error {
		if owner == id && !tx.Exists(state.PackagePointer(id, "actions", e.Task.ActionID)) {
			return tx.Remove(state.PackagePointer(owner, "tasks", name))
		}
		return nil
	})
}

// report turns a service's own progress into the operation's.
func (in *installing) report() func(json.RawMessage) {
	return func(raw json.RawMessage) {
		in.touch()
		var full struct {
			Overall json.RawMessage `json:"overall"`
		}
		if json.Unmarshal(raw, &full) == nil && len(full.Overall) > 0 {
			raw = full.Overall
		}
		var p struct {
			Done  int64  `json:"done"`
			Total *int64 `json:"total"`
			Units string `json:"units"`
		}
		if json.Unmarshal(raw, &p) != nil {
			return
		}
		total, unit := int64(-1), operation.Steps
		if p.Total != nil {
			total = *p.Total
		}
		if p.Units == "bytes" {
			unit = operation.Bytes
		}
		in.job.Progress("init", p.Done, total, unit)
	}
}

// kept reports whether data of an earlier install was kept for the package.
func (m *Manager) kept(id string) bool {
	_, err := patchdb.Get[time.Time](m.db, patchdb.Join(state.PrivatePointer("keptData"), id))
	return err == nil
}

// tell leaves the owner a notification of what failed.
func (m *Manager) tell(id, title string, cause error) {
	if m.ctx.Err() != nil {
		return // it is the server that stops
	}
	text := problem.From(cause).Detail
	_, err := m.db.Update(m.ctx, func(tx *patchdb.Tx) error {
		return effect.Notify(tx, state.Notification{PackageID: &id, Level: "error", Title: title, Message: text})
	})
	if err != nil {
		m.log.Error("notification", "package", id, "err", err)
	}
}

// installProblem says why a package that was received whole is not installed.
func (m *Manager) installProblem(err error) error {
	// A full disk reaches us through the package's own code as text.
	if full := m.room(0); full != nil && strings.Contains(err.Error(), syscall.ENOSPC.Error()) {
		return problem.From(full).Because(err)
	}
	var said *problem.Problem
	if !errors.As(err, &said) && isCodeFault(err) {
		e := errorData(err)
		return problem.New(422, "init-failed", "the package's own set-up failed: "+strings.TrimPrefix(e.Details, "Error: ")).Because(err)
	}
	return err
}
