//go:build unix

package vfs

import (
	"errors"
	"os"
	"syscall"
)

// Lock takes an advisory lock (flock): it belongs to the open file, so that a
// second Open in this process is refused as well, and dies with the process.
func (f osFile) Lock() error {
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case err == syscall.EINTR:
			continue
		case errors.Is(err, syscall.EWOULDBLOCK):
			return ErrLocked
		}
		return &os.PathError{Op: "flock", Path: f.Name(), Err: err}
	}
}

// Close gives the lock up by itself: a program that this process is just starting
// has the file open too, for the moment before its exec, and would keep it.
func (f osFile) Close() error {
	_ = syscall.Flock(int(f.Fd()), syscall.LOCK_UN) // the close does it too, at the latest
	return f.File.Close()
}

// Inherit gives f the permissions, and as far as this process may the owner, of
// the file that it is to replace.
func (f osFile) Inherit(from File) error {
	of, ok := from.(osFile)
	if !ok {
		return nil
	}
	st, err := of.Stat()
	if err != nil {
		return err
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		if err := f.Chown(int(sys.Uid), int(sys.Gid)); err != nil && !errors.Is(err, os.ErrPermission) {
			return err
		}
	}
	return f.Chmod(st.Mode().Perm())
}
