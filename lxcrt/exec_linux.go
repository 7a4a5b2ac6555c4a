package lxcrt

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/selfstead/selfstead/lxcrt/internal/launcher"
)

// Process is a program that Exec started.
type Process struct {
	x      *launcher.Exec
	tty    *os.File
	copies sync.WaitGroup
	ends   []*os.File // our ends of the pipes
	once   sync.Once
	status ExitStatus
	err    error
}

// Exec runs a program inside and returns when it has been executed. ctx only
// bounds that: later it is Signal that ends the program. A program that is not
// there is an error that wraps fs.ErrNotExist. If this process dies, so does the
// program.
func (c *Container) Exec(ctx context.Context, s ExecSpec) (*Process, error) {
	if len(s.Argv) == 0 || slices.ContainsFunc(slices.Concat(s.Argv, s.Env), func(a string) bool { return strings.ContainsRune(a, 0) }) {
		return nil, c.fail("exec", fmt.Errorf("%w: argv %q", ErrInvalid, s.Argv))
	}
	life, err := c.living(ctx)
	if err != nil {
		return nil, c.fail("exec", err)
	}
	p, err := c.exec(ctx, life, s)
	if err != nil {
		return nil, c.fail("exec "+s.Argv[0], err)
	}
	return p, nil
}

func (c *Container) exec(ctx context.Context, life *run, s ExecSpec) (*Process, error) {
	who, err := c.account(life, s.User)
	if err != nil {
		return nil, err
	}
	if s.Env == nil {
		s.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + who.home, "TERM=xterm"}
	}
	if s.Dir == "" {
		s.Dir = "/"
	}
	args := launcher.ExecArgs{Init: life.init.PID, UID: who.uid, GID: who.gid, Groups: who.groups,
		Dir: s.Dir, Argv: s.Argv, Env: s.Env, TTY: s.TTY, Rows: s.Size.Rows, Cols: s.Size.Cols,
		Drop: capNumbers()}
	if args.Cgroup, args.Cgroups = c.execCgroups(); args.Cgroup != nil {
		defer args.Cgroup.Close()
	}
	if len(args.Cgroups) > 0 {
		go c.r.trees.warm() // the launcher moves into them in a few milliseconds
	}
	p := &Process{}
	var theirs []*os.File
	defer func() {
		for _, f := range theirs {
			f.Close()
		}
	}()
	if !s.TTY {
		if args.In, err = p.input(s.Stdin, &theirs); err == nil {
			args.Out, err = p.output(s.Stdout, &theirs)
		}
		if err == nil {
			if s.Stderr != nil && s.Stderr == s.Stdout {
				args.E = args.Out
			} else {
				args.E, err = p.output(s.Stderr, &theirs)
			}
		}
		if err != nil {
			p.closeEnds()
			return nil, err
		}
	}
	x, err := launcher.Run(ctx, c.r.launch, args)
	if err != nil {
		for _, f := range theirs {
			f.Close()
		}
		theirs = nil
		p.closeEnds()
		return nil, err
	}
	p.x, p.tty = x, x.TTY
	return p, nil
}

func (p *Process) closeEnds() {
	for _, f := range p.ends {
		f.Close()
	}
	p.copies.Wait()
}

func (p *Process) input(r io.Reader, theirs *[]*os.File) (*os.File, error) {
	if r == nil {
		return nil, nil
	}
	if f, ok := r.(*os.File); ok {
		return f, nil
	}
	pr, pw, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	*theirs = append(*theirs, pr)
	p.ends = append(p.ends, pw)
	go func() { // not waited for: the reader may never end
		_, _ = io.Copy(pw, r)
		pw.Close()
	}()
	return pr, nil
}

func (p *Process) output(w io.Writer, theirs *[]*os.File) (*os.File, error) {
	if w == nil {
		return nil, nil
	}
	if f, ok := w.(*os.File); ok {
		return f, nil
	}
	pr, pw, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	*theirs = append(*theirs, pw)
	p.ends = append(p.ends, pr)
	p.copies.Go(func() { _, _ = io.Copy(w, pr) })
	return pw, nil
}

// PID of the program on the host.
func (p *Process) PID() int { return p.x.PID }

// TTY is the master side of the program's terminal, or nil. It is closed by Wait.
func (p *Process) TTY() *os.File { return p.tty }

// Resize tells the terminal its size.
func (p *Process) Resize(s WindowSize) error {
	if p.tty == nil {
		return &Error{Op: "resize", Err: fmt.Errorf("%w: no terminal", ErrInvalid)}
	}
	conn, err := p.tty.SyscallConn()
	if err != nil {
		return err
	}
	var ierr error
	err = conn.Control(func(fd uintptr) {
		ierr = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: s.Rows, Col: s.Cols})
	})
	return errors.Join(err, ierr)
}

// Signal sends a signal to the program, if it has not ended.
func (p *Process) Signal(sig unix.Signal) error {
	// The process that stands for it holds its pid: while it is there, the
	// program is not yet reaped.
	if err := p.x.Cmd.Process.Signal(unix.Signal(0)); err != nil {
		return &Error{Op: "signal", Err: err}
	}
	if err := unix.Kill(p.x.PID, sig); err != nil && err != unix.ESRCH {
		return &Error{Op: "signal", Err: err}
	}
	return nil
}

// Wait returns how the program ended, after what it wrote has been copied. It
// may be called more than once.
func (p *Process) Wait() (ExitStatus, error) {
	p.once.Do(func() {
		st, err := p.x.Wait()
		p.copies.Wait()
		p.closeEnds()
		if p.tty != nil {
			p.tty.Close()
		}
		p.status = ExitStatus{Code: -1}
		if err != nil {
			p.err = &Error{Op: "wait", Err: err}
			return
		}
		ws, ok := st.Sys().(interface {
			Signaled() bool
			Signal() unix.Signal
		})
		p.status = ExitStatus{Code: st.ExitCode(), Known: true}
		if ok && ws.Signaled() {
			p.status.Signal = ws.Signal()
		}
	})
	return p.status, p.err
}

// execCgroups are the places through which a process enters the container's
// cgroups: a folder of the unified tree to be born in, and files to write to in
// the others.
func (c *Container) execCgroups() (unified *os.File, files []string) {
	for _, root := range c.r.trees.roots() {
		for _, sub := range []string{"ns", ""} {
			dir := filepath.Join(root, c.payload(), sub)
			if root == c.r.trees.unified {
				if f, err := os.Open(dir); err == nil {
					unified = f
					break
				}
			} else if _, err := os.Stat(dir); err == nil {
				files = append(files, filepath.Join(dir, "cgroup.procs"))
				break
			}
		}
	}
	return unified, files
}

// identity is a user of a container.
type identity struct {
	uid, gid uint32
	groups   []uint32
	home     string
}

// account looks a user up in the container's own files.
func (c *Container) account(life *run, user string) (identity, error) {
	id := identity{home: "/root"}
	if user == "" || user == "0" || user == "root" {
		return id, nil
	}
	name, group, hasGroup := strings.Cut(user, ":")
	var passwd, groups []byte
	err := c.inside(life, func(root int) error {
		var err error
		if passwd, err = readInside(root, "/etc/passwd"); err != nil {
			return err
		}
		groups, err = readInside(root, "/etc/group")
		if errors.Is(err, os.ErrNotExist) {
			err = nil
		}
		return err
	})
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return id, err
	}
	id.home = "/"
	number, nerr := strconv.ParseUint(name, 10, 32)
	id.uid = uint32(number)
	found := nerr == nil
	for f := range colonLines(passwd, 7) {
		uid, _ := strconv.ParseUint(f[2], 10, 32)
		if f[0] == name || nerr == nil && uid == number {
			gid, _ := strconv.ParseUint(f[3], 10, 32)
			id.uid, id.gid, id.home, name, found = uint32(uid), uint32(gid), f[5], f[0], true
			break
		}
	}
	if !found {
		return id, fmt.Errorf("user %q: %w", name, ErrNotFound)
	}
	if hasGroup {
		gid, err := strconv.ParseUint(group, 10, 32)
		found = err == nil
		for f := range colonLines(groups, 3) {
			if f[0] == group {
				gid, err = strconv.ParseUint(f[2], 10, 32)
				found = err == nil
			}
		}
		if !found {
			return id, fmt.Errorf("group %q: %w", group, ErrNotFound)
		}
		id.gid = uint32(gid)
	}
	for f := range colonLines(groups, 4) {
		if slices.Contains(strings.Split(f[3], ","), name) {
			if gid, err := strconv.ParseUint(f[2], 10, 32); err == nil {
				id.groups = append(id.groups, uint32(gid))
			}
		}
	}
	return id, nil
}

func colonLines(b []byte, fields int) func(yield func([]string) bool) {
	return func(yield func([]string) bool) {
		for sc := bufio.NewScanner(bytes.NewReader(b)); sc.Scan(); {
			if f := strings.Split(sc.Text(), ":"); len(f) >= fields && !yield(f) {
				return
			}
		}
	}
}

// readInside reads a small regular file of the container.
func readInside(root int, p string) ([]byte, error) {
	fd, err := openInside(root, p, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), p)
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: no regular file", p)
	}
	return io.ReadAll(io.LimitReader(f, 1<<20))
}
