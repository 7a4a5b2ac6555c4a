package guest

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Signals that ask the container to stop: the command gets SIGTERM for each.
// SIGPWR is what lxc-stop sends by default, SIGRTMIN+3 what systemd listens for.
var stopSignals = []os.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGPWR, syscall.Signal(37)}

// Signals handed to the command as they are.
var passedSignals = []os.Signal{unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2, unix.SIGWINCH}

// initApplet is PID 1 of a service container. It ends when its command does,
// with the command's status (128+n for signal n), after the rest of the
// container had its grace.
func initApplet(c *call, args []string) error {
	o, err := parseInit(args)
	if err != nil {
		return err
	}
	signals, ended := make(chan os.Signal, 64), make(chan os.Signal, 1)
	signal.Notify(signals, append(slices.Clone(stopSignals), passedSignals...)...)
	signal.Notify(ended, unix.SIGCHLD) // apart, so that no flood can crowd it out
	if os.Getpid() == 1 {
		for _, err := range prepareContainer() {
			fmt.Fprintln(c.stderr, err)
		}
	} else if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("guest: init: become a reaper: %w", err)
	}
	log, err := openLog(o.LogDir)
	if err != nil {
		return err
	}
	defer log.close()
	env := newEnviron(c.env)
	env.setDefault("PATH", defaultPath)
	env.setDefault("LANG", "C.UTF-8")
	env.setDefault("HOME", "/root")
	s := &supervisor{log: log, signals: signals, ended: ended}
	pid, err := s.start(o.Command, env)
	if err != nil {
		log.write("stderr", []byte(err.Error()))
		return err
	}
	ws := s.wait(pid)
	s.endStragglers(o.Grace)
	s.drain()
	if ws.Signaled() {
		message := fmt.Sprintf("guest: %s was killed by signal %d (%s)", o.Command[0], ws.Signal(), ws.Signal())
		log.write("stderr", []byte(message))
		return &ExitError{Code: 128 + int(ws.Signal())}
	}
	if ws.ExitStatus() != 0 {
		return &ExitError{Code: ws.ExitStatus()}
	}
	return nil
}

// supervisor is the init applet's running state.
type supervisor struct {
	log     *logFile
	signals <-chan os.Signal // to hand on
	ended   <-chan os.Signal // SIGCHLD; one stands for any number of ended processes
	ending  chan struct{}
	streams []carried
}

// carried is a stream on its way to the log.
type carried struct {
	read *os.File
	done chan struct{}
}

// start runs the command in a session of its own, its input empty and its
// output carried to the log.
func (s *supervisor) start(command []string, env *environ) (int, error) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, fmt.Errorf("guest: init: %w", err)
	}
	defer null.Close()
	s.ending = make(chan struct{})
	files := []uintptr{null.Fd()}
	for _, stream := range []string{"stdout", "stderr"} {
		r, w, err := openPipe()
		if err != nil {
			return 0, err
		}
		defer w.Close()
		files = append(files, w.Fd())
		done := make(chan struct{})
		s.streams = append(s.streams, carried{r, done})
		go s.log.carry(stream, r, done, s.ending)
	}
	return forkExec(command, &syscall.ProcAttr{Files: files, Sys: &syscall.SysProcAttr{Setsid: true}}, env)
}

// wait reaps every process that ends and hands signals on, until main ends.
func (s *supervisor) wait(main int) syscall.WaitStatus {
	for {
		select {
		case <-s.ended:
			if ws, ended := reap(main); ended {
				return ws
			}
		case sig := <-s.signals:
			if slices.Contains(stopSignals, sig) {
				sig = unix.SIGTERM
			}
			_ = unix.Kill(main, sig.(syscall.Signal))
		}
	}
}

// reap collects all ended children; ended tells whether main was among them.
func reap(main int) (status syscall.WaitStatus, ended bool) {
	for {
		var ws syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &ws, syscall.WNOHANG, nil)
		switch {
		case err == syscall.EINTR:
		case err != nil || pid <= 0:
			return status, ended
		case pid == main:
			status, ended = ws, true
		}
	}
}

// endStragglers asks what still runs in the container to end, waits for it up
// to grace and kills the rest. Only PID 1 may signal "everyone".
func (s *supervisor) endStragglers(grace time.Duration) {
	if os.Getpid() != 1 {
		return
	}
	if unix.Kill(-1, unix.SIGTERM) != nil {
		return // nobody left
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	for {
		reapAll()
		if errors.Is(unix.Kill(-1, 0), unix.ESRCH) {
			return
		}
		select {
		case <-s.ended:
		case <-timer.C:
			_ = unix.Kill(-1, unix.SIGKILL)
			return
		}
	}
}

// drain writes out what is still in the pipes.
func (s *supervisor) drain() {
	close(s.ending)
	for _, c := range s.streams {
		drained(c.read, c.done)
	}
}
