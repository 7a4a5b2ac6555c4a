package lxcrttest

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/selfstead/selfstead/lxcrt"
)

// account finds a user as lxcrt does, in the machine's list.
func (h *FakeHost) account(user string) (uid, gid uint32, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	find := func(name string) ([2]uint32, bool) {
		if id, ok := h.users[name]; ok {
			return id, true
		}
		n, err := strconv.ParseUint(name, 10, 32)
		for _, id := range h.users {
			if err == nil && id[0] == uint32(n) {
				return id, true
			}
		}
		return [2]uint32{uint32(n), 0}, err == nil
	}
	name, group, hasGroup := strings.Cut(user, ":")
	if name == "" {
		name = "root"
	}
	id, ok := find(name)
	if !ok {
		return 0, 0, fmt.Errorf("user %q: %w", name, lxcrt.ErrNotFound)
	}
	if !hasGroup {
		return id[0], id[1], nil
	}
	if n, err := strconv.ParseUint(group, 10, 32); err == nil {
		return id[0], uint32(n), nil
	}
	g, ok := h.users[group]
	if !ok {
		return 0, 0, fmt.Errorf("group %q: %w", group, lxcrt.ErrNotFound)
	}
	return id[0], g[1], nil
}

func (i *fakeInstance) Exec(ctx context.Context, s lxcrt.ExecSpec) (lxcrt.Program, error) {
	if len(s.Argv) == 0 || slices.ContainsFunc(slices.Concat(s.Argv, s.Env), func(a string) bool { return strings.ContainsRune(a, 0) }) {
		return nil, i.fail("exec", fmt.Errorf("%w: argv %q", lxcrt.ErrInvalid, s.Argv))
	}
	life, err := i.living()
	if err != nil {
		return nil, i.fail("exec", err)
	}
	f, err := i.exec(ctx, life, s)
	if err != nil {
		return nil, i.fail("exec "+s.Argv[0], err)
	}
	return f, nil
}

func (i *fakeInstance) exec(ctx context.Context, life *fakeLife, s lxcrt.ExecSpec) (*fakeProgram, error) {
	if err := i.c.h.met(ctx, "exec", i.c.spec.Name); err != nil {
		return nil, err
	}
	p := &FakeProcess{Argv: slices.Clone(s.Argv), Env: slices.Clone(s.Env), Dir: s.Dir, User: s.User, Container: i.c.spec.Name, Files: i.c.files, Stdin: s.Stdin}
	var err error
	if p.UID, p.GID, err = i.c.h.account(s.User); err != nil {
		return nil, err
	}
	if p.Env == nil {
		p.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "TERM=xterm"}
	}
	if p.Dir == "" {
		p.Dir = "/"
	}
	run, err := i.c.h.look(s.Argv[0], p.Env)
	if err != nil {
		return nil, err
	}
	if p.Stdin == nil {
		p.Stdin = quiet
	}
	out, errs := s.Stdout, s.Stderr
	f := &fakeProgram{p: p, pid: i.c.h.pid()}
	if s.TTY {
		var slave *os.File
		if f.tty, slave, err = openPTY(s.Size); err != nil {
			return nil, err
		}
		p.tty, p.Stdin, out, errs = slave, slave, slave, slave
	}
	lock := &sync.Mutex{}
	p.Stdout, p.Stderr, p.Console = stream{p, out, lock}, stream{p, errs, lock}, stream{p, nil, lock}
	life.mu.Lock()
	defer life.mu.Unlock()
	if life.over {
		if f.tty != nil {
			f.tty.Close()
			p.tty.Close()
		}
		return nil, lxcrt.ErrNotRunning
	}
	life.procs[p] = true
	p.begin(run)
	go func() {
		<-p.done
		life.mu.Lock()
		defer life.mu.Unlock()
		delete(life.procs, p)
	}()
	return f, nil
}
