package lxcrttest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/selfstead/selfstead/lxcrt"
)

const sigKill = unix.SIGKILL

// ProgramFunc is a program: it runs until it returns its exit code. ctx ends when
// the program is killed; what it does afterwards is seen by nobody.
type ProgramFunc func(ctx context.Context, p *FakeProcess) int

// FakeProcess is a program's view of itself.
type FakeProcess struct {
	Argv, Env []string
	Dir, User string
	UID, GID  uint32
	Container string // its name
	Init      bool   // it is PID 1
	Stdin     io.Reader
	Stdout    io.Writer
	Stderr    io.Writer
	Console   io.Writer // of a Spec with Log; otherwise nothing comes of it
	Files     *Files

	tty    *os.File // the program's side of its terminal
	cancel context.CancelFunc
	done   chan struct{}

	mu     sync.Mutex
	caught map[syscall.Signal]chan syscall.Signal // guarded by mu
	early  map[syscall.Signal]bool                // guarded by mu; came to PID 1 before it was caught
	ended  bool                                   // guarded by mu
	status lxcrt.ExitStatus
}

// Notify has the program catch signals, as os/signal.Notify does. One that is not
// caught ends the program, unless it is PID 1: that one then does not hear of it,
// but if it catches the signal later it finds it waiting, so that a test need not
// know how far a program has got.
func (p *FakeProcess) Notify(signals ...syscall.Signal) <-chan syscall.Signal {
	p.mu.Lock()
	defer p.mu.Unlock()
	ch := make(chan syscall.Signal, 16)
	for _, s := range signals {
		p.caught[s] = ch
		if p.early[s] {
			ch <- s
		}
		delete(p.early, s)
	}
	return ch
}

// Getenv returns a variable of the program's environment.
func (p *FakeProcess) Getenv(name string) string { return getenv(p.Env, name) }

// Size is that of the program's terminal, zero without one.
func (p *FakeProcess) Size() lxcrt.WindowSize {
	if p.tty == nil {
		return lxcrt.WindowSize{}
	}
	ws, err := unix.IoctlGetWinsize(int(p.tty.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return lxcrt.WindowSize{}
	}
	return lxcrt.WindowSize{Rows: ws.Row, Cols: ws.Col}
}

// Files are what programs have written in a container's root. They stay until it
// is destroyed.
type Files struct {
	mu   sync.Mutex
	data map[string][]byte // guarded by mu
}

// Write replaces a file.
func (f *Files) Write(path string, data []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.data[path] = slices.Clone(data)
}

// Read returns a file; false says that there is none.
func (f *Files) Read(path string) ([]byte, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	b, ok := f.data[path]
	return slices.Clone(b), ok
}

// List names all files, sorted.
func (f *Files) List() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(maps.Keys(f.data))
}

// begin runs the program.
func (p *FakeProcess) begin(run ProgramFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel, p.done, p.caught = cancel, make(chan struct{}), map[syscall.Signal]chan syscall.Signal{}
	p.early = map[syscall.Signal]bool{}
	go func() { p.end(lxcrt.ExitStatus{Code: run(ctx, p) & 0xff, Known: true}) }()
}

// end is the first end that the program comes to.
func (p *FakeProcess) end(st lxcrt.ExitStatus) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return
	}
	p.ended, p.status = true, st
	p.cancel()
	if p.tty != nil {
		p.tty.Close()
	}
	close(p.done)
}

func (p *FakeProcess) signal(s syscall.Signal) {
	p.mu.Lock()
	ch := p.caught[s]
	if ch == nil && p.Init {
		p.early[s] = true
	}
	p.mu.Unlock()
	switch {
	case s == 0:
	case s == sigKill || ch == nil && !p.Init && !ignoredByDefault[s]:
		p.end(lxcrt.ExitStatus{Code: -1, Signal: s, Known: true})
	case ch != nil:
		select {
		case ch <- s:
		default: // as with a signal that is pending already
		}
	}
}

var ignoredByDefault = map[syscall.Signal]bool{unix.SIGCHLD: true, unix.SIGCONT: true, unix.SIGURG: true, unix.SIGWINCH: true}

// stream is a writer that takes nothing from a program that has ended.
type stream struct {
	p *FakeProcess
	w io.Writer
	// lock is shared by the streams of one writer.
	lock *sync.Mutex
}

func (s stream) Write(b []byte) (int, error) {
	s.p.mu.Lock()
	ended := s.p.ended
	s.p.mu.Unlock()
	if ended {
		return 0, os.ErrClosed
	}
	if s.w == nil {
		return len(b), nil
	}
	s.lock.Lock()
	defer s.lock.Unlock()
	return s.w.Write(b)
}

// fakeProgram is what Exec returns.
type fakeProgram struct {
	p    *FakeProcess
	pid  int
	tty  *os.File
	once sync.Once
}

func (f *fakeProgram) PID() int      { return f.pid }
func (f *fakeProgram) TTY() *os.File { return f.tty }

func (f *fakeProgram) Resize(s lxcrt.WindowSize) error {
	if f.tty == nil {
		return &lxcrt.Error{Op: "resize", Err: fmt.Errorf("%w: no terminal", lxcrt.ErrInvalid)}
	}
	return resize(f.tty, s)
}

func resize(tty *os.File, s lxcrt.WindowSize) error {
	conn, err := tty.SyscallConn()
	if err != nil {
		return err
	}
	var ierr error
	err = conn.Control(func(fd uintptr) {
		ierr = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: s.Rows, Col: s.Cols})
	})
	return errors.Join(err, ierr)
}

func (f *fakeProgram) Signal(s syscall.Signal) error {
	select {
	case <-f.p.done:
	default:
		f.p.signal(s)
	}
	return nil
}

func (f *fakeProgram) Wait() (lxcrt.ExitStatus, error) {
	<-f.p.done
	f.once.Do(func() {
		if f.tty != nil {
			f.tty.Close()
		}
	})
	return f.p.status, nil
}

// openPTY makes a terminal; the kernel's, since callers get a file.
func openPTY(size lxcrt.WindowSize) (master, slave *os.File, err error) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("terminal: %w", err)
	}
	master = os.NewFile(uintptr(fd), "fake terminal")
	if err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err == nil {
		var n int
		if n, err = unix.IoctlGetInt(fd, unix.TIOCGPTN); err == nil {
			slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
		}
	}
	if err == nil && size != (lxcrt.WindowSize{}) {
		err = resize(master, size)
	}
	if err != nil {
		master.Close()
		return nil, nil, fmt.Errorf("terminal: %w", err)
	}
	return master, slave, nil
}

// quiet is an empty standard input.
var quiet io.Reader = strings.NewReader("")
