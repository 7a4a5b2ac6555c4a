package guest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// execJoin runs a further command in the namespaces of a launched subcontainer.
func execJoin(c *call, o *subcontainerOptions) error {
	joinable(o.Root)
	for _, ns := range []struct {
		name string
		kind int
	}{{"pid", unix.CLONE_NEWPID}, {"cgroup", unix.CLONE_NEWCGROUP}, {"ipc", unix.CLONE_NEWIPC}} {
		path := filepath.Join(o.Root, "proc/1/ns", ns.name)
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("guest: subcontainer %s is not running: %s: %w", o.Root, path, err)
		}
		err = unix.Setns(fd, ns.kind)
		unix.Close(fd)
		if err != nil {
			return fmt.Errorf("guest: enter the %s namespace of %s: %w", ns.name, o.Root, err)
		}
	}
	return c.runSelf("exec-command", o, &syscall.SysProcAttr{})
}

// leaderLimit is how long exec waits for a leader that is on its way.
const leaderLimit = 5 * time.Second

// joinable waits for PID 1 of the subcontainer when its place, an empty folder
// proc/1, was made ready for it. Without that place there is no such promise.
func joinable(root string) {
	deadline := time.NewTimer(leaderLimit)
	defer deadline.Stop()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := os.Lstat(filepath.Join(root, "proc/1/ns/pid")); err == nil {
			return
		}
		if _, err := os.Lstat(filepath.Join(root, "proc/1")); err != nil {
			return
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			return
		}
	}
}

// execCommand becomes the command: a mount namespace of its own with o.Root as
// the root, the user's credentials, then execve. Without a command it becomes
// the user's shell. It returns only on error, or when told to stop before.
func execCommand(c *call, o *subcontainerOptions) error {
	if err := o.dieWithParent(); err != nil {
		return err
	}
	env := newEnviron(c.env)
	if o.EnvFile != "" {
		f, err := os.Open(o.EnvFile)
		if err != nil {
			return fmt.Errorf("guest: environment file: %w", err)
		}
		list, err := readEnvFile(f, c.stderr)
		f.Close()
		if err != nil {
			return fmt.Errorf("guest: environment file %s: %w", o.EnvFile, err)
		}
		o.Env = append(list, o.Env...)
	}
	home := false
	for _, kv := range o.Env {
		env.set(kv)
		home = home || strings.HasPrefix(kv, "HOME=")
	}
	if err := enterRoot(o.Root); err != nil {
		return err
	}
	cred, err := userInRoot(o.User)
	if err != nil {
		return err
	}
	if cred.Home != "" && !home {
		env.set("HOME=" + cred.Home)
	}
	if err := become(cred); err != nil {
		return err
	}
	if err := o.dieWithParent(); err != nil { // changing credentials cleared the first request
		return err
	}
	command := o.Command
	if len(command) == 0 {
		command = []string{cred.Shell}
		if cred.Shell == "" {
			command[0] = "/bin/sh"
		}
	}
	dir := o.Workdir
	if dir == "" {
		dir = "/"
	}
	if err := unix.Chdir(dir); err != nil {
		return fmt.Errorf("guest: working directory %s: %w", dir, err)
	}
	select {
	case <-o.stopped:
		return nil
	default:
		return execve(command, env)
	}
}

// enterRoot gives this thread a mount namespace whose root is root. It pivots
// rather than chroots: a chrooted process may not make user namespaces, which
// rootless container engines inside images need.
func enterRoot(root string) error {
	step := func(what string, err error) error {
		if err != nil {
			return fmt.Errorf("guest: enter %s: %s: %w", root, what, err)
		}
		return nil
	}
	if err := step("new mount namespace", unix.Unshare(unix.CLONE_NEWNS)); err != nil {
		return err
	}
	// Slave: later mounts of the container still arrive, ours stay here.
	if err := step("slave propagation", unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, "")); err != nil {
		return err
	}
	if err := step("bind", unix.Mount(root, root, "", unix.MS_BIND|unix.MS_REC, "")); err != nil {
		return err
	}
	if err := step("chdir", unix.Chdir(root)); err != nil {
		return err
	}
	// Stacking the old root on the new one needs no folder to put it in.
	if err := step("pivot_root", unix.PivotRoot(".", ".")); err != nil {
		return err
	}
	if err := step("unmount the old root", unix.Unmount(".", unix.MNT_DETACH)); err != nil {
		return err
	}
	return step("chdir /", unix.Chdir("/"))
}

// userInRoot resolves a user by the files of the root we are in.
func userInRoot(spec string) (credentials, error) {
	read := func(path string) (string, error) {
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return "", nil // images from scratch have neither file
		}
		return string(data), err
	}
	passwd, err := read("/etc/passwd")
	if err != nil {
		return credentials{}, fmt.Errorf("guest: users of the image: %w", err)
	}
	if passwd == "" {
		passwd = "root:x:0:0:root:/:/bin/sh\n"
	}
	group, err := read("/etc/group")
	if err != nil {
		return credentials{}, fmt.Errorf("guest: groups of the image: %w", err)
	}
	return resolveUser(spec, passwd, group)
}

// become takes on the credentials, for this thread only: execve follows on it.
func become(cred credentials) error {
	if cred.UID != 0 {
		for fd := range 3 {
			handOver(fd, cred)
		}
	}
	if _, err := unix.Setsid(); err != nil && err != unix.EPERM {
		return fmt.Errorf("guest: new session: %w", err)
	}
	if err := setgroups(cred.Groups); err != nil && (len(cred.Groups) > 0 || err != unix.EPERM) {
		return fmt.Errorf("guest: supplementary groups: %w", err)
	}
	// The raw calls: the wrappers would change every thread, one by one.
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESGID, uintptr(cred.GID), uintptr(cred.GID), uintptr(cred.GID)); errno != 0 {
		return fmt.Errorf("guest: group %d: %w", cred.GID, errno)
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(cred.UID), uintptr(cred.UID), uintptr(cred.UID)); errno != 0 {
		return fmt.Errorf("guest: user %d: %w", cred.UID, errno)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("guest: dumpable: %w", err)
	}
	return nil
}

// handOver gives a standard stream to the user when it is one that a program
// may reopen by path: images log to /dev/stdout. Plain files and shared
// devices keep their owner.
func handOver(fd int, cred credentials) {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return
	}
	switch {
	case st.Mode&unix.S_IFMT == unix.S_IFIFO, st.Mode&unix.S_IFMT == unix.S_IFSOCK,
		st.Mode&unix.S_IFMT == unix.S_IFCHR && isTerminal(fd):
		_ = unix.Fchown(fd, int(cred.UID), int(cred.GID))
	}
}

// execve looks the command up in the new root and runs it.
func execve(command []string, env *environ) error {
	var last error = unix.ENOENT
	for _, path := range env.candidates(command[0]) {
		err := syscall.Exec(path, command, env.list)
		if err == unix.ENOEXEC {
			err = syscall.Exec("/bin/sh", append([]string{"/bin/sh", path}, command[1:]...), env.list)
		}
		switch err {
		case unix.ENOENT, unix.ENOTDIR:
		case unix.EACCES:
			last = err
		default:
			return &ExitError{Code: exitNotExecutable, Err: fmt.Errorf("guest: exec %s: %w", path, err)}
		}
	}
	code := exitNotFound
	if last == unix.EACCES {
		code = exitNotExecutable
	}
	return &ExitError{Code: code, Err: fmt.Errorf("guest: exec %s: %w", command[0], last)}
}

// forkExec starts a child, its command looked up by the child's own PATH.
func forkExec(command []string, attr *syscall.ProcAttr, env *environ) (int, error) {
	attr.Env = env.list
	for _, path := range env.candidates(command[0]) {
		if unix.Access(path, unix.X_OK) != nil {
			continue
		}
		pid, err := syscall.ForkExec(path, command, attr)
		if err != nil {
			return 0, &ExitError{Code: exitNotExecutable, Err: fmt.Errorf("guest: exec %s: %w", path, err)}
		}
		return pid, nil
	}
	return 0, &ExitError{Code: exitNotFound, Err: fmt.Errorf("guest: exec %s: %w", command[0], unix.ENOENT)}
}

func setgroups(groups []uint32) error {
	var p *uint32
	if len(groups) > 0 {
		p = &groups[0]
	}
	_, _, errno := rawSetgroups(len(groups), p)
	if errno != 0 {
		return errno
	}
	return nil
}
