package lxcrt

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/selfstead/selfstead/lxcrt/internal/liblxc"
)

// SetLimits changes the limits, at once where the container runs, and for every
// later start. On an error the old ones are put back.
func (c *Container) SetLimits(ctx context.Context, l Limits) error {
	if why := l.check(); why != "" {
		return c.fail("limits", fmt.Errorf("%w: %s", ErrInvalid, why))
	}
	if err := c.r.features.allow(l); err != nil {
		return c.fail("limits", err)
	}
	c.op.Lock()
	defer c.op.Unlock()
	if err := ctx.Err(); err != nil {
		return c.fail("limits", err)
	}
	if c.r.isClosed() {
		return c.fail("limits", ErrClosed)
	}
	c.mu.Lock()
	killed, runs, old := c.killed, c.run != nil && c.state != Stopped, c.spec.Limits
	c.mu.Unlock()
	if killed {
		return c.fail("limits", ErrNotFound)
	}
	if runs {
		if err := c.limit(l, false); err != nil {
			return c.fail("limits", errors.Join(err, c.limit(old, false)))
		}
	}
	c.mu.Lock()
	c.spec.Limits = l
	c.mu.Unlock()
	if err := c.write(); err != nil {
		c.mu.Lock()
		c.spec.Limits = old
		c.mu.Unlock()
		if runs {
			err = errors.Join(err, c.limit(old, false))
		}
		return c.fail("limits", err)
	}
	return nil
}

// write brings configuration and spec to the container's folder, the spec last.
func (c *Container) write() error {
	s := c.Spec()
	if err := c.configure(); err != nil {
		return err
	}
	spec, err := json.Marshal(s)
	if err != nil {
		return err
	}
	file := filepath.Join(c.dir, specFile)
	if err := writeFile(file, spec, 0o600); err != nil {
		return err
	}
	c.r.watchers.Go(func() { flush(file) })
	return nil
}

// configure writes the configuration, unless it stands there as it should. It is
// looked at before each start, since a later version of this package, or the same
// on another kernel, may want it otherwise.
func (c *Container) configure() error {
	s := c.Spec()
	items := c.r.host.config(s)
	text := []byte(liblxc.Render(items))
	file := filepath.Join(c.dir, "config")
	if old, err := os.ReadFile(file); err == nil && bytes.Equal(old, text) {
		return nil
	}
	if err := liblxc.Check(liblxc.Path(c.r.o.Dir), s.Name, items); err != nil {
		return err
	}
	return writeFile(file, text, 0o600)
}

// limit writes limits to the container's cgroups: the payload, where liblxc has
// put all but those of I/O when it starts, and the part inside, so that a program
// which looks finds them. With fresh set, what is at its default is left out.
func (c *Container) limit(l Limits, fresh bool) error {
	unified := c.r.trees.cgroup2()
	payload := c.payload()
	inner := payload + "/" + innerGroup
	var todo []placement
	for _, s := range l.settings(unified, c.r.features.SwapLimit) {
		if fresh && !s.set {
			continue
		}
		if !fresh {
			todo = append(todo, placement{payload, s})
		}
		if !s.share && c.r.trees.has(s.controller, inner, s.file) {
			todo = append(todo, placement{inner, s})
		}
	}
	for _, s := range l.IO.weights(unified) {
		if (s.set || !fresh) && c.r.trees.has(s.controller, payload, s.file) {
			todo = append(todo, placement{payload, s})
		}
	}
	if l.IO.bounded() || !fresh {
		groups := []string{payload}
		if !unified {
			// Throttling of v1 knows no hierarchy: each cgroup is bound by itself.
			groups = append(groups, inner)
		}
		for _, disk := range c.disks() {
			for _, s := range l.IO.settings(unified, disk) {
				for _, g := range groups {
					if s.set || !fresh && c.r.trees.has(s.controller, g, s.file) {
						todo = append(todo, placement{g, s})
					}
				}
			}
		}
	}
	// Some values must not pass each other, in an order that depends on whether
	// they grow or shrink: so what is refused is tried again after the others.
	for range 2 {
		var again []placement
		var errs []error
		for _, p := range todo {
			if err := c.r.trees.write(p); err != nil {
				again, errs = append(again, p), append(errs, err)
			}
		}
		if todo = again; len(todo) == 0 {
			return nil
		}
		if err := errors.Join(errs...); len(again) == 0 || errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	var errs []error
	for _, p := range todo {
		errs = append(errs, c.r.trees.write(p))
	}
	return errors.Join(errs...)
}

// placement is a setting in a cgroup.
type placement struct {
	group string
	setting
}

func (h hierarchies) write(p placement) error {
	file := h.path(p.controller, p.group, p.file)
	if file == "" {
		return fmt.Errorf("limit %s: controller %s: %w", p.file, p.controller, ErrNotSupported)
	}
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteString(p.value); err != nil {
		return fmt.Errorf("limit %s of %s: %w", p.value, p.group, err)
	}
	return nil
}

func (h hierarchies) has(controller, group, file string) bool {
	p := h.path(controller, group, file)
	if p == "" {
		return false
	}
	_, err := os.Stat(p)
	return err == nil
}

// disks are the numbers of the disks under the container's folder, its layers and
// the sources of its mounts, also of those that were added while it runs.
func (c *Container) disks() []string {
	s := c.Spec()
	paths := []string{c.dir}
	layers := func(l []Layer) {
		for _, l := range l {
			paths = append(paths, l.Path)
		}
	}
	layers(s.Layers)
	c.mu.Lock()
	mounts := slices.Concat(s.Mounts, c.added)
	c.mu.Unlock()
	for _, m := range mounts {
		if m.Source != "" {
			paths = append(paths, m.Source)
		}
		if m.UpperDir != "" {
			paths = append(paths, m.UpperDir)
		}
		layers(m.Lower)
	}
	var disks []string
	for _, p := range paths {
		if d := diskOf(p); d != "" {
			disks = append(disks, d)
		}
	}
	if s.UpperSize > 0 {
		// What goes through a loop device is written to its file by the kernel, in
		// the v1 layout on nobody's account.
		disks = append(disks, loopsOf(filepath.Join(c.dir, upperFile))...)
	}
	slices.Sort(disks)
	return slices.Compact(disks)
}

// loopsOf returns "major:minor" of the loop devices on a file.
func loopsOf(file string) []string {
	backing, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	var loops []string
	for _, b := range backing {
		if name, err := os.ReadFile(b); err != nil || strings.TrimSuffix(string(name), "\n") != file {
			continue
		}
		if dev, err := os.ReadFile(filepath.Join(filepath.Dir(b), "../dev")); err == nil {
			loops = append(loops, strings.TrimSpace(string(dev)))
		}
	}
	return loops
}

// diskOf returns "major:minor" of the whole disk that a file stands on, or "" for
// one that stands on none (tmpfs, a network, a pool of several).
func diskOf(path string) string {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return ""
	}
	dev := st.Dev
	if unix.Major(dev) == 0 { // a file system with a number of its own: btrfs
		if dev = mountedFrom(path); dev == 0 {
			return ""
		}
	}
	dir, err := filepath.EvalSymlinks(fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(dev), unix.Minor(dev)))
	if err != nil {
		return ""
	}
	if _, err := os.Stat(filepath.Join(dir, "partition")); err == nil {
		dir = filepath.Dir(dir)
	}
	b, err := os.ReadFile(filepath.Join(dir, "dev"))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// mountedFrom is the device that the mount table names for a path.
func mountedFrom(path string) uint64 {
	var sx unix.Statx_t
	if unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_MNT_ID, &sx) != nil {
		return 0
	}
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return 0
	}
	id := strconv.FormatUint(sx.Mnt_id, 10)
	for l := range strings.Lines(string(b)) {
		before, after, ok := strings.Cut(l, " - ")
		f := strings.Fields(after)
		if !ok || len(f) < 2 || !strings.HasPrefix(before, id+" ") || !strings.HasPrefix(f[1], "/dev/") {
			continue
		}
		var st unix.Stat_t
		if unix.Stat(f[1], &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFBLK {
			return st.Rdev
		}
	}
	return 0
}

// settle does what liblxc leaves to do in the cgroups of a container whose PID 1
// is about to be executed.
func (c *Container) settle() error {
	if root := c.r.trees.controllers["blkio"]; root != "" && !c.r.trees.cgroup2() {
		// It was given to container root, who could make a cgroup of his own in it,
		// which throttling would not reach.
		for _, g := range []string{"", innerGroup} {
			if err := os.Lchown(filepath.Join(root, c.payload(), g), 0, 0); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
	}
	return c.limit(c.Spec().Limits, true)
}
