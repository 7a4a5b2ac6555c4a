package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// A snapshot is a second tree of a package's data beside the first, taken while
// nothing writes there:
//
//	volumes/ID/data         what the service sees
//	volumes/ID/before.part  a snapshot that is being taken, or one cut off
//	volumes/ID/before       a whole one, durable
//	volumes/ID/failed       data that a snapshot has replaced, on its way out
//
// Its files share their blocks with the first tree where the file system can
// (reflinks: btrfs, xfs); elsewhere they are copies. Files made of several
// btrfs subvolumes come out as one.

func (l layout) beside(pkg, name string) string { return filepath.Join(l.volumes(), pkg, name) }

// hasSnapshot reports whether there is a whole one.
func (l layout) hasSnapshot(pkg string) bool {
	_, err := os.Lstat(l.beside(pkg, "before"))
	return err == nil
}

// snapshot takes one, in place of any other. On error there is none. tell
// hears the bytes done.
func (l layout) snapshot(ctx context.Context, pkg string, tell func(done int64)) (err error) {
	part, whole := l.beside(pkg, "before.part"), l.beside(pkg, "before")
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("service: snapshot of %s: %w", pkg, err), os.RemoveAll(part))
		}
	}()
	if err := errors.Join(os.RemoveAll(part), os.RemoveAll(whole)); err != nil {
		return err
	}
	if err := os.MkdirAll(l.data(pkg), 0o755); err != nil {
		return err
	}
	c := &copier{ctx: ctx, tell: tell, links: map[inode]string{}}
	if err := c.tree(l.data(pkg), part); err != nil {
		return err
	}
	if err := syncFS(part); err != nil {
		return err
	}
	if err := os.Rename(part, whole); err != nil {
		return err
	}
	return syncDir(filepath.Dir(whole))
}

// restore puts the snapshot in the place of the data, when there is one. It may
// be cut off anywhere and called again.
func (l layout) restore(pkg string) error {
	failed := l.beside(pkg, "failed")
	if l.hasSnapshot(pkg) {
		if err := os.RemoveAll(failed); err != nil {
			return fmt.Errorf("service: data of %s: %w", pkg, err)
		}
		if err := os.Rename(l.data(pkg), failed); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("service: data of %s: %w", pkg, err)
		}
		if err := os.Rename(l.beside(pkg, "before"), l.data(pkg)); err != nil {
			return fmt.Errorf("service: data of %s: %w", pkg, err)
		}
		if err := syncDir(l.beside(pkg, "")); err != nil {
			return fmt.Errorf("service: data of %s: %w", pkg, err)
		}
	}
	return l.dropSnapshot(pkg)
}

// dropSnapshot removes what a snapshot left beside the data.
func (l layout) dropSnapshot(pkg string) error {
	var errs []error
	for _, name := range []string{"before", "before.part", "failed"} {
		errs = append(errs, os.RemoveAll(l.beside(pkg, name)))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("service: snapshot of %s: %w", pkg, err)
	}
	return nil
}

// snapshotNeeds is how many bytes a snapshot takes on the disk: none where
// files can share their blocks.
func (l layout) snapshotNeeds(pkg string) (int64, error) {
	if sharesBlocks(l.volumes()) {
		return 0, nil
	}
	return diskUse(l.data(pkg))
}

// sharesBlocks reports whether files in dir can share their blocks.
func sharesBlocks(dir string) bool {
	from, err := os.CreateTemp(dir, ".probe*")
	if err != nil {
		return false
	}
	defer os.Remove(from.Name())
	defer from.Close()
	to, err := os.CreateTemp(dir, ".probe*")
	if err != nil {
		return false
	}
	defer os.Remove(to.Name())
	defer to.Close()
	if _, err := from.Write(make([]byte, 4096)); err != nil {
		return false
	}
	return unix.IoctlFileClone(int(to.Fd()), int(from.Fd())) == nil
}

// diskUse is the bytes that a tree takes on the disk; hard links count once.
// What vanishes meanwhile does not count.
func diskUse(dir string) (int64, error) {
	seen := map[inode]bool{}
	var sum int64
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		if at := (inode{st.Dev, st.Ino}); st.Nlink > 1 && !d.IsDir() {
			if seen[at] {
				return nil
			}
			seen[at] = true
		}
		sum += st.Blocks * 512
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("service: disk use: %w", err)
	}
	return sum, nil
}

type inode struct{ dev, ino uint64 }

// copier copies a tree with all that belongs to its files: owners, modes,
// times, extended attributes (ACLs among them), holes, hard links and special
// files.
type copier struct {
	ctx   context.Context
	tell  func(done int64)
	done  int64
	copy  bool             // blocks cannot be shared here
	links map[inode]string // files with several names, and the copy's first
}

func (c *copier) tree(from, to string) error {
	if err := c.ctx.Err(); err != nil {
		return context.Cause(c.ctx)
	}
	info, err := os.Lstat(from)
	if err != nil {
		return err
	}
	st := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() && st.Nlink > 1 {
		at := inode{st.Dev, st.Ino}
		if first, ok := c.links[at]; ok {
			return os.Link(first, to)
		}
		c.links[at] = to
	}
	switch info.Mode().Type() {
	case fs.ModeDir:
		if err := os.Mkdir(to, 0o700); err != nil {
			return err
		}
		entries, err := os.ReadDir(from)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if err := c.tree(filepath.Join(from, e.Name()), filepath.Join(to, e.Name())); err != nil {
				return err
			}
		}
	case 0:
		err = c.file(from, to, info.Size())
	case fs.ModeSymlink:
		var target string
		if target, err = os.Readlink(from); err == nil {
			err = os.Symlink(target, to)
		}
	default: // pipes, sockets, devices
		err = unix.Mknod(to, st.Mode, int(st.Rdev))
	}
	if err != nil {
		return err
	}
	return c.meta(from, to, st)
}

// file copies the content of one.
func (c *copier) file(from, to string, size int64) error {
	in, err := os.OpenFile(from, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NOATIME, 0)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	if !c.copy {
		if unix.IoctlFileClone(int(out.Fd()), int(in.Fd())) == nil {
			c.add(size)
			return out.Close()
		}
		c.copy = size > 0 // an empty file proves nothing
	}
	if err := out.Truncate(size); err != nil {
		return err
	}
	for at := int64(0); at < size; {
		start, err := unix.Seek(int(in.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break // a hole up to the end
		}
		if err != nil {
			return &fs.PathError{Op: "seek", Path: from, Err: err}
		}
		end, err := unix.Seek(int(in.Fd()), start, unix.SEEK_HOLE)
		if err != nil {
			return &fs.PathError{Op: "seek", Path: from, Err: err}
		}
		for at = start; at < end; {
			if c.ctx.Err() != nil {
				return context.Cause(c.ctx)
			}
			n, err := io.Copy(io.NewOffsetWriter(out, at), io.NewSectionReader(in, at, min(end-at, 8<<20)))
			if err != nil {
				return err
			}
			if n == 0 {
				return &fs.PathError{Op: "copy", Path: from, Err: io.ErrUnexpectedEOF}
			}
			at += n
			c.add(n)
		}
	}
	return out.Close()
}

func (c *copier) add(n int64) {
	c.done += n
	if c.tell != nil {
		c.tell(c.done)
	}
}

// meta copies what belongs to a file beside its content.
func (c *copier) meta(from, to string, st *syscall.Stat_t) error {
	if err := os.Lchown(to, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if err := copyAttributes(from, to); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		if err := unix.Chmod(to, st.Mode&0o7777); err != nil {
			return &fs.PathError{Op: "chmod", Path: to, Err: err}
		}
	}
	times := []unix.Timespec{{Sec: st.Atim.Sec, Nsec: st.Atim.Nsec}, {Sec: st.Mtim.Sec, Nsec: st.Mtim.Nsec}}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, to, times, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &fs.PathError{Op: "utimes", Path: to, Err: err}
	}
	return nil
}

func copyAttributes(from, to string) error {
	names := make([]byte, 64<<10)
	n, err := unix.Llistxattr(from, names)
	if errors.Is(err, unix.ENOTSUP) || n == 0 && err == nil {
		return nil
	}
	if err != nil {
		return &fs.PathError{Op: "listxattr", Path: from, Err: err}
	}
	value := make([]byte, 64<<10)
	for start := 0; start < n; {
		end := start
		for names[end] != 0 {
			end++
		}
		name := string(names[start:end])
		start = end + 1
		size, err := unix.Lgetxattr(from, name, value)
		if err == nil {
			err = unix.Lsetxattr(to, name, value[:size], 0)
		}
		if err != nil {
			return &fs.PathError{Op: "xattr " + name, Path: to, Err: err}
		}
	}
	return nil
}

// syncFS makes all that was written to the file system of dir durable.
func syncFS(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Syncfs(int(f.Fd()))
}
