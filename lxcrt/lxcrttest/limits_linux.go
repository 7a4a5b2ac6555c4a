package lxcrttest

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selfstead/selfstead/lxcrt"
)

func testSetLimits(t *testing.T, f Factory) {
	l, ctx := f(t), Context(t)
	s := l.Spec("")
	s.Limits = lxcrt.Limits{Memory: 64 << 20, Swap: 16 << 20, PIDs: 40}
	c := l.Start(s)
	check := func(memory, swap, pids int64) {
		t.Helper()
		st, err := c.Stats(ctx)
		must(t, err)
		if memory > 0 {
			equal(t, st.MemoryLimit, memory)
		} else if st.MemoryLimit < 1<<30 {
			t.Errorf("memory is bound to %d", st.MemoryLimit)
		}
		equal(t, st.PIDsLimit, pids)
		if !l.Features().SwapLimit {
			swap = -1
		}
		equal(t, st.SwapLimit, swap)
	}
	check(64<<20, 16<<20, 40)
	// Up, down and away, swap with it; each time the other way round of what must
	// not pass what.
	for _, n := range []lxcrt.Limits{
		{Memory: 128 << 20, Swap: 0, PIDs: 80, CPUQuota: 2, CPUWeight: 200},
		{Memory: 48 << 20, Swap: 8 << 20, PIDs: 30, CPUQuota: 0.5, CPUWeight: 20},
		{Memory: 256 << 20, Swap: 64 << 20, PIDs: 30, CPUQuota: 1},
	} {
		must(t, c.SetLimits(ctx, n))
		check(n.Memory, n.Swap, n.PIDs)
		equal(t, c.Spec().Limits, n)
	}
	must(t, c.SetLimits(ctx, lxcrt.Limits{Memory: 96 << 20, Swap: -1}))
	check(96<<20, -1, -1)
	must(t, c.SetLimits(ctx, lxcrt.Limits{}))
	check(0, -1, -1)
	MustSh(t, c, "for i in $(seq 60); do sleep 0.1 & done; wait")

	is(t, c.SetLimits(ctx, lxcrt.Limits{Memory: -1}), lxcrt.ErrInvalid)
	is(t, c.SetLimits(ctx, lxcrt.Limits{IO: lxcrt.IOLimits{Weight: 20000}}), lxcrt.ErrInvalid)
	gone, cancel := context.WithCancel(ctx)
	cancel()
	is(t, c.SetLimits(gone, lxcrt.Limits{PIDs: 7}), context.Canceled)
	check(0, -1, -1)

	// They hold for the next start, and for the next runtime.
	must(t, c.SetLimits(ctx, lxcrt.Limits{PIDs: 20}))
	must(t, c.Restart(ctx, lxcrt.StopOptions{Grace: -1}))
	check(0, -1, 20)
	must(t, c.Stop(ctx, lxcrt.StopOptions{Grace: -1}))
	must(t, c.SetLimits(ctx, lxcrt.Limits{PIDs: 25}))
	must(t, l.Close())
	l.Open()
	again, err := l.Load(ctx, s.Name)
	must(t, err)
	equal(t, again.Spec().Limits, lxcrt.Limits{PIDs: 25})
	c = again
	must(t, c.Start(ctx))
	check(0, -1, 25)
	must(t, c.Stop(ctx, lxcrt.StopOptions{Grace: -1}))
	must(t, c.Destroy(ctx))
	is(t, c.SetLimits(ctx, lxcrt.Limits{}), lxcrt.ErrNotFound)
}

// testIO has two containers do the same, one of them bound, until the other has
// come a certain way, and compares how far each has come.
func testIO(t *testing.T, f Factory) {
	l, ctx := f(t), Context(t)
	if !l.Features().IOLimit {
		Missing(t, "a kernel that throttles I/O")
	}
	for i, c := range []struct {
		what   string
		limits lxcrt.IOLimits
		script string
		moved  func(lxcrt.Stats) int64
		enough int64 // of the free one
	}{
		{"write bytes", lxcrt.IOLimits{WriteBytes: 256 << 10}, "dd if=/dev/zero of=/root/x bs=64k count=64 conv=notrunc oflag=direct",
			func(s lxcrt.Stats) int64 { return s.IOWriteBytes }, 16 << 20},
		{"read bytes", lxcrt.IOLimits{ReadBytes: 256 << 10}, "dd if=/root/x of=/dev/null bs=64k count=64 iflag=direct",
			func(s lxcrt.Stats) int64 { return s.IOReadBytes }, 16 << 20},
		{"write operations", lxcrt.IOLimits{WriteOps: 20}, "dd if=/dev/zero of=/root/x bs=4k count=64 conv=notrunc oflag=direct",
			func(s lxcrt.Stats) int64 { return s.IOWrites }, 500},
		{"read operations", lxcrt.IOLimits{ReadOps: 20}, "dd if=/root/x of=/dev/null bs=4k count=64 iflag=direct",
			func(s lxcrt.Stats) int64 { return s.IOReads }, 500},
	} {
		bound, free := l.Spec(""), l.Spec("")
		if i >= 2 { // some from the start, some later
			bound.Limits.IO = c.limits
		}
		a, b := l.Start(bound), l.Start(free)
		base := func(ct *lxcrt.Container) int64 {
			if out, st := Sh(t, ct, "dd if=/dev/zero of=/root/x bs=64k count=8 oflag=direct 2>&1"); st.Code != 0 {
				Missing(t, "direct I/O below "+l.Options.Dir+": "+out)
			}
			st, err := ct.Stats(ctx)
			must(t, err)
			return c.moved(st)
		}
		// The start is on both accounts.
		startA, startB := base(a), base(b)
		if i < 2 {
			must(t, a.SetLimits(ctx, lxcrt.Limits{IO: c.limits}))
		}
		var ends []func()
		began := time.Now()
		for _, ct := range []*lxcrt.Container{a, b} {
			p, err := ct.Exec(ctx, lxcrt.ExecSpec{Argv: []string{"/bin/sh", "-c", "while " + c.script + " 2>/dev/null; do :; done"}, Env: []string{"PATH=/bin"}})
			must(t, err)
			ends = append(ends, func() { _ = p.Signal(unix.SIGKILL); _, _ = p.Wait() })
		}
		var far, slow int64
		eventually(t, func() bool {
			st, err := b.Stats(ctx)
			must(t, err)
			far = c.moved(st) - startB
			return far >= c.enough
		})
		st, err := a.Stats(ctx)
		must(t, err)
		slow = c.moved(st) - startA
		// Where even the free one is slow, the bound one must be within its bound.
		most := float64(c.limits.WriteBytes+c.limits.ReadBytes+c.limits.WriteOps+c.limits.ReadOps) * time.Since(began).Seconds()
		if slow > far/4 && float64(slow) > 1.5*most {
			t.Errorf("%s: bound to %+v it came to %d, unbound to %d", c.what, c.limits, slow, far)
		}
		// Let loose while it runs, it comes on as well.
		must(t, a.SetLimits(ctx, lxcrt.Limits{}))
		eventually(t, func() bool {
			st, err := a.Stats(ctx)
			must(t, err)
			return c.moved(st)-startA >= c.enough
		})
		for _, end := range ends {
			end()
		}
		must(t, a.Stop(ctx, lxcrt.StopOptions{Grace: -1}))
		must(t, b.Stop(ctx, lxcrt.StopOptions{Grace: -1}))
	}
}

// testCgroupView: programs find a cgroup tree where they look for it, with the
// limits that hold for them, and change nothing through it.
func testCgroupView(t *testing.T, f Factory) {
	l, ctx := f(t), Context(t)
	s := l.Spec("")
	s.Limits = lxcrt.Limits{Memory: 64 << 20, PIDs: 50, CPUQuota: 0.5, IO: lxcrt.IOLimits{WriteBytes: 8 << 20}}
	c := l.Start(s)
	memory, pids, quota := "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/pids.max", "cut -d' ' -f1 /sys/fs/cgroup/cpu.max"
	if !l.Features().UnifiedCgroup {
		memory, pids, quota = "/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/pids/pids.max", "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us"
	}
	equal(t, MustSh(t, c, "cat "+memory), fmt.Sprint(64<<20))
	equal(t, MustSh(t, c, "cat "+pids), "50")
	equal(t, MustSh(t, c, quota), "50000")
	must(t, c.SetLimits(ctx, lxcrt.Limits{Memory: 80 << 20, PIDs: 60, CPUQuota: 0.7, IO: s.Limits.IO}))
	equal(t, MustSh(t, c, "cat "+memory), fmt.Sprint(80<<20))
	equal(t, MustSh(t, c, "cat "+pids), "60")
	equal(t, MustSh(t, c, quota), "70000")
	// Nothing of the host's tree is in it.
	if out := MustSh(t, c, "find /sys/fs/cgroup -name '*"+l.Options.CgroupParent+"*'"); out != "" {
		t.Errorf("the host's cgroups show: %s", out)
	}
	equal(t, MustSh(t, c, "cut -d: -f3 /proc/1/cgroup | sort -u"), "/")
	// The view is read-only, and whoever mounts his own finds files that are not his.
	for _, try := range []string{
		"echo max >" + memory, "echo max >" + pids, "echo 1000 >" + memory, "mkdir $(dirname " + memory + ")/x",
		"mount -o remount,rw $(dirname " + memory + ") && echo max >" + pids,
		"mkdir -p /tmp/c && mount -t cgroup2 c /tmp/c && echo max >/tmp/c/memory.max",
		"mkdir -p /tmp/c && mount -t cgroup2 c /tmp/c && echo max >/tmp/c/pids.max",
		"mkdir -p /tmp/m && mount -t cgroup -o memory m /tmp/m && echo -1 >/tmp/m/memory.limit_in_bytes",
		"mkdir -p /tmp/m && mount -t cgroup -o memory m /tmp/m && echo /bin/sh >/tmp/m/release_agent",
		"mkdir -p /tmp/p && mount -t cgroup -o pids m /tmp/p && echo max >/tmp/p/pids.max",
		"mkdir -p /tmp/u && mount -t cgroup -o cpu m /tmp/u && echo -1 >/tmp/u/cpu.cfs_quota_us",
		"mkdir -p /tmp/d && mount -t cgroup -o devices m /tmp/d && echo a >/tmp/d/devices.allow",
		// Throttling of v1 does not reach a cgroup below.
		"mkdir -p /tmp/b && mount -t cgroup -o blkio m /tmp/b && { mkdir /tmp/b/x || echo '254:0 0' >/tmp/b/blkio.throttle.write_bps_device; }",
		"unshare -C sh -c 'mkdir -p /tmp/m && mount -t cgroup -o memory m /tmp/m && echo -1 >/tmp/m/memory.limit_in_bytes'",
	} {
		if out, st := Sh(t, c, "{ "+try+"; } 2>&1"); st.Code == 0 {
			t.Errorf("%s: went through: %s", try, out)
		}
		_, _ = Sh(t, c, "for d in c m p u d b; do umount /tmp/$d; done 2>/dev/null")
	}
	st, err := c.Stats(ctx)
	must(t, err)
	equal(t, st.MemoryLimit, int64(80<<20))
	equal(t, st.PIDsLimit, int64(60))
	// A cgroup of its own, as systemd makes them, where the kernel gives that.
	if l.Features().UnifiedCgroup {
		MustSh(t, c, "sleep 1000 & p=$!; mkdir -p /tmp/c && mount -t cgroup2 c /tmp/c && mkdir /tmp/c/own && echo $p >/tmp/c/own/cgroup.procs && kill $p && umount /tmp/c")
	}
	if b, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(b), l.Options.Dir) {
		t.Errorf("the host's mount table shows the container (%v)", err)
	}
}
