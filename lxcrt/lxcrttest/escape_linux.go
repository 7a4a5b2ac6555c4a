package lxcrttest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// hostSettings are files of proc and sys through which all of the machine could
// be reached.
var hostSettings = []string{
	"/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname", "/proc/sys/kernel/panic", "/proc/sys/kernel/modprobe",
	"/proc/sys/kernel/sysrq", "/proc/sys/vm/swappiness", "/proc/sys/vm/overcommit_memory", "/proc/sys/fs/file-max",
	"/sys/kernel/mm/transparent_hugepage/enabled", "/sys/module/loop/parameters/max_loop", "/sys/power/state",
}

func testEscapes(t *testing.T, f Factory) {
	l := f(t)
	c, other := l.Start(l.Spec("")), l.Start(l.Spec(""))
	before := map[string]string{}
	for _, s := range hostSettings {
		if b, err := os.ReadFile(s); err == nil {
			before[s] = string(b)
		}
	}
	secret := filepath.Join(l.Options.Dir, "..", "secret")
	must(t, os.WriteFile(secret, []byte("secret"), 0o600))
	for _, try := range []string{
		"echo x >/proc/sys/kernel/core_pattern",
		"echo x >/proc/sys/kernel/modprobe",
		"echo 1 >/proc/sys/vm/overcommit_memory",
		"echo b >/proc/sysrq-trigger",
		"echo never >/sys/kernel/mm/transparent_hugepage/enabled",
		"mkdir -p /mnt/p && mount -t proc p /mnt/p && echo x >/mnt/p/sys/kernel/core_pattern",
		"mkdir -p /mnt/s && mount -t sysfs s /mnt/s && echo never >/mnt/s/kernel/mm/transparent_hugepage/enabled",
		"mount -t debugfs d /mnt", "mount -t tracefs d /mnt", "mount -t securityfs d /mnt", "mount -t devtmpfs d /mnt",
		"mkdir -p /mnt/c && mount -t cgroup -o memory c /mnt/c && echo /bin/sh >/mnt/c/release_agent",
		"mknod /tmp/mem c 1 1 && head -c 1 /tmp/mem",
		"mknod /dev/sda b 254 0 && head -c 1 /dev/sda",
		"insmod /bin/busybox", "modprobe loop", "rmmod loop", "swapoff -a && swapon /bin/busybox", "hwclock -w",
		"cat /proc/1/root" + secret, "cat " + secret, "ls /proc/*/root" + secret,
		fmt.Sprintf("kill -0 %d", os.Getpid()), fmt.Sprintf("kill -0 %d", other.PID()),
		fmt.Sprintf("nsenter -t %d -m true", os.Getpid()),
		fmt.Sprintf("ping -c 1 -W 1 %s", other.Spec().Addr4), fmt.Sprintf("ping -6 -c 1 -W 1 %s", other.Spec().Addr6),
		fmt.Sprintf("chown %d /tmp", other.Spec().IDs.Base),
		"cat /proc/kcore | head -c 1 | grep .", "dd if=/proc/kmsg count=1",
		"umount /proc && umount /", "mount -o remount,rw,suid,dev /dev/pts && mount -o remount,dev /sys",
	} {
		if out, st := Sh(t, c, "{ "+try+"; } </dev/null"); st.Code == 0 {
			t.Errorf("%s: went through: %s", try, out)
		}
	}
	for s, b := range before {
		if now, err := os.ReadFile(s); err != nil || string(now) != b {
			t.Errorf("%s was %q, is %q (%v)", s, b, now, err)
		}
	}
	// A program that is set to run as its owner is, on the host, owned by nobody of
	// importance.
	MustSh(t, c, "cp /bin/busybox /root/suid && chmod 4755 /root/suid")
	var st unix.Stat_t
	must(t, unix.Stat(filepath.Join(c.Dir(), "upper/root/suid"), &st))
	equal(t, st.Uid, c.Spec().IDs.Base)
	// And nobody on the host gets that far.
	must(t, unix.Stat(l.Options.Dir, &st))
	equal(t, st.Mode&0o077, 0)
	// The one that tried is alive, and so is the other.
	equal(t, strings.TrimSpace(MustSh(t, c, "echo alive")), "alive")
	equal(t, strings.TrimSpace(MustSh(t, other, "echo alive")), "alive")
}
