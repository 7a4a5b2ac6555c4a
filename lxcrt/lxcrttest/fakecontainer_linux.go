package lxcrttest

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selfstead/selfstead/lxcrt"
)

// hosted is a container of a FakeHost.
type hosted struct {
	h     *FakeHost
	spec  lxcrt.Spec // its Limits are guarded by mu
	dir   string
	files *Files

	op sync.Mutex // held by Start, Stop, Destroy as a whole

	mu       sync.Mutex
	state    lxcrt.State          // guarded by mu
	life     *fakeLife            // guarded by mu; nil before the first start
	last     lxcrt.ExitStatus     // guarded by mu
	gone     bool                 // guarded by mu
	fixed    []lxcrt.Mount        // guarded by mu; of the start
	added    []lxcrt.Mount        // guarded by mu
	stats    func() lxcrt.Stats   // guarded by mu
	watchers map[*fakeEngine]bool // guarded by mu
}

// fakeLife is one life of a container.
type fakeLife struct {
	c       *hosted
	pid     int
	init    *FakeProcess
	log     *lineWriter
	started time.Time
	done    chan struct{} // closed when everything around it is down

	mu    sync.Mutex
	procs map[*FakeProcess]bool // guarded by mu; what Exec started
	over  bool                  // guarded by mu
}

func (c *hosted) setStateLocked(s lxcrt.State) {
	if c.state == s {
		return
	}
	c.state = s
	ev := lxcrt.Event{Time: time.Now(), Container: c.spec.Name, State: s}
	if s == lxcrt.Stopped {
		ev.Exit = c.last
	}
	for e := range maps.Clone(c.watchers) {
		e.tell(ev)
	}
}

// start is Start but for the locks and states.
func (c *hosted) start(ctx context.Context) (*fakeLife, error) {
	if err := c.h.met(ctx, "start", c.spec.Name); err != nil {
		return nil, err
	}
	for _, l := range c.spec.Layers {
		if err := c.h.source(l.Path); err != nil {
			return nil, err
		}
	}
	for _, m := range c.spec.Mounts {
		if err := c.sources(m); err != nil {
			return nil, fmt.Errorf("mount %s: %w", m.Target, err)
		}
	}
	for _, d := range c.spec.Devices {
		if err := c.h.source(d); err != nil {
			return nil, err
		}
	}
	run, err := c.h.look(c.spec.Init[0], c.spec.Env)
	if err != nil {
		return nil, err
	}
	for _, f := range c.spec.Files {
		c.files.Write(f.Path, f.Data)
	}
	life := &fakeLife{c: c, pid: c.h.pid(), started: time.Now(), done: make(chan struct{}), procs: map[*FakeProcess]bool{}}
	p := &FakeProcess{Argv: slices.Clone(c.spec.Init), Env: append(slices.Clone(c.spec.Env), "container=lxc"), Dir: "/", User: "root",
		Container: c.spec.Name, Init: true, Stdin: quiet, Files: c.files}
	life.init = p
	out, errs, console := io.Writer(nil), io.Writer(nil), io.Writer(nil)
	switch {
	case c.spec.Log != nil:
		if life.log, err = openLines(c.logDir(), *c.spec.Log); err != nil {
			return nil, err
		}
		out, errs, console = life.log.stream("stdout"), life.log.stream("stderr"), life.log.stream("console")
	case c.spec.Console != "":
		f, err := os.OpenFile(c.spec.Console, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		if err != nil {
			return nil, err
		}
		go func() { <-life.done; f.Close() }()
		out, errs = f, f
	}
	lock := &sync.Mutex{}
	p.Stdout, p.Stderr, p.Console = stream{p, out, lock}, stream{p, errs, lock}, stream{p, console, lock}
	c.mu.Lock()
	c.fixed, c.added = slices.Clone(c.spec.Mounts), nil
	c.mu.Unlock()
	p.begin(run)
	return life, nil
}

// watch clears up after PID 1.
func (l *fakeLife) watch() {
	<-l.init.done
	l.mu.Lock()
	l.over = true
	procs := slices.Collect(maps.Keys(l.procs))
	l.mu.Unlock()
	for _, p := range procs {
		p.end(lxcrt.ExitStatus{Code: -1, Signal: sigKill, Known: true})
	}
	if l.log != nil {
		l.log.close()
	}
	c := l.c
	c.mu.Lock()
	c.last, c.fixed, c.added = l.init.status, nil, nil
	if c.life == l {
		c.setStateLocked(lxcrt.Stopped)
	}
	c.mu.Unlock()
	close(l.done)
}

func (l *fakeLife) end(st lxcrt.ExitStatus) { l.init.end(st) }

// sources looks at the host paths of a mount.
func (c *hosted) sources(m lxcrt.Mount) error {
	if m.Kind == lxcrt.MountBind || m.Kind == lxcrt.MountSquashfs {
		return c.h.source(m.Source)
	}
	for _, l := range m.Lower {
		if err := c.h.source(l.Path); err != nil {
			return err
		}
	}
	return nil
}

func (c *hosted) logDir() string {
	switch {
	case c.spec.Log == nil:
		return ""
	case c.spec.Log.Dir != "":
		return c.spec.Log.Dir
	}
	return filepath.Join(c.dir, "log")
}

// remove ends the container and takes it off the machine.
func (c *hosted) remove(dir string) {
	c.mu.Lock()
	life := c.life
	c.gone = true
	c.mu.Unlock()
	if life != nil {
		life.end(lxcrt.ExitStatus{Code: -1, Signal: sigKill, Known: true})
		<-life.done
	}
	if c.spec.Log != nil && c.spec.Log.Dir == "" {
		_ = os.RemoveAll(c.logDir())
		_ = os.Remove(c.dir) // and the folder that was made for it
	}
	c.h.mu.Lock()
	if c.h.dirs[dir][c.spec.Name] == c {
		delete(c.h.dirs[dir], c.spec.Name)
	}
	c.h.mu.Unlock()
	c.mu.Lock()
	c.setStateLocked(lxcrt.Gone)
	c.mu.Unlock()
}

// fakeInstance is a container as one Engine sees it.
type fakeInstance struct {
	e *fakeEngine
	c *hosted
}

func (i *fakeInstance) Name() string   { return i.c.spec.Name }
func (i *fakeInstance) Dir() string    { return i.c.dir }
func (i *fakeInstance) LogDir() string { return i.c.logDir() }

func (i *fakeInstance) Spec() lxcrt.Spec {
	i.c.mu.Lock()
	defer i.c.mu.Unlock()
	return i.c.spec
}

func (i *fakeInstance) State() lxcrt.State {
	i.c.mu.Lock()
	defer i.c.mu.Unlock()
	return i.c.state
}

func (i *fakeInstance) PID() int {
	i.c.mu.Lock()
	defer i.c.mu.Unlock()
	if i.c.life == nil || i.c.state == lxcrt.Stopped || i.c.state == lxcrt.Gone {
		return 0
	}
	return i.c.life.pid
}

func (i *fakeInstance) fail(op string, err error) error {
	return &lxcrt.Error{Op: op, Name: i.c.spec.Name, Err: err}
}

func (i *fakeInstance) Start(ctx context.Context) error {
	c := i.c
	c.op.Lock()
	defer c.op.Unlock()
	if i.e.isClosed() {
		return i.fail("start", lxcrt.ErrClosed)
	}
	c.mu.Lock()
	switch {
	case c.gone:
		c.mu.Unlock()
		return i.fail("start", lxcrt.ErrNotFound)
	case c.state != lxcrt.Stopped:
		c.mu.Unlock()
		return i.fail("start", lxcrt.ErrRunning)
	}
	c.setStateLocked(lxcrt.Starting)
	c.mu.Unlock()
	life, err := c.start(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.last = lxcrt.ExitStatus{Code: -1}
		c.setStateLocked(lxcrt.Stopped)
		return i.fail("start", err)
	}
	c.life = life
	c.setStateLocked(lxcrt.Running)
	go life.watch()
	return nil
}

func (i *fakeInstance) Wait(ctx context.Context) (lxcrt.ExitStatus, error) {
	i.c.mu.Lock()
	life := i.c.life
	i.c.mu.Unlock()
	if life != nil {
		select {
		case <-life.done:
		case <-i.e.done:
			return lxcrt.ExitStatus{Code: -1}, i.fail("wait", lxcrt.ErrClosed)
		case <-ctx.Done():
			return lxcrt.ExitStatus{Code: -1}, i.fail("wait", ctx.Err())
		}
	}
	i.c.mu.Lock()
	defer i.c.mu.Unlock()
	return i.c.last, nil
}

func (i *fakeInstance) Stop(ctx context.Context, o lxcrt.StopOptions) error {
	i.c.op.Lock()
	defer i.c.op.Unlock()
	return i.stopLocked(ctx, o)
}

func (i *fakeInstance) stopLocked(ctx context.Context, o lxcrt.StopOptions) error {
	c := i.c
	if i.e.isClosed() {
		return i.fail("stop", lxcrt.ErrClosed)
	}
	// A context that is over kills; only what a test asked for fails.
	if err := c.h.met(context.WithoutCancel(ctx), "stop", c.spec.Name); err != nil {
		return i.fail("stop", err)
	}
	c.mu.Lock()
	life := c.life
	if life == nil || c.state == lxcrt.Stopped || c.state == lxcrt.Gone {
		c.mu.Unlock()
		return nil
	}
	c.setStateLocked(lxcrt.Stopping)
	c.mu.Unlock()
	if o.Signal == 0 {
		o.Signal = unix.SIGTERM
	}
	if o.Grace == 0 {
		o.Grace = 10 * time.Second
	}
	if o.Grace > 0 {
		life.init.signal(o.Signal)
		t := time.NewTimer(o.Grace)
		defer t.Stop()
		select {
		case <-life.done:
			return nil
		case <-ctx.Done():
		case <-t.C:
		}
	}
	life.init.signal(sigKill)
	<-life.done
	return nil
}

func (i *fakeInstance) Restart(ctx context.Context, o lxcrt.StopOptions) error {
	if err := i.Stop(ctx, o); err != nil {
		return err
	}
	return i.Start(ctx)
}

func (i *fakeInstance) Destroy(ctx context.Context) error {
	c := i.c
	c.op.Lock()
	defer c.op.Unlock()
	if err := i.stopLocked(ctx, lxcrt.StopOptions{}); err != nil {
		return err
	}
	c.mu.Lock()
	again := c.gone
	c.mu.Unlock()
	if again {
		return nil
	}
	if err := c.h.met(context.WithoutCancel(ctx), "destroy", c.spec.Name); err != nil {
		return i.fail("destroy", err)
	}
	c.remove(i.e.o.Dir)
	i.e.mu.Lock()
	defer i.e.mu.Unlock()
	if i.e.held[c.spec.Name] == i {
		delete(i.e.held, c.spec.Name)
	}
	return nil
}

// living is the current life, or ErrNotRunning.
func (i *fakeInstance) living() (*fakeLife, error) {
	c := i.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.life == nil || c.state == lxcrt.Stopped || c.state == lxcrt.Starting || c.state == lxcrt.Gone {
		return nil, lxcrt.ErrNotRunning
	}
	return c.life, nil
}

func (i *fakeInstance) freeze(ctx context.Context, op string, from, to lxcrt.State) error {
	if _, err := i.living(); err != nil {
		return i.fail(op, err)
	}
	if err := i.c.h.met(ctx, op, i.c.spec.Name); err != nil {
		return i.fail(op, err)
	}
	i.c.mu.Lock()
	defer i.c.mu.Unlock()
	if i.c.state == from {
		i.c.setStateLocked(to)
	}
	return nil
}

// Freeze only changes the state: a Go function cannot be held.
func (i *fakeInstance) Freeze(ctx context.Context) error {
	return i.freeze(ctx, "freeze", lxcrt.Running, lxcrt.Frozen)
}

func (i *fakeInstance) Thaw(ctx context.Context) error {
	return i.freeze(ctx, "thaw", lxcrt.Frozen, lxcrt.Running)
}

func (i *fakeInstance) Stats(ctx context.Context) (lxcrt.Stats, error) {
	life, err := i.living()
	if err == nil {
		err = i.c.h.met(ctx, "stats", i.c.spec.Name)
	}
	if err != nil {
		return lxcrt.Stats{}, i.fail("stats", err)
	}
	i.c.mu.Lock()
	read, limits := i.c.stats, i.c.spec.Limits
	i.c.mu.Unlock()
	life.mu.Lock()
	tasks := int64(1 + len(life.procs))
	life.mu.Unlock()
	s := lxcrt.Stats{Swap: -1, SwapLimit: -1, MemoryPressure: -1, CPUPressure: -1, IOPressure: -1}
	if read != nil {
		s = read()
	} else {
		s.Memory, s.CPU, s.PIDs = tasks<<20, time.Since(life.started)/1000+1, tasks
	}
	if s.MemoryLimit == 0 {
		if s.MemoryLimit = limits.Memory; s.MemoryLimit == 0 {
			s.MemoryLimit = 8 << 30
		}
	}
	if s.PIDsLimit == 0 {
		if s.PIDsLimit = limits.PIDs; s.PIDsLimit == 0 {
			s.PIDsLimit = -1
		}
	}
	return s, nil
}

// SetLimits only changes what Spec and Stats say.
func (i *fakeInstance) SetLimits(ctx context.Context, l lxcrt.Limits) error {
	// A Spec says the same of limits as SetLimits does.
	s := i.Spec()
	s.Limits = l
	if err := s.Validate(); err != nil {
		return i.fail("limits", err)
	}
	c := i.c
	c.op.Lock()
	defer c.op.Unlock()
	if err := c.h.met(ctx, "setlimits", s.Name); err != nil {
		return i.fail("limits", err)
	}
	if i.e.isClosed() {
		return i.fail("limits", lxcrt.ErrClosed)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone {
		return i.fail("limits", lxcrt.ErrNotFound)
	}
	c.spec.Limits = l
	return nil
}

func (i *fakeInstance) Mount(ctx context.Context, m lxcrt.Mount) error {
	op := "mount " + m.Target
	// A Spec says the same of a mount as Mount does.
	s := i.Spec()
	s.Mounts = []lxcrt.Mount{m}
	if err := s.Validate(); err != nil {
		return i.fail(op, err)
	}
	_, err := i.living()
	if err == nil {
		err = i.c.h.met(ctx, "mount", i.c.spec.Name)
	}
	if err == nil {
		err = i.c.sources(m)
	}
	if err != nil {
		return i.fail(op, err)
	}
	i.c.mu.Lock()
	defer i.c.mu.Unlock()
	if n := i.c.topLocked(m.Target); m.Replace && n >= 0 {
		i.c.added = slices.Delete(i.c.added, n, n+1)
	}
	i.c.added = append(i.c.added, m)
	return nil
}

// topLocked is the newest added mount on a target, or -1.
func (c *hosted) topLocked(target string) int {
	for n := len(c.added) - 1; n >= 0; n-- {
		if c.added[n].Target == target {
			return n
		}
	}
	return -1
}

func (i *fakeInstance) Unmount(ctx context.Context, target string) error {
	op := "unmount " + target
	if len(target) < 2 || !path.IsAbs(target) || path.Clean(target) != target {
		return i.fail(op, fmt.Errorf("%w: target", lxcrt.ErrInvalid))
	}
	_, err := i.living()
	if err == nil {
		err = i.c.h.met(ctx, "unmount", i.c.spec.Name)
	}
	if err != nil {
		return i.fail(op, err)
	}
	i.c.mu.Lock()
	defer i.c.mu.Unlock()
	n := i.c.topLocked(target)
	if n < 0 {
		return i.fail(op, fmt.Errorf("not a mount, or one of the start: %w", lxcrt.ErrNotFound))
	}
	i.c.added = slices.Delete(i.c.added, n, n+1)
	i.c.added = slices.DeleteFunc(i.c.added, func(m lxcrt.Mount) bool { return strings.HasPrefix(m.Target, target+"/") })
	return nil
}
