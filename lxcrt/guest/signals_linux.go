package guest

import (
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"golang.org/x/sys/unix"
)

// forwarded are the signals that a wrapper hands on to the process it started. All
// but SIGPROF do arrive: Go's runtime takes that one for its own profiler, whoever
// sent it, and no program in Go can do otherwise.
var forwarded = []os.Signal{
	unix.SIGABRT, unix.SIGALRM, unix.SIGCONT, unix.SIGHUP, unix.SIGINT, unix.SIGIO, unix.SIGPIPE,
	unix.SIGPROF, unix.SIGQUIT, unix.SIGTERM, unix.SIGTRAP, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU,
	unix.SIGURG, unix.SIGUSR1, unix.SIGUSR2, unix.SIGVTALRM,
}

// catchForwarded starts to collect the forwarded signals. It also turns
// garbage collection off: the runtime would send itself SIGURG then, and a
// wrapper allocates next to nothing.
func catchForwarded() chan os.Signal {
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(64 << 20)
	signals := make(chan os.Signal, 64)
	signal.Notify(signals, forwarded...)
	return signals
}

// waitForwarding waits for our child pid, handing signals on to it, those that
// come before ready then; a nil ready is no reason to wait.
func waitForwarding(pid int, signals <-chan os.Signal, ready <-chan struct{}) (syscall.WaitStatus, error) {
	done := make(chan struct{})
	var ws syscall.WaitStatus
	var err error
	go func() {
		defer close(done)
		// The child stays a zombie until this goroutine's second wait, so a
		// signal can never reach a process that took over its number.
		err = ignoringEINTR(func() error { return unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil) })
	}()
	open := signals
	if ready != nil {
		open = nil
	}
	for {
		select {
		case <-ready:
			open, ready = signals, nil
		case s := <-open:
			_ = unix.Kill(pid, s.(syscall.Signal))
		case <-done:
			if err == nil {
				err = ignoringEINTR(func() error { _, e := syscall.Wait4(pid, &ws, 0, nil); return e })
			}
			return ws, err
		}
	}
}

func ignoringEINTR(f func() error) error {
	for {
		if err := f(); err != unix.EINTR {
			return err
		}
	}
}
