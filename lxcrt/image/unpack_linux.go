package image

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// unpacking puts layers on top of one another in a folder. Names are resolved
// with that folder as the root, so no link of an image leads out of it.
type unpacking struct {
	dir   string
	root  int
	times map[string]time.Time // of folders, set at the end
}

func newUnpacking(dir string) (*unpacking, error) {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	return &unpacking{dir: dir, root: root, times: map[string]time.Time{}}, nil
}

func (u *unpacking) close() { unix.Close(u.root) }

// folder opens a folder of the tree, making what is missing of it.
func (u *unpacking) folder(p string) (int, error) {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	fd, err := unix.Openat2(u.root, p, &how)
	if err == unix.ENOENT && p != "/" {
		parent, perr := u.folder(path.Dir(p))
		if perr != nil {
			return -1, perr
		}
		err = unix.Mkdirat(parent, path.Base(p), 0o755)
		unix.Close(parent)
		if err == nil || err == unix.EEXIST {
			fd, err = unix.Openat2(u.root, p, &how)
		}
	}
	if err != nil {
		return -1, &fs.PathError{Op: "open", Path: p, Err: err}
	}
	return fd, nil
}

// at is the path of an entry of an open folder, for calls that take only paths.
func at(fd int, base string) string { return "/proc/self/fd/" + strconv.Itoa(fd) + "/" + base }

const (
	whiteout = ".wh."
	opaque   = ".wh..wh..opq"
)

// layer applies a tar of changes ("Image Layer Filesystem Changeset").
func (u *unpacking) layer(ctx context.Context, r io.Reader) error {
	own := map[string]bool{} // what this layer has brought; whiteouts are of those below
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		p := path.Clean("/" + h.Name)
		if strings.ContainsRune(p, 0) {
			return fmt.Errorf("%w: name %q", ErrLayout, h.Name)
		}
		dir, base := path.Split(p)
		switch {
		case base == opaque:
			err = u.clear(path.Clean(dir), own)
		case strings.HasPrefix(base, ".wh..wh."): // of no meaning to others
		case strings.HasPrefix(base, whiteout):
			if gone := path.Join(dir, base[len(whiteout):]); !own[gone] {
				err = u.remove(gone)
			}
		default:
			err = u.add(p, h, tr)
			for q := p; q != "/"; q = path.Dir(q) {
				own[q] = true
			}
		}
		if err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
	}
}

func (u *unpacking) remove(p string) error {
	fd, err := u.folder(path.Dir(p))
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if base := path.Base(p); base != "/" && base != ".." {
		return os.RemoveAll(at(fd, base))
	}
	return fmt.Errorf("%w: whiteout of %s", ErrLayout, p)
}

// clear removes what a folder has from the layers below.
func (u *unpacking) clear(p string, own map[string]bool) error {
	fd, err := u.folder(p)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	entries, err := os.ReadDir(at(fd, "."))
	if err != nil {
		return err
	}
	for _, e := range entries {
		child := path.Join(p, e.Name())
		switch {
		case !own[child]:
			err = os.RemoveAll(at(fd, e.Name()))
		case e.IsDir():
			err = u.clear(child, own)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (u *unpacking) add(p string, h *tar.Header, r io.Reader) error {
	mode := uint32(h.Mode & 0o7777)
	if p == "/" {
		u.times[p] = h.ModTime
		return errors.Join(os.Lchown(u.dir, h.Uid, h.Gid), unix.Chmod(u.dir, mode))
	}
	fd, err := u.folder(path.Dir(p))
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	base := path.Base(p)
	var st unix.Stat_t
	there := unix.Fstatat(fd, base, &st, unix.AT_SYMLINK_NOFOLLOW) == nil
	if there && !(h.Typeflag == tar.TypeDir && st.Mode&unix.S_IFMT == unix.S_IFDIR) {
		if err := os.RemoveAll(at(fd, base)); err != nil {
			return err
		}
		there = false
	}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse:
		return u.file(fd, base, h, r)
	case tar.TypeLink:
		target := path.Clean("/" + h.Linkname)
		from, err := u.folder(path.Dir(target))
		if err != nil {
			return err
		}
		defer unix.Close(from)
		if err := unix.Linkat(from, path.Base(target), fd, base, 0); err != nil {
			return fmt.Errorf("link to %s: %w", h.Linkname, err)
		}
		return nil // owner, mode and time are the other's
	case tar.TypeDir:
		if !there {
			err = unix.Mkdirat(fd, base, 0o700)
		}
		u.times[p] = h.ModTime
	case tar.TypeSymlink:
		err = unix.Symlinkat(h.Linkname, fd, base)
	case tar.TypeFifo:
		err = unix.Mknodat(fd, base, unix.S_IFIFO|mode, 0)
	case tar.TypeChar, tar.TypeBlock:
		kind := uint32(unix.S_IFCHR)
		if h.Typeflag == tar.TypeBlock {
			kind = unix.S_IFBLK
		}
		dev := unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))
		if dev == 0 {
			return nil // an overlay would take it for a whiteout
		}
		err = unix.Mknodat(fd, base, kind|mode, int(dev))
	default:
		return fmt.Errorf("%w: an entry of type %q", ErrLayout, h.Typeflag)
	}
	if err == nil {
		err = unix.Fchownat(fd, base, h.Uid, h.Gid, unix.AT_SYMLINK_NOFOLLOW)
	}
	if err == nil && h.Typeflag != tar.TypeSymlink {
		err = unix.Fchmodat(fd, base, mode, 0) // not a link: it was just made, or is a folder
	}
	if err == nil && h.Typeflag != tar.TypeDir {
		err = setTime(fd, base, h.ModTime)
	}
	return err
}

func (u *unpacking) file(fd int, base string, h *tar.Header, r io.Reader) error {
	n, err := unix.Openat(fd, base, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(n), base)
	_, err = io.Copy(f, r)
	if err == nil {
		err = unix.Fchown(n, h.Uid, h.Gid)
	}
	if err == nil {
		err = unix.Fchmod(n, uint32(h.Mode&0o7777))
	}
	if c := h.PAXRecords["SCHILY.xattr.security.capability"]; err == nil && c != "" {
		err = unix.Fsetxattr(n, "security.capability", []byte(c), 0)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return setTime(fd, base, h.ModTime)
}

// setTime without fractions, so that a layer unpacks the same whatever made it.
func setTime(fd int, base string, t time.Time) error {
	ts := unix.NsecToTimespec(t.Truncate(time.Second).UnixNano())
	return unix.UtimesNanoAt(fd, base, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
}

// finish sets the times of folders, which unpacking has changed; one that no layer
// names has the time of all images.
func (u *unpacking) finish() error {
	sec, err := strconv.ParseInt(epoch, 10, 64)
	if err != nil {
		return err
	}
	return filepath.WalkDir(u.dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		t, ok := u.times[path.Clean("/"+strings.TrimPrefix(p, u.dir))]
		if !ok {
			t = time.Unix(sec, 0)
		}
		return setTime(unix.AT_FDCWD, p, t)
	})
}
