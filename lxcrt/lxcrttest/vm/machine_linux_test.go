package vm_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/selfstead/selfstead/lxcrt/lxcrttest/vm"
)

// image is the kept one in VM_CACHE, of the release VM_SUITE; without it the tests
// skip, and in CI fail.
func image(t *testing.T) *vm.Image {
	t.Helper()
	dir := os.Getenv("VM_CACHE")
	if dir == "" || os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("this test needs root and VM_CACHE, the folder of the machine's image")
		}
		t.Skip("this test needs root and VM_CACHE, the folder of the machine's image")
	}
	im, err := vm.BuildImage(t.Context(), vm.ImageOptions{Cache: dir, Suite: os.Getenv("VM_SUITE")})
	require.NoError(t, err)
	return im
}

// start boots a machine whose files go to a folder that has to be empty when
// the machine is closed, as the list of our child processes.
func start(t *testing.T, o vm.Options) *vm.Machine {
	t.Helper()
	o.Image, o.Temp = image(t), t.TempDir()
	m, err := vm.Start(t.Context(), o)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, m.Close())
		require.NoError(t, m.Close(), "twice")
		left, err := os.ReadDir(o.Temp)
		require.NoError(t, err)
		require.Empty(t, left)
		require.Empty(t, emulators(t, os.Getpid()))
	})
	return m
}

// emulators are the child processes of one that run machines.
func emulators(t *testing.T, of int) (pids []int) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/stat")
	require.NoError(t, err)
	for _, f := range all {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // it has ended
		}
		var state string
		var parent int
		_, rest, _ := strings.Cut(string(b), ") ")
		_, err = fmt.Sscan(rest, &state, &parent)
		require.NoError(t, err)
		if parent == of && strings.Contains(string(b), "(qemu") {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(f)))
			require.NoError(t, err)
			pids = append(pids, pid)
		}
	}
	return pids
}

func sh(t *testing.T, m *vm.Machine, script string) string {
	t.Helper()
	out, err := m.Sh(t.Context(), script)
	require.NoError(t, err)
	return out
}

// TestMachine takes one machine through its life: commands, files, reboots, and
// an end that nobody asked for.
func TestMachine(t *testing.T) {
	shared := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(shared, "file"), []byte("from the host"), 0o600))
	m := start(t, vm.Options{Shares: []vm.Share{{Host: shared, Path: "/host"}}, Disks: []int64{64 << 20}})

	// Streams, status, environment, folder.
	var stdout, stderr bytes.Buffer
	st, err := m.Run(t.Context(), vm.Command{Argv: []string{"sh", "-c", `echo "$X $PWD"; echo wrong >&2; exit 7`},
		Env: []string{"X=y"}, Dir: "/etc", Stdout: &stdout, Stderr: &stderr})
	require.NoError(t, err)
	require.Equal(t, 7, st.Code)
	require.Equal(t, "y /etc\n", stdout.String())
	require.Equal(t, "wrong\n", stderr.String())
	require.Equal(t, m.Kernel(), sh(t, m, "uname -r"))

	// A megabyte through it and back, while another command does not read.
	idle, err := m.Start(vm.Command{Argv: []string{"sleep", "1000"}, Stdin: bytes.NewReader(make([]byte, 1<<20))})
	require.NoError(t, err)
	data := make([]byte, 1<<20)
	rng := rand.NewChaCha8([32]byte{1})
	_, _ = rng.Read(data)
	var back bytes.Buffer
	st, err = m.Run(t.Context(), vm.Command{Argv: []string{"cat"}, Stdin: bytes.NewReader(data), Stdout: &back})
	require.NoError(t, err)
	require.Zero(t, st.Code)
	require.True(t, bytes.Equal(data, back.Bytes()))
	require.NoError(t, m.Put(t.Context(), "/new/folder/file", 0o750, bytes.NewReader(data)))
	sum := sha256.Sum256(data)
	require.Equal(t, hex.EncodeToString(sum[:])+"  /new/folder/file", sh(t, m, "sha256sum /new/folder/file"))
	require.Equal(t, "750", sh(t, m, "stat -c %a /new/folder/file"))

	// What goes wrong.
	_, err = m.Run(t.Context(), vm.Command{Argv: []string{"no-such-program"}})
	require.ErrorContains(t, err, "no-such-program")
	require.Error(t, m.Put(t.Context(), "/proc/no/file", 0o600, strings.NewReader("x")))
	_, err = m.Sh(t.Context(), "echo why; exit 3")
	require.ErrorContains(t, err, "exit status 3: why")

	// Signals, and a caller that loses patience.
	require.NoError(t, idle.Signal(syscall.SIGTERM))
	st, err = idle.Wait(t.Context())
	require.NoError(t, err)
	require.Equal(t, syscall.SIGTERM, st.Signal)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err = m.Run(ctx, vm.Command{Argv: []string{"sh", "-c", "sleep 1000 & wait"}})
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Empty(t, sh(t, m, "pgrep sleep || true"), "killed with what it started")

	// The host's folder, the empty disk, and what the kit promises of the system.
	require.Equal(t, "from the host", sh(t, m, "cat /host/file"))
	_, err = m.Sh(t.Context(), "echo x > /host/file")
	require.ErrorContains(t, err, "Read-only file system")
	require.Equal(t, "67108864", sh(t, m, "blockdev --getsize64 /dev/vdb"))
	sh(t, m, "mkfs.ext4 -q -O project,quota /dev/vdb && mkdir -p /mnt/q && mount -o prjquota /dev/vdb /mnt/q && umount /mnt/q")
	require.Equal(t, "cgroup2fs", sh(t, m, "stat -fc %T /sys/fs/cgroup"))
	sh(t, m, "test -e /dev/loop-control && test -e /dev/net/tun && ip addr show lo | grep -q 127.0.0.1")

	// Power lost: what was not synced may be gone, what was is not. The disk's
	// content goes with the machine only.
	sh(t, m, "echo kept > /kept && sync")
	under, err := m.Start(vm.Command{Argv: []string{"sleep", "1000"}})
	require.NoError(t, err)
	boot := sh(t, m, "cat /proc/sys/kernel/random/boot_id")
	require.NoError(t, m.Reset(t.Context()))
	_, err = under.Wait(t.Context())
	require.ErrorIs(t, err, vm.ErrGone)
	require.Equal(t, "kept", sh(t, m, "cat /kept"))
	require.NotEqual(t, boot, sh(t, m, "cat /proc/sys/kernel/random/boot_id"))
	require.Equal(t, "ext4", sh(t, m, "blkid -o value -s TYPE /dev/vdb"))
	require.Empty(t, m.Oops(), m.Console())

	// Asked to, it comes up again with everything that was written.
	sh(t, m, "echo more > /kept")
	require.NoError(t, m.Reboot(t.Context()))
	require.Equal(t, "more", sh(t, m, "cat /kept"))

	// The emulator dies.
	under, err = m.Start(vm.Command{Argv: []string{"sleep", "1000"}})
	require.NoError(t, err)
	pids := emulators(t, os.Getpid())
	require.Len(t, pids, 1)
	require.NoError(t, syscall.Kill(pids[0], syscall.SIGKILL))
	_, err = under.Wait(t.Context())
	require.ErrorIs(t, err, vm.ErrGone)
	_, err = m.Sh(t.Context(), "true")
	require.ErrorIs(t, err, vm.ErrGone)
}

// TestSystemd boots Debian's own init and shuts it down. It takes ten times as
// long to come up as the kit's, so what holds for both is tried on that one.
func TestSystemd(t *testing.T) {
	m := start(t, vm.Options{Init: "/sbin/init"})
	require.Equal(t, "systemd", sh(t, m, "cat /proc/1/comm"))
	state, _ := m.Sh(t.Context(), "systemctl is-system-running --wait")
	require.Equal(t, "running", strings.TrimSpace(state), "%v", func() string {
		out, _ := m.Sh(t.Context(), "systemctl --failed --no-legend")
		return out
	}())
	require.NoError(t, m.Shutdown(t.Context()))
}

// TestGoTests runs tests in a machine: good ones, and none.
func TestGoTests(t *testing.T) {
	var out bytes.Buffer
	o := vm.TestOptions{
		Targets: []vm.Target{{Package: "github.com/selfstead/selfstead/lxcrt/lxcrttest/vm/internal/wire"}},
		Expect:  []string{"cgroup2", "apparmor", "wireguard", "psi"},
		Machine: vm.Options{Image: image(t), Temp: t.TempDir()}, Output: &out,
	}
	o.Targets = append(o.Targets, vm.Target{Package: o.Targets[0].Package, Run: "^TestOfThatName$"})
	err := vm.Test(t.Context(), o)
	require.ErrorIs(t, err, vm.ErrFailed)
	require.Regexp(t, `(?m)^ok  \t.*/wire in the machine\t[0-9.]+s\t2 tests$`, out.String())
	require.Contains(t, out.String(), "no test ran")
	left, err := os.ReadDir(o.Machine.Temp)
	require.NoError(t, err)
	require.Empty(t, left)

	o.Expect = []string{"a miracle"}
	require.ErrorIs(t, vm.Test(t.Context(), o), vm.ErrNotSupported)
	o.Expect, o.Targets = nil, []vm.Target{{Package: "github.com/selfstead/selfstead/no/such"}}
	require.ErrorContains(t, vm.Test(t.Context(), o), "no/such")
}

const callerKey = "VM_TEST_CALLER"

// TestKilledCaller kills a process that runs a machine: the machine goes too,
// and the next one takes its files away.
func TestKilledCaller(t *testing.T) {
	im := image(t)
	temp := os.Getenv(callerKey)
	if temp != "" {
		_, err := vm.Start(t.Context(), vm.Options{Image: im, Temp: temp, Console: os.Stdout, Append: []string{"loglevel=7"}})
		require.NoError(t, err)
		return
	}
	temp = t.TempDir()
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	null, err := os.Open(os.DevNull)
	require.NoError(t, err)
	defer null.Close()
	p, err := os.StartProcess("/proc/self/exe", []string{os.Args[0], "-test.run=^TestKilledCaller$"},
		&os.ProcAttr{Env: append(os.Environ(), callerKey+"="+temp), Files: []*os.File{null, w, w}})
	require.NoError(t, err)
	w.Close()
	first := make([]byte, 1)
	_, err = io.ReadFull(r, first)
	require.NoError(t, err, "the machine prints something")
	pids := emulators(t, p.Pid)
	require.Len(t, pids, 1)
	pidfd, err := unix.PidfdOpen(pids[0], 0)
	require.NoError(t, err)
	defer unix.Close(pidfd)
	require.NoError(t, p.Kill())
	_, err = p.Wait()
	require.NoError(t, err)
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, 60_000)
	require.NoError(t, err)
	require.Equal(t, 1, n, "the emulator went with its owner")
	left, err := filepath.Glob(filepath.Join(temp, "selfstead-vm-*"))
	require.NoError(t, err)
	require.Len(t, left, 1)
	_, err = vm.Start(t.Context(), vm.Options{Image: &vm.Image{Root: "/nowhere", Kernel: "/nowhere"}, Temp: temp})
	require.Error(t, err)
	now, err := os.ReadDir(temp)
	require.NoError(t, err)
	require.Empty(t, now)
}
