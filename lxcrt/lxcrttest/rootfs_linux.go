package lxcrttest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

var rootfs struct {
	once      sync.Once
	dir, file string
	err       error
}

// Rootfs returns a folder and a squashfs with the same small system: busybox
// under all its names in /bin, two users, and the usual folders. They are made
// once and stay for the whole run.
func Rootfs(t testing.TB) (dir, squashfs string) {
	t.Helper()
	Need(t, "busybox", "mksquashfs")
	rootfs.once.Do(func() { rootfs.dir, rootfs.file, rootfs.err = makeRootfs() })
	if rootfs.err != nil {
		t.Fatal(rootfs.err)
	}
	return rootfs.dir, rootfs.file
}

func makeRootfs() (dir, file string, err error) {
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return "", "", err
	}
	top, err := os.MkdirTemp("", "lxcrttest-")
	if err != nil {
		return "", "", err
	}
	dir, file = filepath.Join(top, "root"), filepath.Join(top, "root.squashfs")
	for _, d := range []string{"bin", "proc", "sys", "dev", "etc", "tmp", "root", "run", "media", "mnt"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return "", "", err
		}
	}
	data, err := os.ReadFile(busybox)
	if err != nil {
		return "", "", err
	}
	for name, f := range map[string]struct {
		data []byte
		mode os.FileMode
	}{
		"bin/busybox": {data, 0o755},
		"etc/passwd":  {[]byte("root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000:Alice:/home/alice:/bin/sh\n"), 0o644},
		"etc/group":   {[]byte("root:x:0:\nalice:x:1000:\nvideo:x:44:alice\n"), 0o644},
	} {
		if err := os.WriteFile(filepath.Join(dir, name), f.data, f.mode); err != nil {
			return "", "", err
		}
	}
	list, err := exec.Command(busybox, "--list").Output()
	if err != nil {
		return "", "", err
	}
	for applet := range strings.FieldsSeq(string(list)) {
		if applet != "busybox" {
			if err := os.Symlink("busybox", filepath.Join(dir, "bin", applet)); err != nil {
				return "", "", err
			}
		}
	}
	out, err := exec.Command("mksquashfs", dir, file, "-all-root", "-noappend", "-quiet", "-no-progress").CombinedOutput()
	if err != nil {
		return "", "", &os.PathError{Op: "mksquashfs", Path: string(out), Err: err}
	}
	return dir, file, nil
}
