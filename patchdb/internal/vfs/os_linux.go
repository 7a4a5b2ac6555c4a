package vfs

import (
	"os"
	"syscall"
)

// Sync is fdatasync: it flushes the length too, and leaves out the times, which
// would cost a journal commit at each call.
func (f osFile) Sync() error {
	for {
		err := syscall.Fdatasync(int(f.Fd()))
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return &os.PathError{Op: "fdatasync", Path: f.Name(), Err: err}
		}
		return nil
	}
}
