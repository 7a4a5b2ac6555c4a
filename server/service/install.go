package service

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/selfstead/selfstead/patchdb"
	"github.com/selfstead/selfstead/s9pk"
	"github.com/selfstead/selfstead/server/operation"
	"github.com/selfstead/selfstead/server/problem"
	"github.com/selfstead/selfstead/server/service/effect"
	"github.com/selfstead/selfstead/server/service/status"
	"github.com/selfstead/selfstead/server/service/task"
	"github.com/selfstead/selfstead/server/state"
	"golang.org/x/sys/unix"
)

// diskReserve is what an upload leaves free for the server and its services.
const diskReserve = 64 << 20

// The steps after the upload.
const installSteps = 4

// InstallResult is the result of an install operation.
type InstallResult struct {
	PackageID string `json:"packageId"`
	Version   string `json:"version"`
}

// installing is one install from its first byte on.
type installing struct {
	m    *Manager
	job  *operation.Job
	part string // the file being received
	file *os.File
	sv   *s9pk.StreamVerifier
	undo undoStack

	u       *unit // from the proven manifest on
	bundle  *bundle
	archive string // its file name once it is in place
}

// Sideload installs the package that body holds; size is -1 when unknown. It
// returns after the last byte, with the operation that goes on, or with a
// problem as soon as the bytes show a fault; then nothing is left on disk or in
// the document.
func (m *Manager) Sideload(ctx context.Context, body io.Reader, size int64) (operation.Operation, error) {
	if err := m.await(ctx); err != nil {
		return operation.Operation{}, err
	}
	in := &installing{m: m, job: m.ops.Begin("install")}
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
		result, err := in.install(ctx)
		if err != nil {
			in.undo.run(m.log)
			err = installProblem(err)
			if context.Cause(in.job.Context()) == nil { // not cancelled
				m.tell(in.u.id, "Installing failed", err)
			}
			return nil, err
		}
		return result, nil
	})
	return in.job.Operation(), nil
}

// receive takes the bytes in and proves them on the way.
func (in *installing) receive(ctx context.Context, body io.Reader, size int64) (err error) {
	m := in.m
	if err := m.room(size); err != nil {
		return err
	}
	in.part = filepath.Join(m.dir.uploads(), strings.ToLower(rand.Text())+".part")
	if in.file, err = os.OpenFile(in.part, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
		return fmt.Errorf("service: upload: %w", err)
	}
	in.undo.push("upload", func(context.Context) error {
		in.file.Close()
		if err := os.Remove(in.part); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return nil
	})
	o := s9pk.Options{Package: true, Received: in.file}
	if size > 0 {
		o.Size = size
	}
	in.sv = s9pk.NewStreamVerifier(o)
	closer, _ := body.(io.Closer)
	for _, c := range []context.Context{in.job.Context(), ctx} {
		stop := context.AfterFunc(c, func() {
			if closer != nil {
				closer.Close() // makes a waiting Read return
			}
		})
		defer stop()
	}
	if err := in.copy(ctx, body, size); err != nil {
		return err
	}
	if _, err := in.sv.Close(); err != nil {
		return err
	}
	if in.u == nil {
		if err := in.claim(ctx); err != nil {
			return err
		}
	}
	if err := in.file.Sync(); err != nil {
		return fmt.Errorf("service: upload: %w", err)
	}
	return in.place(ctx)
}

// copy moves the bytes from the body through the verifier to the disk.
func (in *installing) copy(ctx context.Context, body io.Reader, size int64) error {
	buf := make([]byte, 256<<10)
	var done int64
	for {
		n, rerr := body.Read(buf)
		for _, c := range []context.Context{in.job.Context(), ctx} {
			if c.Err() != nil {
				return context.Cause(c)
			}
		}
		if n > 0 {
			if size >= 0 && done+int64(n) > size {
				return problem.Newf(400, problem.CodeInvalid, "the body is longer than the %d bytes it was announced with", size)
			}
			if _, err := in.file.Write(buf[:n]); err != nil {
				return fmt.Errorf("service: upload: %w", err)
			}
			if _, err := in.sv.Write(buf[:n]); err != nil {
				return err
			}
			done += int64(n)
			in.job.Progress("upload", done, size, operation.Bytes)
			if in.u == nil && in.sv.Manifest() != nil {
				if err := in.claim(ctx); err != nil {
					return err
				}
			}
		}
		switch {
		case errors.Is(rerr, io.EOF):
			return nil
		case rerr != nil:
			return fmt.Errorf("%w: the upload ended after %d bytes: %w", s9pk.ErrTruncated, done, rerr)
		}
	}
}

// claim lists the package as being installed, once its manifest is proven:
// from here on nobody else can install it.
func (in *installing) claim(ctx context.Context) error {
	m, mf := in.m, in.sv.Manifest()
	in.job.SetPackage(mf.ID)
	if err := checkMachine(mf, m.arch); err != nil {
		return err
	}
	raw, err := json.Marshal(mf)
	if err != nil {
		return err
	}
	u := m.newUnit(mf.ID)
	if err := m.add(u); err != nil {
		if p, perr := patchdb.Get[state.Package](m.db, state.PackagePointer(mf.ID)); perr == nil {
			return taken(mf, p)
		}
		return err
	}
	<-u.life // ours until the install has ended
	in.undo.push("unit", func(context.Context) error {
		m.remove(u)
		u.release()
		return nil
	})
	_, err = m.db.Update(ctx, func(tx *patchdb.Tx) error {
		at := state.PackagePointer(mf.ID)
		if p, err := patchdb.TxGet[state.Package](tx, at); err == nil {
			return taken(mf, p)
		}
		keep, err := allot(tx)
		if err != nil {
			return err
		}
		if err := tx.PutAll(keepPointer(mf.ID), keep); err != nil {
			return err
		}
		return tx.PutAll(at, newEntry(raw))
	})
	if err != nil {
		return err
	}
	in.u = u
	in.undo.push("entry", func(ctx context.Context) error { return m.forget(ctx, mf.ID, false) })
	return nil
}

// newEntry is the entry of a package that is being installed.
func newEntry(manifest json.RawMessage) state.Package {
	p := state.Package{
		StateInfo:           state.StateInfo{State: status.Installing, Manifest: manifest},
		CurrentDependencies: map[string]json.RawMessage{}, Actions: map[string]json.RawMessage{},
		Tasks: map[string]json.RawMessage{}, Hosts: map[string]state.Host{}, Plugin: map[string]any{},
	}
	status.Load(&p)
	return p
}

// taken says why a package cannot be installed now.
func taken(mf *s9pk.Manifest, p state.Package) error {
	var have heading
	_ = json.Unmarshal(p.StateInfo.Manifest, &have)
	switch {
	case p.StateInfo.State != status.Installed:
		return problem.Newf(409, problem.CodeBusy, "package %s is %s", mf.ID, p.StateInfo.State)
	case have.Version == mf.Version.String():
		return problem.Newf(409, problem.CodeAlreadyInstalled, "package %s %s is already installed", mf.ID, have.Version)
	}
	return problem.Newf(409, problem.CodeAlreadyInstalled, "package %s is already installed in version %s; remove it first to install %s (soft keeps its data)",
		mf.ID, have.Version, mf.Version.String()).WithFix("DELETE", "/v1/packages/"+mf.ID+"?soft=true", "removes the package and keeps its data")
}

// place reads the proven archive and gives it its name.
func (in *installing) place(ctx context.Context) error {
	m := in.m
	info, err := in.file.Stat()
	if err != nil {
		return err
	}
	a, err := s9pk.Open(in.file, info.Size(), s9pk.Options{Package: true})
	if err != nil {
		return err
	}
	hash := a.Commitment().RootSighash
	in.archive = archiveName(hash[:])
	if in.bundle, err = readBundle(ctx, a, m.dir.archive(in.archive), m.arch); err != nil {
		return err
	}
	_, err = m.db.Update(ctx, func(tx *patchdb.Tx) error {
		for name, v := range map[string]any{"s9pk": in.archive, "icon": in.bundle.Icon, "developerKey": in.bundle.Signer} {
			if err := tx.Put(state.PackagePointer(in.u.id, name), v); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	in.undo.push("archive", func(context.Context) error { return m.dir.removePackage(in.u.id, in.archive, false) })
	if err := os.Rename(in.part, m.dir.archive(in.archive)); err != nil {
		return fmt.Errorf("service: archive: %w", err)
	}
	if err := in.file.Close(); err != nil {
		return fmt.Errorf("service: archive: %w", err)
	}
	return syncDir(m.dir.packages())
}

// install brings the package's container up and lets its code set itself up.
func (in *installing) install(ctx context.Context) (InstallResult, error) {
	m, u := in.m, in.u
	in.job.Progress("install", 1, installSteps, operation.Steps)
	kept := m.kept(u.id)
	in.undo.push("data", func(context.Context) error { return m.dir.removePackage(u.id, "", !kept) })
	u.mu.Lock()
	u.bundle = in.bundle
	u.mu.Unlock()
	version, err := m.dir.dataVersion(u.id)
	if err != nil {
		return InstallResult{}, err
	}
	kind := initInstall
	if version != nil {
		kind = initUpdate
	}
	in.undo.push("network", func(ctx context.Context) error { return m.net.SetContainer(ctx, u.id, noAddr, noAddr) })
	in.job.Progress("install", 2, installSteps, operation.Steps)
	run, err := u.create(ctx)
	if err != nil {
		return InstallResult{}, err
	}
	in.undo.push("container", func(ctx context.Context) error {
		u.setInstance(nil)
		return run.destroy(ctx)
	})
	u.setInstance(run)
	in.job.Progress("init", 0, -1, operation.Steps)
	report := in.report()
	run.initProgress.Store(&report)
	err = run.init(ctx, kind)
	run.initProgress.Store(nil)
	if err != nil {
		return InstallResult{}, err
	}
	in.job.Progress("install", 3, installSteps, operation.Steps)
	if err := m.commit(ctx, u.id); err != nil {
		return InstallResult{}, err
	}
	in.undo = undoStack{} // it is installed
	in.job.Progress("install", installSteps, installSteps, operation.Steps)
	m.log.Info("installed", "package", u.id, "version", in.bundle.Manifest.Version.String())
	u.settle()
	u.start()
	u.recheckSoon("")
	u.release()
	return InstallResult{PackageID: u.id, Version: in.bundle.Manifest.Version.String()}, nil
}

// commit makes the package installed, to run unless a task must come first.
func (m *Manager) commit(ctx context.Context, id string) error {
	_, err := m.db.Update(ctx, func(tx *patchdb.Tx) error {
		if err := tx.Put(state.PackagePointer(id, "stateInfo", "state"), status.Installed); err != nil {
			return err
		}
		if kept := patchdb.Join(state.PrivatePointer("keptData"), id); tx.Exists(kept) {
			if err := tx.Remove(kept); err != nil {
				return err
			}
		}
		err := eachTask(tx, id, "", func(owner, name string, e task.Entry) error {
			if owner == id && !tx.Exists(state.PackagePointer(id, "actions", e.Task.ActionID)) {
				return tx.Remove(state.PackagePointer(owner, "tasks", name))
			}
			return nil
		})
		if err != nil {
			return err
		}
		first, err := blocking(tx, id)
		if err != nil {
			return err
		}
		command := status.Start
		if first != "" {
			command = status.Stop
		}
		return effect.Edit(tx, id, command)
	})
	if err != nil {
		return fmt.Errorf("service: %s: %w", id, err)
	}
	return nil
}

// report turns a service's own progress into the operation's.
func (in *installing) report() func(json.RawMessage) {
	return func(raw json.RawMessage) {
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

// room refuses an upload that does not fit on the disk.
func (m *Manager) room(size int64) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(m.dir.uploads(), &fs); err != nil {
		return fmt.Errorf("service: free space: %w", err)
	}
	free := int64(fs.Bavail) * fs.Bsize
	if max(size, 0) > free-diskReserve {
		return problem.Newf(507, problem.CodeDiskFull, "the upload of %d bytes does not fit: %d bytes are free, of which %d stay for the server", max(size, 0), free, int64(diskReserve))
	}
	return nil
}

// uploadProblem says which fault of the file stopped an upload.
func uploadProblem(err error) error {
	var p *problem.Problem
	var at *s9pk.EntryError
	if errors.As(err, &p) {
		return err
	}
	entry, offset := "", int64(-1)
	if errors.As(err, &at) {
		entry, offset = at.Path, at.Offset
	}
	text := err.Error()
	for _, prefix := range []string{"s9pk: ", "merkle: "} {
		text = strings.TrimPrefix(text, prefix)
	}
	code := ""
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return err
	case errors.Is(err, s9pk.ErrVersion1):
		code, text = problem.CodeNotAnArchive, "the file is a package of version 1; only version 2 can be installed"
	case errors.Is(err, s9pk.ErrTruncated):
		code = problem.CodeTruncated
	case errors.Is(err, s9pk.ErrSignature):
		code = problem.CodeSignature
	case errors.Is(err, s9pk.ErrHashMismatch), errors.Is(err, s9pk.ErrUnsafe), errors.Is(err, s9pk.ErrLimit), errors.Is(err, s9pk.ErrSize):
		code = problem.CodeCorrupt
	case errors.Is(err, s9pk.ErrManifest):
		code = problem.CodeManifest
	case errors.Is(err, s9pk.ErrFormat) && entry == "":
		code = problem.CodeNotAnArchive
	case errors.Is(err, s9pk.ErrFormat), errors.Is(err, s9pk.ErrKind):
		code = problem.CodeCorrupt
	case errors.Is(err, os.ErrNotExist) && entry == s9pk.ManifestPath:
		code = problem.CodeManifest
	default:
		return err
	}
	return problem.New(422, code, text).At(entry, offset).Because(err)
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
func installProblem(err error) error {
	if isCodeFault(err) {
		e := errorData(err)
		return problem.New(422, "init-failed", "the package's own set-up failed: "+strings.TrimPrefix(e.Details, "Error: ")).Because(err)
	}
	return err
}
