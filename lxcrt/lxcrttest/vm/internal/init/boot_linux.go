package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selfstead/selfstead/lxcrt/lxcrttest/vm/internal/wire"
)

// Where things stand in the initial file system and in the machine.
const (
	configFile = "/vm.json"
	moduleDir  = "/modules"
	newRoot    = "/sysroot"
	agentFile  = "/run/vm/agent"
	unitDir    = "/run/systemd/system"
)

// unit starts the host's part under systemd. It must not end with a session or
// be stopped before what it was told to run.
const unit = `[Unit]
Description=The host's hand in this machine
[Service]
ExecStart=` + agentFile + `
KillMode=process
OOMScoreAdjust=-1000
LimitNOFILE=1048576
Delegate=yes
`

func main() {
	err := errors.New("started neither as the first program nor by it")
	switch {
	case os.Getpid() == 1:
		err = boot()
	case os.Args[0] == agentFile:
		err = serve()
	}
	fmt.Fprintln(os.Stderr, "vm init:", err)
	if os.Getpid() == 1 {
		powerOff(unix.LINUX_REBOOT_CMD_POWER_OFF)
	}
	os.Exit(1)
}

// boot comes back with an error only.
func boot() error {
	var c wire.Config
	b, err := os.ReadFile(configFile)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, &c); err != nil {
		return err
	}
	for _, m := range c.Modules {
		if err := load(filepath.Join(moduleDir, m)); err != nil {
			return fmt.Errorf("module %s: %w", m, err)
		}
	}
	if err := mountRoot(c); err != nil {
		return err
	}
	self, err := os.ReadFile("/init")
	if err != nil {
		return err
	}
	if err := write(newRoot+agentFile, self, 0o755); err != nil {
		return err
	}
	if c.Init != "" {
		if err := write(newRoot+unitDir+"/vm-agent.service", []byte(unit), 0o644); err != nil {
			return err
		}
		wants := newRoot + unitDir + "/multi-user.target.wants"
		if err := os.MkdirAll(wants, 0o755); err != nil {
			return err
		}
		if err := os.Symlink(unitDir+"/vm-agent.service", wants+"/vm-agent.service"); err != nil {
			return err
		}
	}
	// What the initial file system holds is memory.
	_ = os.RemoveAll(moduleDir)
	_ = os.Remove("/init")
	if err := os.Chdir(newRoot); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("change root: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	if c.Init != "" {
		return unix.Exec(c.Init, []string{c.Init}, []string{"PATH=" + searchPath, "TERM=dumb"})
	}
	return rule()
}

// load loads a module; one that is there already is fine.
func load(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return nil
}

// mountRoot mounts the root file system, what the kernel shows, and the host's
// folders.
func mountRoot(c wire.Config) error {
	type entry struct {
		from, to, kind string
		flags          uintptr
		data           string
	}
	if err := mount("devtmpfs", "/dev", "devtmpfs", 0, ""); err != nil {
		return err
	}
	if err := await("/dev/vda"); err != nil {
		return err
	}
	const plain = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	mounts := []entry{
		{"/dev/vda", "", "ext4", unix.MS_RELATIME, ""},
		{"proc", "/proc", "proc", plain, ""},
		{"sysfs", "/sys", "sysfs", plain, ""},
		{"devtmpfs", "/dev", "devtmpfs", unix.MS_NOSUID, "mode=0755"},
		{"tmpfs", "/run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=0755"},
	}
	if c.Init == "" {
		mounts = append(mounts,
			entry{"devpts", "/dev/pts", "devpts", unix.MS_NOSUID | unix.MS_NOEXEC, "gid=5,mode=0620,ptmxmode=0666"},
			entry{"tmpfs", "/dev/shm", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, ""},
			entry{"cgroup2", "/sys/fs/cgroup", "cgroup2", plain, "nsdelegate,memory_recursiveprot"},
			entry{"securityfs", "/sys/kernel/security", "securityfs", plain, ""},
			entry{"bpf", "/sys/fs/bpf", "bpf", plain, "mode=0700"})
	}
	for _, s := range c.Shares {
		mounts = append(mounts, entry{s.Tag, s.Path, "9p", unix.MS_RDONLY, "trans=virtio,version=9p2000.L,msize=512000,cache=loose"})
	}
	for _, m := range mounts {
		if err := mount(m.from, newRoot+m.to, m.kind, m.flags, m.data); err != nil {
			return err
		}
	}
	return nil
}

func mount(from, to, kind string, flags uintptr, data string) error {
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(from, to, kind, flags, data); err != nil {
		return fmt.Errorf("mount %s on %s: %w", kind, to, err)
	}
	return nil
}

// await waits for a device, which comes a moment after its driver.
func await(file string) error {
	for range 1000 {
		if _, err := os.Stat(file); err == nil {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return fmt.Errorf("%s does not come", file)
}

func write(file string, b []byte, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, b, mode)
}

// rule is the machine's PID 1: it starts the host's part and reaps. The machine
// goes when that part does.
func rule() error {
	if err := unix.Sethostname([]byte("vm")); err != nil {
		return err
	}
	if out, err := exec.Command("/sbin/ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		return fmt.Errorf("loopback: %w: %s", err, out)
	}
	if err := staticNodes(); err != nil {
		return err
	}
	agent, err := os.StartProcess(agentFile, []string{agentFile}, &os.ProcAttr{
		Env: []string{"PATH=" + searchPath}, Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}})
	if err != nil {
		return err
	}
	for {
		var st unix.WaitStatus
		pid, err := unix.Wait4(-1, &st, 0, nil)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		if pid == agent.Pid {
			return fmt.Errorf("the host's part ended: %v", st)
		}
	}
}

// staticNodes makes the device nodes whose first use loads their module, as
// udev's "kmod static-nodes" does.
func staticNodes() error {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return err
	}
	b, err := os.ReadFile("/lib/modules/" + unix.ByteSliceToString(u.Release[:]) + "/modules.devname")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(b)) {
		var module, name string
		var kind rune
		var major, minor uint32
		if n, _ := fmt.Sscanf(line, "%s %s %c%d:%d", &module, &name, &kind, &major, &minor); n != 5 {
			continue
		}
		mode := uint32(unix.S_IFCHR | 0o600)
		if kind == 'b' {
			mode = unix.S_IFBLK | 0o600
		}
		if err := os.MkdirAll(filepath.Dir("/dev/"+name), 0o755); err != nil {
			return err
		}
		if err := unix.Mknod("/dev/"+name, mode, int(unix.Mkdev(major, minor))); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("node %s: %w", name, err)
		}
	}
	return nil
}

// powerOff ends all processes and the machine; it does not come back.
func powerOff(how int) {
	_ = unix.Kill(-1, unix.SIGKILL) // all but PID 1 and the caller
	unix.Sync()
	_ = unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_RDONLY, "")
	_ = unix.Reboot(how)
	os.Exit(1)
}
