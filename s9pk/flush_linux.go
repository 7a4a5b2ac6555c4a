package s9pk

import (
	"os"
	"syscall"
)

// startWriteback asks the kernel to begin writing a finished part of a file, so
// that the disk works while the next part is hashed. SYNC_FILE_RANGE_WRITE (2)
// only starts it; errors show at Sync.
func startWriteback(f *os.File, off, n int64) {
	conn, err := f.SyscallConn()
	if err != nil {
		return
	}
	_ = conn.Control(func(fd uintptr) { _ = syscall.SyncFileRange(int(fd), off, n, 2) }) // only a hint
}
