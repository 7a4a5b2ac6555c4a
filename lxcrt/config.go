package lxcrt

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/selfstead/selfstead/lxcrt/internal/liblxc"
)

// droppedCaps are the capabilities that no process of a container gets. All of
// them are asked for in the host's own user namespace only, so that inside they
// would be good for nothing; they are dropped all the same, that a fault of the
// kernel finds one door less. What subcontainers are made with stays: sys_admin,
// sys_chroot, setuid, setgid, setpcap, setfcap, mknod, net_admin.
//
// The system calls that are refused stand in internal/liblxc/confine.c: the
// launcher binds itself by that filter, and PID 1 inherits it.
var droppedCaps = []capability{
	{"linux_immutable", 9}, {"sys_module", 16}, {"sys_rawio", 17}, {"sys_pacct", 20}, {"sys_time", 25},
	{"audit_control", 30}, {"mac_override", 32}, {"mac_admin", 33}, {"syslog", 34}, {"wake_alarm", 35},
	{"block_suspend", 36}, {"audit_read", 37}, {"perfmon", 38}, {"bpf", 39},
}

type capability struct {
	name   string
	number int
}

func capNumbers() []int {
	var n []int
	for _, c := range droppedCaps {
		n = append(n, c.number)
	}
	return n
}

func capNames() string {
	var n []string
	for _, c := range droppedCaps {
		n = append(n, c.name)
	}
	return strings.Join(n, " ")
}

// innerGroup is the part of the payload's cgroup in which the container lives. It
// sees nothing above, so that it cannot lift the limits that stand there.
const innerGroup = "ns"

// host is what the configuration depends on beside the Spec.
type host struct {
	dir      string // Options.Dir
	parent   string // Options.CgroupParent
	hook     string // the launcher's barrier before PID 1
	cgroup2  bool   // the unified layout has the controllers
	swap     bool   // swap is accounted for
	apparmor string // the profile, "unconfined", or empty where there is no AppArmor
}

// config returns the configuration of a container, in order. Nothing of the
// distribution's is included.
func (h host) config(s Spec) []liblxc.Item {
	place := filepath.Join(h.dir, s.Name)
	ids := fmt.Sprintf("0 %d %d", s.IDs.Base, s.IDs.count())
	items := []liblxc.Item{
		{Key: "lxc.rootfs.path", Value: "dir:" + liblxc.Root},
		// Shared inside, so that what is mounted later reaches the subcontainers.
		{Key: "lxc.rootfs.options", Value: "rshared"},
		{Key: "lxc.uts.name", Value: s.Name},
		{Key: "lxc.idmap", Value: "u " + ids},
		{Key: "lxc.idmap", Value: "g " + ids},
		{Key: "lxc.net.0.type", Value: "empty"},
		// The root brings /dev along. liblxc's own would cover a file of proc, after
		// which the kernel refuses procfs to user namespaces inside.
		{Key: "lxc.autodev", Value: "0"},
		{Key: "lxc.tty.max", Value: "0"},
		{Key: "lxc.pty.max", Value: "1024"},
		{Key: "lxc.console.path", Value: "none"},
		// Whole proc and sys: a procfs mounted later in a new pid namespace must not
		// show more than this one does, or the kernel refuses it. What the files in
		// them allow is decided by the user namespace.
		{Key: "lxc.mount.auto", Value: "proc:rw sys:rw cgroup:ro:force"},
		{Key: "lxc.mount.entry", Value: "tmpfs dev/shm tmpfs rw,nosuid,nodev,create=dir 0 0"},
		{Key: "lxc.mount.entry", Value: "mqueue dev/mqueue mqueue rw,nosuid,nodev,noexec,create=dir,optional 0 0"},
		{Key: "lxc.cap.drop", Value: capNames()},
		{Key: "lxc.cgroup.dir.monitor", Value: h.parent + "/" + s.Name + "/monitor"},
		{Key: "lxc.cgroup.dir.monitor.pivot", Value: h.parent + "/" + s.Name + "/pivot"},
		{Key: "lxc.cgroup.dir.container", Value: h.parent + "/" + s.Name + "/payload"},
		{Key: "lxc.cgroup.dir.container.inner", Value: innerGroup},
	}
	if h.apparmor != "" {
		items = append(items, liblxc.Item{Key: "lxc.apparmor.profile", Value: h.apparmor})
	}
	items = append(items, h.limits(s.Limits)...)
	for _, e := range s.Env {
		items = append(items, liblxc.Item{Key: "lxc.environment", Value: e})
	}
	return append(items,
		liblxc.Item{Key: "lxc.hook.start-host", Value: h.hook},
		liblxc.Item{Key: "lxc.log.file", Value: filepath.Join(place, "lxc.log")},
		liblxc.Item{Key: "lxc.log.level", Value: "WARN"},
	)
}

// limits are those that are in place before PID 1 exists; the others follow
// before its program is executed, see Container.settle.
func (h host) limits(l Limits) []liblxc.Item {
	prefix := "lxc.cgroup."
	if h.cgroup2 {
		prefix = "lxc.cgroup2."
	}
	var items []liblxc.Item
	for _, s := range l.settings(h.cgroup2, h.swap) {
		if s.set {
			items = append(items, liblxc.Item{Key: prefix + s.file, Value: s.value})
		}
	}
	return items
}
