package guest

import (
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// runApplet is PID 1 of a container of any image: it runs one command as a user
// in a folder, on the container's own streams, hands signals on and reaps. It ends
// when the command does, with its status (128+n for signal n), after the rest of
// the container had its grace. Without a command it waits for a signal to stop,
// so that others can be executed in the container meanwhile.
func runApplet(c *call, args []string) error {
	o, err := parseRun(args)
	if err != nil {
		return err
	}
	signals, ended := make(chan os.Signal, 64), make(chan os.Signal, 1)
	signal.Notify(signals, append(slices.Clone(stopSignals), passedSignals...)...)
	signal.Notify(ended, unix.SIGCHLD)
	if os.Getpid() == 1 {
		for _, err := range prepareContainer() {
			fmt.Fprintln(c.stderr, err)
		}
	} else if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("guest: run: become a reaper: %w", err)
	}
	s := &supervisor{signals: signals, ended: ended}
	if len(o.Command) == 0 {
		s.rest()
		s.endStragglers(o.Grace)
		return nil
	}
	pid, err := o.start(c.env)
	if err != nil {
		return err
	}
	ws := s.wait(pid)
	s.endStragglers(o.Grace)
	if ws.Signaled() {
		return &ExitError{Code: 128 + int(ws.Signal())}
	}
	if ws.ExitStatus() != 0 {
		return &ExitError{Code: ws.ExitStatus()}
	}
	return nil
}

// start executes the command in a session of its own.
func (o *runOptions) start(base []string) (int, error) {
	cred, err := userInRoot(o.User)
	if err != nil {
		return 0, err
	}
	env := newEnviron(base)
	env.setDefault("PATH", defaultPath)
	if cred.Home != "" {
		env.setDefault("HOME", cred.Home)
	}
	attr := &syscall.ProcAttr{Dir: o.Workdir, Files: []uintptr{0, 1, 2}, Sys: &syscall.SysProcAttr{Setsid: true}}
	if o.User != "" {
		attr.Sys.Credential = &syscall.Credential{Uid: cred.UID, Gid: cred.GID, Groups: cred.Groups}
		for fd := range 3 {
			handOver(fd, cred)
		}
	}
	if err := unix.Access(o.Workdir, unix.F_OK); err != nil {
		return 0, fmt.Errorf("guest: working directory %s: %w", o.Workdir, err)
	}
	return forkExec(o.Command, attr, env)
}

// rest reaps until a signal asks to stop.
func (s *supervisor) rest() {
	for {
		select {
		case <-s.ended:
			reapAll()
		case sig := <-s.signals:
			if slices.Contains(stopSignals, sig) {
				return
			}
		}
	}
}
