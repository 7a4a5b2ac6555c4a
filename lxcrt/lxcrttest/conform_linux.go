package lxcrttest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selfstead/selfstead/lxcrt"
	"github.com/selfstead/selfstead/lxcrt/logs"
)

// Subject is an Engine for one test, and specs for it. A *Lab is one on real LXC,
// a *FakeLab one on the fake.
type Subject interface {
	Engine() lxcrt.Engine
	// Open opens the Engine again after it was closed.
	Open()
	// Spec gives a container with name, ids and addresses of its own, whose PID 1
	// runs "/bin/sh -c script"; an empty script sleeps until SIGTERM.
	Spec(script string) lxcrt.Spec
}

// Conform runs the part of the suite that needs no kernel: what callers are
// promised of life, programs, states, events, limits, mounts, logs, adoption,
// errors, contexts and concurrent use. What only a kernel can keep is in Run.
func Conform(t *testing.T, f func(t testing.TB) Subject) {
	for _, c := range []struct {
		name string
		test func(t *testing.T, s *bench)
	}{
		{"life", conformLife},
		{"ends", conformEnds},
		{"stop", conformStop},
		{"events", conformEvents},
		{"errors", conformErrors},
		{"contexts", conformContexts},
		{"exec", conformExec},
		{"terminal", conformTerminal},
		{"signals", conformSignals},
		{"freeze", conformFreeze},
		{"stats", conformStats},
		{"limits", conformLimits},
		{"mounts", conformMounts},
		{"logs", conformLogs},
		{"log rotation", conformRotation},
		{"adoption", conformAdoption},
		{"clean up", conformCleanUp},
		{"concurrency", conformConcurrency},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, &bench{Subject: f(t), t: t, ctx: Context(t)}) })
	}
}

// bench is a Subject with the suite's shorthands.
type bench struct {
	Subject
	t   *testing.T
	ctx context.Context
}

func (b *bench) create(s lxcrt.Spec) lxcrt.Instance {
	b.t.Helper()
	c, err := b.Engine().Create(b.ctx, s)
	must(b.t, err)
	b.t.Cleanup(func() {
		ctx := context.WithoutCancel(b.ctx)
		if err := errors.Join(c.Stop(ctx, lxcrt.StopOptions{Grace: -1}), c.Destroy(ctx)); err != nil && !errors.Is(err, lxcrt.ErrClosed) {
			b.t.Error(err)
		}
	})
	return c
}

// start starts a container with a script of the suite, and a log.
func (b *bench) start(name string, edit ...func(*lxcrt.Spec)) lxcrt.Instance {
	b.t.Helper()
	s := b.Spec(scripts[name].sh)
	s.Log = &lxcrt.Log{}
	for _, e := range edit {
		e(&s)
	}
	c := b.create(s)
	must(b.t, c.Start(b.ctx))
	return c
}

// await returns when a line stands in the container's log.
func (b *bench) await(c lxcrt.Instance, text string) {
	b.t.Helper()
	found := errors.New("found")
	err := logs.Open(c.LogDir(), lxcrt.LogName).Follow(b.ctx, "0.0", 0, func(e logs.Entry) error {
		if e.Message == text {
			return found
		}
		return nil
	})
	is(b.t, err, found)
}

// run executes a script of the suite and returns its output and end.
func (b *bench) run(c lxcrt.Instance, name string) (string, lxcrt.ExitStatus) {
	b.t.Helper()
	var out bytes.Buffer
	p, err := c.Exec(b.ctx, lxcrt.ExecSpec{Argv: []string{"/bin/sh", "-c", scripts[name].sh}, Env: []string{"PATH=/bin"}, Stdout: &out})
	must(b.t, err)
	st, err := p.Wait()
	must(b.t, err)
	return out.String(), st
}

func (b *bench) wait(c lxcrt.Instance, want lxcrt.ExitStatus) {
	b.t.Helper()
	st, err := c.Wait(b.ctx)
	must(b.t, err)
	equal(b.t, st, want)
	equal(b.t, c.State(), lxcrt.Stopped)
}

func conformLife(t *testing.T, b *bench) {
	c := b.create(b.Spec(""))
	equal(t, c.State(), lxcrt.Stopped)
	equal(t, c.PID(), 0)
	_, err := b.Engine().Create(b.ctx, c.Spec())
	is(t, err, lxcrt.ErrExists)
	names, err := b.Engine().List()
	must(t, err)
	equal(t, fmt.Sprint(names), "["+c.Name()+"]")
	same, err := b.Engine().Load(b.ctx, c.Name())
	must(t, err)
	equal(t, same, c)
	st, err := c.Wait(b.ctx)
	must(t, err)
	equal(t, st.Known, false)
	must(t, c.Stop(b.ctx, lxcrt.StopOptions{}))

	must(t, c.Start(b.ctx))
	equal(t, c.State(), lxcrt.Running)
	is(t, c.Start(b.ctx), lxcrt.ErrRunning)
	if c.PID() <= 1 {
		t.Errorf("pid %d", c.PID())
	}
	_, st = b.run(c, "note")
	equal(t, st, lxcrt.ExitStatus{Known: true})
	must(t, c.Restart(b.ctx, lxcrt.StopOptions{Grace: -1}))
	out, _ := b.run(c, "read note")
	equal(t, out, "kept\n")
	must(t, c.Stop(b.ctx, lxcrt.StopOptions{Grace: -1}))
	must(t, c.Stop(b.ctx, lxcrt.StopOptions{}))
	equal(t, c.State(), lxcrt.Stopped)
	equal(t, c.PID(), 0)
	must(t, c.Destroy(b.ctx))
	must(t, c.Destroy(b.ctx))
	equal(t, c.State(), lxcrt.Gone)
	is(t, c.Start(b.ctx), lxcrt.ErrNotFound)
	_, err = b.Engine().Load(b.ctx, c.Name())
	is(t, err, lxcrt.ErrNotFound)
	// The name is free again, and the new one has nothing of the old.
	again := b.create(c.Spec())
	must(t, again.Start(b.ctx))
	if out, _ := b.run(again, "read note"); out != "" {
		t.Errorf("a file of the container before: %q", out)
	}
}

func conformEnds(t *testing.T, b *bench) {
	for name, code := range map[string]int{"exit 0": 0, "exit 7": 7, "exit 255": 255} {
		b.wait(b.start(name), lxcrt.ExitStatus{Code: code, Known: true})
	}
	// A second life ends as it does, not as the first.
	c := b.start("ready")
	b.await(c, "ready")
	must(t, c.Stop(b.ctx, lxcrt.StopOptions{}))
	b.wait(c, lxcrt.ExitStatus{Code: 4, Known: true})
	must(t, c.Start(b.ctx))
	must(t, c.Stop(b.ctx, lxcrt.StopOptions{Grace: -1}))
	b.wait(c, lxcrt.ExitStatus{Code: -1, Signal: unix.SIGKILL, Known: true})
}

func conformStop(t *testing.T, b *bench) {
	c := b.start("usr1")
	b.await(c, "ready")
	must(t, c.Stop(b.ctx, lxcrt.StopOptions{Signal: unix.SIGUSR1}))
	b.wait(c, lxcrt.ExitStatus{Code: 5, Known: true})
	// PID 1 does not hear what it does not catch; the grace ends that.
	stubborn := b.start("stubborn")
	begin := time.Now()
	must(t, stubborn.Stop(b.ctx, lxcrt.StopOptions{Grace: 200 * time.Millisecond}))
	if took := time.Since(begin); took < 200*time.Millisecond {
		t.Errorf("stop with a grace of 200 ms took %s", took)
	}
	b.wait(stubborn, lxcrt.ExitStatus{Code: -1, Signal: unix.SIGKILL, Known: true})
	// A context that ends cuts the grace short.
	must(t, stubborn.Start(b.ctx))
	short, cancel := context.WithCancel(b.ctx)
	cancel()
	must(t, stubborn.Stop(short, lxcrt.StopOptions{Grace: time.Hour}))
	equal(t, stubborn.State(), lxcrt.Stopped)
}

func conformEvents(t *testing.T, b *bench) {
	listen, stop := context.WithCancel(b.ctx)
	events, others := b.Engine().Events(b.ctx), b.Engine().Events(listen)
	c := b.create(b.Spec(""))
	must(t, c.Start(b.ctx))
	must(t, c.Freeze(b.ctx))
	must(t, c.Thaw(b.ctx))
	must(t, c.Stop(b.ctx, lxcrt.StopOptions{Grace: -1}))
	must(t, c.Destroy(b.ctx))
	var said []string
	for len(said) < 7 {
		e := <-events
		equal(t, e.Container, c.Name())
		if e.State == lxcrt.Stopped {
			equal(t, e.Exit, lxcrt.ExitStatus{Code: -1, Signal: unix.SIGKILL, Known: true})
		}
		if e.Time.IsZero() {
			t.Error("an event without a time")
		}
		said = append(said, string(e.State))
	}
	equal(t, strings.Join(said, " "), "starting running frozen running stopping stopped gone")
	stop()
	for range others { // ends
	}
	must(t, b.Engine().Close())
	if _, ok := <-events; ok {
		t.Error("an event after Close")
	}
	if _, ok := <-b.Engine().Events(b.ctx); ok {
		t.Error("events of a closed engine")
	}
}

func conformContexts(t *testing.T, b *bench) {
	over, cancel := context.WithCancel(b.ctx)
	cancel()
	_, err := b.Engine().Load(over, "nobody")
	is(t, err, context.Canceled)
	c := b.create(b.Spec(""))
	is(t, c.Start(over), context.Canceled)
	equal(t, c.State(), lxcrt.Stopped)
	must(t, c.Start(b.ctx))
	_, err = c.Wait(over)
	is(t, err, context.Canceled)
	_, err = c.Stats(over)
	is(t, err, context.Canceled)
	for range 20 { // whichever way the threads run
		_, err = c.Exec(over, lxcrt.ExecSpec{Argv: []string{"/bin/sleep", "1000"}})
		is(t, err, context.Canceled)
	}
	volume := lxcrt.Mount{Target: "/media/v", Kind: lxcrt.MountTmpfs}
	is(t, c.Mount(over, volume), context.Canceled)
	is(t, c.Unmount(b.ctx, volume.Target), lxcrt.ErrNotFound)
	must(t, c.Mount(b.ctx, volume))
	is(t, c.Unmount(over, volume.Target), context.Canceled)
	must(t, c.Unmount(b.ctx, volume.Target))
	equal(t, c.State(), lxcrt.Running)
	// One that ends while it is waited for.
	waiting, stop := context.WithCancel(b.ctx)
	done := make(chan error, 1)
	go func() { _, err := c.Wait(waiting); done <- err }()
	stop()
	is(t, <-done, context.Canceled)
	go func() { _, err := c.Wait(b.ctx); done <- err }()
	must(t, b.Engine().Close())
	if err := <-done; !errors.Is(err, lxcrt.ErrClosed) {
		t.Errorf("waiting for a container of a closed engine: %v", err)
	}
	b.Open()
	again, err := b.Engine().Load(b.ctx, c.Name())
	must(t, err)
	must(t, again.Stop(b.ctx, lxcrt.StopOptions{Grace: -1}))
	must(t, again.Destroy(b.ctx))
}

func conformExec(t *testing.T, b *bench) {
	c := b.start("sleep")
	var out, errs bytes.Buffer
	p, err := c.Exec(b.ctx, lxcrt.ExecSpec{Argv: []string{"sh", "-c", scripts["streams"].sh}, Env: []string{"PATH=/bin", "A=b c"},
		User: "alice", Dir: "/etc", Stdin: strings.NewReader("to-in\n"), Stdout: &out, Stderr: &errs})
	must(t, err)
	if p.PID() <= 1 || p.TTY() != nil {
		t.Errorf("pid %d, terminal %v", p.PID(), p.TTY())
	}
	st, err := p.Wait()
	must(t, err)
	equal(t, st, lxcrt.ExitStatus{Code: 9, Known: true})
	equal(t, errs.String(), "to-err\n")
	equal(t, out.String(), "to-in\n/etc\nb c\n1000\n1000\n")
	again, err := p.Wait()
	must(t, err)
	equal(t, again, st)
	is(t, p.Resize(lxcrt.WindowSize{Rows: 1, Cols: 1}), lxcrt.ErrInvalid)
	for user, want := range map[string]string{"": "0 0", "root": "0 0", "1000": "1000 1000", "1234:44": "1234 44", "alice:video": "1000 44", "4321": "4321 0"} {
		out.Reset()
		p, err := c.Exec(b.ctx, lxcrt.ExecSpec{Argv: []string{"/bin/sh", "-c", scripts["ids"].sh}, Env: []string{"PATH=/bin"}, User: user, Stdout: &out})
		must(t, err)
		_, err = p.Wait()
		must(t, err)
		equal(t, strings.TrimSpace(out.String()), want)
	}
	for _, s := range []lxcrt.ExecSpec{
		{Argv: []string{"/bin/nothing"}}, {Argv: []string{"nothing"}},
		{Argv: []string{"/bin/true"}, User: "nobody-of-that-name"}, {Argv: []string{"/bin/true"}, User: "alice:no-such-group"},
	} {
		if _, err := c.Exec(b.ctx, s); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%+v: %v", s, err)
		}
	}
	_, err = c.Exec(b.ctx, lxcrt.ExecSpec{})
	is(t, err, lxcrt.ErrInvalid)
	_, err = c.Exec(b.ctx, lxcrt.ExecSpec{Argv: []string{"/bin/true\x00"}})
	is(t, err, lxcrt.ErrInvalid)
}

func conformTerminal(t *testing.T, b *bench) {
	c := b.start("sleep")
	p, err := c.Exec(b.ctx, lxcrt.ExecSpec{Argv: []string{"/bin/sh", "-c", scripts["terminal"].sh}, Env: []string{"PATH=/bin"},
		TTY: true, Size: lxcrt.WindowSize{Rows: 33, Cols: 77}})
	must(t, err)
	var text strings.Builder
	buf := make([]byte, 256)
	for !strings.Contains(text.String(), "33 77") {
		n, err := p.TTY().Read(buf)
		must(t, err)
		text.Write(buf[:n])
	}
	must(t, p.Resize(lxcrt.WindowSize{Rows: 10, Cols: 20}))
	_, err = p.TTY().WriteString("word\n")
	must(t, err)
	for err == nil { // the end of a terminal reads as an error
		var n int
		n, err = p.TTY().Read(buf)
		text.Write(buf[:n])
	}
	st, err := p.Wait()
	must(t, err)
	equal(t, st.Code, 3)
	if got := strings.ReplaceAll(text.String(), "\r", ""); !strings.Contains(got, "got word\n10 20\n") {
		t.Errorf("terminal said %q", got)
	}
}

func conformSignals(t *testing.T, b *bench) {
	c := b.start("sleep")
	sleep := lxcrt.ExecSpec{Argv: []string{"/bin/sleep", "1000"}}
	p, err := c.Exec(b.ctx, sleep)
	must(t, err)
	must(t, p.Signal(unix.SIGTERM))
	st, err := p.Wait()
	must(t, err)
	equal(t, st, lxcrt.ExitStatus{Code: -1, Signal: unix.SIGTERM, Known: true})
	// A program goes with its container.
	p, err = c.Exec(b.ctx, sleep)
	must(t, err)
	must(t, c.Stop(b.ctx, lxcrt.StopOptions{Grace: -1}))
	st, err = p.Wait()
	must(t, err)
	equal(t, st.Signal, unix.SIGKILL)
}

func conformFreeze(t *testing.T, b *bench) {
	c := b.start("sleep")
	must(t, c.Freeze(b.ctx))
	equal(t, c.State(), lxcrt.Frozen)
	must(t, c.Freeze(b.ctx))
	must(t, c.Thaw(b.ctx))
	equal(t, c.State(), lxcrt.Running)
	must(t, c.Thaw(b.ctx))
	must(t, c.Freeze(b.ctx))
	must(t, c.Stop(b.ctx, lxcrt.StopOptions{Grace: -1}))
	equal(t, c.State(), lxcrt.Stopped)
}

func conformMounts(t *testing.T, b *bench) {
	source := t.TempDir()
	c := b.start("sleep", func(s *lxcrt.Spec) {
		s.Mounts = []lxcrt.Mount{{Target: "/media/fixed", Kind: lxcrt.MountBind, Source: source}}
	})
	m := lxcrt.Mount{Target: "/media/v", Kind: lxcrt.MountBind, Source: source}
	is(t, c.Unmount(b.ctx, "/media/v"), lxcrt.ErrNotFound)
	must(t, c.Mount(b.ctx, m))
	m.Replace = true
	must(t, c.Mount(b.ctx, m))
	must(t, c.Unmount(b.ctx, "/media/v"))
	is(t, c.Unmount(b.ctx, "/media/v"), lxcrt.ErrNotFound)
	is(t, c.Unmount(b.ctx, "/media/fixed"), lxcrt.ErrNotFound)
	is(t, c.Mount(b.ctx, lxcrt.Mount{Target: "relative", Kind: lxcrt.MountTmpfs}), lxcrt.ErrInvalid)
	is(t, c.Unmount(b.ctx, "/media/../x"), lxcrt.ErrInvalid)
	is(t, c.Mount(b.ctx, lxcrt.Mount{Target: "/x", Kind: lxcrt.MountBind, Source: "/no/such/source"}), fs.ErrNotExist)
	// What was added goes with the life it was added to.
	m.Replace = false
	must(t, c.Mount(b.ctx, m))
	must(t, c.Restart(b.ctx, lxcrt.StopOptions{Grace: -1}))
	is(t, c.Unmount(b.ctx, "/media/v"), lxcrt.ErrNotFound)
}

func conformAdoption(t *testing.T, b *bench) {
	c := b.start("ready")
	ended := b.start("exit 7")
	b.wait(ended, lxcrt.ExitStatus{Code: 7, Known: true})
	b.await(c, "ready")
	pid := c.PID()
	must(t, b.Engine().Close())
	b.Open()
	again, err := b.Engine().Load(b.ctx, c.Name())
	must(t, err)
	same, err := b.Engine().Load(b.ctx, c.Name())
	must(t, err)
	equal(t, same, again)
	equal(t, again.State(), lxcrt.Running)
	equal(t, again.PID(), pid)
	is(t, again.Start(b.ctx), lxcrt.ErrRunning)
	_, err = b.Engine().Create(b.ctx, c.Spec())
	is(t, err, lxcrt.ErrExists)
	_, st := b.run(again, "note")
	equal(t, st.Code, 0)
	must(t, again.Mount(b.ctx, lxcrt.Mount{Target: "/media/v", Kind: lxcrt.MountTmpfs}))
	events := b.Engine().Events(b.ctx)
	must(t, again.Stop(b.ctx, lxcrt.StopOptions{}))
	b.wait(again, lxcrt.ExitStatus{Code: 4, Known: true})
	equal(t, (<-events).State, lxcrt.Stopping)
	equal(t, (<-events).Exit, lxcrt.ExitStatus{Code: 4, Known: true})
	must(t, again.Destroy(b.ctx))
	other, err := b.Engine().Load(b.ctx, ended.Name())
	must(t, err)
	b.wait(other, lxcrt.ExitStatus{Code: 7, Known: true})
	must(t, other.Destroy(b.ctx))
}

func conformCleanUp(t *testing.T, b *bench) {
	wanted, unwanted, stopped := b.start("sleep"), b.start("sleep"), b.create(b.Spec(""))
	must(t, b.Engine().Close())
	b.Open()
	must(t, b.Engine().CleanUp(b.ctx, func(name string) bool { return name == wanted.Name() }))
	names, err := b.Engine().List()
	must(t, err)
	equal(t, fmt.Sprint(names), "["+wanted.Name()+"]")
	for _, c := range []lxcrt.Instance{unwanted, stopped} {
		_, err := b.Engine().Load(b.ctx, c.Name())
		is(t, err, lxcrt.ErrNotFound)
	}
	must(t, b.Engine().CleanUp(b.ctx, nil))
	again, err := b.Engine().Load(b.ctx, wanted.Name())
	must(t, err)
	equal(t, again.State(), lxcrt.Running)
	must(t, again.Stop(b.ctx, lxcrt.StopOptions{Grace: -1}))
	must(t, again.Destroy(b.ctx))
}

func conformConcurrency(t *testing.T, b *bench) {
	// Many containers at once.
	var specs []lxcrt.Spec
	for range 8 {
		specs = append(specs, b.Spec(""))
	}
	var wg sync.WaitGroup
	for _, s := range specs {
		wg.Go(func() {
			c, err := b.Engine().Create(b.ctx, s)
			if err == nil {
				err = errors.Join(c.Start(b.ctx), c.Restart(b.ctx, lxcrt.StopOptions{Grace: -1}), c.Stop(b.ctx, lxcrt.StopOptions{Grace: -1}), c.Destroy(b.ctx))
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	names, err := b.Engine().List()
	must(t, err)
	equal(t, len(names), 0)
	// Many callers of one: one of them starts it, all may stop it.
	c := b.create(b.Spec(""))
	var mu sync.Mutex
	started := 0
	for range 8 {
		wg.Go(func() {
			err := c.Start(b.ctx)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				started++
			} else if !errors.Is(err, lxcrt.ErrRunning) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	equal(t, started, 1)
	for range 4 {
		wg.Go(func() {
			_ = c.State()
			if _, err := c.Wait(b.ctx); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			if err := c.Stop(b.ctx, lxcrt.StopOptions{Grace: -1}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	equal(t, c.State(), lxcrt.Stopped)
	for range 4 {
		wg.Go(func() {
			if err := c.Destroy(b.ctx); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	equal(t, c.State(), lxcrt.Gone)
}
