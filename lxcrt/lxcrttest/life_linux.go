package lxcrttest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selfstead/selfstead/lxcrt"
)

func testLife(t *testing.T, f Factory) {
	l, ctx := f(t), Context(t)
	c, err := l.Create(ctx, l.Spec(""))
	must(t, err)
	equal(t, c.State(), lxcrt.Stopped)
	equal(t, c.PID(), 0)
	_, err = l.Create(ctx, c.Spec())
	is(t, err, lxcrt.ErrExists)
	names, err := l.List()
	must(t, err)
	equal(t, fmt.Sprint(names), "["+c.Name()+"]")
	st, err := c.Wait(ctx)
	must(t, err)
	equal(t, st.Known, false)
	must(t, c.Stop(ctx, lxcrt.StopOptions{}))

	must(t, c.Start(ctx))
	equal(t, c.State(), lxcrt.Running)
	is(t, c.Start(ctx), lxcrt.ErrRunning)
	if c.PID() <= 1 {
		t.Errorf("pid %d", c.PID())
	}
	MustSh(t, c, "echo kept >/root/note")
	must(t, c.Stop(ctx, lxcrt.StopOptions{Grace: -1}))
	must(t, c.Stop(ctx, lxcrt.StopOptions{}))
	equal(t, c.State(), lxcrt.Stopped)
	equal(t, c.PID(), 0)
	_, err = c.Exec(ctx, lxcrt.ExecSpec{Argv: []string{"/bin/true"}})
	is(t, err, lxcrt.ErrNotRunning)
	is(t, c.Mount(ctx, lxcrt.Mount{Target: "/x", Kind: lxcrt.MountTmpfs}), lxcrt.ErrNotRunning)
	_, err = c.Stats(ctx)
	is(t, err, lxcrt.ErrNotRunning)

	twin := l.Spec("")
	twin.Addr6 = c.Spec().Addr6
	_, err = l.Create(ctx, twin)
	is(t, err, lxcrt.ErrExists)

	must(t, c.Start(ctx))
	must(t, c.Restart(ctx, lxcrt.StopOptions{Grace: -1}))
	equal(t, MustSh(t, c, "cat /root/note"), "kept")
	must(t, c.Stop(ctx, lxcrt.StopOptions{Grace: -1}))
	must(t, c.Destroy(ctx))
	must(t, c.Destroy(ctx))
	is(t, c.Start(ctx), lxcrt.ErrNotFound)
	_, err = l.Load(ctx, c.Name())
	is(t, err, lxcrt.ErrNotFound)
}

func testEvents(t *testing.T, f Factory) {
	l, ctx := f(t), Context(t)
	listen, stop := context.WithCancel(ctx)
	events, others := l.Events(ctx), l.Events(listen)
	c, err := l.Create(ctx, l.Spec(""))
	must(t, err)
	must(t, c.Start(ctx))
	must(t, c.Freeze(ctx))
	must(t, c.Thaw(ctx))
	must(t, c.Stop(ctx, lxcrt.StopOptions{Grace: -1}))
	must(t, c.Destroy(ctx))
	var said []string
	for len(said) < 7 {
		e := <-events
		equal(t, e.Container, c.Name())
		if e.State == lxcrt.Stopped && !e.Exit.Known {
			t.Error("how it ended is not known")
		}
		said = append(said, string(e.State))
	}
	if got := strings.Join(said, " "); got != "starting running frozen running stopping stopped gone" {
		t.Errorf("events: %s", got)
	}
	stop()
	for range others { // ends
	}
	must(t, l.Close())
	if _, ok := <-events; ok {
		t.Error("an event after Close")
	}
	if _, ok := <-l.Events(ctx); ok {
		t.Error("events of a closed runtime")
	}
}

func testExit(t *testing.T, f Factory) {
	l, ctx := f(t), Context(t)
	for _, c := range []struct {
		script string
		want   lxcrt.ExitStatus
	}{
		{"exit 0", lxcrt.ExitStatus{Known: true}},
		{"exit 7", lxcrt.ExitStatus{Code: 7, Known: true}},
		{"sleep 0.1; exit 255", lxcrt.ExitStatus{Code: 255, Known: true}},
	} {
		ct := l.Start(l.Spec(c.script))
		st, err := ct.Wait(ctx)
		must(t, err)
		equal(t, st, c.want)
		equal(t, ct.State(), lxcrt.Stopped)
	}
	// PID 1 ignores every signal that it does not handle, but for SIGKILL.
	stubborn := l.Start(l.Spec("trap '' TERM; while :; do sleep 1000; done"))
	start := time.Now()
	must(t, stubborn.Stop(ctx, lxcrt.StopOptions{Grace: 200 * time.Millisecond}))
	if took := time.Since(start); took < 200*time.Millisecond || took > 10*time.Second {
		t.Errorf("stop with a grace of 200 ms took %s", took)
	}
	st, err := stubborn.Wait(ctx)
	must(t, err)
	equal(t, st, lxcrt.ExitStatus{Code: -1, Signal: unix.SIGKILL, Known: true})
	// A context that ends while waiting changes nothing.
	c := l.Start(l.Spec(""))
	short, cancel := context.WithCancel(ctx)
	cancel()
	_, err = c.Wait(short)
	is(t, err, context.Canceled)
	equal(t, c.State(), lxcrt.Running)
	// The signal can be chosen.
	c = l.Start(l.Spec("trap 'exit 5' USR1; echo ready >/ready; while :; do sleep 1000 & wait $!; done"))
	eventually(t, func() bool { _, st := Sh(t, c, "test -e /ready"); return st.Code == 0 })
	must(t, c.Stop(ctx, lxcrt.StopOptions{Signal: unix.SIGUSR1}))
	st, err = c.Wait(ctx)
	must(t, err)
	equal(t, st.Code, 5)
}

func testRefused(t *testing.T, f Factory) {
	l, ctx := f(t), Context(t)
	good := l.Spec("")
	for what, edit := range map[string]func(*lxcrt.Spec){
		"name":     func(s *lxcrt.Spec) { s.Name = "../up" },
		"layers":   func(s *lxcrt.Spec) { s.Layers = nil },
		"relative": func(s *lxcrt.Spec) { s.Layers = []lxcrt.Layer{{Path: "x"}} },
		"init":     func(s *lxcrt.Spec) { s.Init = []string{"sh"} },
		"ids":      func(s *lxcrt.Spec) { s.IDs.Base = 0 },
		"env":      func(s *lxcrt.Spec) { s.Env = []string{"A=b\nlxc.idmap = u 0 0 1"} },
		"file":     func(s *lxcrt.Spec) { s.Files = []lxcrt.File{{Path: "/etc/../../x"}} },
		"device":   func(s *lxcrt.Spec) { s.Devices = []string{"/etc/passwd"} },
		"kind":     func(s *lxcrt.Spec) { s.Mounts = []lxcrt.Mount{{Target: "/x", Kind: "nfs"}} },
		"gateway":  func(s *lxcrt.Spec) { s.Addr4, _ = l.Gateway() },
		"foreign":  func(s *lxcrt.Spec) { s.Addr4 = s.Addr4.Next(); s.Addr4 = good.Addr6 },
	} {
		s := good
		edit(&s)
		if _, err := l.Create(ctx, s); !errors.Is(err, lxcrt.ErrInvalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
	// What only a start can find out leaves a stopped container and nothing else.
	for what, edit := range map[string]func(*lxcrt.Spec){
		"/no/such/layer": func(s *lxcrt.Spec) { s.Layers = []lxcrt.Layer{{Path: "/no/such/layer"}} },
		"/bin/nothing":   func(s *lxcrt.Spec) { s.Init = []string{"/bin/nothing"} },
		"/no/such/source": func(s *lxcrt.Spec) {
			s.Mounts = []lxcrt.Mount{{Target: "/x", Kind: lxcrt.MountBind, Source: "/no/such/source"}}
		},
		"/dev/nothing": func(s *lxcrt.Spec) { s.Devices = []string{"/dev/nothing"} },
	} {
		s := l.Spec("")
		edit(&s)
		c, err := l.Create(ctx, s)
		must(t, err)
		err = c.Start(ctx)
		if err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
		equal(t, c.State(), lxcrt.Stopped)
		for _, left := range leftOf(l.Options) {
			t.Errorf("%s: left behind: %s", what, left)
		}
		must(t, c.Destroy(ctx))
	}
	// So does one that is called off.
	c, err := l.Create(ctx, l.Spec(""))
	must(t, err)
	gone, cancel := context.WithCancel(ctx)
	cancel()
	is(t, c.Start(gone), context.Canceled)
	equal(t, c.State(), lxcrt.Stopped)
	must(t, c.Start(ctx))
	must(t, c.Stop(ctx, lxcrt.StopOptions{Grace: -1}))
	must(t, c.Destroy(ctx))
}

func testInside(t *testing.T, f Factory) {
	l := f(t)
	s := l.Spec("env >/env; trap 'exit 0' TERM; echo ready >/ready; while :; do sleep 1000 & wait $!; done")
	s.Env = []string{"PATH=/bin", "GREETING=\"hello  world\" ", "LANG=C.UTF-8"}
	s.Files = []lxcrt.File{
		{Path: "/etc/hostname", Data: []byte(s.Name + "\n")},
		{Path: "/etc/deep/er/secret", Mode: 0o600, Data: []byte("s")},
		{Path: "/etc/passwd", Data: []byte("root:x:0:0::/root:/bin/sh\n")},
	}
	c := l.Start(s)
	eventually(t, func() bool { _, st := Sh(t, c, "test -e /ready"); return st.Code == 0 })
	equal(t, MustSh(t, c, "hostname"), s.Name)
	equal(t, MustSh(t, c, "id -u; id -g; cat /proc/1/comm; cut -d: -f1 /etc/passwd"), "0\n0\nsh\nroot")
	equal(t, MustSh(t, c, "stat -c '%u %g %a' / /etc/deep /etc/deep/er/secret /bin/busybox"), "0 0 755\n0 0 755\n0 0 600\n0 0 755")
	env := strings.Split(MustSh(t, c, "grep -v -e ^SHLVL -e ^PWD -e ^OLDPWD /env"), "\n")
	slices.Sort(env)
	equal(t, strings.Join(env, "|"), "GREETING=\"hello  world\" |LANG=C.UTF-8|PATH=/bin|container=lxc")
	// On the host it is somebody else.
	var st unix.Stat_t
	must(t, unix.Stat(fmt.Sprintf("/proc/%d", c.PID()), &st))
	equal(t, st.Uid, s.IDs.Base)
	equal(t, MustSh(t, c, "cat /proc/self/uid_map | tr -s ' '"), fmt.Sprintf(" 0 %d 65536", s.IDs.Base))
	// Streams of PID 1 lead nowhere; nothing of this process was inherited.
	for _, fd := range []string{"0", "1", "2"} {
		equal(t, MustSh(t, c, "readlink /proc/1/fd/"+fd), "/dev/null")
	}
	equal(t, MustSh(t, c, "ls /proc/1/fd | grep -v -e '^[012]$' -e '^1[0-9]$' | tr '\\n' ' '"), "")
	// The image is not written to, the upper is, as container root.
	MustSh(t, c, "echo x >/bin/new; chown alice /bin/new 2>/dev/null || chown 1000 /bin/new")
	must(t, unix.Stat(filepath.Join(c.Dir(), "upper/bin/new"), &st))
	equal(t, st.Uid, s.IDs.Base+1000)
	if b, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(b), l.Options.Dir) {
		t.Errorf("the host's mount table shows the container (%v)", err)
	}
}

func testDevices(t *testing.T, f Factory) {
	l := f(t)
	s := l.Spec("")
	// One by its path, and the folder that has another, as /dev/dri has them.
	s.Devices = []string{"/dev/fuse", "/dev/net"}
	for _, d := range []string{"/dev/fuse", "/dev/net/tun"} {
		if _, err := os.Stat(d); err != nil {
			Missing(t, d)
		}
	}
	c := l.Start(s)
	for _, d := range []string{"/dev/fuse", "/dev/net/tun"} {
		equal(t, MustSh(t, c, "stat -c '%u %F' "+d), "0 character special file")
		MustSh(t, c, ": <"+d)
	}
	equal(t, MustSh(t, c, "ls /dev/net"), "tun")
	if _, st := Sh(t, c, "test -e /dev/loop-control"); st.Code == 0 {
		t.Error("a device that was not declared is there")
	}
	for _, d := range []string{"null", "zero", "full", "random", "urandom", "tty", "pts", "shm", "fd"} {
		MustSh(t, c, "test -e /dev/"+d)
	}
	if out, st := Sh(t, c, "mknod /tmp/sda b 8 0"); st.Code == 0 {
		t.Errorf("a device node can be made inside: %s", out)
	}
}

func testFreeze(t *testing.T, f Factory) {
	l, ctx := f(t), Context(t)
	c := l.Start(l.Spec("while :; do echo x >>/ticks; sleep 0.01; done"))
	ticks := filepath.Join(c.Dir(), "upper/ticks")
	eventually(t, func() bool { _, err := os.Stat(ticks); return err == nil })
	must(t, c.Freeze(ctx))
	equal(t, c.State(), lxcrt.Frozen)
	before, err := os.ReadFile(ticks)
	must(t, err)
	after, err := os.ReadFile(ticks)
	must(t, err)
	equal(t, len(after), len(before))
	must(t, c.Thaw(ctx))
	equal(t, c.State(), lxcrt.Running)
	eventually(t, func() bool { b, _ := os.ReadFile(ticks); return len(b) > len(before) })
	must(t, c.Freeze(ctx))
	must(t, c.Stop(ctx, lxcrt.StopOptions{Grace: -1}))
	equal(t, c.State(), lxcrt.Stopped)
}

func testLimits(t *testing.T, f Factory) {
	l, ctx := f(t), Context(t)
	s := l.Spec("")
	s.Limits = lxcrt.Limits{Memory: 48 << 20, CPUQuota: 1.5, CPUWeight: 50, PIDs: 40}
	c := l.Start(s)
	st, err := c.Stats(ctx)
	must(t, err)
	equal(t, st.MemoryLimit, int64(48<<20))
	equal(t, st.PIDsLimit, int64(40))
	if st.Memory <= 0 || st.PIDs < 1 || st.CPU <= 0 {
		t.Errorf("stats %+v", st)
	}
	for _, p := range []float64{st.MemoryPressure, st.CPUPressure, st.IOPressure} {
		if has := p >= 0; has != l.Features().Pressure {
			t.Errorf("pressure %v, where Features says %v", p, l.Features().Pressure)
		}
	}
	other := l.Start(l.Spec(""))
	// A hog of memory ends alone: its neighbour and its own PID 1 go on.
	if out, st := Sh(t, c, "x=$(yes 0123456789012345678901234567890123456789 | head -c 200000000); echo ${#x}"); st.Code == 0 {
		t.Errorf("200 MB fit into 48: %s", out)
	}
	for ct, suffers := range map[*lxcrt.Container]bool{c: true, other: false} {
		st, err := ct.Stats(ctx)
		must(t, err)
		if st.OOMKills > 0 != suffers || ct.State() != lxcrt.Running {
			t.Errorf("%s: %d processes ended for want of memory, it is %s", ct.Name(), st.OOMKills, ct.State())
		}
	}
	// So does a fork bomb.
	out, _ := Sh(t, c, "for i in $(seq 200); do sleep 1 & done")
	if !strings.Contains(out, "fork") {
		t.Errorf("no fork was refused: %s", out)
	}
	equal(t, other.State(), lxcrt.Running)
	MustSh(t, other, "for i in $(seq 60); do true & done; wait")
	st, err = c.Stats(ctx)
	must(t, err)
	if st.PIDs > 40 {
		t.Errorf("%d tasks", st.PIDs)
	}
	must(t, c.Stop(ctx, lxcrt.StopOptions{Grace: -1}))
}

func testUpperSize(t *testing.T, f Factory) {
	Need(t, "mkfs.ext4")
	l, ctx := f(t), Context(t)
	s := l.Spec("")
	s.UpperSize = 4 << 20
	_, err := l.Create(ctx, s)
	is(t, err, lxcrt.ErrInvalid)
	s.UpperSize = 24 << 20
	c, other := l.Start(s), l.Start(l.Spec(""))
	equal(t, MustSh(t, c, "stat -c '%u %a' /; echo kept >/root/note"), "0 755")
	if out, st := Sh(t, c, "head -c 100000000 /dev/zero >/root/big"); st.Code == 0 {
		t.Errorf("100 MB fit into 24: %s", out)
	}
	if out, st := Sh(t, c, "i=0; while echo >/root/f$i; do i=$((i+1)); done"); st.Code == 0 && !strings.Contains(out, "No space") {
		t.Errorf("no end of files: %s", out)
	}
	MustSh(t, other, "head -c 30000000 /dev/zero >/root/big")
	must(t, c.Restart(ctx, lxcrt.StopOptions{Grace: -1}))
	equal(t, MustSh(t, c, "cat /root/note"), "kept")
	must(t, c.Stop(ctx, lxcrt.StopOptions{Grace: -1}))
	equal(t, strings.Join(leftLoops(l.Options), " "), "")
}
