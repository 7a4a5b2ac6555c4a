package lxcrt

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selfstead/selfstead/lxcrt/internal/launcher"
	"github.com/selfstead/selfstead/lxcrt/internal/liblxc"
)

// Container is one container of a Runtime. It is safe for concurrent use: Start,
// Stop and Destroy wait for one another.
type Container struct {
	r    *Runtime
	spec Spec // its Limits are guarded by mu
	dir  string

	op sync.Mutex // held by Create, Start, Stop, SetLimits, Destroy as a whole

	mu     sync.Mutex
	state  State      // guarded by mu
	run    *run       // guarded by mu; nil before the first start
	last   ExitStatus // guarded by mu; of the last run
	killed bool       // guarded by mu; destroyed
	added  []Mount    // guarded by mu; while this life ran
}

// run is one life of a container, from the start of its monitor on.
type run struct {
	monitor process
	init    process
	logger  process  // zero without Spec.Log
	pidfd   *os.File // of init
	userns  *os.File // of the container
	done    chan struct{}
}

// Name of the container.
func (c *Container) Name() string { return c.spec.Name }

// Spec is what the container was made from, with the limits of now.
func (c *Container) Spec() Spec {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.spec
}

// Dir is the container's folder on the host.
func (c *Container) Dir() string { return c.dir }

func (c *Container) networked() bool { return c.spec.Addr4.IsValid() || c.spec.Addr6.IsValid() }

// State as of now. A container that was started by another Runtime is found
// running by Load, not by an old Container.
func (c *Container) State() State {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state
}

// PID of PID 1 on the host, or 0 when it does not run.
func (c *Container) PID() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.run == nil || c.state == Stopped || c.state == Gone {
		return 0
	}
	return c.run.init.PID
}

func (c *Container) fail(op string, err error) error {
	return &Error{Op: op, Name: c.spec.Name, Err: err}
}

// Start runs the container and returns when PID 1's program has been executed,
// with files, mounts, devices and network in place. On an error nothing of the
// start is left. ErrRunning says that it already runs.
func (c *Container) Start(ctx context.Context) error {
	c.op.Lock()
	defer c.op.Unlock()
	if c.r.isClosed() {
		return c.fail("start", ErrClosed)
	}
	c.mu.Lock()
	switch {
	case c.killed:
		c.mu.Unlock()
		return c.fail("start", ErrNotFound)
	case c.state != Stopped:
		c.mu.Unlock()
		return c.fail("start", ErrRunning)
	}
	c.setStateLocked(Starting)
	c.added = nil
	c.mu.Unlock()
	life, monitorDone, err := c.start(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.last = ExitStatus{Code: -1}
		c.setStateLocked(Stopped)
		return c.fail("start", err)
	}
	c.run = life
	c.setStateLocked(Running)
	c.r.watchers.Go(func() { c.watch(life, monitorDone) }) // from here on it may end
	return nil
}

func (c *Container) start(ctx context.Context) (_ *run, monitorDone <-chan struct{}, err error) {
	if err := os.Remove(filepath.Join(c.dir, exitFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, nil, err
	}
	_ = os.Remove(filepath.Join(c.dir, "lxc.log"))
	go c.r.trees.warm()
	if err := c.configure(); err != nil {
		return nil, nil, err
	}
	args := launcher.StartArgs{Name: c.spec.Name, Dir: c.dir, Path: liblxc.Path(c.r.o.Dir), ExitFile: filepath.Join(c.dir, exitFile), Init: c.spec.Init}
	if c.spec.Console != "" {
		f, err := os.OpenFile(c.spec.Console, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		if err != nil {
			return nil, nil, err
		}
		defer f.Close()
		args.Output, args.Errors = f, f
	}
	spec := c.spec
	var lg *logger
	if spec.Log != nil {
		if lg, err = c.startLogger(); err != nil {
			return nil, nil, err
		}
		args.Output, args.Errors, spec = lg.out, lg.err, spec.withConsole(lg.console)
	}
	m, err := launcher.Start(c.r.launch, args)
	if lg != nil {
		if lerr := lg.letGo(); err == nil && lerr != nil {
			m.Release()
			m.Kill()
			<-m.Done()
			err = lerr
		}
	}
	if err != nil {
		lg.await()
		return nil, nil, err
	}
	defer m.Release()
	rec := record{Boot: bootID()}
	life := &run{done: make(chan struct{})}
	if lg != nil {
		rec.Logger, life.logger = lg.proc, lg.proc
	}
	defer func() {
		if err == nil {
			return
		}
		m.Release()
		m.Kill()
		<-m.Done()
		if life.pidfd != nil {
			life.pidfd.Close()
		}
		if life.userns != nil {
			life.userns.Close()
		}
		err = errors.Join(c.explain(err), c.clear(rec))
	}()
	if rec.Monitor, err = identify(m.PID()); err != nil {
		return nil, nil, err
	}
	life.monitor = rec.Monitor
	if err := rec.write(c.dir); err != nil {
		return nil, nil, err
	}
	if err := c.sendRoot(ctx, m, spec); err != nil {
		return nil, nil, err
	}
	pid, err := m.Ready(ctx)
	if err != nil {
		return nil, nil, err
	}
	if life.init, err = identify(pid); err != nil {
		return nil, nil, err
	}
	if life.pidfd, err = life.init.open(); err != nil {
		return nil, nil, err
	}
	if life.userns, err = os.Open(fmt.Sprintf("/proc/%d/ns/user", pid)); err != nil {
		return nil, nil, err
	}
	rec.Init = life.init
	if err := rec.write(c.dir); err != nil {
		return nil, nil, err
	}
	if err := c.settle(); err != nil {
		return nil, nil, err
	}
	if c.networked() {
		if err := c.r.net.connect(c.spec, pid); err != nil {
			return nil, nil, err
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	before, err := programOf(m.PID())
	if err != nil {
		return nil, nil, err
	}
	if err := m.Go(); err != nil {
		return nil, nil, err
	}
	if err := c.awaitProgram(ctx, life, m, before); err != nil {
		return nil, nil, err
	}
	if lg != nil {
		c.r.watchers.Go(func() { c.shelterLogger(lg.proc) })
	}
	return life, m.Done(), nil
}

// sendRoot builds the root while the monitor gets up, and hands it over.
func (c *Container) sendRoot(ctx context.Context, m *launcher.Monitor, spec Spec) error {
	userns, err := idmapNamespace(plainMap(c.spec.IDs))
	if err != nil {
		return err
	}
	defer userns.Close()
	b := c.builder(userns)
	tree, err := b.root(ctx, spec.withGuest(c.r.o.Guest), c.dir)
	if err != nil {
		return err
	}
	defer unix.Close(tree)
	return m.SendRoot(tree)
}

func (c *Container) builder(userns *os.File) *builder {
	return &builder{shop: c.r.shop, images: c.r.images, user: c.spec.Name, ids: c.spec.IDs, userns: userns}
}

// awaitProgram waits until PID 1 has left liblxc's code for its own program,
// which is when its executable is another than the monitor's.
func (c *Container) awaitProgram(ctx context.Context, life *run, m *launcher.Monitor, before unix.Stat_t) error {
	for try := 0; ; try++ {
		if now, err := programOf(life.init.PID); err == nil && !sameProgram(now, before) {
			return nil
		}
		over := !life.init.alive()
		select {
		case <-m.Done(): // then PID 1 ends as well, if it has not
			over = true
		default:
		}
		if over {
			<-m.Done()
			// It may have run and ended between two looks.
			if o, ok := readOutcome(c.dir); ok && o.Started {
				return nil
			}
			return errors.New("PID 1 ended before its program was executed")
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		pause(try)
	}
}

// explain adds what liblxc wrote down.
func (c *Container) explain(err error) error {
	b, rerr := os.ReadFile(filepath.Join(c.dir, "lxc.log"))
	if rerr != nil {
		return err
	}
	var lines []string
	for l := range strings.SplitSeq(string(b), "\n") {
		if _, text, ok := strings.Cut(l, " ERROR "); ok {
			lines = append(lines, strings.Join(strings.Fields(text), " "))
		}
	}
	if len(lines) == 0 {
		return err
	}
	return fmt.Errorf("%w (liblxc: %s)", err, strings.Join(lines[:min(len(lines), 4)], "; "))
}

// watch waits for the end of a life and clears up after it, or for the Runtime to
// be closed: then the container goes on without us.
func (c *Container) watch(life *run, monitorDone <-chan struct{}) {
	defer life.userns.Close()
	defer life.pidfd.Close()
	over := make(chan struct{})
	go func() {
		_ = awaitExit(life.pidfd) // ends by the file's closing at the latest
		close(over)
	}()
	select {
	case <-over:
	case <-monitorDone:
	case <-c.r.done:
		return
	}
	// The monitor takes PID 1 along when it is killed; this is for the moment in
	// which that has not happened yet.
	_ = signalTo(life.pidfd, unix.SIGKILL)
	c.r.trees.thaw(c.group())
	<-over
	// The link comes down while the monitor does its part.
	var link sync.WaitGroup
	link.Go(c.unlink)
	select {
	case <-monitorDone:
	case <-c.r.done:
		link.Wait()
		return
	}
	link.Wait()
	status := ExitStatus{Code: -1}
	if o, ok := readOutcome(c.dir); ok && o.Started {
		status = o.exitStatus()
	}
	if err := c.clear(record{Boot: bootID(), Monitor: life.monitor, Init: life.init, Logger: life.logger}); err != nil {
		c.r.log.Warn("clearing up after a container", "container", c.spec.Name, "err", err)
	}
	c.mu.Lock()
	c.last = status
	if c.run == life {
		c.setStateLocked(Stopped)
	}
	c.mu.Unlock()
	close(life.done)
}

// unlink takes the container's link down; clear finds what it could not.
func (c *Container) unlink() {
	if c.networked() {
		_ = removeLink(c.r.net.conn, linkName(c.r.net.prefix, c.spec.Name))
	}
}

// clear removes what a life leaves outside of the container's folder, and its
// record. It does not wait for anything that still runs: the processes named in
// rec are ended first.
func (c *Container) clear(rec record) error {
	c.r.trees.thaw(c.group())
	endProcess(rec.Monitor)
	endProcess(rec.Init)
	c.r.awaitLogger(c.spec.Name, rec.Logger)
	var errs []error
	if c.networked() {
		errs = append(errs, removeLink(c.r.net.conn, linkName(c.r.net.prefix, c.spec.Name)))
	}
	errs = append(errs, c.r.trees.remove(c.group(), true))
	if err := os.Remove(filepath.Join(c.dir, recordFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		errs = append(errs, err)
	}
	c.r.shop.release(c.spec.Name)
	errs = append(errs, c.r.images.release(c.spec.Name))
	return errors.Join(errs...)
}

// endProcess kills a process, if it still is that process, and waits for its end.
func endProcess(p process) {
	fd, err := p.open()
	if err != nil {
		return
	}
	defer fd.Close()
	if signalTo(fd, unix.SIGKILL) == nil {
		_ = fd.SetReadDeadline(time.Now().Add(10 * time.Second))
		_ = awaitExit(fd)
	}
}

// Wait returns when PID 1 has ended and everything around it was taken down; at
// once if it does not run. The status is the last run's.
func (c *Container) Wait(ctx context.Context) (ExitStatus, error) {
	c.mu.Lock()
	life := c.run
	c.mu.Unlock()
	if life != nil {
		select {
		case <-life.done:
		case <-c.r.done:
			return ExitStatus{Code: -1}, c.fail("wait", ErrClosed)
		case <-ctx.Done():
			return ExitStatus{Code: -1}, c.fail("wait", ctx.Err())
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last, nil
}

// Stop asks PID 1 to end, waits, and kills the whole container when the grace is
// over or ctx is done. It returns when everything is down; a container that does
// not run is left alone.
func (c *Container) Stop(ctx context.Context, o StopOptions) error {
	c.op.Lock()
	defer c.op.Unlock()
	return c.stopLocked(ctx, o)
}

func (c *Container) stopLocked(ctx context.Context, o StopOptions) error {
	if c.r.isClosed() {
		return c.fail("stop", ErrClosed)
	}
	c.mu.Lock()
	life := c.run
	if life == nil || c.state == Stopped || c.state == Gone {
		c.mu.Unlock()
		return nil
	}
	frozen := c.state == Frozen
	c.setStateLocked(Stopping)
	c.mu.Unlock()
	if o.Signal == 0 {
		o.Signal = unix.SIGTERM
	}
	if o.Grace == 0 {
		o.Grace = 10 * time.Second
	}
	if frozen {
		_ = c.freezer(false)
	}
	if o.Grace > 0 {
		_ = signalTo(life.pidfd, o.Signal)
		t := time.NewTimer(o.Grace)
		defer t.Stop()
		select {
		case <-life.done:
			return nil
		case <-ctx.Done():
		case <-t.C:
		}
	}
	_ = signalTo(life.pidfd, unix.SIGKILL)
	t := time.NewTimer(30 * time.Second)
	defer t.Stop()
	select {
	case <-life.done:
		return nil
	case <-t.C:
		return c.fail("stop", errors.New("PID 1 does not end after SIGKILL"))
	}
}

// Restart stops the container if it runs and starts it.
func (c *Container) Restart(ctx context.Context, o StopOptions) error {
	if err := c.Stop(ctx, o); err != nil {
		return err
	}
	return c.Start(ctx)
}

// Destroy stops the container if it runs and removes everything of it.
func (c *Container) Destroy(ctx context.Context) error {
	c.op.Lock()
	defer c.op.Unlock()
	if err := c.stopLocked(ctx, StopOptions{}); err != nil {
		return err
	}
	c.mu.Lock()
	again := c.killed
	c.killed = true
	c.mu.Unlock()
	if again {
		return nil // the name may be another's by now
	}
	if err := c.r.erase(c.spec.Name, c.networked()); err != nil {
		c.mu.Lock()
		c.killed = false // so that it can be tried again
		c.mu.Unlock()
		return c.fail("destroy", err)
	}
	c.r.forget(c)
	c.mu.Lock()
	c.setStateLocked(Gone)
	c.mu.Unlock()
	return nil
}

// erase removes a stopped container's things, the folder last and the spec first
// in it, so that a torn removal leaves a folder that CleanUp takes.
func (r *Runtime) erase(name string, networked bool) error {
	dir := filepath.Join(r.o.Dir, name)
	var errs []error
	// The kernel takes its time over the rules; nothing here depends on them, and
	// what a torn removal leaves of them goes when the table is made again.
	dismissed := make(chan error, 1)
	if networked {
		go func() { dismissed <- r.net.wall.dismiss(name) }()
	} else {
		dismissed <- nil
	}
	r.shop.release(name)
	errs = append(errs, r.images.release(name))
	errs = append(errs, removeLocks(liblxc.Path(r.o.Dir), name))
	if err := os.Remove(filepath.Join(dir, specFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		errs = append(errs, err)
	}
	errs = append(errs, os.RemoveAll(dir), <-dismissed)
	return errors.Join(errs...)
}

func (r *Runtime) isClosed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.closed
}

// release is called at Close; it says whether the container runs.
func (c *Container) release() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state != Stopped && c.state != Gone
}
