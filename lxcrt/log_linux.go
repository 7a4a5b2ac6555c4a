package lxcrt

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selfstead/selfstead/lxcrt/internal/launcher"
)

// LogDir is the folder of the container's log, for lxcrt/logs.Open with LogName;
// empty when its Spec wants none.
func (c *Container) LogDir() string {
	if c.spec.Log == nil {
		return ""
	}
	return c.spec.Log.settled(c.dir).Dir
}

// logger is a container's logger as its start sees it.
type logger struct {
	*launcher.Log
	proc     process
	out, err *os.File // for PID 1; closed by letGo
	console  string   // the terminal on the host that becomes /dev/console
	slave    *os.File

	started chan struct{} // closed when the process is there, or startErr says why not
	failed  error
}

// startLogger makes the pipes and the console, and a process that reads them,
// which comes up while the caller goes on: letGo waits for it.
func (c *Container) startLogger() (_ *logger, err error) {
	l := c.spec.Log.settled(c.dir)
	if err := os.MkdirAll(l.Dir, 0o700); err != nil {
		return nil, err
	}
	lg := &logger{started: make(chan struct{})}
	var theirs []*os.File
	closeTheirs := func() {
		for _, f := range theirs {
			f.Close()
		}
	}
	defer func() {
		if err != nil {
			closeTheirs()
			close(lg.started)
			_ = lg.letGo()
		}
	}()
	for _, w := range []**os.File{&lg.out, &lg.err} {
		r, end, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		theirs, *w = append(theirs, r), end
	}
	master, slave, err := openTerminal(c.spec.IDs.Base)
	if err != nil {
		return nil, fmt.Errorf("console: %w", err)
	}
	theirs, lg.slave, lg.console = append(theirs, master), slave, slave.Name()
	go func() {
		defer close(lg.started)
		defer closeTheirs()
		lg.Log, lg.failed = launcher.StartLog(c.r.launch, launcher.LogArgs{Dir: l.Dir, Name: LogName, MaxSize: l.MaxSize, MaxFiles: l.MaxFiles,
			Out: theirs[0], Err: theirs[1], Console: master, Slave: slave})
		if lg.failed == nil {
			lg.proc, lg.failed = identify(lg.PID())
		}
	}()
	return lg, nil
}

// letGo closes this side's ends, once the logger has them: from then on it ends
// with the container. It says what kept the logger from starting.
func (l *logger) letGo() error {
	<-l.started
	for _, f := range []*os.File{l.out, l.err, l.slave} {
		if f != nil {
			f.Close()
		}
	}
	return l.failed
}

// await returns when a logger that was let go has ended; nil is none.
func (l *logger) await() {
	if l != nil && l.Log != nil {
		<-l.Done()
	}
}

// openTerminal makes a terminal whose slave belongs to uid.
func openTerminal(uid uint32) (master, slave *os.File, err error) {
	m, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, &os.PathError{Op: "open", Path: "/dev/ptmx", Err: err}
	}
	master = os.NewFile(uintptr(m), "/dev/ptmx")
	defer func() {
		if err != nil {
			master.Close()
		}
	}()
	if err := unix.IoctlSetPointerInt(m, unix.TIOCSPTLCK, 0); err != nil {
		return nil, nil, err
	}
	n, err := unix.IoctlGetInt(m, unix.TIOCGPTN)
	if err != nil {
		return nil, nil, err
	}
	name := fmt.Sprintf("/dev/pts/%d", n)
	if slave, err = os.OpenFile(name, os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		return nil, nil, err
	}
	if err = slave.Chown(int(uid), int(uid)); err != nil {
		slave.Close()
	}
	return master, slave, err
}

// withConsole is the Spec with the terminal as /dev/console.
func (s Spec) withConsole(terminal string) Spec {
	s.Mounts = append([]Mount{{Target: "/dev/console", Kind: MountBind, Source: terminal, File: true, NoSuid: true}}, s.Mounts...)
	return s
}

// awaitLogger waits until a container's last lines are written. The container has
// ended, so its logger does too; a disk that hangs is not waited for.
func (r *Runtime) awaitLogger(name string, p process) {
	fd, err := p.open()
	if err != nil {
		return
	}
	defer fd.Close()
	_ = fd.SetReadDeadline(time.Now().Add(5 * time.Second))
	if err := awaitExit(fd); errors.Is(err, os.ErrDeadlineExceeded) {
		r.log.Warn("the logger of a container does not end", "container", name)
	}
}

// shelterLogger moves a logger into the cgroups of the container's monitor, so
// that it does not end with whoever ends everything in our own. Nobody waits for
// it: in the v1 layout a move takes its time.
func (c *Container) shelterLogger(p process) {
	pids := []string{fmt.Sprint(p.PID)}
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", p.PID, p.PID)); err == nil {
		pids = append(pids, strings.Fields(string(b))...)
	}
	for _, root := range c.r.trees.roots() {
		for _, pid := range pids {
			if !p.alive() {
				return
			}
			_ = os.WriteFile(filepath.Join(root, c.r.o.CgroupParent, c.spec.Name, "monitor", "cgroup.procs"), []byte(pid), 0)
		}
	}
}
