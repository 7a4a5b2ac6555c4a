package guest

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// rawSetgroups changes the calling thread only. The numbers of setgroups,
// setresuid and setresgid take 32-bit ids on the 64-bit architectures built.
func rawSetgroups(n int, list *uint32) (uintptr, uintptr, unix.Errno) {
	return unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(n), uintptr(unsafe.Pointer(list)), 0)
}
