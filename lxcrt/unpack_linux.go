package lxcrt

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// unpacked keeps squashfs images as folders, for kernels that cannot id-map
// squashfs (Debian 12's 6.1): each image is unpacked once, its owners as they
// stand in it, and the folder is id-mapped instead.
type unpacked struct {
	dir string
	mu  sync.Mutex
}

// origin says what a folder was made from, so that CleanUp can tell when it is
// of no more use.
type origin struct {
	Path   string `json:"path"`
	Dev    uint64 `json:"dev"`
	Ino    uint64 `json:"ino"`
	Mtime  int64  `json:"mtime"`
	Offset int64  `json:"offset"`
	Size   int64  `json:"size"`
}

func originOf(file string, offset, size int64) (origin, error) {
	var st unix.Stat_t
	if err := unix.Stat(file, &st); err != nil {
		return origin{}, &os.PathError{Op: "stat", Path: file, Err: err}
	}
	return origin{file, uint64(st.Dev), st.Ino, st.Mtim.Nano(), offset, size}, nil
}

func (o origin) key() string {
	h := sha256.Sum256(fmt.Appendf(nil, "%d %d %d %d %d", o.Dev, o.Ino, o.Mtime, o.Offset, o.Size))
	return fmt.Sprintf("%x", h[:16])
}

// folder returns the image as a folder, unpacking it the first time. The folder
// stays at least until release(user).
func (u *unpacked) folder(ctx context.Context, file string, offset, size int64, user string) (string, error) {
	o, err := originOf(file, offset, size)
	if err != nil {
		return "", err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	place := filepath.Join(u.dir, o.key())
	root := filepath.Join(place, "root")
	if _, err := os.Stat(filepath.Join(place, originFile)); err == nil {
		return root, use(place, user)
	}
	// The record is written last: a folder without one is a torn try.
	if err := os.RemoveAll(place); err != nil {
		return "", err
	}
	if err := os.MkdirAll(place, 0o700); err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "unsquashfs", "-quiet", "-no-progress", "-o", strconv.FormatInt(offset, 10), "-d", root, file)
	if out, err := cmd.CombinedOutput(); err != nil {
		_ = os.RemoveAll(place)
		if errors.Is(err, exec.ErrNotFound) {
			return "", fmt.Errorf("unsquashfs (package squashfs-tools), which this kernel needs since it cannot id-map squashfs: %w: %w", ErrNotSupported, err)
		}
		return "", fmt.Errorf("unpack %s: %w: %s", file, err, out)
	}
	data, err := json.Marshal(o)
	if err != nil {
		return "", err
	}
	if err := use(place, user); err != nil {
		return "", err
	}
	return root, os.WriteFile(filepath.Join(place, originFile), data, 0o600)
}

const originFile = "origin.json"

// use notes, on disk, that a container stands on a folder: it may outlive us.
func use(place, user string) error {
	dir := filepath.Join(place, "users")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, user), nil, 0o600)
}

// release forgets a user; folders that have none left, and whose image is gone,
// go too. A nil receiver has nothing to do.
func (u *unpacked) release(user string) error {
	if u == nil {
		return nil
	}
	return u.sweep(func(name string) bool { return name != user })
}

// sweep removes torn folders, and those that no wanted container uses and whose
// image is gone or has changed.
func (u *unpacked) sweep(wanted func(name string) bool) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	entries, err := os.ReadDir(u.dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		place := filepath.Join(u.dir, e.Name())
		data, err := os.ReadFile(filepath.Join(place, originFile))
		whole := err == nil
		used := false
		users, _ := os.ReadDir(filepath.Join(place, "users"))
		for _, n := range users {
			if wanted(n.Name()) {
				used = true
			} else {
				errs = append(errs, os.Remove(filepath.Join(place, "users", n.Name())))
			}
		}
		var o origin
		if whole && used {
			continue
		}
		if whole && json.Unmarshal(data, &o) == nil {
			if now, err := originOf(o.Path, o.Offset, o.Size); err == nil && now == o {
				continue
			}
		}
		errs = append(errs, os.RemoveAll(place))
	}
	return errors.Join(errs...)
}
