package lxcrttest

import (
	"context"
	"testing"

	"github.com/selfstead/selfstead/lxcrt"
)

func conformStats(t *testing.T, b *bench) {
	free := b.start("sleep")
	st, err := free.Stats(b.ctx)
	must(t, err)
	equal(t, st.PIDsLimit, int64(-1))
	bound := b.start("sleep", func(s *lxcrt.Spec) {
		s.Limits = lxcrt.Limits{Memory: 48 << 20, CPUQuota: 1.5, CPUWeight: 50, PIDs: 40}
	})
	if st.MemoryLimit <= 48<<20 {
		t.Errorf("without a limit there are %d bytes", st.MemoryLimit)
	}
	st, err = bound.Stats(b.ctx)
	must(t, err)
	equal(t, st.MemoryLimit, int64(48<<20))
	equal(t, st.PIDsLimit, int64(40))
	if st.Memory <= 0 || st.PIDs < 1 || st.CPU <= 0 {
		t.Errorf("stats %+v", st)
	}
	s := b.Spec("")
	s.Limits.Memory = -1
	_, err = b.Engine().Create(b.ctx, s)
	is(t, err, lxcrt.ErrInvalid)
}

func conformLimits(t *testing.T, b *bench) {
	c := b.create(b.Spec(""))
	check := func(c lxcrt.Instance, want lxcrt.Limits) {
		t.Helper()
		equal(t, c.Spec().Limits, want)
		if c.State() == lxcrt.Stopped {
			return
		}
		st, err := c.Stats(b.ctx)
		must(t, err)
		pids := want.PIDs
		if pids == 0 {
			pids = -1
		}
		equal(t, st.PIDsLimit, pids)
		if want.Memory > 0 {
			equal(t, st.MemoryLimit, want.Memory)
		}
	}
	// Of a stopped one they hold from the next start on.
	now := lxcrt.Limits{Memory: 64 << 20, PIDs: 40}
	must(t, c.SetLimits(b.ctx, now))
	check(c, now)
	must(t, c.Start(b.ctx))
	check(c, now)
	// Up, down, away; what is refused changes nothing.
	for _, now = range []lxcrt.Limits{{Memory: 128 << 20, PIDs: 80, CPUQuota: 1.5, CPUWeight: 50}, {Memory: 48 << 20, Swap: -1, PIDs: 20}, {}, {PIDs: 30}} {
		must(t, c.SetLimits(b.ctx, now))
		check(c, now)
	}
	for _, bad := range []lxcrt.Limits{{Memory: -1}, {PIDs: -1}, {CPUQuota: -1}, {CPUWeight: 10001}, {IO: lxcrt.IOLimits{WriteBytes: -1}}, {IO: lxcrt.IOLimits{Weight: 10001}}} {
		is(t, c.SetLimits(b.ctx, bad), lxcrt.ErrInvalid)
	}
	over, cancel := context.WithCancel(b.ctx)
	cancel()
	is(t, c.SetLimits(over, lxcrt.Limits{PIDs: 7}), context.Canceled)
	check(c, now)
	// The next engine knows them, the last one sets none any more.
	must(t, b.Engine().Close())
	is(t, c.SetLimits(b.ctx, lxcrt.Limits{}), lxcrt.ErrClosed)
	b.Open()
	again, err := b.Engine().Load(b.ctx, c.Name())
	must(t, err)
	check(again, now)
	must(t, again.Stop(b.ctx, lxcrt.StopOptions{Grace: -1}))
	must(t, again.Destroy(b.ctx))
	is(t, again.SetLimits(b.ctx, now), lxcrt.ErrNotFound)
}
