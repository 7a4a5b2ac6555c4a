package lxcrt

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// resolve flags: nothing that stands inside leads out of root, and /proc's magic
// links are not followed at all.
const insideRoot = unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS

// openInside opens p below the folder root as an O_PATH descriptor unless flags
// say otherwise.
func openInside(root int, p string, flags int, mode uint32) (int, error) {
	how := unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Mode: uint64(mode), Resolve: insideRoot}
	for range 64 { // EAGAIN: something was renamed meanwhile
		fd, err := unix.Openat2(root, p, &how)
		if err == nil {
			return fd, nil
		}
		if err != unix.EAGAIN && err != unix.EINTR {
			return -1, &fs.PathError{Op: "open", Path: p, Err: err}
		}
	}
	return -1, &fs.PathError{Op: "open", Path: p, Err: unix.EAGAIN}
}

// makeTarget opens the target p below root, creating folders and, where file is
// set, an empty file at its end. The caller's thread decides the owner (actAs).
func makeTarget(root int, p string, file bool) (int, error) {
	if fd, err := openInside(root, p, unix.O_PATH, 0); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return fd, err
	}
	dir, base := path.Split(p)
	parent, err := makeFolders(root, dir)
	if err != nil {
		return -1, err
	}
	defer unix.Close(parent)
	if file {
		fd, err := unix.Openat(parent, base, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o644)
		if err == nil {
			unix.Close(fd)
		} else if err != unix.EEXIST {
			return -1, &fs.PathError{Op: "create", Path: p, Err: err}
		}
	} else if err := unix.Mkdirat(parent, base, 0o755); err != nil && err != unix.EEXIST {
		return -1, &fs.PathError{Op: "mkdir", Path: p, Err: err}
	}
	return openInside(root, p, unix.O_PATH, 0)
}

// makeFolders is mkdir -p below root; it returns the last folder.
func makeFolders(root int, dir string) (int, error) {
	walked := "/"
	fd, err := openInside(root, "/", unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return -1, err
	}
	for part := range strings.SplitSeq(strings.Trim(dir, "/"), "/") {
		if part == "" {
			continue
		}
		if part == ".." || part == "." {
			unix.Close(fd)
			return -1, fmt.Errorf("%w: path %q", ErrInvalid, dir)
		}
		walked = path.Join(walked, part)
		next, err := openInside(root, walked, unix.O_PATH|unix.O_DIRECTORY, 0)
		if errors.Is(err, fs.ErrNotExist) {
			if err := unix.Mkdirat(fd, part, 0o755); err != nil && err != unix.EEXIST {
				unix.Close(fd)
				return -1, &fs.PathError{Op: "mkdir", Path: walked, Err: err}
			}
			next, err = openInside(root, walked, unix.O_PATH|unix.O_DIRECTORY, 0)
		}
		unix.Close(fd)
		if err != nil {
			return -1, err
		}
		fd = next
	}
	return fd, nil
}

// writeInside writes f below root, replacing what stands there. A link at the
// last element is replaced, not followed.
func writeInside(root int, f File) error {
	mode := f.Mode
	if mode == 0 {
		mode = 0o644
	}
	dir, base := path.Split(f.Path)
	parent, err := makeFolders(root, dir)
	if err != nil {
		return err
	}
	defer unix.Close(parent)
	if err := unix.Unlinkat(parent, base, 0); err != nil && err != unix.ENOENT {
		return &fs.PathError{Op: "replace", Path: f.Path, Err: err}
	}
	fd, err := unix.Openat(parent, base, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return &fs.PathError{Op: "create", Path: f.Path, Err: err}
	}
	defer unix.Close(fd)
	for data := f.Data; len(data) > 0; {
		n, err := unix.Write(fd, data)
		if err != nil {
			return &fs.PathError{Op: "write", Path: f.Path, Err: err}
		}
		data = data[n:]
	}
	if err := unix.Fchmod(fd, mode&0o7777); err != nil {
		return &fs.PathError{Op: "chmod", Path: f.Path, Err: err}
	}
	return nil
}
