package rpc

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Folder is the open folder that holds the two sockets. The container's root
// user owns it and may put anything in it at any time, so names below it are
// only used relative to the open folder and links are never followed. A
// Folder may be shared; Close ends its use.
type Folder struct {
	mu sync.RWMutex
	f  *os.File // nil after Close
}

// OpenFolder opens the folder at path, which must not be a link.
func OpenFolder(path string) (*Folder, error) {
	fd, err := unix.Open(path, unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("rpc: open socket folder: %w", &fs.PathError{Op: "open", Path: path, Err: err})
	}
	return &Folder{f: os.NewFile(uintptr(fd), path)}, nil
}

// Close releases the folder.
func (d *Folder) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.f == nil {
		return nil
	}
	err := d.f.Close()
	d.f = nil
	return err
}

// Dial connects to the socket called name. An error that wraps
// fs.ErrNotExist says that there is no such name yet; anything that is not a
// socket is refused.
func (d *Folder) Dial(ctx context.Context, name string) (net.Conn, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.f == nil {
		return nil, ErrClosed
	}
	fd, err := unix.Openat(int(d.f.Fd()), name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("rpc: open %s: %w", name, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fmt.Errorf("rpc: stat %s: %w", name, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return nil, fmt.Errorf("rpc: %s is not a socket", name)
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", "/proc/self/fd/"+strconv.Itoa(fd))
	if err != nil {
		return nil, fmt.Errorf("rpc: connect to %s: %w", name, err)
	}
	return conn, nil
}

// Await is Dial that waits until the socket is there and answers, or ctx
// ends.
func (d *Folder) Await(ctx context.Context, name string) (net.Conn, error) {
	wait := 4 * time.Millisecond
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for tries := 0; ; tries++ {
		conn, err := d.Dial(ctx, name)
		if err == nil {
			return conn, nil
		}
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ECONNREFUSED) {
			return nil, err
		}
		if tries == 500 { // two seconds: what is still away is slow, so ask less often
			wait = 50 * time.Millisecond
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("rpc: %s did not appear: %w", name, context.Cause(ctx))
		case <-timer.C:
		}
	}
}

// Listen binds the socket called name anew, owned by the given host user and
// usable by that user alone.
func (d *Folder) Listen(name string, owner int) (net.Listener, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.f == nil {
		return nil, ErrClosed
	}
	dir := int(d.f.Fd())
	if err := unix.Unlinkat(dir, name, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return nil, fmt.Errorf("rpc: remove old %s: %w", name, err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: "/proc/self/fd/" + strconv.Itoa(dir) + "/" + name, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("rpc: bind %s: %w", name, err)
	}
	l.SetUnlinkOnClose(false)
	if err := unix.Fchownat(dir, name, owner, owner, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		l.Close()
		return nil, fmt.Errorf("rpc: give %s to its container: %w", name, err)
	}
	return l, nil
}

// Remove removes the name when it is there.
func (d *Folder) Remove(name string) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.f != nil {
		_ = unix.Unlinkat(int(d.f.Fd()), name, 0)
	}
}
