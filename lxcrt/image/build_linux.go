package image

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// excluded are paths that no package brings along.
var excluded = []string{
	"/usr/share/doc/*", "/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*",
	"/usr/share/lintian/*", "/usr/share/bug/*", "/usr/share/doc-base/*", "/usr/share/groff/*",
	"/usr/share/icons/*", "/usr/share/pixmaps/*", "/usr/share/common-licenses/*",
}

// tidy runs on the finished tree ($1): it takes away what the build and this
// host left in it, so that equal packages give equal images. It must keep out of
// /tmp, which mmdebstrap empties at its end: there stands the configuration that
// has apt work on the tree, and without which it would work on the host.
const tidy = `set -e
rm -rf "$1"/etc/apt/sources.list "$1"/etc/apt/sources.list.d/* "$1"/etc/apt/apt.conf.d/99mmdebstrap
rm -rf "$1"/etc/dpkg/dpkg.cfg.d/99mmdebstrap "$1"/var/lib/apt/lists/* "$1"/var/cache/* "$1"/var/log/*
rm -rf "$1"/var/lib/dpkg/*-old "$1"/var/lib/systemd "$1"/etc/*-
rm -f "$1"/etc/resolv.conf "$1"/etc/hostname "$1"/etc/machine-id "$1"/var/lib/dbus/machine-id
mkdir -p "$1"/var/cache/apt/archives/partial "$1"/var/log/apt
: >"$1"/etc/machine-id
: >"$1"/etc/resolv.conf
printf '127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n' >"$1"/etc/hosts
`

// epoch is the newest time that a file of an image has: 2025-08-09, when Debian 13
// was released.
const epoch = "1754697600"

// Build returns the path of an image with the wanted packages, making it if there
// is none that is whole. It takes about twenty seconds on two cores, the download
// aside, needs root and the programs mmdebstrap and mksquashfs, and leaves nothing
// behind when it fails or ctx ends. Builds of several processes with one cache
// wait for one another.
func Build(ctx context.Context, o Options) (string, error) {
	if err := o.settle(); err != nil {
		return "", err
	}
	if err := os.MkdirAll(o.Cache, 0o700); err != nil {
		return "", fmt.Errorf("image: %w", err)
	}
	unlock, err := lockCache(ctx, o.Cache)
	if err != nil {
		return "", fmt.Errorf("image: %w", err)
	}
	defer unlock()
	file := filepath.Join(o.Cache, "debian-"+o.Suite+"-"+o.Arch+"-"+o.key()+".squashfs")
	if !o.Fresh {
		o.Progress(Progress{Phase: "verify", Total: 1})
		err := Verify(file)
		if err == nil {
			return file, nil
		}
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, ErrDamaged) {
			return "", fmt.Errorf("image: %w", err)
		}
	}
	if err := o.build(ctx, file); err != nil {
		return "", fmt.Errorf("image: build %s %s: %w", o.Suite, o.Arch, err)
	}
	return file, nil
}

// lockCache waits for the cache to be ours.
func lockCache(ctx context.Context, dir string) (func(), error) {
	f, err := os.OpenFile(filepath.Join(dir, ".lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	done := make(chan error, 1)
	go func() {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX)
		for err == unix.EINTR {
			err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		}
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil {
			f.Close()
			return nil, &os.PathError{Op: "lock", Path: f.Name(), Err: err}
		}
		return func() { f.Close() }, nil
	case <-ctx.Done():
		go func() { // the lock cannot be called off, so it is given back later
			<-done
			f.Close()
		}()
		return nil, ctx.Err()
	}
}

func (o Options) build(ctx context.Context, file string) (err error) {
	if os.Geteuid() != 0 {
		return fmt.Errorf("%w: building without root", ErrNotSupported)
	}
	for _, p := range []string{"mmdebstrap", "mksquashfs", "apt-get"} {
		if _, err := exec.LookPath(p); err != nil {
			return fmt.Errorf("%w: the program %s", ErrNotSupported, p)
		}
	}
	etc := o.etc
	if etc == "" {
		etc = "/etc/apt"
	}
	found, err := hostSources(etc)
	if err != nil {
		return err
	}
	wanted, err := rewrite(found, hostCodename(), o.Suite)
	if err != nil {
		return err
	}
	acquire, err := aptAcquire()
	if err != nil {
		return err
	}
	work, err := os.MkdirTemp(o.Cache, ".build-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	settings := filepath.Join(work, "apt.conf")
	// Credentials stay on the host; apt, which runs there, is told where.
	acquire += "Dir::Etc::netrc \"/etc/apt/auth.conf\";\nDir::Etc::netrcparts \"/etc/apt/auth.conf.d\";\nAcquire::Languages \"none\";\n"
	if err := os.WriteFile(settings, []byte(acquire), 0o600); err != nil {
		return err
	}
	hook := filepath.Join(work, "tidy")
	if err := os.WriteFile(hook, []byte("#!/bin/sh\n"+tidy), 0o700); err != nil {
		return err
	}
	args := []string{"--mode=root", "--variant=minbase", "--format=tar", "--architectures=" + o.Arch,
		"--include=" + strings.Join(o.Packages, ","), "--aptopt=" + settings, "--customize-hook=" + hook,
		"--skip=cleanup/reproducible/machine-id", "--skip=cleanup/apt",
		// Nothing of a build is worth a sync: it counts only when it is whole.
		"--dpkgopt=force-unsafe-io"}
	for _, e := range slices.Concat(excluded, o.Exclude) {
		args = append(args, "--dpkgopt=path-exclude="+e)
	}
	from, err := lines(wanted, work)
	if err != nil {
		return err
	}
	args = append(args, o.Suite, "-")
	args = append(args, from...)
	out := filepath.Join(work, "image")
	if err := o.pipe(ctx, args, out, work); err != nil {
		return err
	}
	return store(out, file)
}

// pipe runs mmdebstrap into mksquashfs. Both run in a mount namespace of their
// own, so that what they mount meanwhile is not seen, and goes if they are killed.
func (o Options) pipe(ctx context.Context, args []string, out, work string) error {
	runtime.LockOSThread() // mmdebstrap is to die with this thread's process, not with the thread
	defer runtime.UnlockOSThread()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	defer w.Close()
	env := append(os.Environ(), "SOURCE_DATE_EPOCH="+epoch, "TMPDIR="+work, "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive")
	private := &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS, Setpgid: true, Pdeathsig: syscall.SIGKILL}
	var squashLog bytes.Buffer
	squash := exec.CommandContext(ctx, "mksquashfs", "-", out, "-tar", "-comp", "zstd", "-Xcompression-level", "9",
		"-b", "256K", "-no-progress", "-quiet", "-noappend", "-no-xattrs")
	squash.Stdin, squash.Env, squash.Dir = r, env, work
	squash.Stdout, squash.Stderr = &squashLog, &squashLog
	boot := exec.CommandContext(ctx, "mmdebstrap", args...)
	boot.Stdout, boot.Env, boot.Dir, boot.SysProcAttr = w, env, work, private
	boot.Cancel = func() error { return unix.Kill(-boot.Process.Pid, unix.SIGKILL) }
	said, err := boot.StderrPipe()
	if err != nil {
		return err
	}
	if err := squash.Start(); err != nil {
		return err
	}
	if err := boot.Start(); err != nil {
		w.Close()
		cancel()
		_ = squash.Wait()
		return err
	}
	w.Close()
	tail := o.follow(said)
	bootErr := boot.Wait()
	if bootErr != nil {
		cancel() // a half tar must not become an image
	}
	o.Progress(Progress{Phase: "squashfs", Done: steps, Total: steps + 1})
	squashErr := squash.Wait()
	if bootErr != nil {
		return fmt.Errorf("mmdebstrap: %w: %s", bootErr, tail)
	}
	if squashErr != nil {
		return fmt.Errorf("mksquashfs: %w: %s", squashErr, bytes.TrimSpace(squashLog.Bytes()))
	}
	return nil
}

// steps is about how many "I:" lines mmdebstrap prints.
const steps = 14

// follow reads mmdebstrap's words as progress, and returns the last lines of
// complaint.
func (o Options) follow(r io.Reader) string {
	var tail []string
	done := 0
	for sc := bufio.NewScanner(r); sc.Scan(); {
		line := strings.TrimSpace(sc.Text())
		if step, ok := strings.CutPrefix(line, "I: "); ok {
			done = min(done+1, steps)
			o.Progress(Progress{Phase: "packages", Step: step, Done: done, Total: steps + 1})
		} else if line != "" && line != "done" {
			tail = append(tail, line)
			tail = tail[max(0, len(tail)-12):]
		}
	}
	_, _ = io.Copy(io.Discard, r) // a line longer than the scanner takes
	return strings.Join(tail, "; ")
}

// store puts an image and its hash in place, the hash last: an image without one
// counts as missing.
func store(made, file string) error {
	sum, err := hashFile(made)
	if err != nil {
		return err
	}
	if err := os.Remove(file + ".sha256"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.Open(made)
	if err != nil {
		return err
	}
	err = f.Sync()
	f.Close()
	if err != nil {
		return err
	}
	if err := os.Rename(made, file); err != nil {
		return err
	}
	tmp := file + ".sha256.new"
	if err := os.WriteFile(tmp, []byte(sum+"\n"), 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, file+".sha256")
}
