package lxcrttest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/selfstead/selfstead/lxcrt"
	"github.com/selfstead/selfstead/lxcrt/internal/liblxc"
)

// Leaks fails the test for everything on this machine that has one of the
// options' names: mounts, loop devices, links, the table, cgroups, processes,
// folders, lock files. It looks by other means than lxcrt does.
func Leaks(t testing.TB, o lxcrt.Options) {
	t.Helper()
	for _, l := range Left(o) {
		t.Error("left behind: " + l)
	}
}

// leftOf lists what is left of stopped containers while their runtime is open:
// everything but its own folder, table and parent cgroup.
func leftOf(o lxcrt.Options) []string {
	var left []string
	for _, l := range Left(o) {
		if !strings.HasPrefix(l, "file ") && !strings.HasPrefix(l, "lock ") && !strings.HasPrefix(l, "table ") && !strings.HasPrefix(l, "AppArmor ") && (!strings.HasPrefix(l, "cgroup ") || !strings.HasSuffix(l, "/"+o.CgroupParent)) {
			left = append(left, l)
		}
	}
	for _, pattern := range []string{"/sys/fs/cgroup/", "/sys/fs/cgroup/*/"} {
		groups, _ := filepath.Glob(pattern + o.CgroupParent + "/*/cgroup.procs")
		for _, g := range groups {
			left = append(left, "cgroup "+filepath.Dir(g))
		}
	}
	return left
}

// Left lists what Leaks would complain about.
func Left(o lxcrt.Options) []string {
	var left []string
	add := func(kind, what string) { left = append(left, kind+" "+what) }
	if b, err := os.ReadFile("/proc/self/mountinfo"); err == nil {
		for l := range strings.Lines(string(b)) {
			if strings.Contains(l, o.Dir) || strings.Contains(l, " lxcrt ") {
				add("mount", strings.TrimSpace(l))
			}
		}
	}
	backing, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, f := range backing {
		if b, err := os.ReadFile(f); err == nil && (strings.HasPrefix(string(b), o.Dir) || rootfs.file != "" && strings.HasPrefix(string(b), rootfs.file)) {
			add("loop device", f+" "+strings.TrimSpace(string(b)))
		}
	}
	if out, err := exec.Command("ip", "-o", "link").Output(); err == nil {
		for l := range strings.Lines(string(out)) {
			if f := strings.Fields(l); len(f) > 1 && strings.HasPrefix(f[1], o.LinkPrefix) {
				add("link", f[1])
			}
		}
	}
	if out, err := exec.Command("nft", "list", "tables").Output(); err == nil {
		for l := range strings.Lines(string(out)) {
			if f := strings.Fields(l); len(f) == 3 && f[2] == o.Table {
				add("table", o.Table)
			}
		}
	}
	for _, pattern := range []string{"/sys/fs/cgroup/", "/sys/fs/cgroup/*/"} {
		groups, _ := filepath.Glob(pattern + o.CgroupParent)
		for _, g := range groups {
			add("cgroup", g)
		}
		for _, stray := range []string{"lxc.pivot", "lxc.monitor.*", "lxc.payload.*"} {
			groups, _ := filepath.Glob(pattern + stray)
			for _, g := range groups {
				add("cgroup", g)
			}
		}
	}
	if b, err := os.ReadFile("/sys/kernel/security/apparmor/profiles"); err == nil && strings.Contains(string(b), "lxcrt-"+o.Table+" ") {
		add("AppArmor profile", "lxcrt-"+o.Table)
	}
	procs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range procs {
		if b, err := os.ReadFile(p); err == nil && strings.HasPrefix(string(b), "lxcrt-") && strings.Contains(string(b), o.Dir+"/") {
			add("process", p+" "+strings.ReplaceAll(string(b), "\x00", " "))
		}
	}
	entries, _ := os.ReadDir(o.Dir)
	for _, e := range entries {
		if e.Name() != ".images" {
			add("file", filepath.Join(o.Dir, e.Name()))
		}
	}
	if _, err := os.Stat("/run/lxc/lock" + liblxc.Path(o.Dir)); err == nil {
		add("lock", liblxc.Path(o.Dir))
	}
	return left
}

// leftLoops lists the loop devices on files of the runtime's folder.
func leftLoops(o lxcrt.Options) []string {
	var loops []string
	for _, l := range Left(o) {
		if strings.HasPrefix(l, "loop device") && strings.Contains(l, o.Dir) {
			loops = append(loops, l)
		}
	}
	return loops
}
