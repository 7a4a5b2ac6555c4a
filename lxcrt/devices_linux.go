package lxcrt

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// node is a device node: its path inside, and what it is.
type node struct {
	path string
	mode uint32
	dev  int
}

// standardNodes are what every /dev has.
var standardNodes = []node{
	{"/dev/null", unix.S_IFCHR | 0o666, int(unix.Mkdev(1, 3))},
	{"/dev/zero", unix.S_IFCHR | 0o666, int(unix.Mkdev(1, 5))},
	{"/dev/full", unix.S_IFCHR | 0o666, int(unix.Mkdev(1, 7))},
	{"/dev/random", unix.S_IFCHR | 0o666, int(unix.Mkdev(1, 8))},
	{"/dev/urandom", unix.S_IFCHR | 0o666, int(unix.Mkdev(1, 9))},
	{"/dev/tty", unix.S_IFCHR | 0o666, int(unix.Mkdev(5, 0))},
}

// deviceNodes reads what the declared host nodes are. They are made again inside,
// owned by container root, where the host's own would belong to nobody. A folder
// stands for the nodes in it and below, without links.
func deviceNodes(paths []string) ([]node, error) {
	nodes := slices.Clone(standardNodes)
	for _, p := range paths {
		var st unix.Stat_t
		if err := unix.Stat(p, &st); err != nil {
			return nil, &os.PathError{Op: "device", Path: p, Err: err}
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFCHR, unix.S_IFBLK:
			nodes = append(nodes, node{p, st.Mode, int(st.Rdev)})
		case unix.S_IFDIR:
			if err := filepath.WalkDir(p, func(at string, d fs.DirEntry, err error) error {
				if err != nil || d.Type()&fs.ModeDevice == 0 {
					return err
				}
				var st unix.Stat_t
				if err := unix.Lstat(at, &st); err != nil {
					return &os.PathError{Op: "device", Path: at, Err: err}
				}
				nodes = append(nodes, node{at, st.Mode, int(st.Rdev)})
				return nil
			}); err != nil {
				return nil, err
			}
		default:
			return nil, fmt.Errorf("%w: %s is no device", ErrInvalid, p)
		}
	}
	return nodes, nil
}

// devTree is the small file system that becomes /dev.
func (b *builder) devTree() (int, error) {
	id := fmt.Sprint(b.ids.Base)
	return fsTree("tmpfs", unix.MOUNT_ATTR_NOSUID, [2]string{"source", "dev"}, [2]string{"mode", "755"},
		[2]string{"size", "512k"}, [2]string{"uid", id}, [2]string{"gid", id})
}

// furnishDev attaches /dev and fills it. liblxc adds /dev/pts, /dev/ptmx,
// /dev/shm and /dev/mqueue, which belong to the container's own namespaces.
func furnishDev(root, tree int, nodes []node) error {
	target, err := makeTarget(root, "/dev", false)
	if err != nil {
		return err
	}
	err = attach(tree, target)
	unix.Close(target)
	if err != nil {
		return fmt.Errorf("/dev: %w", err)
	}
	dev, err := openInside(root, "/dev", unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(dev)
	for _, d := range []string{"pts", "shm", "mqueue"} {
		if err := unix.Mkdirat(dev, d, 0o755); err != nil {
			return &os.PathError{Op: "mkdir", Path: "/dev/" + d, Err: err}
		}
	}
	for name, to := range map[string]string{"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"} {
		if err := unix.Symlinkat(to, dev, name); err != nil {
			return &os.PathError{Op: "link", Path: "/dev/" + name, Err: err}
		}
	}
	old := unix.Umask(0)
	defer unix.Umask(old)
	for _, n := range nodes {
		dir, base := path.Split(n.path)
		parent, err := makeFolders(root, dir)
		if err != nil {
			return err
		}
		err = unix.Mknodat(parent, base, n.mode, n.dev)
		unix.Close(parent)
		if err != nil && err != unix.EEXIST {
			return &os.PathError{Op: "mknod", Path: n.path, Err: err}
		}
	}
	return nil
}
