package lxcrttest

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selfstead/selfstead/lxcrt"
)

// hostSettings are files of proc and sys through which all of the machine could
// be reached.
var hostSettings = []string{
	"/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname", "/proc/sys/kernel/panic", "/proc/sys/kernel/modprobe",
	"/proc/sys/kernel/sysrq", "/proc/sys/vm/swappiness", "/proc/sys/vm/overcommit_memory", "/proc/sys/fs/file-max",
	"/sys/kernel/mm/transparent_hugepage/enabled", "/sys/module/loop/parameters/max_loop", "/sys/power/state",
}

func testEscapes(t *testing.T, f Factory) {
	Need(t, "mkfs.ext4", "setpriv")
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
		fmt.Sprintf("unshare -U sh -c 'echo 0 %d 1 >/proc/self/uid_map'", other.Spec().IDs.Base),
		"unshare -U sh -c 'echo 0 65536 1 >/proc/self/uid_map'",
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
	// In a volume it would be owned by root itself: so one that others reach is
	// refused, unless its file system does not heed the bit.
	open, err := os.MkdirTemp("", "lxcrttest-open-")
	must(t, err)
	defer os.RemoveAll(open)
	must(t, os.Chmod(open, 0o755))
	volume := lxcrt.Mount{Target: "/media/v", Kind: lxcrt.MountBind, Source: open, IDMap: true}
	is(t, c.Mount(Context(t), volume), lxcrt.ErrInvalid)
	volume.ReadOnly = true
	must(t, c.Mount(Context(t), volume))
	must(t, c.Unmount(Context(t), volume.Target))
	volume.ReadOnly = false
	// Shut by its own mode it is not shut for long: that is the container's to
	// change. What lies below such a folder is.
	must(t, os.Chmod(open, 0o700))
	is(t, c.Mount(Context(t), volume), lxcrt.ErrInvalid)
	volume.Source = filepath.Join(open, "below")
	must(t, os.Mkdir(volume.Source, 0o755))
	must(t, c.Mount(Context(t), volume))
	MustSh(t, c, "cp /bin/busybox /media/v/suid && chmod 4755 /media/v/suid && chmod 777 /media/v && rm /media/v/suid")
	must(t, c.Unmount(Context(t), volume.Target))
	volume.Source = open
	must(t, os.Chmod(open, 0o755))
	disk := filepath.Join(t.TempDir(), "volumes.ext4") // which every kernel id-maps
	for _, argv := range [][]string{
		{"truncate", "-s", "16M", disk}, {"mkfs.ext4", "-q", "-F", disk}, {"mount", "-o", "loop,nosuid,nodev", disk, open},
	} {
		if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v: %s", argv, err, out)
		}
	}
	defer func() { _ = unix.Unmount(open, unix.MNT_DETACH) }()
	must(t, c.Mount(Context(t), volume))
	MustSh(t, c, "cp /bin/busybox /media/v/suid && chmod 4755 /media/v/suid")
	if out, err := exec.Command("setpriv", "--reuid", "65534", "--clear-groups", filepath.Join(open, "suid"), "id", "-u").CombinedOutput(); err == nil && strings.TrimSpace(string(out)) != "65534" {
		t.Errorf("a program of the container's ran as %s", out)
	}
	must(t, c.Unmount(Context(t), volume.Target))
	// And nobody on the host gets that far.
	must(t, unix.Stat(l.Options.Dir, &st))
	equal(t, st.Mode&0o077, 0)
	// The one that tried is alive, and so is the other.
	equal(t, strings.TrimSpace(MustSh(t, c, "echo alive")), "alive")
	equal(t, strings.TrimSpace(MustSh(t, other, "echo alive")), "alive")
}

// testRawSockets: packets made by hand reach nobody that the rules keep away, and
// carry no address but the container's own. What was sent before something that
// arrives has had its chance.
func testRawSockets(t *testing.T, f Factory) {
	l := f(t)
	a, b := l.Start(l.Spec("")), l.Start(l.Spec(""))
	gate4, _ := l.Gateway()
	to := func(addr netip.Addr, port uint16) net.PacketConn {
		t.Helper()
		pid := 0
		if addr == b.Spec().Addr4 {
			pid = b.PID()
		}
		var c net.PacketConn
		must(t, within(pid, func() (err error) {
			c, err = net.ListenPacket("udp4", netip.AddrPortFrom(addr, port).String())
			return err
		}))
		t.Cleanup(func() { c.Close() })
		return c
	}
	names, sibling := to(gate4, 53), to(b.Spec().Addr4, 4000)
	packet := func(from, to netip.Addr, port uint16, text string) []byte {
		p := []byte{0x45, 0, 0, byte(28 + len(text)), 0, 0, 0, 0, 64, unix.IPPROTO_UDP, 0, 0}
		p = append(append(p, from.AsSlice()...), to.AsSlice()...)
		p = append(p, 0x10, 0, byte(port>>8), byte(port), 0, byte(8+len(text)), 0, 0)
		return append(p, text...)
	}
	sum := func(p []byte) []byte {
		var sum uint32
		for i := 0; i < 20; i += 2 {
			sum += uint32(p[i])<<8 | uint32(p[i+1])
		}
		for sum>>16 != 0 {
			sum = sum>>16 + sum&0xffff
		}
		p[10], p[11] = byte(^sum>>8), byte(^sum)
		return p
	}
	raw := func(p []byte) error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Sendto(fd, p, 0, &unix.SockaddrInet4{Addr: [4]byte(p[16:20])})
	}
	own, err := net.ParseMAC(MustSh(t, a, "cat /sys/class/net/eth0/address"))
	must(t, err)
	peer, err := net.ParseMAC(MustSh(t, a, "ip neigh show "+gate4.String()+" | sed 's/.*lladdr //;s/ .*//'"))
	must(t, err)
	frame := func(p []byte) error { return sendFrame("eth0", ether(peer, own, 0x0800, sum(p))) }
	me, it := a.Spec().Addr4, b.Spec().Addr4
	for what, send := range map[string]func([]byte) error{"raw socket": raw, "packet socket": frame} {
		must(t, within(a.PID(), func() error {
			for _, p := range [][]byte{
				packet(me, it, 4000, "to a sibling"), packet(gate4, it, 4000, "to a sibling as the gateway"),
				packet(it, gate4, 53, "as a sibling"), packet(netip.MustParseAddr("203.0.113.7"), gate4, 53, "as a stranger"),
				packet(netip.MustParseAddr("127.0.0.1"), gate4, 53, "as the host itself"),
			} {
				if err := send(p); err != nil {
					return err
				}
			}
			return send(packet(me, gate4, 53, "honest"))
		}))
		buf := make([]byte, 64)
		_ = names.SetReadDeadline(time.Now().Add(20 * time.Second))
		n, from, err := names.ReadFrom(buf)
		if err != nil || string(buf[:n]) != "honest" || !strings.HasPrefix(from.String(), me.String()+":") {
			t.Errorf("%s: the gateway got %q from %v: %v", what, buf[:n], from, err)
		}
		must(t, within(0, func() error {
			c, err := net.Dial("udp4", netip.AddrPortFrom(it, 4000).String())
			if err == nil {
				_, err = c.Write([]byte("from the host"))
				c.Close()
			}
			return err
		}))
		_ = sibling.SetReadDeadline(time.Now().Add(20 * time.Second))
		if n, from, err := sibling.ReadFrom(buf); err != nil || string(buf[:n]) != "from the host" {
			t.Errorf("%s: the sibling got %q from %v: %v", what, buf[:n], from, err)
		}
	}
}
