package nat

import (
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// namespace is a network namespace that stays reachable whichever thread runs us.
type namespace struct{ f *os.File }

func currentNamespace() (*namespace, error) {
	f, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, &KernelError{Op: "open network namespace", Err: err}
	}
	return &namespace{f}, nil
}

func (n *namespace) close() { n.f.Close() }

// do runs fn on a thread of the namespace. A thread that had to be moved there
// is thrown away.
func (n *namespace) do(fn func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		moved, err := n.enter()
		if err == nil {
			err = fn()
		}
		if !moved {
			runtime.UnlockOSThread()
		}
		result <- err
	}()
	return <-result
}

func (n *namespace) enter() (moved bool, err error) {
	var want, have unix.Stat_t
	if err := unix.Fstat(int(n.f.Fd()), &want); err != nil {
		return false, &KernelError{Op: "look at network namespace", Err: err}
	}
	if err := unix.Stat("/proc/thread-self/ns/net", &have); err != nil {
		return false, &KernelError{Op: "look at network namespace", Err: err}
	}
	if want.Ino == have.Ino && want.Dev == have.Dev {
		return false, nil
	}
	if err := unix.Setns(int(n.f.Fd()), unix.CLONE_NEWNET); err != nil {
		return false, &KernelError{Op: "enter network namespace", Err: err}
	}
	return true, nil
}
