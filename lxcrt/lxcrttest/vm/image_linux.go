package vm

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/selfstead/selfstead/lxcrt/image"
)

// DefaultPackages are what the machine has beside Debian's minimal system: the
// kernel, systemd, and what the tests call. tiny-initramfs stands in for the
// initial file system that the kernel's package wants to make and nobody boots.
var DefaultPackages = []string{
	"linux-image-" + runtime.GOARCH, "tiny-initramfs", "systemd-sysv", "dbus", "udev", "kmod",
	"lxc", "apparmor", "iproute2", "iputils-ping", "nftables", "conntrack", "wireguard-tools",
	"busybox-static", "squashfs-tools", "e2fsprogs", "netbase", "procps", "strace", "ca-certificates", "curl",
}

// noModules are the kernel's modules for hardware that no such machine has:
// more than half of them.
var noModules = []string{"gpu", "media", "scsi", "infiniband", "usb", "iio", "hwmon", "staging", "hid", "platform",
	"input", "ata", "comedi", "mtd", "video", "target", "mmc", "bluetooth", "isdn", "net/ethernet", "net/wireless"}

// excluded are paths that the image goes without.
func excluded() []string {
	out := []string{"/lib/modules/*/kernel/sound/*", "/usr/lib/udev/hwdb.d/*"}
	for _, m := range noModules {
		out = append(out, "/lib/modules/*/kernel/drivers/"+m+"/*")
	}
	return out
}

// ImageOptions tune BuildImage. Cache has to be set.
type ImageOptions struct {
	// Cache is the folder that keeps images. It is made if missing.
	Cache string
	// Suite is the Debian release; empty means "bookworm", whose kernel is 6.1. Test
	// binaries with cgo want the one that they were linked on.
	Suite string
	// Packages are installed; nil means DefaultPackages. A kernel must be among them.
	Packages []string
	// Size of the root file system in bytes; 0 means 8 GiB. What is not used takes no room.
	Size int64
	// Progress is told what goes on.
	Progress func(string)
}

// Image is what a machine boots.
type Image struct {
	Root    string   `json:"-"` // file with the root file system, ext4
	Kernel  string   `json:"-"` // file
	Modules string   `json:"-"` // folder with the kernel modules that the root file system needs
	Order   []string // the modules' file names, in the order to load them
	Release string   // of the kernel
}

// drivers are what the first program needs to mount the root file system and to
// hear the host.
var drivers = []string{"virtio_pci", "virtio_blk", "ext4", "crc32c_generic", "virtio_console", "9p", "9pnet_virtio", "virtio_rng"}

// recipe changes whenever what BuildImage does changes.
const recipe = "1"

// BuildImage returns the image of the wanted packages, making it if there is
// none. It needs root and the programs mmdebstrap, mksquashfs, unsquashfs and
// mkfs.ext4; it takes about half a minute, the download aside. The packages are
// those of the day it was made: remove the cache for newer ones.
func BuildImage(ctx context.Context, o ImageOptions) (*Image, error) {
	if o.Suite == "" {
		o.Suite = "bookworm"
	}
	if o.Packages == nil {
		o.Packages = DefaultPackages
	}
	if o.Size == 0 {
		o.Size = 8 << 30
	}
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	for _, p := range []string{"unsquashfs", "mkfs.ext4"} {
		if _, err := exec.LookPath(p); err != nil {
			return nil, fmt.Errorf("%w: the program %s", ErrNotSupported, p)
		}
	}
	base, err := image.Build(ctx, image.Options{Cache: o.Cache, Suite: o.Suite, Packages: o.Packages, Exclude: excluded(),
		Progress: func(p image.Progress) {
			if p.Step != "" {
				o.Progress(p.Step)
			}
		}})
	if err != nil {
		return nil, fmt.Errorf("vm: %w", err)
	}
	sum, err := os.ReadFile(base + ".sha256")
	if err != nil {
		return nil, fmt.Errorf("vm: %w", err)
	}
	key := sha256.Sum256(fmt.Appendf(nil, "%s %s %d %q", recipe, sum, o.Size, drivers))
	dir := filepath.Join(o.Cache, "vm-"+hex.EncodeToString(key[:10]))
	if im, err := openImage(dir); err == nil {
		return im, nil
	}
	o.Progress("writing the root file system")
	if err := o.makeImage(ctx, base, dir); err != nil {
		return nil, fmt.Errorf("vm: image: %w", err)
	}
	return openImage(dir)
}

// openImage finds an image that was made whole.
func openImage(dir string) (*Image, error) {
	b, err := os.ReadFile(filepath.Join(dir, "image.json"))
	if err != nil {
		return nil, err
	}
	im := &Image{Root: filepath.Join(dir, "root.ext4"), Kernel: filepath.Join(dir, "vmlinuz"), Modules: filepath.Join(dir, "modules")}
	return im, json.Unmarshal(b, im)
}

// makeImage makes the folder dir; it is there whole or not at all.
func (o ImageOptions) makeImage(ctx context.Context, base, dir string) error {
	work, err := os.MkdirTemp(o.Cache, ".vm-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	tree := filepath.Join(work, "tree")
	if err := command(ctx, "unsquashfs", "-q", "-n", "-d", tree, base); err != nil {
		return err
	}
	kernels, err := filepath.Glob(filepath.Join(tree, "boot", "vmlinuz-*"))
	if err != nil || len(kernels) == 0 {
		return fmt.Errorf("%w: an image without a kernel", ErrNotSupported)
	}
	slices.Sort(kernels)
	kernel := kernels[len(kernels)-1]
	im := Image{Release: strings.TrimPrefix(filepath.Base(kernel), "vmlinuz-")}
	out := filepath.Join(work, "image")
	if err := os.MkdirAll(filepath.Join(out, "modules"), 0o755); err != nil {
		return err
	}
	if err := copyFile(kernel, filepath.Join(out, "vmlinuz")); err != nil {
		return err
	}
	from := filepath.Join(tree, "lib", "modules", im.Release)
	files, err := order(from, drivers)
	if err != nil {
		return err
	}
	for _, f := range files {
		im.Order = append(im.Order, path.Base(f))
		if err := copyFile(filepath.Join(from, f), filepath.Join(out, "modules", path.Base(f))); err != nil {
			return err
		}
	}
	root := filepath.Join(out, "root.ext4")
	if err := os.WriteFile(root, nil, 0o644); err != nil {
		return err
	}
	if err := os.Truncate(root, o.Size); err != nil {
		return err
	}
	if err := command(ctx, "mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1,nodiscard", "-d", tree, root); err != nil {
		return err
	}
	b, err := json.Marshal(im)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(out, "image.json"), b, 0o644); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	err = os.Rename(out, dir)
	if errors.Is(err, fs.ErrExist) || errors.Is(err, unix.ENOTEMPTY) {
		return nil // another process was faster
	}
	return err
}

// order returns the files of the modules and of all that they need, each after
// what it needs. A module that the kernel has built in has none.
func order(dir string, names []string) ([]string, error) {
	needs := map[string][]string{}
	byName := map[string]string{}
	f, err := os.Open(filepath.Join(dir, "modules.dep"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	sc := bufio.NewScanner(f)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		file, rest, _ := strings.Cut(sc.Text(), ":")
		needs[file] = strings.Fields(rest)
		name, _, _ := strings.Cut(path.Base(file), ".ko")
		byName[strings.ReplaceAll(name, "-", "_")] = file
	}
	if err := sc.Err(); err != nil {
		return nil, err
	}
	var out []string
	var add func(file string)
	add = func(file string) {
		if slices.Contains(out, file) {
			return
		}
		for _, n := range needs[file] {
			add(n)
		}
		out = append(out, file)
	}
	for _, n := range names {
		if file := byName[n]; file != "" {
			add(file)
		}
	}
	return out, nil
}

// command runs a program that dies with us.
func command(ctx context.Context, name string, args ...string) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(string(out)))
	}
	return nil
}

func copyFile(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o644)
}
