package vm

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/selfstead/selfstead/lxcrt/lxcrttest/vm/internal/wire"
)

const port = wire.Port

// Options tune Start. Image has to be set.
type Options struct {
	Image  *Image
	Memory int64 // bytes; 0 means 2 GiB
	CPUs   int   // 0 means 2
	// Init is the machine's PID 1, such as "/sbin/init" for the image's systemd.
	// Empty means this package's own, which mounts cgroup v2, brings up loopback
	// and reaps. Under another the machine counts as up when multi-user.target is.
	Init string
	// Append are further words for the kernel's command line.
	Append []string
	// Shares are folders of the host that the machine can read.
	Shares []Share
	// Disks are the sizes in bytes of empty disks: /dev/vdb, /dev/vdc and so on.
	Disks []int64
	// Console is told what the kernel and init print; nil keeps the end of it for errors only.
	Console io.Writer
	// Temp is where the machine's own files go; empty means os.TempDir. What it
	// writes, up to the size of its disks, takes room there.
	Temp string
}

// Share is a folder of the host, read-only in the machine.
type Share struct{ Host, Path string }

// Machine is a running machine; safe for concurrent use.
type Machine struct {
	p      *process
	work   *workDir
	w      *wire.Writer
	reader chan struct{} // closed when the last frame was read

	mu       sync.Mutex // guards what follows
	last     uint32
	commands map[uint32]*Process
	kernel   string
	booted   chan struct{} // closed at the next greeting
}

// bootLimit is how long a boot may take: by translation, with systemd, on a machine
// that does ten other things, four minutes are not enough.
const bootLimit = 8 * time.Minute

// Start boots a machine and returns when it takes commands. It ends by Close,
// with ctx, and with this process.
func Start(ctx context.Context, o Options) (*Machine, error) {
	m, err := start(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("vm: start: %w", err)
	}
	return m, nil
}

func start(ctx context.Context, o Options) (_ *Machine, err error) {
	if o.Memory == 0 {
		o.Memory = 2 << 30
	}
	if o.CPUs == 0 {
		o.CPUs = 2
	}
	program, err := emulator()
	if err != nil {
		return nil, err
	}
	work, err := newWorkDir(o.Temp)
	if err != nil {
		return nil, err
	}
	m := &Machine{work: work, reader: make(chan struct{}), commands: map[uint32]*Process{}, booted: make(chan struct{})}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.Close())
		}
	}()
	if err := o.prepare(ctx, work.path); err != nil {
		close(m.reader)
		return nil, err
	}
	p, err := o.launch(ctx, program, work.path)
	if err != nil {
		close(m.reader)
		return nil, err
	}
	m.p, m.w = p, wire.NewWriter(p.port)
	booted := m.booted
	go m.read()
	go func() { // the monitor speaks of what happens, too
		_, _ = io.Copy(io.Discard, p.monitor)
	}()
	if err := m.command("qmp_capabilities"); err != nil {
		return nil, err
	}
	if err := m.await(ctx, booted); err != nil {
		return nil, err
	}
	return m, nil
}

// prepare writes the initial file system and the empty disks.
func (o Options) prepare(ctx context.Context, work string) error {
	program, err := buildInit(ctx, work)
	if err != nil {
		return err
	}
	c := wire.Config{Init: o.Init, Modules: o.Image.Order}
	for i, s := range o.Shares {
		c.Shares = append(c.Shares, wire.Share{Tag: shareTag(i), Path: s.Path})
	}
	config, err := json.Marshal(c)
	if err != nil {
		return err
	}
	for i, size := range o.Disks {
		f, err := os.Create(filepath.Join(work, diskName(i)))
		if err != nil {
			return err
		}
		if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
			return err
		}
	}
	return writeInitrd(filepath.Join(work, "initrd"), program, config, o.Image)
}

// buildInit makes the first program with the Go tool, whose cache makes it
// quick the second time.
func buildInit(ctx context.Context, work string) ([]byte, error) {
	out := filepath.Join(work, "init")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", out,
		"github.com/selfstead/selfstead/lxcrt/lxcrttest/vm/internal/init")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if b, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("go build: %w: %s", err, b)
	}
	defer os.Remove(out)
	return os.ReadFile(out)
}

// await waits for a greeting.
func (m *Machine) await(ctx context.Context, booted <-chan struct{}) error {
	limit := time.NewTimer(bootLimit)
	defer limit.Stop()
	select {
	case <-booted:
		return nil
	case <-m.reader:
		return fmt.Errorf("%w; the end of its console:\n%s", ErrGone, m.Console())
	case <-limit.C:
		return fmt.Errorf("not up after %v; the end of its console:\n%s", bootLimit, m.Console())
	case <-ctx.Done():
		return ctx.Err()
	}
}

// read hands out what the machine says, until it ends.
func (m *Machine) read() {
	defer close(m.reader)
	defer m.drop()
	r := wire.NewReader(m.p.port)
	for {
		f, err := r.Read()
		if err != nil {
			return
		}
		if f.Kind == wire.Hello {
			m.greeted(f.Payload)
			continue
		}
		m.mu.Lock()
		c := m.commands[f.ID]
		if f.Kind == wire.Exit {
			delete(m.commands, f.ID)
		}
		m.mu.Unlock()
		if c != nil {
			c.take(f)
		}
	}
}

func (m *Machine) greeted(b []byte) {
	var g wire.Greeting
	if json.Unmarshal(b, &g) != nil {
		return
	}
	m.drop()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.kernel = g.Kernel
	close(m.booted)
	m.booted = make(chan struct{})
}

// drop ends the commands of a boot that is over.
func (m *Machine) drop() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, c := range m.commands {
		delete(m.commands, id)
		c.end(Status{}, ErrGone)
	}
}

// Reboot restarts the machine the way its init does, and returns when it takes
// commands again. Commands under way end with ErrGone.
func (m *Machine) Reboot(ctx context.Context) error {
	return m.again(ctx, "reboot", func() error { return m.w.Write(wire.Power, 0, []byte("reboot")) })
}

// Reset is Reboot without asking the machine: what it has not written to its
// disks is lost, as when the power fails.
func (m *Machine) Reset(ctx context.Context) error {
	return m.again(ctx, "reset", func() error { return m.command("system_reset") })
}

func (m *Machine) again(ctx context.Context, what string, how func() error) error {
	m.mu.Lock()
	booted := m.booted
	m.mu.Unlock()
	if err := how(); err != nil {
		return fmt.Errorf("vm: %s: %w", what, err)
	}
	if err := m.await(ctx, booted); err != nil {
		return fmt.Errorf("vm: %s: %w", what, err)
	}
	return nil
}

// command tells the emulator something over its monitor.
func (m *Machine) command(name string) error {
	_, err := fmt.Fprintf(m.p.monitor, "{\"execute\":%q}\n", name)
	return err
}

// Shutdown powers the machine off the way its init does, and waits for its end.
// Close is still to be called.
func (m *Machine) Shutdown(ctx context.Context) error {
	if err := m.w.Write(wire.Power, 0, []byte("poweroff")); err != nil {
		return fmt.Errorf("vm: shut down: %w", err)
	}
	select {
	case <-m.p.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("vm: shut down: %w", ctx.Err())
	}
}

// Kernel returns the release of the machine's kernel.
func (m *Machine) Kernel() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.kernel
}

// Console returns the end of what the kernel and init printed.
func (m *Machine) Console() string {
	if m.p == nil {
		return ""
	}
	return m.p.console.String()
}

// Oops returns the console's lines that tell of a fault in the kernel.
func (m *Machine) Oops() []string {
	var out []string
	for sc := bufio.NewScanner(strings.NewReader(m.Console())); sc.Scan(); {
		for _, w := range []string{"BUG:", "Oops:", "WARNING: CPU:", "Kernel panic", "general protection fault"} {
			if strings.Contains(sc.Text(), w) {
				out = append(out, sc.Text())
				break
			}
		}
	}
	return out
}

// Close ends the machine at once and removes what it wrote. It may be called
// twice.
func (m *Machine) Close() error {
	if m.p != nil {
		m.p.kill()
		<-m.p.done
	}
	<-m.reader
	if err := m.work.remove(); err != nil {
		return fmt.Errorf("vm: close: %w", err)
	}
	return nil
}
