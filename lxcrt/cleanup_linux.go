package lxcrt

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/selfstead/selfstead/lxcrt/internal/liblxc"
)

// CleanUp removes whatever a dead process left that nobody wants: containers
// that keep does not name, running or not, and half-made or half-removed ones;
// monitors and processes in our cgroups; mounts and loop devices on our folders;
// our links, elements of our table, cgroups, lock files. It touches nothing
// outside of what Options names, and waits for what it ends. A nil keep keeps
// every container that is whole.
//
// It is meant for the beginning, before the first Create; containers that this
// Runtime holds already are kept as well.
func (r *Runtime) CleanUp(ctx context.Context, keep func(name string) bool) error {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return &Error{Op: "clean up", Err: ErrClosed}
	}
	held := map[string]bool{}
	for name := range r.containers {
		held[name] = true
	}
	r.mu.Unlock()
	kept := func(name string) bool {
		if held[name] {
			return true
		}
		_, err := r.readSpec(name)
		return err == nil && (keep == nil || keep(name))
	}
	entries, err := os.ReadDir(r.o.Dir)
	if err != nil {
		return &Error{Op: "clean up", Err: err}
	}
	var errs []error
	links := map[string]bool{}
	groups := map[string]bool{}
	var gone []string
	for _, e := range entries {
		if !validName(e.Name()) {
			continue // our own files begin with a dot; others are not ours
		}
		if kept(e.Name()) {
			links[linkName(r.net.prefix, e.Name())] = true
			groups[e.Name()] = true
			continue
		}
		gone = append(gone, e.Name())
		if rec, err := readRecord(filepath.Join(r.o.Dir, e.Name())); err == nil {
			r.trees.thaw(r.o.CgroupParent + "/" + e.Name())
			endProcess(rec.Monitor)
			endProcess(rec.Init)
			r.awaitLogger(e.Name(), rec.Logger)
		}
	}
	errs = append(errs, r.endMonitors(kept))
	errs = append(errs, r.strayCgroups(groups))
	errs = append(errs, r.net.strays(links, r.log))
	for _, name := range gone {
		if err := ctx.Err(); err != nil {
			errs = append(errs, err)
			break
		}
		dir := filepath.Join(r.o.Dir, name)
		r.log.Warn("removing a left container", "container", name)
		errs = append(errs, unmountBelow(dir), freeLoops(dir), r.erase(name, true))
	}
	errs = append(errs, r.net.wall.only(kept), r.strayLocks(kept))
	if r.images != nil {
		errs = append(errs, r.images.sweep(kept))
	}
	if err := errors.Join(errs...); err != nil {
		return &Error{Op: "clean up", Err: err}
	}
	return nil
}

// endMonitors kills starters of this Dir that no record names: one whose caller
// died before it could write. They are known by their arguments, as they were
// executed by us: the marker, and the container's folder below Dir.
func (r *Runtime) endMonitors(kept func(string) bool) error {
	procs, err := os.ReadDir("/proc")
	if err != nil {
		return err
	}
	for _, p := range procs {
		var pid int
		if _, err := fmt.Sscanf(p.Name(), "%d", &pid); err != nil || pid <= 1 {
			continue
		}
		id, err := identify(pid) // before the arguments: if they are ours, so is this
		if err != nil {
			continue
		}
		b, err := os.ReadFile(filepath.Join("/proc", p.Name(), "cmdline"))
		if err != nil {
			continue
		}
		args := strings.Split(string(b), "\x00")
		if len(args) < 5 || args[0] != liblxc.Marker || args[1] != "start" || filepath.Dir(args[3]) != r.o.Dir {
			continue
		}
		if kept(args[2]) {
			if rec, err := readRecord(args[3]); err == nil && rec.Monitor == id {
				continue
			}
			if r.holds(args[2]) {
				continue
			}
		}
		r.log.Warn("ending a stray monitor", "container", args[2], "pid", pid)
		endProcess(id)
	}
	return nil
}

func (r *Runtime) holds(name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.containers[name] != nil
}

// strayCgroups removes every cgroup below our parent whose name is not kept.
func (r *Runtime) strayCgroups(kept map[string]bool) error {
	var errs []error
	var names []string
	for _, root := range r.trees.roots() {
		entries, err := os.ReadDir(filepath.Join(root, r.o.CgroupParent))
		if err != nil {
			continue
		}
		for _, e := range entries {
			if e.IsDir() && !kept[e.Name()] {
				names = append(names, e.Name())
			}
		}
	}
	slices.Sort(names)
	for _, n := range slices.Compact(names) {
		errs = append(errs, r.trees.remove(filepath.Join(r.o.CgroupParent, n), true))
	}
	return errors.Join(errs...)
}

// strayLocks removes liblxc's lock files of containers that are not kept.
func (r *Runtime) strayLocks(kept func(string) bool) error {
	path := liblxc.Path(r.o.Dir)
	entries, err := os.ReadDir(filepath.Join("/run/lxc/lock", path))
	if err != nil {
		return nil // none was ever made
	}
	var errs []error
	for _, e := range entries {
		if name := strings.TrimPrefix(e.Name(), "."); !kept(name) {
			errs = append(errs, removeLocks(path, name))
		}
	}
	return errors.Join(errs...)
}

// unmountBelow detaches what is mounted at or below a folder in this process's
// mount namespace, the last first. We never mount there; a person may have, to
// look into a container.
func unmountBelow(dir string) error {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	defer f.Close()
	var places []string
	for sc := bufio.NewScanner(f); sc.Scan(); {
		fields := strings.Fields(sc.Text())
		if len(fields) < 5 {
			continue
		}
		place := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(fields[4])
		if place == dir || strings.HasPrefix(place, dir+"/") {
			places = append(places, place)
		}
	}
	var errs []error
	for _, p := range slices.Backward(places) {
		if err := unix.Unmount(p, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && err != unix.EINVAL {
			errs = append(errs, &os.PathError{Op: "unmount", Path: p, Err: err})
		}
	}
	return errors.Join(errs...)
}

// freeLoops lets go of loop devices on files below a folder.
func freeLoops(dir string) error {
	files, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return err
	}
	var errs []error
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil || !strings.HasPrefix(strings.TrimSuffix(string(b), "\n"), dir+"/") {
			continue
		}
		name := strings.Split(f, "/")[3]
		dev, err := os.OpenFile("/dev/"+name, os.O_RDONLY, 0)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if err := unix.IoctlSetInt(int(dev.Fd()), unix.LOOP_CLR_FD, 0); err != nil && err != unix.ENXIO {
			errs = append(errs, &os.PathError{Op: "clear", Path: "/dev/" + name, Err: err})
		}
		dev.Close()
	}
	return errors.Join(errs...)
}
