package vm

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// emulator is what runs a machine of this architecture.
func emulator() (string, error) {
	if runtime.GOARCH != "amd64" {
		return "", fmt.Errorf("%w: machines of %s", ErrNotSupported, runtime.GOARCH)
	}
	const name = "qemu-system-x86_64"
	p, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("%w: the program %s (Debian's package qemu-system-x86)", ErrNotSupported, name)
	}
	return p, nil
}

// Accelerated says whether machines run on the processor itself. The device
// alone does not tell: kernels that are guests themselves have it and cannot.
func Accelerated() bool {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil || !bytes.Contains(b, []byte(" vmx")) && !bytes.Contains(b, []byte(" svm")) {
		return false
	}
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return false
	}
	f.Close()
	return true
}

// arguments of the emulator. Descriptor 3 is the port, 4 the monitor.
func (o Options) arguments(initrd string) []string {
	accel := []string{"-accel", "tcg,thread=multi", "-cpu", "max"}
	// The defences against other processors' programs cost most where each
	// instruction is translated, and defend nothing here.
	line := "console=ttyS0 panic=-1 loglevel=4 mitigations=off "
	// A busy host stops a machine for longer than any hardware would: what the
	// kernel makes of that is no news.
	line += "no_timer_check nowatchdog rcupdate.rcu_cpu_stall_suppress=1 " + strings.Join(o.Append, " ")
	if Accelerated() {
		accel = []string{"-accel", "kvm", "-cpu", "host"}
	}
	a := append([]string{"-nodefaults", "-no-user-config", "-display", "none", "-machine", "q35"}, accel...)
	a = append(a, "-smp", strconv.Itoa(o.CPUs), "-m", strconv.FormatInt(o.Memory>>20, 10)+"M",
		"-kernel", o.Image.Kernel, "-initrd", initrd, "-append", line,
		"-serial", "stdio",
		"-device", "virtio-rng-pci",
		"-device", "virtio-serial-pci", "-chardev", "socket,id=port,fd=3", "-device", "virtserialport,chardev=port,name="+port,
		"-chardev", "socket,id=monitor,fd=4", "-mon", "chardev=monitor,mode=control",
		"-drive", "if=virtio,format=raw,snapshot=on,cache=unsafe,discard=unmap,file="+comma(o.Image.Root))
	for i := range o.Disks {
		a = append(a, "-drive", "if=virtio,format=raw,cache=unsafe,discard=unmap,file="+comma(filepath.Join(filepath.Dir(initrd), diskName(i))))
	}
	for i, s := range o.Shares {
		a = append(a, "-virtfs", fmt.Sprintf("local,path=%s,mount_tag=%s,security_model=none,readonly=on,multidevs=remap", comma(s.Host), shareTag(i)))
	}
	return a
}

func diskName(i int) string { return fmt.Sprintf("disk%d", i) }
func shareTag(i int) string { return fmt.Sprintf("share%d", i) }

// comma escapes a value of the emulator's own list syntax.
func comma(s string) string { return strings.ReplaceAll(s, ",", ",,") }

// process is a running emulator.
type process struct {
	port, monitor *os.File
	console       *tail
	kill          func()
	done          chan struct{} // closed when it has ended
	used          time.Duration // then: of the processors' time
}

// launch starts the emulator, which dies with us and when ctx ends.
func (o Options) launch(ctx context.Context, program, work string) (*process, error) {
	ours, theirs, err := pairs(2)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	cmd := exec.CommandContext(ctx, program, o.arguments(filepath.Join(work, "initrd"))...)
	cmd.Env = append(os.Environ(), "TMPDIR="+work) // for what the machine writes
	cmd.ExtraFiles = theirs
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	p := &process{port: ours[0], monitor: ours[1], console: &tail{copy: o.Console}, kill: cancel, done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = p.console, p.console
	started := make(chan error)
	go func() {
		// It dies with the thread that started it, which so has to stay.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		for _, f := range theirs {
			f.Close()
		}
		started <- err
		if err == nil {
			_ = cmd.Wait() // why it ended stands on the console
			p.used = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
			for _, f := range ours {
				f.Close()
			}
			close(p.done)
		}
		cancel()
	}()
	if err := <-started; err != nil {
		for _, f := range ours {
			f.Close()
		}
		return nil, err
	}
	return p, nil
}

// pairs makes connected sockets: our ends, and theirs.
func pairs(n int) (ours, theirs []*os.File, err error) {
	for range n {
		fd, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			err = unix.SetNonblock(fd[0], true)
		}
		if err != nil {
			for _, f := range append(ours, theirs...) {
				f.Close()
			}
			return nil, nil, os.NewSyscallError("socketpair", err)
		}
		ours = append(ours, os.NewFile(uintptr(fd[0]), "machine"))
		theirs = append(theirs, os.NewFile(uintptr(fd[1]), "machine"))
	}
	return ours, theirs, nil
}

// tail keeps the end of what is written to it.
type tail struct {
	mu   sync.Mutex
	b    []byte
	copy interface{ Write([]byte) (int, error) }
}

const tailSize = 64 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.b = append(t.b, p...); len(t.b) > 2*tailSize {
		t.b = append([]byte(nil), t.b[len(t.b)-tailSize:]...)
	}
	if t.copy != nil {
		_, _ = t.copy.Write(p)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.ReplaceAll(string(t.b), "\r", "")
}
