package guest

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// mount attaches a detached copy of the source to the target, which is created
// when missing. Read-only is set on the copy before anyone can reach it, on
// every mount below it too.
func (m *bindMount) mount() error {
	source, err := filepath.Abs(m.Source)
	if err != nil {
		return fmt.Errorf("guest: bind-mount: %w", err)
	}
	target, err := filepath.Abs(m.Target)
	if err != nil {
		return fmt.Errorf("guest: bind-mount: %w", err)
	}
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	attr := uint(unix.AT_EMPTY_PATH)
	if m.Recursive {
		flags |= unix.AT_RECURSIVE
		attr |= unix.AT_RECURSIVE
	}
	tree, err := unix.OpenTree(unix.AT_FDCWD, source, flags)
	if err != nil {
		return fmt.Errorf("guest: bind-mount source %s: %w", source, err)
	}
	defer unix.Close(tree)
	if m.ReadOnly {
		if err := unix.MountSetattr(tree, "", attr, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
			return fmt.Errorf("guest: bind-mount %s read-only: %w", source, err)
		}
	}
	at, err := openTarget(target, m.File)
	if err != nil {
		return fmt.Errorf("guest: bind-mount target %s: %w", target, err)
	}
	defer unix.Close(at)
	if err := unix.MoveMount(tree, "", at, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH); err != nil {
		return fmt.Errorf("guest: bind-mount %s on %s: %w", source, target, err)
	}
	return nil
}

// openTarget opens a mount point, creating what is missing. Links are resolved
// with the subcontainer's root as "/", as the workload will see them.
func openTarget(path string, file bool) (int, error) {
	rootPath, rest := splitRoot(path)
	root, err := unix.Open(rootPath, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(root)
	open := func(rel string, flags, mode uint64) (int, error) {
		how := &unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Mode: mode, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
		for {
			fd, err := unix.Openat2(root, rel, how)
			if err != unix.EAGAIN && err != unix.EINTR { // EAGAIN: a rename raced the lookup
				return fd, err
			}
		}
	}
	if rest == "" {
		rest = "."
	}
	names := strings.Split(rest, "/")
	for i := range names {
		rel := strings.Join(names[:i+1], "/")
		fd, err := open(rel, unix.O_PATH, 0)
		if errors.Is(err, unix.ENOENT) {
			var parent int
			if parent, err = open(filepath.Dir(rel), unix.O_PATH|unix.O_DIRECTORY, 0); err != nil {
				return -1, err
			}
			if file && i == len(names)-1 {
				var made int
				if made, err = unix.Openat(parent, names[i], unix.O_CREAT|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o644); err == nil {
					unix.Close(made)
				}
			} else if err = unix.Mkdirat(parent, names[i], 0o755); errors.Is(err, unix.EEXIST) {
				err = nil // a dangling link, reported by the next open, or a race
			}
			unix.Close(parent)
			if err == nil {
				fd, err = open(rel, unix.O_PATH, 0)
			}
		}
		if err != nil {
			return -1, err
		}
		if i == len(names)-1 {
			return fd, nil
		}
		unix.Close(fd)
	}
	return -1, unix.ENOENT
}
