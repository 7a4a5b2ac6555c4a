package service

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/selfstead/selfstead/patchdb"
	"github.com/selfstead/selfstead/s9pk"
	"github.com/selfstead/selfstead/server/operation"
	"github.com/selfstead/selfstead/server/problem"
	"github.com/selfstead/selfstead/server/service/status"
	"github.com/selfstead/selfstead/server/state"
	"golang.org/x/sys/unix"
)

// receive takes the bytes in and proves them on the way.
func (in *installing) receive(ctx context.Context, body io.Reader, size int64) (err error) {
	m := in.m
	in.size = size
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
	var done, looked int64
	for {
		n, rerr := body.Read(buf)
		switch cause := context.Cause(ctx); {
		case in.job.Context().Err() != nil:
			return context.Cause(in.job.Context())
		case errors.Is(cause, context.Canceled): // the client is gone
			return cutOff(done, size)
		case cause != nil:
			return cause
		}
		if n > 0 {
			if done-looked >= lookEvery { // others write too, and not every length is announced
				if err := in.m.room(0); err != nil {
					return err
				}
				looked = done
			}
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
			return cutOff(done, size).Because(rerr)
		}
	}
}

// cutOff is an upload that ended before the package did.
func cutOff(done, size int64) *problem.Problem {
	text := fmt.Sprintf("the upload ended after %d bytes", done)
	if size >= 0 {
		text = fmt.Sprintf("the upload ended after %d of %d bytes", done, size)
	}
	return problem.New(422, problem.CodeTruncated, text).At("", done)
}

// claim lists the package as being installed, once its manifest is proven:
// from here on nobody else can install it.
func (in *installing) claim(ctx context.Context) error {
	m, mf := in.m, in.sv.Manifest()
	in.job.SetPackage(mf.ID)
	if err := checkMachine(mf, m.arch); err != nil {
		return err
	}
	if err := checkRequirements(mf, uint64(machineMemory()), func() []device { return findDevices("/") }); err != nil {
		return err
	}
	raw, err := json.Marshal(mf)
	if err != nil {
		return err
	}
	if u := m.unit(mf.ID); u != nil {
		return in.claimUpdate(u)
	}
	if err := m.checkSigner(mf.ID, "", in.signer(), in.options.AcceptSigner); err != nil {
		return err
	}
	data, err := m.dir.dataVersion(mf.ID)
	if err != nil {
		return err
	}
	if err := checkKept(data, mf); err != nil {
		return err
	}
	u := m.newUnit(mf.ID)
	if err := m.add(u); err != nil {
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
	}
	return problem.Newf(409, problem.CodeAlreadyInstalled, "package %s %s is already installed", mf.ID, have.Version).
		WithFix("POST", "/v1/packages:sideload?reinstall=true", "the same file again, to install this version once more over its data")
}

// signer is who signed the file that is coming in, hex.
func (in *installing) signer() string {
	if h := in.sv.Header(); h != nil {
		return hex.EncodeToString(h.Signer)
	}
	return ""
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
	if in.old != nil {
		if in.archive == in.old.S9pk {
			in.archive = otherName(in.archive)
			in.bundle.Path = m.dir.archive(in.archive)
		}
		return in.rename()
	}
	_, err = m.db.Update(ctx, func(tx *patchdb.Tx) error {
		if err := tx.PutAll(signerPointer(in.u.id), in.bundle.Signer); err != nil {
			return err
		}
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
	return in.rename()
}

// rename puts the received file where archives are.
func (in *installing) rename() error {
	m := in.m
	in.undo.push("archive", func(context.Context) error { return m.dir.removePackage(in.u.id, in.archive, false) })
	if err := os.Rename(in.part, m.dir.archive(in.archive)); err != nil {
		return fmt.Errorf("service: archive: %w", err)
	}
	if err := in.file.Close(); err != nil {
		return fmt.Errorf("service: archive: %w", err)
	}
	return syncDir(m.dir.packages())
}

// room refuses an upload that does not fit on the disk.
func (m *Manager) room(size int64) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(m.dir.uploads(), &fs); err != nil {
		return fmt.Errorf("service: free space: %w", err)
	}
	free := int64(fs.Bavail) * fs.Bsize
	switch size = max(size, 0); {
	case size == 0 && free < diskReserve:
		return problem.Newf(507, problem.CodeDiskFull, "the disk of the server's folder is full: %d bytes are free, and %d stay for the server", free, int64(diskReserve))
	case size > free-diskReserve:
		return problem.Newf(507, problem.CodeDiskFull, "the upload of %d bytes does not fit: %d bytes are free, of which %d stay for the server", size, free, int64(diskReserve))
	}
	return nil
}

// roomFor refuses work that takes more disk than there is.
func (m *Manager) roomFor(what string, size int64) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(m.dir.volumes(), &fs); err != nil {
		return fmt.Errorf("service: free space: %w", err)
	}
	if free := int64(fs.Bavail) * fs.Bsize; size > 0 && size > free-diskReserve {
		return problem.Newf(507, problem.CodeDiskFull, "%s take %d bytes: %d bytes are free, of which %d stay for the server", what, size, free, int64(diskReserve))
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
