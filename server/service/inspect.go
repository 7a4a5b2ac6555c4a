package service

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selfstead/selfstead/lxcrt"
	"github.com/selfstead/selfstead/server/api"
	"github.com/selfstead/selfstead/server/problem"
)

// Stats says what a package's container uses; a problem when it
// has none that lives.
func (m *Manager) Stats(ctx context.Context, id string) (api.PackageStats, error) {
	run, err := m.living(ctx, id)
	if err != nil {
		return api.PackageStats{}, err
	}
	return run.stats(ctx)
}

// AllStats is Stats of every package whose container lives, in the order of
// their ids. One that ends meanwhile is left out.
func (m *Manager) AllStats(ctx context.Context) ([]api.PackageStats, error) {
	if err := m.await(ctx); err != nil {
		return nil, err
	}
	out := []api.PackageStats{}
	for _, u := range m.all() {
		u.mu.Lock()
		run := u.run
		u.mu.Unlock()
		if run == nil || !run.alive() {
			continue
		}
		s, err := run.stats(ctx)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err == nil {
			out = append(out, s)
		}
	}
	slices.SortFunc(out, func(a, b api.PackageStats) int { return cmp.Compare(a.ID, b.ID) })
	return out, nil
}

func (r *instance) stats(ctx context.Context) (api.PackageStats, error) {
	s, err := r.c.Stats(ctx)
	if err != nil {
		return api.PackageStats{}, fmt.Errorf("service: %s: %w", r.u.id, err)
	}
	known := func(n int64) *int64 {
		if n < 0 {
			return nil
		}
		return &n
	}
	return api.PackageStats{
		ID: r.u.id, CPUSeconds: s.CPU.Seconds(), Memory: s.Memory, MemoryLimit: known(s.MemoryLimit), MemoryCache: s.MemoryCache,
		Swap: known(s.Swap), PIDs: s.PIDs, PIDsLimit: known(s.PIDsLimit), OOMKills: s.OOMKills,
		IOReadBytes: s.IOReadBytes, IOWriteBytes: s.IOWriteBytes,
	}, nil
}

// living is the container of a package, or the problem that it has none.
func (m *Manager) living(ctx context.Context, id string) (*instance, error) {
	u, err := m.installed(ctx, id)
	if err != nil {
		return nil, err
	}
	u.mu.Lock()
	run := u.run
	u.mu.Unlock()
	if run == nil || !run.alive() {
		return nil, problem.Newf(http.StatusConflict, CodeNotLoaded, "package %s has no container now", id).
			WithFix(http.MethodPost, "/v1/packages/"+id+":rebuild", "build its container anew")
	}
	return run, nil
}

// CodeNotLoaded is the problem of a package without a container.
const CodeNotLoaded = "no-container"

// Subcontainers lists what runs beside a package's own program.
func (m *Manager) Subcontainers(ctx context.Context, id string) ([]api.Subcontainer, error) {
	run, err := m.living(ctx, id)
	if err != nil {
		return nil, err
	}
	run.mu.Lock()
	defer run.mu.Unlock()
	out := []api.Subcontainer{}
	for guid, image := range run.subs {
		out = append(out, api.Subcontainer{ID: guid, Image: image})
	}
	return out, nil
}

// Terminal is a program with a terminal inside a package's container.
type Terminal struct{ p *lxcrt.Process }

// Shell starts a program with a terminal. It ends when its package's container
// does, by Hangup, or by itself; call Wait in any case.
func (m *Manager) Shell(ctx context.Context, id string, o api.ShellOptions) (*Terminal, error) {
	run, err := m.living(ctx, id)
	if err != nil {
		return nil, err
	}
	argv := o.Command
	if len(argv) == 0 {
		argv = []string{"/bin/sh"}
	}
	spec := lxcrt.ExecSpec{Argv: argv, User: o.User, TTY: true, Size: lxcrt.WindowSize{Rows: o.Rows, Cols: o.Cols}}
	term := o.Term
	if term == "" {
		term = "xterm"
	}
	spec.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "TERM=" + term}
	if o.Subcontainer != "" {
		run.mu.Lock()
		_, ok := run.subs[o.Subcontainer]
		run.mu.Unlock()
		if !ok {
			return nil, problem.NotFound("subcontainer", o.Subcontainer)
		}
		in := []string{"start-container", "subcontainer", "exec", "--env", "TERM=" + term}
		if o.User != "" {
			in = append(in, "--user", o.User)
		}
		spec.User, spec.Argv = "", append(append(in, insideSubs+"/"+o.Subcontainer), argv...)
	}
	p, err := run.c.Exec(ctx, spec)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, problem.Newf(http.StatusUnprocessableEntity, problem.CodeInvalid, "there is no program %s inside, or no such user", argv[0]).WithField("query.command", "not found", nil)
	}
	if err != nil {
		return nil, fmt.Errorf("service: shell in %s: %w", id, err)
	}
	return &Terminal{p}, nil
}

// TTY is our end of the terminal; at its end reading gives an error.
func (t *Terminal) TTY() *os.File { return t.p.TTY() }

// Resize says how large the terminal is now.
func (t *Terminal) Resize(rows, cols uint16) error {
	return t.p.Resize(lxcrt.WindowSize{Rows: rows, Cols: cols})
}

// Hangup ends the program as a closed terminal does, and if that does not, by
// force a moment later.
func (t *Terminal) Hangup() {
	t.p.Signal(unix.SIGHUP) //nolint:errcheck // it has ended then
	time.AfterFunc(2*time.Second, func() { t.p.Signal(unix.SIGKILL) })
}

// Wait waits for the program's end: its exit status, or the signal's number
// that ended it.
func (t *Terminal) Wait() (code, signal int, err error) {
	st, err := t.p.Wait()
	return st.Code, int(st.Signal), err
}
