package guest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// launch makes o.Root a running subcontainer: PID, cgroup and IPC namespaces
// of its own (user, network and host name stay the container's), procfs on
// ROOT/proc. A leader left there by an earlier launch is killed first.
func launch(c *call, o *subcontainerOptions) error {
	if err := endLeader(o.Root); err != nil {
		return err
	}
	err := c.runSelf("launch-init", o, &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWCGROUP | unix.CLONE_NEWIPC,
	})
	if e := unmountProc(o.Root); e != nil && err == nil {
		err = e
	}
	return err
}

// launchInit runs as PID 1 of a new PID namespace. Procfs is mounted in the
// container's own mount namespace, where the SDK and later execs look for it.
func launchInit(c *call, o *subcontainerOptions) error {
	if err := o.dieWithParent(); err != nil {
		return err
	}
	// From the first moment: PID 1 ignores what it has no handler for, and the
	// SDK may end a leader as soon as proc/1 shows.
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT, unix.SIGQUIT)
	o.ready() // a signal before this would be lost: the wrapper holds it back
	if err := mountProc(o.Root); err != nil {
		return err
	}
	if len(o.Command) > 0 {
		o.stopped = signals
		return execCommand(c, o)
	}
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, unix.SIGCHLD)
	for {
		select {
		case <-signals:
			return nil
		case <-ended:
			reapAll()
		}
	}
}

// reapAll collects every child that has ended by now.
func reapAll() {
	for {
		var ws syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &ws, syscall.WNOHANG, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
	}
}

// mountProc mounts a procfs of the calling PID namespace on root/proc. A
// symbolic link there is refused rather than followed out of the root.
func mountProc(root string) error {
	dir := filepath.Join(root, "proc")
	if err := os.Mkdir(dir, 0o555); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("guest: %w", err)
	}
	target, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("guest: open %s: %w", dir, err)
	}
	defer unix.Close(target)
	fsfd, err := unix.Fsopen("proc", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return fmt.Errorf("guest: open procfs: %w", err)
	}
	defer unix.Close(fsfd)
	if err := unix.FsconfigCreate(fsfd); err != nil {
		return fmt.Errorf("guest: create procfs: %w", err)
	}
	mnt, err := unix.Fsmount(fsfd, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return fmt.Errorf("guest: mount procfs: %w", err)
	}
	defer unix.Close(mnt)
	if err := unix.MoveMount(mnt, "", target, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH); err != nil {
		return fmt.Errorf("guest: mount procfs on %s: %w", dir, err)
	}
	return nil
}

// unmountProc detaches every procfs stacked on root/proc.
func unmountProc(root string) error {
	dir := filepath.Join(root, "proc")
	for range 16 {
		var st unix.Statfs_t
		if err := unix.Statfs(dir, &st); err != nil || st.Type != unix.PROC_SUPER_MAGIC {
			return nil
		}
		if err := unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			if errors.Is(err, unix.EINVAL) {
				return nil // not a mount point of ours
			}
			return fmt.Errorf("guest: unmount %s: %w", dir, err)
		}
	}
	return nil
}

// endLeader kills the process that leads root's PID namespace, if there is
// one, waits for its end and unmounts its procfs.
func endLeader(root string) error {
	ns, err := os.Readlink(filepath.Join(root, "proc/1/ns/pid"))
	if err != nil {
		return unmountProc(root)
	}
	own, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return fmt.Errorf("guest: own PID namespace: %w", err)
	}
	if ns == own {
		return fmt.Errorf("guest: %s/proc shows the container's own processes", root)
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return fmt.Errorf("guest: %w", err)
	}
	for _, entry := range entries {
		pid, ok := parseID(entry.Name())
		if !ok {
			continue
		}
		fd, err := unix.PidfdOpen(int(pid), 0)
		if err != nil {
			continue
		}
		if leads(int(pid), ns) {
			err = killAndWait(fd, 10*time.Second)
		}
		unix.Close(fd)
		if err != nil {
			return fmt.Errorf("guest: end the leader of %s: %w", root, err)
		}
	}
	return unmountProc(root)
}

// leads reports whether pid is PID 1 of the namespace ns, one level below ours.
func leads(pid int, ns string) bool {
	dir := fmt.Sprintf("/proc/%d/", pid)
	if link, err := os.Readlink(dir + "ns/pid"); err != nil || link != ns {
		return false
	}
	status, err := os.ReadFile(dir + "status")
	if err != nil {
		return false
	}
	for line := range strings.SplitSeq(string(status), "\n") {
		if rest, ok := strings.CutPrefix(line, "NSpid:"); ok {
			f := strings.Fields(rest)
			return len(f) >= 2 && f[len(f)-1] == "1"
		}
	}
	return false
}

// killAndWait sends SIGKILL and waits until the process has ended.
func killAndWait(pidfd int, limit time.Duration) error {
	if err := unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	deadline := time.Now().Add(limit)
	for {
		n, err := unix.Poll(fds, int(time.Until(deadline).Milliseconds()))
		if n > 0 {
			return nil
		}
		if err != nil && err != unix.EINTR {
			return err
		}
		if time.Now().After(deadline) {
			return os.ErrDeadlineExceeded
		}
	}
}
