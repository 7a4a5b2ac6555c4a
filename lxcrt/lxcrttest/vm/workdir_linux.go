package vm

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// workDir is a folder that its owner removes, and if that was killed, the next
// one to make one. The owner holds a lock as long as it lives.
type workDir struct {
	path string
	lock *os.File
}

const (
	workPrefix = "selfstead-vm-"
	lockName   = "lock"
)

// newWorkDir makes a folder in dir, empty for os.TempDir.
func newWorkDir(dir string) (*workDir, error) {
	if dir == "" {
		dir = os.TempDir()
	}
	sweep(dir)
	path, err := os.MkdirTemp(dir, workPrefix)
	if err != nil {
		return nil, err
	}
	// It gets the lock's name when it is locked: no sweep sees it before.
	f, err := os.Create(filepath.Join(path, "new"))
	if err == nil {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(path, lockName))
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(path))
	}
	return &workDir{path, f}, nil
}

// remove may be called twice.
func (w *workDir) remove() error {
	err := os.RemoveAll(w.path)
	w.lock.Close()
	return err
}

// sweep removes what killed processes left.
func sweep(dir string) {
	left, err := filepath.Glob(filepath.Join(dir, workPrefix+"*", lockName))
	if err != nil {
		return
	}
	for _, l := range left {
		f, err := os.Open(l)
		if err != nil {
			continue
		}
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			_ = os.RemoveAll(filepath.Dir(l))
		}
		f.Close()
	}
}
