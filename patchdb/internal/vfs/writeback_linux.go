//go:build linux && !arm && !ppc64 && !ppc64le

package vfs

import (
	"os"
	"syscall"
)

// writeAndWait is SYNC_FILE_RANGE_WAIT_BEFORE, _WRITE and _WAIT_AFTER.
const writeAndWait = 1 | 2 | 4

// Writeback is sync_file_range: it commits no journal and flushes no disk's
// cache, so that the syncs of other files do not wait for it longer than the
// bytes take. File systems without it get a sync.
func (f osFile) Writeback(off, n int64) error {
	for {
		err := syscall.SyncFileRange(int(f.Fd()), off, n, writeAndWait)
		switch err {
		case nil:
			return nil
		case syscall.EINTR:
			continue
		case syscall.ENOSYS, syscall.EOPNOTSUPP, syscall.ESPIPE, syscall.EINVAL, syscall.EPERM:
			return f.Sync()
		}
		return &os.PathError{Op: "sync_file_range", Path: f.Name(), Err: err}
	}
}
