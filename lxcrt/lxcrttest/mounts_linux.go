package lxcrttest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/selfstead/selfstead/lxcrt"
)

// volume is a host folder with files as they stand on disk: container-view ids.
func volume(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for name, uid := range map[string]int{"root": 0, "alice": 1000, "web": 33} {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(name+"\n"), 0o644))
		must(t, os.Chown(filepath.Join(dir, name), uid, uid))
	}
	return dir
}

// archive is a file with a squashfs at an odd offset.
func archive(t testing.TB) (file string, offset, size int64) {
	t.Helper()
	src, tmp := t.TempDir(), t.TempDir()
	must(t, os.WriteFile(filepath.Join(src, "hello"), []byte("from the archive\n"), 0o644))
	image := filepath.Join(tmp, "image")
	if out, err := exec.Command("mksquashfs", src, image, "-all-root", "-quiet", "-no-progress").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	body, err := os.ReadFile(image)
	must(t, err)
	file = filepath.Join(tmp, "archive")
	head := strings.Repeat("x", 1237)
	must(t, os.WriteFile(file, []byte(head+string(body)+strings.Repeat("y", 777)), 0o600))
	return file, int64(len(head)), int64(len(body))
}

func testMounts(t *testing.T, f Factory) {
	l, ctx := f(t), Context(t)
	c := l.Start(l.Spec(""))
	base := c.Spec().IDs.Base
	vol := volume(t)
	must(t, c.Mount(ctx, lxcrt.Mount{Target: "/media/a/b/volume", Kind: lxcrt.MountBind, Source: vol, IDMap: true, NoSuid: true, NoDev: true}))
	equal(t, MustSh(t, c, "cd /media/a/b/volume && stat -c '%n %u' *"), "alice 1000\nroot 0\nweb 33")
	equal(t, MustSh(t, c, "stat -c %u /media/a /media/a/b"), "0\n0")
	MustSh(t, c, "echo mine >/media/a/b/volume/new && chown 33:33 /media/a/b/volume/new")
	var st unix.Stat_t
	must(t, unix.Stat(filepath.Join(vol, "new"), &st))
	equal(t, st.Uid, 33)

	// Without a map the host's ids show: nobody, here.
	must(t, c.Mount(ctx, lxcrt.Mount{Target: "/media/plain", Kind: lxcrt.MountBind, Source: vol}))
	equal(t, MustSh(t, c, "stat -c %u /media/plain/alice"), "65534")
	// A file system that no kernel id-maps is named.
	err := c.Mount(ctx, lxcrt.Mount{Target: "/media/plain", Kind: lxcrt.MountBind, Source: "/proc/sys/fs", IDMap: true, ReadOnly: true})
	is(t, err, lxcrt.ErrNotSupported)
	if text := fmt.Sprint(err); !strings.Contains(text, "source /proc/sys/fs: ") || !strings.Contains(text, " file system proc") {
		t.Error(text)
	}
	// A single file.
	must(t, c.Mount(ctx, lxcrt.Mount{Target: "/etc/one", Kind: lxcrt.MountBind, Source: filepath.Join(vol, "web"), IDMap: true}))
	equal(t, MustSh(t, c, "cat /etc/one"), "web")

	file, offset, size := archive(t)
	must(t, c.Mount(ctx, lxcrt.Mount{Target: "/media/pkg", Kind: lxcrt.MountSquashfs, Source: file, Offset: offset, Size: size, IDMap: true}))
	equal(t, MustSh(t, c, "cat /media/pkg/hello; stat -c %u /media/pkg/hello"), "from the archive\n0")
	if out, st := Sh(t, c, "echo x >/media/pkg/x"); st.Code == 0 {
		t.Errorf("a squashfs was written to: %s", out)
	}

	// Nor does one that was made without padding lose its end, at the file's.
	bare, src := filepath.Join(t.TempDir(), "bare"), t.TempDir()
	must(t, os.WriteFile(filepath.Join(src, "hello"), []byte("without padding\n"), 0o644))
	if out, err := exec.Command("mksquashfs", src, bare, "-nopad", "-all-root", "-quiet", "-no-progress").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	body, err := os.ReadFile(bare)
	must(t, err)
	if len(body)%512 == 0 {
		t.Fatalf("%d bytes are whole sectors", len(body))
	}
	must(t, os.WriteFile(bare, append([]byte("head"), body...), 0o600))
	for i, n := range []int64{int64(len(body)), 0} {
		at := fmt.Sprintf("/media/bare%d", i)
		must(t, c.Mount(ctx, lxcrt.Mount{Target: at, Kind: lxcrt.MountSquashfs, Source: bare, Offset: 4, Size: n, IDMap: true}))
		equal(t, MustSh(t, c, "cat "+at+"/hello; stat -c %u "+at+"/hello"), "without padding\n0")
	}

	scratch := t.TempDir()
	over := lxcrt.Mount{Target: "/media/sub", Kind: lxcrt.MountOverlay, UpperDir: scratch,
		Lower: []lxcrt.Layer{{Path: file, Offset: offset, Size: size}, {Path: vol}}}
	must(t, c.Mount(ctx, over))
	equal(t, MustSh(t, c, "cat /media/sub/hello /media/sub/alice; echo changed >/media/sub/hello; cat /media/sub/hello"), "from the archive\nalice\nchanged")
	must(t, unix.Stat(filepath.Join(scratch, "upper/hello"), &st))
	equal(t, st.Uid, base)
	must(t, c.Mount(ctx, lxcrt.Mount{Target: "/media/look", Kind: lxcrt.MountOverlay, Lower: []lxcrt.Layer{{Path: vol}}}))
	equal(t, MustSh(t, c, "stat -c %u /media/look/alice"), "1000")

	must(t, c.Mount(ctx, lxcrt.Mount{Target: "/media/tmp", Kind: lxcrt.MountTmpfs, TmpfsSize: 1 << 20, Mode: 0o1777}))
	equal(t, MustSh(t, c, "stat -c '%u %a' /media/tmp"), "0 1777")
	if out, st := Sh(t, c, "head -c 3000000 /dev/zero >/media/tmp/big"); st.Code == 0 {
		t.Errorf("3 MB fit into 1: %s", out)
	}
	// In place of what was there before.
	must(t, c.Mount(ctx, lxcrt.Mount{Target: "/media/plain", Kind: lxcrt.MountTmpfs, Replace: true}))
	equal(t, MustSh(t, c, "ls /media/plain; grep -c ' /media/plain ' /proc/mounts"), "1")

	table, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	for _, ours := range []string{vol, scratch, filepath.Dir(file), l.Options.Dir, " lxcrt "} {
		if strings.Contains(string(table), ours) {
			t.Errorf("the host's mount table shows %s", ours)
		}
	}
	for _, target := range []string{"/media/a/b/volume", "/media/plain", "/etc/one", "/media/pkg", "/media/sub", "/media/look", "/media/tmp", "/media/bare0", "/media/bare1"} {
		must(t, c.Unmount(ctx, target))
		is(t, c.Unmount(ctx, target), lxcrt.ErrNotFound)
	}
	equal(t, MustSh(t, c, "grep -c /media /proc/mounts || true"), "0")
	// The upper outlives the mount.
	must(t, c.Mount(ctx, over))
	equal(t, MustSh(t, c, "cat /media/sub/hello"), "changed")
}

func testStartMounts(t *testing.T, f Factory) {
	l := f(t)
	vol := volume(t)
	file, offset, size := archive(t)
	s := l.Spec("cat /media/pkg/hello >/media/vol/seen; trap 'exit 0' TERM; while :; do sleep 1000 & wait $!; done")
	s.Mounts = []lxcrt.Mount{
		{Target: "/media/vol", Kind: lxcrt.MountBind, Source: vol, IDMap: true, NoSuid: true, NoDev: true},
		{Target: "/media/pkg", Kind: lxcrt.MountSquashfs, Source: file, Offset: offset, Size: size, IDMap: true, ReadOnly: true},
		{Target: "/media/vol/ro", Kind: lxcrt.MountBind, Source: vol, IDMap: true, ReadOnly: true},
		{Target: "/etc/release", Kind: lxcrt.MountBind, Source: "/etc/os-release", ReadOnly: true},
	}
	c := l.Start(s)
	eventually(t, func() bool { b, _ := os.ReadFile(filepath.Join(vol, "seen")); return string(b) == "from the archive\n" })
	equal(t, MustSh(t, c, "stat -c %u /media/vol/alice /media/vol/seen /media/vol/ro/alice"), "1000\n0\n1000")
	MustSh(t, c, "grep -q ' /media/vol .*nosuid,nodev' /proc/mounts && grep -q ' /media/vol/ro .* ro[, ]' /proc/mounts")
	if out, st := Sh(t, c, "echo x >/media/vol/ro/x"); st.Code == 0 {
		t.Errorf("read-only was written to: %s", out)
	}
}

func testLockedMounts(t *testing.T, f Factory) {
	l, ctx := f(t), Context(t)
	vol := volume(t)
	s := l.Spec("")
	s.Mounts = []lxcrt.Mount{{Target: "/media/first", Kind: lxcrt.MountBind, Source: vol, IDMap: true, ReadOnly: true, NoSuid: true, NoDev: true}}
	c := l.Start(s)
	must(t, c.Mount(ctx, lxcrt.Mount{Target: "/media/later", Kind: lxcrt.MountBind, Source: vol, IDMap: true, ReadOnly: true, NoSuid: true, NoDev: true}))
	must(t, c.Mount(ctx, lxcrt.Mount{Target: "/media/file", Kind: lxcrt.MountBind, Source: filepath.Join(vol, "root"), IDMap: true, ReadOnly: true}))
	for _, at := range []string{"/media/first", "/media/later", "/media/file"} {
		for _, try := range []string{
			"mount -o remount,bind,rw " + at,
			"mount -o remount,rw " + at,
			"mkdir -p /tmp/again && mount --bind " + at + " /tmp/again && mount -o remount,bind,rw /tmp/again",
			"unshare -m sh -c 'mount -o remount,bind,rw " + at + " && echo x >" + at + "/x'",
			"unshare -Urm sh -c 'mount -o remount,bind,rw " + at + " && echo x >" + at + "/x'",
		} {
			if out, st := Sh(t, c, try); st.Code == 0 && !strings.HasPrefix(try, "mkdir") {
				t.Errorf("%s: went through: %s", try, out)
			} else if st.Code == 0 && at != "/media/file" {
				if out, st := Sh(t, c, "echo x >/tmp/again/x"); st.Code == 0 {
					t.Errorf("%s: went through: %s", try, out)
				}
			}
			_, _ = Sh(t, c, "umount /tmp/again")
		}
	}
	if _, err := os.Stat(filepath.Join(vol, "x")); err == nil {
		t.Error("a read-only volume was written to")
	}
}

func testTargets(t *testing.T, f Factory) {
	l, ctx := f(t), Context(t)
	c := l.Start(l.Spec(""))
	vol := volume(t)
	outside := t.TempDir()
	MustSh(t, c, fmt.Sprintf("mkdir -p /media/x; ln -s %s /media/x/abs; ln -s ../../../../../../../../..%s /media/x/rel; ln -s /proc/1/root /media/x/proc; ln -s /media/real /media/x/in", outside, outside))
	for _, target := range []string{"/media/x/abs/t", "/media/x/rel/t", "/media/x/proc/t", "/media/x/in/t"} {
		err := c.Mount(ctx, lxcrt.Mount{Target: target, Kind: lxcrt.MountBind, Source: vol, IDMap: true})
		if strings.Contains(target, "proc") && err == nil {
			t.Errorf("%s: went through one of proc's own links", target)
		}
	}
	entries, err := os.ReadDir(outside)
	must(t, err)
	if len(entries) > 0 {
		t.Errorf("%s was made outside of the container", entries[0].Name())
	}
	for _, bad := range []string{"relative", "/a/../b", "/", ""} {
		is(t, c.Mount(ctx, lxcrt.Mount{Target: bad, Kind: lxcrt.MountTmpfs}), lxcrt.ErrInvalid)
	}
	// A loop of links ends.
	MustSh(t, c, "ln -s b /media/a; ln -s a /media/b")
	if err := c.Mount(ctx, lxcrt.Mount{Target: "/media/a/t", Kind: lxcrt.MountTmpfs}); err == nil {
		t.Error("a loop of links was followed")
	}
}

func testComposed(t *testing.T, f Factory) {
	l, ctx := f(t), Context(t)
	c := l.Start(l.Spec(""))
	vol := volume(t)
	must(t, c.Mount(ctx, lxcrt.Mount{Target: "/media/v", Kind: lxcrt.MountBind, Source: vol,
		Compose: []lxcrt.IDMapEntry{{From: 0, To: 1000, Range: 1}}}))
	// 0 goes to 1000, which pushes the 1000 on disk out; 33 stays.
	equal(t, MustSh(t, c, "cd /media/v && stat -c '%n %u' *"), "alice 65534\nroot 1000\nweb 33")
	out, err := c.Exec(ctx, lxcrt.ExecSpec{Argv: []string{"/bin/touch", "/media/v/by-alice"}, User: "alice"})
	must(t, err)
	if _, err := out.Wait(); err != nil {
		t.Error(err)
	}
	must(t, os.Chmod(vol, 0o777))
	p, err := c.Exec(ctx, lxcrt.ExecSpec{Argv: []string{"/bin/touch", "/media/v/by-alice"}, User: "alice"})
	must(t, err)
	_, err = p.Wait()
	must(t, err)
	var st unix.Stat_t
	must(t, unix.Stat(filepath.Join(vol, "by-alice"), &st))
	equal(t, st.Uid, 0)
}

func testNested(t *testing.T, f Factory) {
	l, ctx := f(t), Context(t)
	c := l.Start(l.Spec(""))
	// A procfs of a new pid namespace, seen from outside of it.
	equal(t, MustSh(t, c, "mkdir -p /media/p; unshare -pf sh -c 'mount -t proc proc /media/p; cat /media/p/1/comm; echo $$'"), "sh\n1")
	MustSh(t, c, "umount /media/p; unshare -m sh -c 'mount -t sysfs sys /media/p && mount -t tmpfs t /mnt && mkdir /mnt/put && mount --rbind / /media && cd /media && pivot_root . mnt'")
	MustSh(t, c, "unshare -Ur sh -c 'id -u'")
	MustSh(t, c, "unshare -Urmpf sh -c 'mount -t proc proc /proc && mount -t tmpfs t /tmp'")
	MustSh(t, c, "mkdir -p /root/o/l /root/o/m && mount -t tmpfs t /root/o && mkdir /root/o/l /root/o/u /root/o/w /root/o/m && mount -t overlay -o lowerdir=/root/o/l,upperdir=/root/o/u,workdir=/root/o/w o /root/o/m && echo x >/root/o/m/x")
	// What is mounted now reaches namespaces that were made before.
	p, err := c.Exec(ctx, lxcrt.ExecSpec{Argv: []string{"/bin/unshare", "-m", "--propagation", "slave", "/bin/sh", "-c", "echo >/ready; until [ -e /media/late/alice ]; do sleep 0.01; done"}, Env: []string{"PATH=/bin"}})
	must(t, err)
	eventually(t, func() bool { _, st := Sh(t, c, "test -e /ready"); return st.Code == 0 })
	must(t, c.Mount(ctx, lxcrt.Mount{Target: "/media/late", Kind: lxcrt.MountBind, Source: volume(t), IDMap: true}))
	st, err := p.Wait()
	must(t, err)
	equal(t, st.Code, 0)
}
