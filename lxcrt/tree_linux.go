package lxcrt

import (
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// A tree is a detached mount: a descriptor that no mount table shows. It lives
// until it is closed, or on where it was attached.

// bindTree clones the mount at a path, with those below it if asked.
func bindTree(path string, recursive bool) (int, error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, flags)
	if err != nil {
		return -1, &os.PathError{Op: "open_tree", Path: path, Err: err}
	}
	return fd, nil
}

// fsTree mounts a file system of the given type and options without a place.
func fsTree(fstype string, attrs int, options ...[2]string) (int, error) {
	fs, err := unix.Fsopen(fstype, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("file system %s: %w", fstype, err)
	}
	defer unix.Close(fs)
	for _, o := range options {
		if o[1] == "" {
			err = unix.FsconfigSetFlag(fs, o[0])
		} else {
			err = unix.FsconfigSetString(fs, o[0], o[1])
		}
		if err != nil {
			return -1, fmt.Errorf("%s option %s=%s: %w%s", fstype, o[0], o[1], err, fsLog(fs))
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, fmt.Errorf("%s: %w%s", fstype, err, fsLog(fs))
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attrs)
	if err != nil {
		return -1, fmt.Errorf("%s mount: %w", fstype, err)
	}
	return fd, nil
}

// fsLog reads what the kernel has to say about a file system that failed.
func fsLog(fs int) string {
	var text string
	buf := make([]byte, 512)
	for range 8 {
		n, err := unix.Read(fs, buf)
		if err != nil || n <= 0 {
			break
		}
		text += " (" + string(buf[:n]) + ")"
	}
	return text
}

// squashfsTree mounts a squashfs that stands in a file.
func squashfsTree(file string, offset, size int64) (int, error) {
	if err := padEnd(file, offset, size); err != nil {
		return -1, err
	}
	loop, err := attachLoop(file, offset, size, false)
	if err != nil {
		return -1, err
	}
	defer loop.Close()
	fd, err := fsTree("squashfs", unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NODEV, [2]string{"source", loop.Name()}, [2]string{"ro", ""})
	if err != nil {
		return -1, fmt.Errorf("%s at %d: %w", file, offset, err)
	}
	return fd, nil
}

// setTree changes the attributes of a detached mount, and of those below it
// where recursive is set; a user namespace, if given, maps the owners.
func setTree(tree int, recursive bool, attrs uint64, userns *os.File) error {
	attr := unix.MountAttr{Attr_set: attrs}
	if userns != nil {
		attr.Attr_set |= unix.MOUNT_ATTR_IDMAP
		attr.Userns_fd = uint64(userns.Fd())
	}
	if attr.Attr_set == 0 {
		return nil
	}
	flags := uint(unix.AT_EMPTY_PATH)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	err := unix.MountSetattr(tree, "", flags, &attr)
	switch {
	case err == nil:
		return nil
	case userns == nil:
		return fmt.Errorf("mount attributes: %w", err)
	case err == unix.EINVAL:
		return fmt.Errorf("id-mapped mount: this kernel has none of the file system %s: %w: %w", fsName(tree), ErrNotSupported, err)
	}
	return fmt.Errorf("id-mapped mount: %w", err)
}

// fsName says what file system an open file stands on: the names of those that
// somebody may take a source from and that some kernels do not id-map.
func fsName(fd int) string {
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return "of that source"
	}
	magic := uint32(st.Type)
	if name := fsNames[magic]; name != "" {
		return name
	}
	return fmt.Sprintf("with the magic %#x", magic)
}

var fsNames = map[uint32]string{
	unix.TMPFS_MAGIC: "tmpfs", unix.SQUASHFS_MAGIC: "squashfs", unix.OVERLAYFS_SUPER_MAGIC: "overlay", unix.FUSE_SUPER_MAGIC: "fuse",
	unix.NFS_SUPER_MAGIC: "nfs", unix.SMB2_SUPER_MAGIC: "cifs", unix.V9FS_MAGIC: "9p", unix.CEPH_SUPER_MAGIC: "ceph",
	unix.ISOFS_SUPER_MAGIC: "iso9660", unix.PROC_SUPER_MAGIC: "proc", unix.SYSFS_MAGIC: "sysfs", zfsMagic: "zfs",
}

const zfsMagic = 0x2fc12fc1 // not in the kernel's tree

// attach puts a tree on the place that an O_PATH descriptor names.
func attach(tree, target int) error {
	if err := unix.MoveMount(tree, "", target, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH); err != nil {
		return fmt.Errorf("attach: %w", err)
	}
	return nil
}

// isDir says what a tree or O_PATH descriptor stands for.
func isDir(fd int) (bool, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return false, err
	}
	return st.Mode&syscall.S_IFMT == syscall.S_IFDIR, nil
}
