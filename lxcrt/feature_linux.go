package lxcrt

import (
	_ "embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/selfstead/selfstead/lxcrt/internal/liblxc"
)

// probeImage is a squashfs with one empty folder.
//
//go:embed probe.squashfs
var probeImage []byte

// Features says what this machine can do and which way is taken.
type Features struct {
	Liblxc        string // version of liblxc
	MappedImages  bool   // squashfs can be id-mapped; else images are unpacked once
	UnifiedCgroup bool   // cgroup v2 has the controllers; else the v1 trees are used
	AppArmor      bool   // containers run under a profile of this runtime's
	NoAppArmor    string // why they do not, where it is so
	Pressure      bool   // Stats have pressure readings
	SwapLimit     bool   // swap is accounted for, so that Limits.Swap holds
	IOLimit       bool   // Limits.IO can be set; see there for what v1 does not bind
	IOWeight      bool   // the kernel has a file for Limits.IO.Weight
}

// probeHook, in tests, takes from what was found, to have the other way taken.
var probeHook func(*Features)

// allow refuses limits that nothing here would keep. Swap and weights only say
// less where the kernel does not know them.
func (f Features) allow(l Limits) error {
	if l.IO.bounded() && !f.IOLimit {
		return fmt.Errorf("limits of I/O: %w", ErrNotSupported)
	}
	return nil
}

func probe(dir, parent string, h hierarchies) (Features, error) {
	f := Features{Liblxc: liblxc.Version(), UnifiedCgroup: h.cgroup2()}
	if !liblxc.Supported {
		return f, fmt.Errorf("liblxc: %w: %w", ErrNotSupported, liblxc.ErrUnsupported)
	}
	if os.Geteuid() != 0 {
		return f, fmt.Errorf("containers without root: %w", ErrNotSupported)
	}
	if _, err := os.Stat("/proc/pressure/memory"); err == nil {
		f.Pressure = f.UnifiedCgroup
	}
	f.SwapLimit, f.IOLimit, f.IOWeight = cgroupFiles(parent, h)
	mapped, err := mapsSquashfs(dir)
	f.MappedImages = mapped
	return f, err
}

// mapsSquashfs tries to id-map a squashfs, which kernels before 6.2 or so refuse.
func mapsSquashfs(dir string) (bool, error) {
	file := filepath.Join(dir, ".probe.squashfs")
	if err := os.WriteFile(file, probeImage, 0o600); err != nil {
		return false, err
	}
	defer os.Remove(file)
	tree, err := squashfsTree(file, 0, 0)
	if err != nil {
		return false, fmt.Errorf("squashfs: %w: %w", ErrNotSupported, err)
	}
	defer unix.Close(tree)
	userns, err := idmapNamespace([]extent{{0, 100000, 65536}})
	if err != nil {
		return false, fmt.Errorf("user namespaces: %w: %w", ErrNotSupported, err)
	}
	defer userns.Close()
	err = setTree(tree, false, 0, userns)
	if errors.Is(err, unix.EINVAL) {
		return false, nil
	}
	return err == nil, err
}

// cgroupFiles looks at what a cgroup of ours has: the roots do not have all of it.
func cgroupFiles(parent string, h hierarchies) (swap, io, weight bool) {
	if h.cgroup2() {
		// As liblxc does at the first start; a controller that is missing stays so.
		for _, c := range []string{"+memory", "+io", "+cpu", "+pids"} {
			_ = os.WriteFile(filepath.Join(h.unified, "cgroup.subtree_control"), []byte(c), 0)
		}
	}
	for _, c := range []string{"memory", "blkio", ""} {
		root := h.unified
		if c != "" {
			root = h.controllers[c]
		}
		if root == "" || os.Mkdir(filepath.Join(root, parent), 0o755) != nil {
			continue // there already: then it has containers, and stays
		}
		defer func() { _ = unix.Rmdir(filepath.Join(root, parent)) }()
	}
	if h.cgroup2() {
		return h.has("", parent, "memory.swap.max"), h.has("", parent, "io.max"),
			h.has("", parent, "io.weight") || h.has("", parent, "io.bfq.weight")
	}
	return h.has("memory", parent, "memory.memsw.limit_in_bytes"), h.has("blkio", parent, "blkio.throttle.read_bps_device"),
		h.has("blkio", parent, "blkio.bfq.weight")
}
