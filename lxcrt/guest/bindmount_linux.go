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
	from, err := openPath(source, func(root int, rel string) (int, error) { return openIn(root, rel, unix.O_PATH) })
	if err != nil {
		return fmt.Errorf("guest: bind-mount source %s: %w", source, err)
	}
	defer unix.Close(from)
	tree, err := unix.OpenTree(from, "", flags|unix.AT_EMPTY_PATH)
	if err != nil {
		return fmt.Errorf("guest: bind-mount source %s: %w", source, err)
	}
	defer unix.Close(tree)
	if m.ReadOnly {
		if err := unix.MountSetattr(tree, "", attr, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
			return fmt.Errorf("guest: bind-mount %s read-only: %w", source, err)
		}
	}
	at, err := openPath(target, func(root int, rel string) (int, error) { return makeIn(root, rel, m.File) })
	if err != nil {
		return fmt.Errorf("guest: bind-mount target %s: %w", target, err)
	}
	defer unix.Close(at)
	if err := unix.MoveMount(tree, "", at, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH); err != nil {
		return fmt.Errorf("guest: bind-mount %s on %s: %w", source, target, err)
	}
	return nil
}

// openPath opens a path by the root that it belongs to.
func openPath(path string, open func(root int, rel string) (int, error)) (int, error) {
	rootPath, rest := splitRoot(path)
	root, err := unix.Open(rootPath, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(root)
	if rest == "" {
		rest = "."
	}
	return open(root, rest)
}

// openIn opens what rel means to a process whose root is root.
func openIn(root int, rel string, flags uint64) (int, error) {
	how := &unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	for {
		fd, err := unix.Openat2(root, rel, how)
		if err != unix.EAGAIN && err != unix.EINTR { // EAGAIN: a rename raced the lookup
			return fd, err
		}
	}
}

// makeIn opens a mount point below root and creates what is missing: folders,
// and a file at the end if one is wanted.
func makeIn(root int, rel string, file bool) (int, error) {
	names := strings.Split(rel, "/")
	for i, name := range names {
		at, last := strings.Join(names[:i+1], "/"), i == len(names)-1
		fd, err := openIn(root, at, unix.O_PATH)
		if errors.Is(err, unix.ENOENT) {
			if err := createIn(root, filepath.Dir(at), name, file && last); err != nil {
				return -1, err
			}
			fd, err = openIn(root, at, unix.O_PATH)
		}
		if err != nil || last {
			return fd, err
		}
		unix.Close(fd)
	}
	return -1, unix.ENOENT
}

// createIn creates a folder or an empty file. One that is there already is
// fine: it appeared meanwhile, or is a link to nowhere and fails to open next.
func createIn(root int, parent, name string, file bool) error {
	dir, err := openIn(root, parent, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	if file {
		fd, err := unix.Openat(dir, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
		if err == nil {
			err = unix.Close(fd)
		}
		return ignoreExist(err)
	}
	return ignoreExist(unix.Mkdirat(dir, name, 0o755))
}

func ignoreExist(err error) error {
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	return err
}
