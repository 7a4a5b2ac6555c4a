package lxcrt

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// onThread runs fn on an OS thread of its own, with its own root and working
// folder, and throws the thread away: fn may enter any namespace but the user
// namespace. It never uses the process's first thread, whose namespaces are what
// /proc/self shows.
func onThread(fn func() error) error { return onThreadThen(fn, nil) }

// onThreadThen returns when fn has; the thread then runs after, for what nobody
// has to wait for.
func onThreadThen(fn func() error, after func()) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if unix.Gettid() == unix.Getpid() {
			done <- onThreadThen(fn, after) // another thread, since this one is held here
			runtime.UnlockOSThread()
			return
		}
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			done <- fmt.Errorf("thread of its own: %w", err)
			if after != nil {
				after()
			}
			return
		}
		unix.Umask(0o022) // of this thread alone, whatever the process has
		done <- fn()
		if after != nil {
			after()
		}
	}()
	return <-done
}

// actAs makes the thread create files as the given host id while it keeps the
// capabilities of root, which setfsuid would take away.
func actAs(id uint32) error {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return fmt.Errorf("capabilities: %w", err)
	}
	_ = unix.Setfsgid(int(id))
	_ = unix.Setfsuid(int(id))
	for i := range data {
		data[i].Effective = data[i].Permitted
	}
	if err := unix.Capset(&hdr, &data[0]); err != nil {
		return fmt.Errorf("capabilities: %w", err)
	}
	return nil
}
