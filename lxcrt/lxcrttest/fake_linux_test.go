package lxcrttest

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selfstead/selfstead/lxcrt"
)

func TestFakeConforms(t *testing.T) {
	Conform(t, func(t testing.TB) Subject { return NewFakeLab(t) })
}

// startFake is a started container of the fake.
func startFake(t *testing.T, l *FakeLab) lxcrt.Instance {
	t.Helper()
	c, err := l.Engine().Create(t.Context(), l.Spec(""))
	must(t, err)
	must(t, c.Start(t.Context()))
	return c
}

func TestFakeFaults(t *testing.T) {
	l, ctx := NewFakeLab(t), t.Context()
	c := startFake(t, l)
	broken := errors.New("broken")
	l.Host.Fail("exec", c.Name(), broken, nil, broken)
	for _, want := range []error{broken, nil, broken, nil} {
		_, err := c.Exec(ctx, lxcrt.ExecSpec{Argv: []string{"/bin/true"}})
		is(t, err, want)
		var where *lxcrt.Error
		if want != nil && (!errors.As(err, &where) || where.Name != c.Name()) {
			t.Errorf("%v says not where", err)
		}
	}
	l.Host.Fail("stop", "", broken)
	is(t, c.Destroy(ctx), broken)
	equal(t, c.State(), lxcrt.Running)
	l.Host.Fail("exec", "another", broken) // never met
	_, err := c.Exec(ctx, lxcrt.ExecSpec{Argv: []string{"/bin/true"}})
	must(t, err)

	// A call that hangs, until its context ends or somebody lets it go.
	release := l.Host.Hold("stats", "")
	short, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { _, err := c.Stats(short); done <- err }()
	cancel()
	is(t, <-done, context.Canceled)
	release()
	release = l.Host.Hold("stats", "")
	go func() { _, err := c.Stats(ctx); done <- err }()
	release()
	must(t, <-done)
}

func TestFakeCrash(t *testing.T) {
	l, ctx := NewFakeLab(t), t.Context()
	c := startFake(t, l)
	p, err := c.Exec(ctx, lxcrt.ExecSpec{Argv: []string{"/bin/sleep", "1000"}})
	must(t, err)
	equal(t, l.Host.Crash(l.Options.Dir, "nobody"), false)
	equal(t, l.Host.Crash(l.Options.Dir, c.Name()), true)
	st, err := c.Wait(ctx)
	must(t, err)
	equal(t, st, lxcrt.ExitStatus{Code: -1})
	st, err = p.Wait()
	must(t, err)
	equal(t, st.Signal, unix.SIGKILL)
	must(t, c.Start(ctx))
}

func TestFakeLooks(t *testing.T) {
	l, ctx := NewFakeLab(t), t.Context()
	c := startFake(t, l)
	l.Host.SetStats(l.Options.Dir, c.Name(), func() lxcrt.Stats { return lxcrt.Stats{Memory: 7, OOMKills: 1} })
	st, err := c.Stats(ctx)
	must(t, err)
	equal(t, st.Memory, int64(7))
	equal(t, st.OOMKills, int64(1))
	equal(t, st.PIDsLimit, int64(-1))
	must(t, c.Mount(ctx, lxcrt.Mount{Target: "/x", Kind: lxcrt.MountTmpfs}))
	m := l.Host.Mounts(l.Options.Dir, c.Name())
	equal(t, len(m), 1)
	equal(t, m[0].Target, "/x")
	if c.PID() < 1<<22 {
		t.Errorf("pid %d may be a real process", c.PID())
	}
}

// TestFakeTime: the grace of a stop passes in a bubble's time.
func TestFakeTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := NewHost()
		h.Sources = func(string) error { return nil }
		h.Program("/bin/deaf", func(ctx context.Context, _ *FakeProcess) int { <-ctx.Done(); return 0 })
		e, err := h.Open(lxcrt.Options{Dir: "/x"})
		must(t, err)
		c, err := e.Create(t.Context(), lxcrt.Spec{Name: "deaf", Layers: []lxcrt.Layer{{Path: "/l"}}, IDs: lxcrt.IDRange{Base: 1 << 20}, Init: []string{"/bin/deaf"}})
		must(t, err)
		must(t, c.Start(t.Context()))
		begin := time.Now()
		must(t, c.Stop(t.Context(), lxcrt.StopOptions{Grace: time.Hour}))
		equal(t, time.Since(begin), time.Hour)
		must(t, e.Close())
	})
}
