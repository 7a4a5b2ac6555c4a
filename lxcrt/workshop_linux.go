package lxcrt

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// A workshop is a mount namespace that holds nothing of the host: one tmpfs in
// which overlays are put together (overlayfs wants its layers attached
// somewhere), and in which each squashfs in use stands mounted once, so that
// containers of the same image share its loop device and its cached pages.
type workshop struct {
	ns   *os.File
	next atomic.Uint64
	busy calls // threads that still work, or take something down

	mu     sync.Mutex
	images map[imageKey]*image // guarded by mu
}

// calls counts what has begun and not ended, so that one can wait for all that
// began before and for nothing that begins meanwhile. A WaitGroup alone cannot:
// it must not be added to while somebody waits.
type calls struct {
	mu  sync.Mutex
	now *sync.WaitGroup // guarded by mu; those that began since the last wait
}

// begin counts one more; the caller calls what it returns at the end.
func (c *calls) begin() (done func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.now == nil {
		c.now = new(sync.WaitGroup)
	}
	c.now.Add(1)
	return c.now.Done
}

// wait returns when all that began before have ended. One caller at a time: a
// second one would not wait for those that the first one waits for.
func (c *calls) wait() {
	c.mu.Lock()
	before := c.now
	c.now = nil
	c.mu.Unlock()
	if before != nil {
		before.Wait()
	}
}

// imageKey identifies the bytes of a mounted squashfs.
type imageKey struct {
	dev, ino           uint64
	mtime, offset, len int64
}

type image struct {
	path  string // inside the workshop
	users map[string]bool
}

// newWorkshop makes the namespace; dir is any folder to build it on, which does
// not change.
func newWorkshop(dir string) (*workshop, error) {
	w := &workshop{images: map[imageKey]*image{}}
	err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("mount namespace: %w", err)
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return fmt.Errorf("mount propagation: %w", err)
		}
		ns, err := os.Open(fmt.Sprintf("/proc/%d/task/%d/ns/mnt", os.Getpid(), unix.Gettid()))
		if err != nil {
			return err
		}
		proc, err := bindTree("/proc", false)
		if err == nil {
			defer unix.Close(proc)
			err = w.enclose(dir, proc)
		}
		if err != nil {
			ns.Close()
			return err
		}
		w.ns = ns
		return nil
	})
	if err != nil {
		return nil, err
	}
	return w, nil
}

func (w *workshop) enclose(dir string, proc int) error {
	if err := unix.Mount("lxcrt", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755,size=1m"); err != nil {
		return fmt.Errorf("workshop: %w", err)
	}
	if err := unix.Chdir(dir); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("workshop root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("workshop: leave the host: %w", err)
	}
	if err := unix.Mkdir("/proc", 0o700); err != nil {
		return err
	}
	return unix.MoveMount(proc, "", unix.AT_FDCWD, "/proc", unix.MOVE_MOUNT_F_EMPTY_PATH)
}

// do runs fn inside the workshop with a folder of its own. What fn leaves attached
// below it is taken down afterwards, which nobody waits for: the kernel takes its
// time, and whoever needs one of the mounts holds a clone.
func (w *workshop) do(fn func(dir string) error) error {
	var dir string
	enter := func() error { return unix.Setns(int(w.ns.Fd()), unix.CLONE_NEWNS) }
	done := w.busy.begin()
	return onThreadThen(func() error {
		if err := enter(); err != nil {
			return fmt.Errorf("enter the workshop: %w", err)
		}
		d := "/" + strconv.FormatUint(w.next.Add(1), 36)
		if err := unix.Mkdir(d, 0o755); err != nil {
			return err
		}
		dir = d
		return fn(d)
	}, func() {
		defer done()
		if dir == "" || enter() != nil { // fn may have gone elsewhere
			return
		}
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			p := filepath.Join(dir, e.Name())
			for unix.Unmount(p, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) == nil {
			}
			_ = os.Remove(p)
		}
		_ = unix.Rmdir(dir)
	})
}

// place attaches a tree to a new folder (or file, as the tree is) dir/name.
func place(tree int, dir, name string) (string, error) {
	p := filepath.Join(dir, name)
	folder, err := isDir(tree)
	if err != nil {
		return "", err
	}
	if folder {
		err = unix.Mkdir(p, 0o755)
	} else {
		err = unix.Mknod(p, unix.S_IFREG|0o644, 0)
	}
	if err != nil {
		return "", err
	}
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, p, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return "", fmt.Errorf("place %s: %w", name, err)
	}
	return p, nil
}

// clone returns a detached copy of what is attached at a path of the workshop.
func cloneAt(path string) (int, error) { return bindTree(path, true) }

// squashfs returns a detached clone of a squashfs, mounting it unless it already
// is. The image stays mounted while user holds it, see release.
func (w *workshop) squashfs(file string, offset, size int64, user string) (int, error) {
	if err := padEnd(file, offset, size); err != nil { // which would change the key
		return -1, err
	}
	var st unix.Stat_t
	if err := unix.Stat(file, &st); err != nil {
		return -1, &os.PathError{Op: "stat", Path: file, Err: err}
	}
	key := imageKey{uint64(st.Dev), st.Ino, st.Mtim.Nano(), offset, size}
	w.mu.Lock()
	defer w.mu.Unlock()
	img := w.images[key]
	if img == nil {
		tree, err := squashfsTree(file, offset, size)
		if err != nil {
			return -1, err
		}
		defer unix.Close(tree)
		img = &image{path: "/image-" + strconv.FormatUint(w.next.Add(1), 36), users: map[string]bool{}}
		if err := w.do(func(string) error { _, err := place(tree, "/", img.path[1:]); return err }); err != nil {
			return -1, err
		}
		w.images[key] = img
	}
	img.users[user] = true
	fd := -1
	err := w.do(func(string) error {
		var err error
		fd, err = bindTree(img.path, false)
		return err
	})
	return fd, err
}

// release forgets a user; images without one are unmounted. Containers that run
// hold clones of their own, so this never takes anything away from them.
func (w *workshop) release(user string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var gone []string
	for key, img := range w.images {
		delete(img.users, user)
		if len(img.users) == 0 {
			gone = append(gone, img.path)
			delete(w.images, key)
		}
	}
	if len(gone) == 0 {
		return
	}
	w.busy.wait() // a layer of one may still be attached somewhere
	_ = w.do(func(string) error {
		for _, p := range gone {
			_ = unix.Unmount(p, unix.MNT_DETACH)
			_ = unix.Rmdir(p)
		}
		return nil
	})
}

// overlay makes an overlay of detached layers, topmost first. upper is a
// detached bind of a folder that holds "upper" and "work", or -1.
func (w *workshop) overlay(layers []int, upper int, attrs int) (int, error) {
	fd := -1
	err := w.do(func(dir string) error {
		var paths []string
		for i, l := range layers {
			p, err := place(l, dir, "l"+strconv.Itoa(i))
			if err != nil {
				return err
			}
			paths = append(paths, p)
		}
		var options [][2]string
		if upper >= 0 {
			p, err := place(upper, dir, "u")
			if err != nil {
				return err
			}
			options = append(options, [2]string{"upperdir", p + "/upper"}, [2]string{"workdir", p + "/work"})
		} else if len(paths) == 1 {
			// overlayfs refuses a single layer without an upper.
			empty := filepath.Join(dir, "empty")
			if err := unix.Mkdir(empty, 0o755); err != nil {
				return err
			}
			paths = append(paths, empty)
		}
		options = append(options, [2]string{"lowerdir", strings.Join(paths, ":")}, [2]string{"source", "lxcrt"})
		var err error
		fd, err = fsTree("overlay", attrs, options...)
		return err
	})
	return fd, err
}

// lock returns a copy of a detached tree whose read-only, nosuid and nodev
// attributes nobody inside a user namespace can take off again. The kernel locks
// them when a mount is copied into a mount namespace of another user namespace,
// so a child makes such a namespace, and the copy is taken from there.
func (w *workshop) lock(tree int, ids IDRange) (int, error) {
	fd := -1
	err := w.do(func(dir string) error {
		p, err := place(tree, dir, "t")
		if err != nil {
			return err
		}
		return heldChild(plainMap(ids), unix.CLONE_NEWNS, func(pid int) error {
			ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/mnt", pid))
			if err != nil {
				return err
			}
			defer ns.Close()
			if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNS); err != nil {
				return fmt.Errorf("enter the copy: %w", err)
			}
			fd, err = cloneAt(p)
			return err
		})
	})
	if err != nil {
		return -1, fmt.Errorf("lock mount attributes: %w", err)
	}
	return fd, nil
}

func (w *workshop) close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.busy.wait()
	clear(w.images)
	err := w.ns.Close()
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}
