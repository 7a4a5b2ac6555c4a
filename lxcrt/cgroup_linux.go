package lxcrt

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// hierarchies says where the cgroup trees are mounted. In the unified layout
// there is one tree; in the hybrid one, a tree for each controller and a unified
// one without controllers.
type hierarchies struct {
	unified     string            // mount point of cgroup2, or empty
	controllers map[string]string // v1 controller (or "name=systemd") to mount point
}

// findHierarchies reads the mount table of the calling process.
func findHierarchies() (hierarchies, error) {
	h := hierarchies{controllers: map[string]string{}}
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return h, err
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		before, after, ok := strings.Cut(sc.Text(), " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !ok || len(left) < 5 || len(right) < 3 || !strings.HasPrefix(left[4], "/sys/fs/cgroup") {
			continue
		}
		switch right[0] {
		case "cgroup2":
			h.unified = left[4]
		case "cgroup":
			for o := range strings.SplitSeq(right[2], ",") {
				if o != "rw" && o != "ro" && o != "xattr" && o != "clone_children" && !strings.HasPrefix(o, "release_agent") {
					h.controllers[o] = left[4]
				}
			}
		}
	}
	if h.unified == "" && len(h.controllers) == 0 {
		return h, fmt.Errorf("cgroup file system (none is mounted below /sys/fs/cgroup; 'ip netns exec' hides it, 'nsenter --net' does not): %w", ErrNotSupported)
	}
	return h, nil
}

// cgroup2 says whether the unified tree has the controllers.
func (h hierarchies) cgroup2() bool { return h.unified != "" && len(h.controllers) == 0 }

// roots are all distinct mount points.
func (h hierarchies) roots() []string {
	var r []string
	if h.unified != "" {
		r = append(r, h.unified)
	}
	for _, p := range h.controllers {
		r = append(r, p)
	}
	slices.Sort(r)
	return slices.Compact(r)
}

// path of a controller's file for a cgroup, in whatever layout.
func (h hierarchies) path(controller, group, file string) string {
	root := h.unified
	if !h.cgroup2() {
		root = h.controllers[controller]
	}
	if root == "" {
		return ""
	}
	return filepath.Join(root, group, file)
}

// remove takes a cgroup and all below it down in every tree. With kill set, what
// still lives in them is killed first.
func (h hierarchies) remove(group string, kill bool) error {
	var errs []error
	if kill {
		h.thaw(group)
	}
	for _, root := range h.roots() {
		errs = append(errs, removeCgroup(filepath.Join(root, group), kill))
	}
	return errors.Join(errs...)
}

func removeCgroup(dir string, kill bool) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		return err
	}
	if kill {
		killCgroup(dir)
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeCgroup(filepath.Join(dir, e.Name()), kill); err != nil {
				return err
			}
		}
	}
	// A cgroup stays busy for a moment after its last process was killed.
	for try := 0; ; try++ {
		err := unix.Rmdir(dir)
		if err == nil || err == unix.ENOENT {
			return nil
		}
		if err != unix.EBUSY || try == 400 {
			return &os.PathError{Op: "rmdir", Path: dir, Err: err}
		}
		if kill {
			killCgroup(dir)
		}
		pause(try)
	}
}

// killCgroup ends every process in one cgroup: at once where the kernel has
// cgroup.kill, else one by one.
func killCgroup(dir string) {
	if os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0) == nil {
		return
	}
	for _, pid := range cgroupPIDs(dir) {
		_ = unix.Kill(pid, unix.SIGKILL)
	}
}

// thaw lets go what is frozen in a cgroup and below: in the v1 layout nothing that
// is frozen ends, not even when killed. The unified one needs no help.
func (h hierarchies) thaw(group string) {
	root := h.controllers["freezer"]
	if root == "" {
		return
	}
	_ = filepath.WalkDir(filepath.Join(root, group), func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Name() == "freezer.state" {
			_ = os.WriteFile(path, []byte("THAWED"), 0)
		}
		return nil
	})
}

func cgroupPIDs(dir string) []int {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return nil
	}
	var pids []int
	for f := range strings.FieldsSeq(string(b)) {
		if pid, err := strconv.Atoi(f); err == nil && pid > 1 {
			pids = append(pids, pid)
		}
	}
	return pids
}

// warm makes the kernel ready for processes to change cgroups. The first move
// after a pause waits for a grace period of RCU, often longer than all the rest
// of a start; moving this process to where it already is has the wait begin
// before anyone needs it to be over.
func (h hierarchies) warm() {
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return
	}
	for l := range strings.Lines(string(b)) {
		f := strings.SplitN(strings.TrimSpace(l), ":", 3)
		if len(f) != 3 {
			continue
		}
		root := h.controllers[f[1]]
		if f[1] == "" {
			root = h.unified
		}
		if root != "" && os.WriteFile(filepath.Join(root, f[2], "cgroup.procs"), []byte("0"), 0) == nil {
			return
		}
	}
}
