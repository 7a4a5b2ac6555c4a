package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// keep returns the image of a name from a cache, making it unless there is one
// that is whole. make gets an empty folder that goes afterwards and returns the
// path of what it made.
func keep(ctx context.Context, cache, name string, tell func(Progress), make func(work string) (string, error)) (string, error) {
	if err := os.MkdirAll(cache, 0o700); err != nil {
		return "", err
	}
	unlock, err := lockCache(ctx, cache)
	if err != nil {
		return "", err
	}
	defer unlock()
	file := filepath.Join(cache, name)
	tell(Progress{Phase: "verify", Total: 1})
	err = Verify(file)
	if err == nil {
		return file, nil
	}
	if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, ErrDamaged) {
		return "", err
	}
	work, err := os.MkdirTemp(cache, ".build-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work)
	out, err := make(work)
	if err != nil {
		return "", err
	}
	return file, store(out, file)
}

// squash makes a squashfs of a folder.
func squash(ctx context.Context, dir, out string, more ...string) error {
	if _, err := exec.LookPath("mksquashfs"); err != nil {
		return fmt.Errorf("%w: the program mksquashfs", ErrNotSupported)
	}
	args := append([]string{dir, out, "-comp", "zstd", "-Xcompression-level", "9", "-b", "256K", "-no-progress", "-quiet", "-noappend", "-mkfs-time", epoch}, more...)
	cmd := exec.CommandContext(ctx, "mksquashfs", args...)
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "SOURCE_DATE_EPOCH=") { // mksquashfs refuses it beside the options
			cmd.Env = append(cmd.Env, e)
		}
	}
	if said, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("mksquashfs: %w: %s", err, bytes.TrimSpace(said))
	}
	return nil
}

// FromDir returns the path of an image with the content of a folder, owners and
// modes as they stand there, making it if the cache has none that is whole.
// Equal content gives the same image, byte for byte: times are not content. It
// reads all of the folder each time, and fails if the folder changes meanwhile.
// It needs root, to see everything, and the program mksquashfs; one older than 4.6
// leaves file capabilities out, and other extended attributes always stay behind:
// they mean something to this host alone.
func FromDir(ctx context.Context, s Source) (string, error) {
	if err := s.settle(); err != nil {
		return "", err
	}
	fail := func(err error) (string, error) {
		return "", fmt.Errorf("image: from folder %s: %w", s.Path, err)
	}
	s.Progress(Progress{Phase: "read", Total: 1})
	attributes := attributesFlag(ctx)
	key, err := treeKey(ctx, s.Path, attributes...)
	if err != nil {
		return fail(err)
	}
	file, err := keep(ctx, s.Cache, "dir-"+key[:20]+".squashfs", s.Progress, func(work string) (string, error) {
		s.Progress(Progress{Phase: "squashfs", Total: 1})
		out := filepath.Join(work, "image")
		if err := squash(ctx, s.Path, out, append(attributes, "-all-time", epoch)...); err != nil {
			return "", err
		}
		if again, err := treeKey(ctx, s.Path, attributes...); err != nil || again != key {
			return "", errors.Join(errors.New("it changed meanwhile"), err)
		}
		return out, nil
	})
	if err != nil {
		return fail(err)
	}
	return file, nil
}

// attributesFlag has mksquashfs take only file capabilities, if it can choose.
func attributesFlag(ctx context.Context) []string {
	help, _ := exec.CommandContext(ctx, "mksquashfs", "-help").CombinedOutput()
	if bytes.Contains(help, []byte("-xattrs-include")) {
		return []string{"-xattrs-include", `^security\.capability$`}
	}
	return []string{"-no-xattrs"}
}

// treeKey is a hash over everything that FromDir takes along.
func treeKey(ctx context.Context, dir string, flags ...string) (string, error) {
	h := sha256.New()
	fmt.Fprintf(h, "dir %s %q\n", recipe, flags)
	links := map[[2]uint64]string{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		fmt.Fprintf(h, "%q %o %d %d", rel, st.Mode, st.Uid, st.Gid)
		switch {
		case info.Mode()&fs.ModeSymlink != 0:
			to, err := os.Readlink(p)
			if err != nil {
				return err
			}
			fmt.Fprintf(h, " %q", to)
		case info.Mode()&fs.ModeDevice != 0:
			fmt.Fprintf(h, " %d", st.Rdev)
		case info.Mode().IsRegular():
			id := [2]uint64{uint64(st.Dev), st.Ino}
			if first, ok := links[id]; ok && st.Nlink > 1 {
				fmt.Fprintf(h, " link %q", first)
				break
			}
			links[id] = rel
			f, err := os.OpenFile(p, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
			if err != nil {
				return err
			}
			one := sha256.New()
			n, err := io.Copy(one, f)
			f.Close()
			if err != nil {
				return err
			}
			var capability [64]byte
			c, err := unix.Lgetxattr(p, "security.capability", capability[:])
			fmt.Fprintf(h, " %d %x %x", n, one.Sum(nil), capability[:max(c, 0)])
			if err != nil && err != unix.ENODATA && err != unix.ENOTSUP {
				return &os.PathError{Op: "attributes", Path: p, Err: err}
			}
		}
		fmt.Fprintln(h)
		return nil
	})
	return hex.EncodeToString(h.Sum(nil)), err
}
