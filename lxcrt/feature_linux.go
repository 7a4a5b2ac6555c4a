package lxcrt

import (
	_ "embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

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
	AppArmor      bool   // containers run unconfined by it, the user namespace bounds them
	Pressure      bool   // Stats have pressure readings
}

func probe(dir string, h hierarchies) (Features, error) {
	f := Features{Liblxc: liblxc.Version(), UnifiedCgroup: h.cgroup2()}
	if !liblxc.Supported {
		return f, fmt.Errorf("liblxc: %w: %w", ErrNotSupported, liblxc.ErrUnsupported)
	}
	if os.Geteuid() != 0 {
		return f, fmt.Errorf("containers without root: %w", ErrNotSupported)
	}
	if b, err := os.ReadFile("/sys/module/apparmor/parameters/enabled"); err == nil {
		f.AppArmor = strings.TrimSpace(string(b)) == "Y"
	}
	if _, err := os.Stat("/proc/pressure/memory"); err == nil {
		f.Pressure = f.UnifiedCgroup
	}
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
