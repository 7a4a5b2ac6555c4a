package guest

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// spawnSelf starts another run of this program with the given standard
// streams; sys may add namespaces. The child asks for its own death with this
// thread (dieWithParent): SysProcAttr.Pdeathsig compares parent ids, which
// differ across PID namespaces, and would kill it at once. ready is closed once
// the child has its signal handlers, executes another program, or has ended.
func (c *call) spawnSelf(args []string, files []uintptr, sys *syscall.SysProcAttr) (pid int, ready <-chan struct{}, err error) {
	self, err := os.Executable()
	if err != nil {
		return 0, nil, fmt.Errorf("guest: own path: %w", err)
	}
	ours, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return 0, nil, fmt.Errorf("guest: own pidfd: %w", err)
	}
	defer unix.Close(ours)
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return 0, nil, fmt.Errorf("guest: pipe: %w", err)
	}
	pid, err = syscall.ForkExec(self, append([]string{"start-container"}, args...),
		&syscall.ProcAttr{Env: c.env, Files: append(files, uintptr(ours), uintptr(pipe[1])), Sys: sys})
	unix.Close(pipe[1])
	if err != nil {
		unix.Close(pipe[0])
		return 0, nil, fmt.Errorf("guest: start %s: %w", args[min(1, len(args)-1)], err)
	}
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		_ = ignoringEINTR(func() error { _, err := unix.Read(pipe[0], make([]byte, 1)); return err })
		unix.Close(pipe[0])
	}()
	return pid, closed, nil
}

// statusError turns a child's end into ours: its exit code; 0 when SIGTERM
// ended it and quietTerm is set; else status 1 and a message.
func statusError(ws syscall.WaitStatus, quietTerm bool) error {
	switch {
	case ws.Exited() && ws.ExitStatus() == 0:
		return nil
	case ws.Exited():
		return &ExitError{Code: ws.ExitStatus()}
	case quietTerm && ws.Signal() == unix.SIGTERM:
		return nil
	}
	return &ExitError{Code: 1, Err: fmt.Errorf("guest: process was killed by signal %d (%s)", ws.Signal(), ws.Signal())}
}

// runSelf starts an inner half and waits for it, on a new terminal when the
// options or our own streams ask for one.
func (c *call) runSelf(applet string, o *subcontainerOptions, sys *syscall.SysProcAttr) error {
	signals := catchForwarded()
	tty, err := openTerminal(o)
	if err != nil {
		return err
	}
	files := []uintptr{0, 1, 2}
	if tty != nil {
		defer tty.close()
		files = tty.childFiles(o)
		sys.Setsid, sys.Setctty, sys.Ctty = true, true, 0
	}
	pid, ready, err := c.spawnSelf(o.args(applet), files, sys)
	if err != nil {
		return err
	}
	if tty != nil {
		tty.relay()
	}
	ws, err := waitForwarding(pid, signals, ready)
	if err != nil {
		return fmt.Errorf("guest: wait for %s: %w", applet, err)
	}
	if tty != nil {
		tty.drain()
	}
	return statusError(ws, tty == nil)
}

// Where an inner half finds a pidfd of the wrapper, and what it closes once
// signals may come.
const (
	parentFD = 3
	readyFD  = 4
)

// ready tells the wrapper that signals may come.
func (o *subcontainerOptions) ready() {
	if o.Inner && !o.told {
		o.told = true
		unix.Close(readyFD)
	}
}

// dieWithParent has the kernel kill this process when the wrapper that started
// it ends, by SIGKILL too. The wrapper may have ended before we asked; parent
// ids cannot tell across PID namespaces, its pidfd can.
func (o *subcontainerOptions) dieWithParent() error {
	if !o.Inner {
		return nil
	}
	unix.CloseOnExec(parentFD)
	if !o.told {
		unix.CloseOnExec(readyFD)
	}
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("guest: parent death signal: %w", err)
	}
	n, err := unix.Poll([]unix.PollFd{{Fd: parentFD, Events: unix.POLLIN}}, 0)
	if err != nil && err != unix.EINTR {
		return fmt.Errorf("guest: wrapper: %w", err)
	}
	if n > 0 {
		return &ExitError{Code: 1, Err: errors.New("guest: the wrapper has ended")}
	}
	return nil
}
