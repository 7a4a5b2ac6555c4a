package service_test

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/selfstead/selfstead/s9pk"
	"github.com/selfstead/selfstead/server/service/effect"
	"github.com/selfstead/selfstead/server/service/rpc"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// inside runs a script as the root of a package's container, in all of its
// namespaces.
func (l *lab) inside(id, script string) (string, error) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "nsenter", "-t", strconv.Itoa(l.pid(id)), "-a", "-r", "-w", "/bin/sh", "-c", script)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// outerLimits reads a file of the cgroups that hold a package's container.
func (l *lab) outerLimits(id, file string) (values []string) {
	l.t.Helper()
	text, err := os.ReadFile("/proc/" + strconv.Itoa(l.pid(id)) + "/cgroup")
	require.NoError(l.t, err)
	for line := range strings.Lines(string(text)) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		found, _ := filepath.Glob("/sys/fs/cgroup/" + filepath.Dir(fields[2]) + "/" + file)
		below, _ := filepath.Glob("/sys/fs/cgroup/*" + filepath.Dir(fields[2]) + "/" + file)
		for _, f := range append(found, below...) {
			if value, err := os.ReadFile(f); err == nil {
				values = append(values, strings.TrimSpace(string(value)))
			}
		}
	}
	return values
}

// The root of a container is root of what is the package's and of nothing else:
// what it can do to the machine by its own calls, and what the server does for
// it, stays inside.
func TestRootInsideIsNoRoot(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.start()
	l.install(build(t, testPackage{ID: "base", Port: 18081}))
	l.install(build(t, testPackage{ID: "evil", Port: 18082, Code: map[string]any{"needs": "base"},
		Manifest: func(m *s9pk.Manifest) { m.Dependencies["base"] = s9pk.Dependency{} }}))
	l.healthy("base")
	l.healthy("evil")
	who, err := l.inside("evil", "id -u; grep CapEff /proc/self/status")
	require.NoError(t, err, who)
	require.Contains(t, who, "0\nCapEff", "it is root there")

	t.Run("by its own calls", func(t *testing.T) {
		for _, script := range []string{
			"mknod /tmp/disk b 8 0", "mknod /media/startos/volumes/main/mem c 1 1",
			"mount -o remount,bind,suid,dev /media/startos/volumes/main", "mount -o remount,bind,rw /usr/lib/startos/package",
			"umount /media/startos/volumes/main", "umount -l /media/startos/rpc", "umount -l /media/startos/assets || umount -l /usr/lib/startos/package",
			"echo '|/bin/true' >/proc/sys/kernel/core_pattern", "echo b >/proc/sysrq-trigger", "echo /bin/true >/proc/sys/kernel/modprobe",
			"echo /bin/true >/sys/kernel/uevent_helper", "echo 1 >/proc/sys/vm/drop_caches", "echo 1 >/proc/sys/kernel/panic",
			"date -s 2001-01-01", "swapon /media/startos/volumes/main/inits", "mount -t debugfs none /mnt", "mount -t securityfs none /mnt",
			"cat /proc/kcore | head -c 1 | grep -q .", "cat /proc/1/root/proc/sys/kernel/../../../../../" + l.dir + "/state.db",
			"ls " + l.dir, "losetup -f --show /media/startos/volumes/main/inits", "cat /dev/mem", "nsenter -t 1 -n -m -U true && cat " + l.dir + "/state.db",
		} {
			out, err := l.inside("evil", script)
			require.Error(t, err, "%s: %s", script, out)
		}
		// It may set limits in its own part of the cgroup; those of its owner stand
		// above that.
		limits := l.outerLimits("evil", "pids.max")
		require.NotEmpty(t, limits)
		require.NotContains(t, limits, "max")
		_, _ = l.inside("evil", "find /sys/fs/cgroup -name pids.max -exec sh -c 'echo max >$0' {} ';'")
		require.Equal(t, limits, l.outerLimits("evil", "pids.max"))
		out, err := l.inside("evil", "cp /bin/sh /media/startos/volumes/main/sh && chmod 4755 /media/startos/volumes/main/sh && chmod 777 /media/startos/volumes/main")
		require.NoError(t, err, out)
		as := exec.Command("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", l.dir+"/volumes/evil/data/main/sh", "-c", "id -u")
		text, err := as.CombinedOutput()
		require.Error(t, err, "a user of this machine got to what the package left: %s", text)
	})
	t.Run("devices and other files in the place of a source", func(t *testing.T) {
		volume := l.dir + "/volumes/evil/data/main/"
		require.NoError(t, unix.Mknod(volume+"disk", unix.S_IFBLK|0o666, int(unix.Mkdev(7, 0)))) // as an old backup may hold one
		require.NoError(t, unix.Mkfifo(volume+"pipe", 0o666))
		_, err := l.inside("evil", "head -c 1 /media/startos/volumes/main/disk")
		require.Error(t, err)
		for _, name := range []string{"disk", "pipe"} {
			_, e := l.effect("evil", "selfstead.bind-mount", map[string]any{"source": "/media/startos/volumes/main/" + name, "target": "/mnt/" + name, "file": true, "idmap": []any{}})
			require.NotNil(t, e, name)
			require.Equal(t, effect.KindFilesystem, e.Code)
		}
	})
	t.Run("links exchanged under way", func(t *testing.T) {
		// The other package swaps a folder for a link out of its volume, over and
		// over, and its dependent mounts it: what arrives is always below the volume.
		volume := l.dir + "/volumes/base/data/main"
		require.NoError(t, os.MkdirAll(volume+"/real/etc", 0o755))
		require.NoError(t, os.WriteFile(volume+"/real/etc/mark", nil, 0o644))
		require.NoError(t, os.Symlink("../../../../../../../../..", volume+"/link"))
		require.NoError(t, os.Rename(volume+"/real", volume+"/swap"))
		stop, done := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			for {
				select {
				case <-stop:
					return
				default:
					unix.Renameat2(unix.AT_FDCWD, volume+"/swap", unix.AT_FDCWD, volume+"/link", unix.RENAME_EXCHANGE)
				}
			}
		}()
		host, err := os.Stat("/etc")
		require.NoError(t, err)
		seen := "/proc/" + strconv.Itoa(l.pid("evil")) + "/root/mnt/race"
		arrived := 0
		for range 60 {
			_, e := l.effect("evil", "mount", map[string]any{"location": "/mnt/race", "target": map[string]any{
				"packageId": "base", "volumeId": "main", "subpath": "swap/etc", "readonly": true, "idmap": []any{}}})
			if e != nil {
				require.Equal(t, effect.KindFilesystem, e.Code, e.Details())
				continue
			}
			arrived++
			require.FileExists(t, seen+"/mark")
			at, err := os.Stat(seen)
			require.NoError(t, err)
			require.False(t, os.SameFile(host, at))
		}
		close(stop)
		<-done
		require.NotZero(t, arrived)
	})
	t.Run("targets that lead out", func(t *testing.T) {
		// Links in the container, magic ones among them, in the way of a target.
		before, err := os.ReadFile("/proc/self/mountinfo")
		require.NoError(t, err)
		out, err := l.inside("evil", "mkdir -p /mnt/t && ln -s /proc/1/root /mnt/t/root && ln -s /proc/1/cwd /mnt/t/cwd && ln -s ../../../../../../"+l.dir+" /mnt/t/up && ln -s /proc/self/fd /mnt/t/fd")
		require.NoError(t, err, out)
		for _, location := range []string{"/mnt/t/root/via-magic", "/mnt/t/cwd/via-magic", "/mnt/t/up/via-magic", "/mnt/t/fd/3/via-magic", "/proc/1/root/via-magic", "/proc/self/root/via-magic", "/", ".", "/media/startos/rpc/../../../via-magic"} {
			l.effect("evil", "mount", map[string]any{"location": location, "target": map[string]any{
				"packageId": "base", "volumeId": "main", "subpath": nil, "readonly": true, "idmap": []any{}}})
		}
		after, err := os.ReadFile("/proc/self/mountinfo")
		require.NoError(t, err)
		require.Equal(t, strings.Count(string(before), "via-magic"), strings.Count(string(after), "via-magic"))
		for _, dir := range []string{"/via-magic", l.dir + "/via-magic"} {
			require.NoDirExists(t, dir)
		}
	})
	t.Run("the socket's folder", func(t *testing.T) {
		// What stands where the server connects or binds is a socket or nothing.
		rpcDir := l.container("evil") + "/rpc"
		out, err := l.inside("evil", "cd /media/startos/rpc && ln -s /etc/passwd victim && rm host.sock && ln -s /etc/shadow host.sock")
		require.NoError(t, err, out)
		shadow, err := os.Stat("/etc/shadow")
		require.NoError(t, err)
		l.kill()
		l.start()
		l.healthy("base")
		l.healthy("evil")
		now, err := os.Stat("/etc/shadow")
		require.NoError(t, err)
		require.Equal(t, shadow.Sys(), now.Sys(), "its owner has not changed")
		info, err := os.Lstat(filepath.Join(rpcDir, "host.sock"))
		require.NoError(t, err)
		require.NotZero(t, info.Mode()&os.ModeSocket)
		_, e := l.effect("evil", "echo", map[string]any{"message": "x"})
		require.Nil(t, e)
	})
	t.Run("frames", func(t *testing.T) {
		big := func(n int) (json.RawMessage, *rpc.Error) {
			return l.request("evil", `{"id":1,"method":"echo","params":{"message":"`+strings.Repeat("x", n)+`"}}`)
		}
		text, e := big(15 << 20)
		require.Nil(t, e)
		require.Len(t, text, 15<<20+2)
		deep := `{"id":1,"method":"action.run","params":` + strings.Repeat(`{"a":`, 20_000) + `1` + strings.Repeat("}", 20_000) + `}`
		_, e = l.request("evil", deep)
		require.NotNil(t, e)
		_, e = l.effect("evil", "set-health", map[string]any{"id": strings.Repeat("a", 300), "name": "n", "result": "success"})
		require.NotNil(t, e)
		require.Equal(t, effect.KindInvalidID, e.Code)
	})
}
