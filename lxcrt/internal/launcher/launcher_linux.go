package launcher

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selfstead/selfstead/lxcrt/internal/liblxc"
)

// StartHook is the lxc.hook.start-host line that goes with Start. It uses
// nothing but the shell's builtins. liblxc puts "exec " before it, which with a
// redirection alone changes nothing, and arguments behind it, which end up with
// ':'. The launcher leaves its own folder of /proc in LXCRT_SELF, where 4 and 5
// are the pipes ($PPID would be somebody else once the launcher is dead).
const StartHook = `</dev/null; echo "$LXC_PID" >$LXCRT_SELF/fd/4 && read line <$LXCRT_SELF/fd/5 || exit 1; :`

// Options tell how the helper process is made.
type Options struct {
	// Path is the binary to execute; empty means /proc/self/exe.
	Path string
}

// Monitor is the process that starts a container and then watches over it.
type Monitor struct {
	cmd   *exec.Cmd
	sock  *os.File
	ready *os.File
	goOn  *os.File
	done  chan struct{}
}

// StartArgs name the container for the monitor.
type StartArgs struct {
	Name     string   // liblxc's name of the container
	Dir      string   // its folder, with "config"
	Path     string   // liblxc's path, see liblxc.Path
	ExitFile string   // where the outcome is recorded
	Init     []string // PID 1's argv
	Output   *os.File // PID 1's standard output; nil drops it
	Errors   *os.File // and error
}

// Start executes the monitor, which then waits for SendRoot.
func Start(o Options, a StartArgs) (*Monitor, error) {
	local, remote, err := socketpair()
	if err != nil {
		return nil, err
	}
	defer remote.Close()
	readyR, readyW, err := os.Pipe()
	if err != nil {
		local.Close()
		return nil, err
	}
	defer readyW.Close()
	goR, goW, err := os.Pipe()
	if err != nil {
		local.Close()
		readyR.Close()
		return nil, err
	}
	defer goR.Close()
	cmd := o.command("start", append([]string{a.Name, a.Dir, a.Path, a.ExitFile}, a.Init...))
	cmd.Env = []string{liblxc.EnvKey + "=start"}
	if a.Output != nil {
		cmd.Stdout = a.Output
	}
	if a.Errors != nil {
		cmd.Stderr = a.Errors
	}
	cmd.ExtraFiles = []*os.File{remote, readyW, goR}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	m := &Monitor{cmd: cmd, sock: local, ready: readyR, goOn: goW, done: make(chan struct{})}
	if err := cmd.Start(); err != nil {
		local.Close()
		readyR.Close()
		goW.Close()
		return nil, fmt.Errorf("execute the monitor: %w", err)
	}
	go func() {
		_ = cmd.Wait() // the outcome stands in the exit file
		close(m.done)
	}()
	return m, nil
}

func (o Options) command(mode string, args []string) *exec.Cmd {
	path := o.Path
	if path == "" {
		path = "/proc/self/exe"
	}
	return &exec.Cmd{Path: path, Args: append([]string{liblxc.Marker, mode}, args...)}
}

// PID of the monitor.
func (m *Monitor) PID() int { return m.cmd.Process.Pid }

// Done is closed when the monitor has ended and was reaped.
func (m *Monitor) Done() <-chan struct{} { return m.done }

// Kill ends the monitor; PID 1 goes with it.
func (m *Monitor) Kill() { _ = m.cmd.Process.Kill() }

// SendRoot hands over the detached root, which lets the monitor go on.
func (m *Monitor) SendRoot(tree int) error {
	conn, err := m.sock.SyscallConn()
	if err != nil {
		return err
	}
	var serr error
	if err := conn.Write(func(fd uintptr) bool {
		serr = unix.Sendmsg(int(fd), []byte{0}, unix.UnixRights(tree), nil, unix.MSG_NOSIGNAL)
		return serr != unix.EAGAIN
	}); err != nil {
		return err
	}
	return serr
}

// Ready waits until the container stands complete but for PID 1's program, and
// returns PID 1 as seen from here. It fails when the monitor ends before.
func (m *Monitor) Ready(ctx context.Context) (int, error) {
	// A monitor that is killed can leave a child of liblxc's behind that waits for
	// it and holds the pipe: its own end has to be looked for as well.
	over := make(chan struct{})
	defer close(over)
	go func() {
		select {
		case <-ctx.Done():
		case <-m.done:
		case <-over:
			return
		}
		_ = m.ready.SetReadDeadline(time.Unix(1, 0))
	}()
	buf := make([]byte, 32)
	n, err := m.ready.Read(buf)
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	if n == 0 {
		if msg := m.complaint(); msg != nil {
			return 0, msg
		}
		return 0, fmt.Errorf("the monitor ended before PID 1 was ready (%w)", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(buf[:n])))
	if err != nil || pid <= 1 {
		return 0, fmt.Errorf("the hook reported pid %q", buf[:n])
	}
	return pid, nil
}

// complaint returns what the launcher said over the socket before it ended, if
// anything.
func (m *Monitor) complaint() error {
	buf := make([]byte, 256)
	_ = m.sock.SetReadDeadline(time.Now().Add(time.Second)) // an orphan may hold the other end
	n, err := m.sock.Read(buf)
	if err != nil || n == 0 {
		return nil
	}
	return parseComplaint(string(buf[:n]))
}

func parseComplaint(s string) error {
	if len(s) < 2 || s[0] != 'E' {
		return nil
	}
	num, step, _ := strings.Cut(s[1:], " ")
	e, err := strconv.Atoi(num)
	if err != nil {
		return fmt.Errorf("launcher: %s", s)
	}
	return fmt.Errorf("%s: %w", step, syscall.Errno(e))
}

// Go lets PID 1's program be executed.
func (m *Monitor) Go() error {
	_, err := m.goOn.Write([]byte("go\n"))
	return err
}

// Release closes this side's descriptors. Before Go it makes the start fail.
func (m *Monitor) Release() {
	m.sock.Close()
	m.ready.Close()
	m.goOn.Close()
}

// ExecArgs say what to run inside, and as whom.
type ExecArgs struct {
	Init       int // PID 1 on the host
	UID, GID   uint32
	Groups     []uint32
	Dir        string
	Argv, Env  []string
	TTY        bool
	Rows, Cols uint16   // of the terminal, from the first moment on
	Cgroups    []string // cgroup.procs files to enter
	Drop       []int    // capabilities that are not for it
	Cgroup     *os.File // a folder of the unified tree to begin in, or nil
	In, Out, E *os.File // nil: /dev/null
}

// Exec is a program inside a container and the process that stands for it here:
// it ends as the program does.
type Exec struct {
	Cmd  *exec.Cmd
	PID  int      // the program's pid on the host
	TTY  *os.File // the terminal's master side, or nil
	sock *os.File
}

// Run starts a program inside and returns when it was executed, or with the
// error number that exec gave inside.
func Run(ctx context.Context, o Options, a ExecArgs) (*Exec, error) {
	local, remote, err := socketpair()
	if err != nil {
		return nil, err
	}
	defer remote.Close()
	groups := "-"
	if len(a.Groups) > 0 {
		var s []string
		for _, g := range a.Groups {
			s = append(s, strconv.FormatUint(uint64(g), 10))
		}
		groups = strings.Join(s, ",")
	}
	tty, cgroups := "-", "-"
	if a.TTY {
		tty = fmt.Sprintf("%d:%d", a.Rows, a.Cols)
	}
	if len(a.Cgroups) > 0 {
		cgroups = strings.Join(a.Cgroups, ":")
	}
	var drop []string
	for _, c := range a.Drop {
		drop = append(drop, strconv.Itoa(c))
	}
	cmd := o.command("exec", append([]string{strconv.Itoa(a.Init),
		strconv.FormatUint(uint64(a.UID), 10), strconv.FormatUint(uint64(a.GID), 10), groups, a.Dir, tty, cgroups,
		strings.Join(drop, ",")}, a.Argv...))
	cmd.Env = append([]string{liblxc.EnvKey + "=exec"}, a.Env...)
	if a.In != nil {
		cmd.Stdin = a.In
	}
	if a.Out != nil {
		cmd.Stdout = a.Out
	}
	if a.E != nil {
		cmd.Stderr = a.E
	}
	cmd.ExtraFiles = []*os.File{remote}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if a.Cgroup != nil {
		// Being born there spares the wait that a move costs (see CLONE_INTO_CGROUP).
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(a.Cgroup.Fd())
	}
	if err := cmd.Start(); err != nil {
		local.Close()
		return nil, fmt.Errorf("execute the launcher: %w", err)
	}
	remote.Close()
	stop := context.AfterFunc(ctx, func() { local.Close() })
	x, err := receiveReport(local)
	if !stop() {
		err = ctx.Err()
	}
	if err != nil {
		local.Close() // with which a program that runs ends
		if x == nil {
			_ = cmd.Process.Kill()
		} else if x.TTY != nil {
			x.TTY.Close()
		}
		_ = cmd.Wait()
		return nil, err
	}
	x.Cmd, x.sock = cmd, local
	return x, nil
}

func receiveReport(sock *os.File) (*Exec, error) {
	conn, err := sock.SyscallConn()
	if err != nil {
		return nil, err
	}
	buf, oob := make([]byte, 256), make([]byte, unix.CmsgSpace(4))
	var n, oobn int
	var rerr error
	if err := conn.Read(func(fd uintptr) bool {
		n, oobn, _, _, rerr = unix.Recvmsg(int(fd), buf, oob, unix.MSG_CMSG_CLOEXEC)
		return rerr != unix.EAGAIN && rerr != unix.EINTR
	}); err != nil {
		return nil, err
	}
	if rerr != nil {
		return nil, rerr
	}
	if n == 0 {
		return nil, errors.New("the launcher ended without a word")
	}
	if err := parseComplaint(string(buf[:n])); err != nil {
		return nil, err
	}
	pid, err := strconv.Atoi(strings.TrimPrefix(string(buf[:n]), "P"))
	if err != nil {
		return nil, fmt.Errorf("the launcher said %q", buf[:n])
	}
	x := &Exec{PID: pid}
	if oobn > 0 {
		msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
		if err != nil || len(msgs) == 0 {
			return nil, fmt.Errorf("terminal descriptor: %w", err)
		}
		fds, err := unix.ParseUnixRights(&msgs[0])
		if err != nil || len(fds) != 1 {
			return nil, fmt.Errorf("terminal descriptor: %w", err)
		}
		_ = unix.SetNonblock(fds[0], true)
		x.TTY = os.NewFile(uintptr(fds[0]), "container terminal")
	}
	return x, nil
}

// Wait waits for the program and lets go of the socket.
func (x *Exec) Wait() (*os.ProcessState, error) {
	err := x.Cmd.Wait()
	x.sock.Close()
	if ee := (*exec.ExitError)(nil); errors.As(err, &ee) {
		return ee.ProcessState, nil
	}
	return x.Cmd.ProcessState, err
}

// socketpair returns both ends as files, ours not blocking.
func socketpair() (local, remote *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socket pair: %w", err)
	}
	_ = unix.SetNonblock(fds[0], true)
	return os.NewFile(uintptr(fds[0]), "launcher"), os.NewFile(uintptr(fds[1]), "launcher peer"), nil
}
