package lxcrt

import (
	"context"
	"errors"
	"fmt"
	"path"

	"golang.org/x/sys/unix"
)

// Mount adds a mount to a running container. It is put together detached and
// then attached in the container's own mount namespace: the host's mount table
// never has it. Read-only, nosuid and nodev cannot be taken off inside.
func (c *Container) Mount(ctx context.Context, m Mount) error {
	op := "mount " + m.Target
	if why := m.check(); why != "" {
		return c.fail(op, fmt.Errorf("%w: %s", ErrInvalid, why))
	}
	life, err := c.living(ctx)
	if err != nil {
		return c.fail(op, err)
	}
	b := c.builder(life.userns)
	tree, err := b.mount(ctx, m, true)
	if err != nil {
		return c.fail(op, err)
	}
	defer unix.Close(tree)
	folder, err := isDir(tree)
	if err != nil {
		return c.fail(op, err)
	}
	err = c.inside(life, func(root int) error {
		target, err := makeTarget(root, m.Target, m.File || !folder)
		if err != nil {
			return err
		}
		if m.Replace {
			unix.Close(target)
			if err := detach(root, m.Target); err != nil && !errors.Is(err, unix.EINVAL) {
				return err
			}
			if target, err = openInside(root, m.Target, unix.O_PATH, 0); err != nil {
				return err
			}
		}
		defer unix.Close(target)
		return attach(tree, target)
	})
	if err != nil {
		return c.fail(op, err)
	}
	c.mu.Lock()
	c.added = append(c.added, m)
	limits := c.spec.Limits
	c.mu.Unlock()
	if limits.IO.bounded() { // the source may stand on another disk
		if err := c.limit(limits, true); err != nil {
			return c.fail(op, err)
		}
	}
	return nil
}

// Unmount detaches what is mounted on a target inside, with all below it.
// ErrNotFound says that nothing is. What the Spec mounted before the start cannot
// be taken away: the kernel locks it together with the root.
func (c *Container) Unmount(ctx context.Context, target string) error {
	op := "unmount " + target
	if !cleanTarget(target) {
		return c.fail(op, fmt.Errorf("%w: target", ErrInvalid))
	}
	life, err := c.living(ctx)
	if err != nil {
		return c.fail(op, err)
	}
	err = c.inside(life, func(root int) error { return detach(root, target) })
	if errors.Is(err, unix.EINVAL) {
		err = fmt.Errorf("not a mount, or one of the start: %w", ErrNotFound)
	}
	if err != nil {
		return c.fail(op, err)
	}
	return nil
}

// detach unmounts the topmost mount at p by its last element, since a
// descriptor of it would keep it busy.
func detach(root int, p string) error {
	dir, base := path.Split(p)
	parent, err := openInside(root, dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(parent)
	if err := unix.Fchdir(parent); err != nil {
		return err
	}
	err = unix.Unmount(base, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	_ = unix.Chdir("/")
	if err != nil {
		return fmt.Errorf("unmount %s: %w", p, err)
	}
	return nil
}

// living returns the current life; errors: ErrNotRunning, or the one of ctx.
func (c *Container) living(ctx context.Context) (*run, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.run == nil || c.state == Stopped || c.state == Starting || c.state == Gone {
		return nil, ErrNotRunning
	}
	return c.run, ctx.Err()
}

// inside runs fn on a thread in the container's mount namespace, creating files
// as container root. root is the container's root folder.
func (c *Container) inside(life *run, fn func(root int) error) error {
	conn, err := life.pidfd.SyscallConn()
	if err != nil {
		return ErrNotRunning
	}
	return onThread(func() error {
		var serr error
		if err := conn.Control(func(fd uintptr) { serr = unix.Setns(int(fd), unix.CLONE_NEWNS) }); err != nil {
			return ErrNotRunning
		}
		if serr != nil {
			if serr == unix.ESRCH {
				return ErrNotRunning
			}
			return fmt.Errorf("enter the container: %w", serr)
		}
		if err := actAs(c.spec.IDs.Base); err != nil {
			return err
		}
		root, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(root)
		return fn(root)
	})
}
