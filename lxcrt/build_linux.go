package lxcrt

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// builder makes the detached trees of one container.
type builder struct {
	shop   *workshop
	images *unpacked // where squashfs cannot be id-mapped; nil where it can
	user   string
	ids    IDRange
	userns *os.File // the container's plain map
}

// layer returns a layer's tree, id-mapped unless it is plain.
func (b *builder) layer(ctx context.Context, l Layer) (int, error) {
	st, err := os.Stat(l.Path)
	if err != nil {
		return -1, err
	}
	userns := b.userns
	if l.Plain {
		userns = nil
	}
	var tree int
	switch {
	case st.IsDir():
		tree, err = bindTree(l.Path, false)
	case userns != nil && b.images != nil:
		var dir string
		if dir, err = b.images.folder(ctx, l.Path, l.Offset, l.Size, b.user); err == nil {
			tree, err = bindTree(dir, false)
		}
	default:
		tree, err = b.shop.squashfs(l.Path, l.Offset, l.Size, b.user)
	}
	if err != nil {
		return -1, err
	}
	if err := setTree(tree, false, unix.MOUNT_ATTR_RDONLY, userns); err != nil {
		unix.Close(tree)
		return -1, fmt.Errorf("layer %s: %w", l.Path, err)
	}
	return tree, nil
}

// overlay returns the tree of an overlay over layers; upperDir may be empty.
func (b *builder) overlay(ctx context.Context, layers []Layer, upperDir string, attrs int) (int, error) {
	if upperDir == "" {
		return b.stack(ctx, layers, -1, attrs)
	}
	if err := makeUpper(upperDir, b.ids); err != nil {
		return -1, err
	}
	upper, err := bindTree(upperDir, false)
	if err != nil {
		return -1, err
	}
	defer unix.Close(upper)
	return b.stack(ctx, layers, upper, attrs)
}

// stack is overlay with the tree of the upper, or -1.
func (b *builder) stack(ctx context.Context, layers []Layer, upper int, attrs int) (int, error) {
	var trees []int
	defer func() {
		for _, t := range trees {
			unix.Close(t)
		}
	}()
	for _, l := range layers {
		t, err := b.layer(ctx, l)
		if err != nil {
			return -1, err
		}
		trees = append(trees, t)
	}
	return b.shop.overlay(trees, upper, attrs)
}

// upperFile is an upper of limited size, below a container's folder.
const upperFile = "upper.ext4"

// upper returns the tree that holds the root's upper: the container's folder, or
// a file system of limited size in a file there, which is made the first time.
func (b *builder) upper(ctx context.Context, s Spec, dir string) (int, error) {
	if s.UpperSize == 0 {
		if err := makeUpper(dir, b.ids); err != nil {
			return -1, err
		}
		return bindTree(dir, false)
	}
	file := filepath.Join(dir, upperFile)
	if _, err := os.Stat(file); errors.Is(err, os.ErrNotExist) {
		if err := makeExt4(ctx, file, s.UpperSize); err != nil {
			return -1, fmt.Errorf("upper of limited size: %w", err)
		}
	}
	loop, err := attachLoop(file, 0, 0, true)
	if err != nil {
		return -1, err
	}
	defer loop.Close()
	tree, err := fsTree("ext4", unix.MOUNT_ATTR_NODEV, [2]string{"source", loop.Name()})
	if err != nil {
		return -1, err
	}
	defer unix.Close(tree)
	clone := -1
	err = b.shop.do(func(work string) error {
		p, err := place(tree, work, "upper")
		if err != nil {
			return err
		}
		if err := makeUpper(p, b.ids); err != nil {
			return err
		}
		clone, err = cloneAt(p)
		return err
	})
	return clone, err
}

// makeExt4 makes a sparse file with an empty file system, whole or not at all.
func makeExt4(ctx context.Context, file string, size int64) error {
	tmp := file + ".new"
	defer os.Remove(tmp)
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	err = f.Truncate(size)
	f.Close()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard", tmp)
	if out, err := cmd.CombinedOutput(); err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			return fmt.Errorf("mkfs.ext4 (package e2fsprogs): %w: %w", ErrNotSupported, err)
		}
		return fmt.Errorf("mkfs.ext4: %w: %s", err, out)
	}
	return os.Rename(tmp, file)
}

// makeUpper makes the two folders of an overlay; the upper belongs to container
// root, since it becomes the root folder of the mount.
func makeUpper(dir string, ids IDRange) error {
	if err := os.Mkdir(filepath.Join(dir, "work"), 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	upper := filepath.Join(dir, "upper")
	err := os.Mkdir(upper, 0o755)
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return os.Chown(upper, int(ids.Base), int(ids.Base))
}

// mount returns the finished tree of a mount; lock says whether its attributes
// still have to be locked against the container, which a start does by itself.
func (b *builder) mount(ctx context.Context, m Mount, lock bool) (int, error) {
	var attrs uint64
	if m.ReadOnly {
		attrs |= unix.MOUNT_ATTR_RDONLY
	}
	if m.NoSuid {
		attrs |= unix.MOUNT_ATTR_NOSUID
	}
	if m.NoDev {
		attrs |= unix.MOUNT_ATTR_NODEV
	}
	tree, recursive, err := -1, false, error(nil)
	var userns *os.File
	if m.IDMap || len(m.Compose) > 0 {
		userns = b.userns
		if len(m.Compose) > 0 {
			if userns, err = idmapNamespace(composeMap(b.ids, m.Compose)); err != nil {
				return -1, err
			}
			defer userns.Close()
		}
	}
	switch m.Kind {
	case MountBind:
		if userns != nil && !m.ReadOnly {
			if err := guarded(m.Source); err != nil {
				return -1, err
			}
		}
		recursive = m.Recursive
		tree, err = bindTree(m.Source, recursive)
	case MountSquashfs:
		if userns != nil && b.images != nil {
			var dir string
			if dir, err = b.images.folder(ctx, m.Source, m.Offset, m.Size, b.user); err == nil {
				tree, err = bindTree(dir, false)
			}
		} else {
			tree, err = b.shop.squashfs(m.Source, m.Offset, m.Size, b.user)
		}
		attrs |= unix.MOUNT_ATTR_RDONLY
	case MountOverlay:
		tree, err = b.overlay(ctx, m.Lower, m.UpperDir, 0)
		userns = nil
	case MountTmpfs:
		mode := m.Mode
		if mode == 0 {
			mode = 0o755
		}
		options := [][2]string{{"mode", fmt.Sprintf("%o", mode)}, {"uid", fmt.Sprint(b.ids.Base)}, {"gid", fmt.Sprint(b.ids.Base)}}
		if m.TmpfsSize > 0 {
			options = append(options, [2]string{"size", fmt.Sprint(m.TmpfsSize)})
		}
		tree, err = fsTree("tmpfs", 0, options...)
		userns = nil
	}
	if err != nil {
		return -1, err
	}
	if err := setTree(tree, recursive, attrs, userns); err != nil {
		unix.Close(tree)
		if m.Source != "" {
			err = fmt.Errorf("source %s: %w", m.Source, err)
		}
		return -1, err
	}
	if !lock || attrs == 0 {
		return tree, nil
	}
	locked, err := b.shop.lock(tree, b.ids)
	unix.Close(tree)
	return locked, err
}

// guarded refuses a source in which container root could leave a program that runs
// with the rights of the host's root: by the id map its files are root's on disk,
// and where the file system heeds set-user-id, every user of the host that reaches
// one may run it. So a source stands on a file system mounted nosuid, or below a
// folder that is root's alone: not in such a one, whose mode container root may
// change. A descriptor that the caller holds is the caller's.
func guarded(source string) error {
	if strings.HasPrefix(source, "/proc/") {
		return nil
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(source, &fs); err != nil {
		return &os.PathError{Op: "statfs", Path: source, Err: err}
	}
	if fs.Flags&unix.ST_NOSUID != 0 {
		return nil
	}
	path, err := filepath.EvalSymlinks(source)
	if err != nil {
		return err
	}
	for path = filepath.Dir(path); path != "/"; path = filepath.Dir(path) {
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			return &os.PathError{Op: "stat", Path: path, Err: err}
		}
		if st.Mode&unix.S_IFMT == unix.S_IFDIR && st.Uid == 0 && st.Mode&0o011 == 0 {
			return nil
		}
	}
	return fmt.Errorf("%w: source %s can be reached by every user of this host, who could run with root's rights what is left there: it has to stand on a nosuid file system or below a folder for root alone", ErrInvalid, source)
}

// root returns the tree of a container's whole root: the overlay with the Spec's
// files in it and its mounts on it.
func (b *builder) root(ctx context.Context, s Spec, dir string) (int, error) {
	upper, err := b.upper(ctx, s, dir)
	if err != nil {
		return -1, err
	}
	defer unix.Close(upper)
	base, err := b.stack(ctx, s.Layers, upper, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(base)
	type placed struct {
		Mount
		tree int
		file bool
	}
	var mounts []placed
	defer func() {
		for _, m := range mounts {
			unix.Close(m.tree)
		}
	}()
	for _, m := range s.Mounts {
		tree, err := b.mount(ctx, m, false)
		if err != nil {
			return -1, fmt.Errorf("mount %s: %w", m.Target, err)
		}
		folder, err := isDir(tree)
		mounts = append(mounts, placed{m, tree, !folder})
		if err != nil {
			return -1, err
		}
	}
	nodes, err := deviceNodes(s.Devices)
	if err != nil {
		return -1, err
	}
	dev, err := b.devTree()
	if err != nil {
		return -1, err
	}
	defer unix.Close(dev)
	out := -1
	err = b.shop.do(func(work string) error {
		place, err := place(base, work, "root")
		if err != nil {
			return err
		}
		root, err := unix.Open(place, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(root)
		if err := actAs(b.ids.Base); err != nil {
			return err
		}
		for _, f := range s.Files {
			if err := writeInside(root, f); err != nil {
				return err
			}
		}
		for _, d := range []string{"/proc", "/sys"} {
			fd, err := makeTarget(root, d, false)
			if err != nil {
				return err
			}
			unix.Close(fd)
		}
		if err := furnishDev(root, dev, nodes); err != nil {
			return err
		}
		for _, m := range mounts {
			target, err := makeTarget(root, m.Target, m.file)
			if err != nil {
				return fmt.Errorf("mount %s: %w", m.Target, err)
			}
			err = attach(m.tree, target)
			unix.Close(target)
			if err != nil {
				return fmt.Errorf("mount %s: %w", m.Target, err)
			}
		}
		out, err = cloneAt(place)
		return err
	})
	return out, err
}
