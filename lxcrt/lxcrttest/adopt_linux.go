package lxcrttest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/selfstead/selfstead/lxcrt"
	"github.com/selfstead/selfstead/lxcrt/internal/liblxc"
)

func itoa(n int) string { return strconv.Itoa(n) }

// monitorOf finds the monitor of a running container: PID 1's parent.
func monitorOf(t testing.TB, c *lxcrt.Container) int {
	t.Helper()
	b, err := os.ReadFile("/proc/" + itoa(c.PID()) + "/stat")
	must(t, err)
	ppid, err := strconv.Atoi(strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))[1])
	must(t, err)
	return ppid
}

func testAdoption(t *testing.T, f Factory) {
	l, ctx := f(t), Context(t)
	c := l.Start(l.Spec("trap 'exit 4' TERM; echo >/ready; while :; do sleep 1000 & wait $!; done"))
	ended, err := l.Create(ctx, l.Spec("exit 6"))
	must(t, err)
	must(t, ended.Start(ctx))
	_, err = ended.Wait(ctx)
	must(t, err)
	unwanted, err := l.Create(ctx, l.Spec(""))
	must(t, err)
	must(t, unwanted.Start(ctx))
	pid := c.PID()
	eventually(t, func() bool { _, st := Sh(t, c, "test -e /ready"); return st.Code == 0 })
	must(t, l.Close())
	must(t, l.Close())
	_, err = l.Load(ctx, c.Name())
	is(t, err, lxcrt.ErrClosed)

	l.Open()
	must(t, l.CleanUp(ctx, func(name string) bool { return name != unwanted.Name() }))
	names, err := l.List()
	must(t, err)
	equal(t, fmt.Sprint(names), fmt.Sprint([]string{c.Name(), ended.Name()}))
	again, err := l.Load(ctx, c.Name())
	must(t, err)
	same, err := l.Load(ctx, c.Name())
	must(t, err)
	equal(t, same, again)
	equal(t, again.State(), lxcrt.Running)
	equal(t, again.PID(), pid)
	is(t, again.Start(ctx), lxcrt.ErrRunning)
	equal(t, MustSh(t, again, "cat /proc/1/comm"), "sh")
	must(t, again.Mount(ctx, lxcrt.Mount{Target: "/media/v", Kind: lxcrt.MountBind, Source: volume(t), IDMap: true}))
	if _, err := again.Stats(ctx); err != nil {
		t.Error(err)
	}
	must(t, again.Stop(ctx, lxcrt.StopOptions{}))
	st, err := again.Wait(ctx)
	must(t, err)
	equal(t, st, lxcrt.ExitStatus{Code: 4, Known: true})
	must(t, again.Start(ctx))
	must(t, again.Stop(ctx, lxcrt.StopOptions{Grace: -1}))
	must(t, again.Destroy(ctx))

	// How one ended meanwhile is still known.
	other, err := l.Load(ctx, ended.Name())
	must(t, err)
	st, err = other.Wait(ctx)
	must(t, err)
	equal(t, st, lxcrt.ExitStatus{Code: 6, Known: true})
	must(t, other.Destroy(ctx))
}

func testKilledMonitor(t *testing.T, f Factory) {
	l, ctx := f(t), Context(t)
	c := l.Start(l.Spec(""))
	must(t, unix.Kill(monitorOf(t, c), unix.SIGKILL))
	st, err := c.Wait(ctx)
	must(t, err)
	equal(t, st.Known, false)
	equal(t, c.State(), lxcrt.Stopped)
	for _, left := range leftOf(l.Options) {
		t.Errorf("left behind: %s", left)
	}
	must(t, c.Start(ctx))
	must(t, c.Stop(ctx, lxcrt.StopOptions{Grace: -1}))
	// And while nobody looks.
	must(t, c.Start(ctx))
	monitor := monitorOf(t, c)
	must(t, l.Close())
	must(t, unix.Kill(monitor, unix.SIGKILL))
	l.Open()
	again, err := l.Load(ctx, c.Name())
	must(t, err)
	eventually(t, func() bool { return again.State() == lxcrt.Stopped })
	must(t, again.Destroy(ctx))
}

// testLeftovers makes each thing that a dead process can leave by hand, since the
// runtime does not oblige, and has CleanUp find it.
func testLeftovers(t *testing.T, f Factory) {
	l, ctx := f(t), Context(t)
	keep := l.Start(l.Spec(""))
	dir := l.Options.Dir
	_, squashfs := Rootfs(t)

	// Folders: half made, half removed, and one that is nobody's.
	for _, n := range []string{"HALF", "TORN", "FULL"} {
		must(t, os.MkdirAll(filepath.Join(dir, n, "upper/x"), 0o755))
	}
	must(t, os.WriteFile(filepath.Join(dir, "TORN/spec.json"), []byte(`{"name":`), 0o600))
	// Mounts of a person who looked into one, with a loop device that does not
	// clear itself and one whose file is in the folder.
	must(t, unix.Mount("tmpfs", filepath.Join(dir, "HALF/upper"), "tmpfs", 0, ""))
	must(t, os.WriteFile(filepath.Join(dir, "FULL/image"), make([]byte, 1<<20), 0o600))
	if out, err := exec.Command("losetup", "-f", filepath.Join(dir, "FULL/image")).CombinedOutput(); err != nil {
		t.Fatalf("losetup: %v: %s", err, out)
	}
	_ = squashfs
	// A link, and elements of the table: those of a container whose folder is gone.
	if out, err := exec.Command("ip", "link", "add", l.Options.LinkPrefix+"abcdefgh", "type", "veth", "peer", "name", "peer0").CombinedOutput(); err != nil {
		t.Fatalf("link: %v: %s", err, out)
	}
	ghost, err := l.Create(ctx, l.Spec(""))
	must(t, err)
	must(t, ghost.Start(ctx))
	ghostPID := ghost.PID()
	// Cgroups, with and without processes.
	groups, err := filepath.Glob("/sys/fs/cgroup/*/" + l.Options.CgroupParent)
	must(t, err)
	if g := "/sys/fs/cgroup/" + l.Options.CgroupParent; len(groups) == 0 {
		groups = []string{g}
	}
	sleeper := exec.Command("sleep", "1000")
	must(t, sleeper.Start())
	gone := make(chan struct{})
	go func() { _ = sleeper.Wait(); close(gone) }()
	for _, g := range groups {
		// As liblxc leaves them after a failed start and after a killed monitor.
		for _, n := range []string{"HALF/monitor", "lxc.pivot", "lxc.monitor.HALF", "lxc.payload.HALF/ns", "KILLED/monitor", "KILLED/pivot/lxc.pivot", "OTHER/payload/ns"} {
			must(t, os.MkdirAll(filepath.Join(g, n), 0o755))
		}
		_ = os.WriteFile(filepath.Join(g, "OTHER/payload/ns/cgroup.procs"), []byte(itoa(sleeper.Process.Pid)), 0)
	}
	// One of them frozen, so that its process does not end when killed.
	frozen := filepath.Join("/sys/fs/cgroup/freezer", l.Options.CgroupParent, "OTHER/payload/ns/freezer.state")
	_ = os.WriteFile(frozen, []byte("FROZEN"), 0)
	// Locks of liblxc's, and a table of the bridge family that nobody needs now.
	locks := "/run/lxc/lock" + liblxc.Path(dir)
	must(t, os.MkdirAll(locks, 0o755))
	must(t, os.WriteFile(filepath.Join(locks, ".GHOST"), nil, 0o600))
	run(t, "nft add table bridge "+l.Options.Table)
	must(t, l.Close())
	l.Open()
	// The folder goes only now: Close would have asked it.
	must(t, os.Remove(filepath.Join(dir, ghost.Name(), "spec.json")))
	must(t, l.CleanUp(ctx, func(name string) bool { return name == keep.Name() }))

	<-gone
	eventually(t, func() bool { return unix.Kill(ghostPID, 0) == unix.ESRCH })
	for _, left := range Left(l.Options) {
		known := strings.HasPrefix(left, "table ") || strings.HasPrefix(left, "AppArmor ") || strings.HasPrefix(left, "lock ") || strings.Contains(left, keep.Name()) || strings.HasPrefix(left, "loop device") && strings.Contains(left, squashfs) ||
			strings.HasPrefix(left, "file "+filepath.Join(dir, ".")) || strings.HasPrefix(left, "cgroup ") && strings.HasSuffix(left, l.Options.CgroupParent) ||
			strings.HasPrefix(left, "link ")
		if !known {
			t.Errorf("left behind: %s", left)
		}
	}
	if _, err := os.Stat(filepath.Join(locks, ".GHOST")); err == nil {
		t.Error("left behind: a lock")
	}
	if out, err := exec.Command("nft", "list", "tables", "bridge").Output(); err != nil || strings.Contains(string(out), l.Options.Table) {
		t.Errorf("left behind (%v): %s", err, out)
	}
	links, err := exec.Command("ip", "-o", "link").Output()
	must(t, err)
	equal(t, strings.Count(string(links), ": "+l.Options.LinkPrefix), 1)
	table, err := exec.Command("nft", "list", "set", "inet", l.Options.Table, "links4").Output()
	must(t, err)
	equal(t, strings.Count(string(table), "\" . "), 1)
	for _, g := range groups {
		entries, err := os.ReadDir(g)
		must(t, err)
		for _, e := range entries {
			if e.IsDir() && e.Name() != keep.Name() {
				t.Errorf("left behind: cgroup %s/%s", g, e.Name())
			}
		}
	}
	again, err := l.Load(ctx, keep.Name())
	must(t, err)
	equal(t, MustSh(t, again, "echo alive"), "alive")
	must(t, again.Stop(ctx, lxcrt.StopOptions{Grace: -1}))
	must(t, again.Destroy(ctx))
}
