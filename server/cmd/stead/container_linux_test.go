package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// The test binary is the program itself when this is set.
func init() {
	if os.Getenv("STEAD_TEST_PROGRAM") != "" {
		main()
	}
}

// containerLab runs the program in a network namespace of its own, on a folder of
// its own, with a small root file system.
type containerLab struct {
	t            *testing.T
	dir          string
	root, squash string
	net          int // pid of the namespace's holder
}

func newContainerLab(t *testing.T) *containerLab {
	t.Helper()
	missing := ""
	for _, p := range []string{"busybox", "mksquashfs", "nsenter", "nft"} {
		if _, err := exec.LookPath(p); err != nil {
			missing = "the program " + p
		}
	}
	if os.Geteuid() != 0 {
		missing = "root"
	}
	if _, err := os.Stat("../../embedded/dist/start-container"); err != nil {
		missing = "server/embedded/dist/start-container, which make build makes"
	}
	if missing != "" {
		if os.Getenv("CI") == "true" {
			t.Fatalf("missing here, where nothing may be: %s", missing)
		}
		t.Skipf("missing: %s", missing)
	}
	l := &containerLab{t: t, dir: filepath.Join(t.TempDir(), "containers"), root: filepath.Join(t.TempDir(), "root")}
	holder := exec.Command("sleep", "1000")
	holder.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	require.NoError(t, holder.Start())
	l.net = holder.Process.Pid
	for _, d := range []string{"bin", "etc", "tmp", "root", "proc", "sys", "dev"} {
		require.NoError(t, os.MkdirAll(filepath.Join(l.root, d), 0o755))
	}
	busybox, err := exec.LookPath("busybox")
	require.NoError(t, err)
	data, err := os.ReadFile(busybox)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(l.root, "bin/busybox"), data, 0o755))
	for _, a := range []string{"sh", "cat", "echo", "sleep", "id", "stty", "tty", "env", "pwd", "ip", "grep", "head", "kill", "true"} {
		require.NoError(t, os.Symlink("busybox", filepath.Join(l.root, "bin", a)))
	}
	require.NoError(t, os.WriteFile(filepath.Join(l.root, "etc/passwd"), []byte("root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000::/tmp:/bin/sh\n"), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(l.root, "etc/group"), []byte("root:x:0:\nalice:x:1000:\n"), 0o644))
	l.squash = filepath.Join(t.TempDir(), "root.squashfs")
	out, err := exec.Command("mksquashfs", l.root, l.squash, "-all-root", "-noappend", "-quiet", "-no-progress").CombinedOutput()
	require.NoError(t, err, string(out))
	c := &containers{dir: l.dir}
	options, err := c.options()
	require.NoError(t, err)
	t.Cleanup(func() {
		for _, n := range c.names() {
			l.run("rm", "-f", n)
		}
		assert.Empty(t, c.names())
		// The last command that used the runtime has taken everything down.
		b, err := os.ReadFile("/proc/self/mountinfo")
		assert.NoError(t, err)
		assert.NotContains(t, string(b), l.dir)
		for _, g := range []string{"/sys/fs/cgroup/", "/sys/fs/cgroup/*/"} {
			left, _ := filepath.Glob(g + options.CgroupParent)
			assert.Empty(t, left)
		}
		left, err := exec.Command("nsenter", fmt.Sprintf("--net=/proc/%d/ns/net", l.net), "nft", "list", "tables").CombinedOutput()
		assert.NoError(t, err)
		assert.Empty(t, string(left))
		_ = holder.Process.Kill()
		_ = holder.Wait()
	})
	return l
}

func (l *containerLab) command(args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	l.t.Cleanup(cancel)
	self, err := os.Executable()
	require.NoError(l.t, err)
	args = append([]string{fmt.Sprintf("--net=/proc/%d/ns/net", l.net), self, "container", "--dir", l.dir}, args...)
	cmd := exec.CommandContext(ctx, "nsenter", args...)
	cmd.Env = append(os.Environ(), "STEAD_TEST_PROGRAM=1")
	return cmd
}

// run returns what went to both streams and the exit status.
func (l *containerLab) run(args ...string) (string, string, int) {
	l.t.Helper()
	var out, errs bytes.Buffer
	cmd := l.command(args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		l.t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

func (l *containerLab) must(args ...string) string {
	l.t.Helper()
	out, errs, code := l.run(args...)
	require.Zero(l.t, code, "%v: %s", args, errs)
	return out
}

func TestContainerRunInForeground(t *testing.T) {
	l := newContainerLab(t)
	volume := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(volume, "given"), []byte("from outside"), 0o644))
	out, errs, code := l.run("run", "--rm", "--name", "one", "-v", volume+":/v:ro", "-e", "A=b c", "-u", "alice", "-w", "/tmp", "--network", "off", l.squash,
		"sh", "-c", "id -u; pwd; echo $A; cat /v/given; echo; ip -o link | grep -c eth0; echo x >/v/y; echo end >&2; exit 42")
	assert.Equal(t, 42, code, errs)
	assert.Equal(t, "1000\n/tmp\nb c\nfrom outside\n0\n", out)
	assert.Contains(t, errs, "end\n")
	assert.Contains(t, errs, "Read-only")
	assert.NotContains(t, errs, "stead:")
	assert.NoFileExists(t, filepath.Join(volume, "y"))
	// A folder, with a network, and a program that is not there.
	out = l.must("run", "--rm", l.root, "sh", "-c", "ip -o link | grep -c eth0; cat /proc/1/comm")
	assert.True(t, strings.HasPrefix(out, "1\n"), out)
	_, errs, code = l.run("run", "--rm", l.root, "no-such-program")
	assert.Equal(t, 127, code)
	assert.Contains(t, errs, "no-such-program")
	_, _, code = l.run("run", "--rm", l.root, "sh", "-c", "kill -9 $$")
	assert.Equal(t, 137, code)
	assert.Empty(t, (&containers{dir: l.dir}).names())
}

func TestContainerLife(t *testing.T) {
	l := newContainerLab(t)
	out := l.must("run", "-d", "--name", "web", "--memory", "64M", "--pids", "50", "--cpus", "0.5", l.squash,
		"sh", "-c", "trap 'echo bye; exit 3' TERM; echo up; echo warn >&2; while :; do sleep 1000 & wait $!; done")
	assert.Equal(t, "web\n", out)
	other := strings.TrimSpace(l.must("run", "-d", l.squash, "sleep", "1000"))
	var list []listed
	require.NoError(t, json.Unmarshal([]byte(l.must("list", "--json")), &list))
	require.Len(t, list, 2)
	at := map[string]listed{list[0].Name: list[0], list[1].Name: list[1]}
	assert.Equal(t, "running", string(at["web"].State))
	assert.Equal(t, l.squash, at["web"].Image)
	assert.NotEqual(t, at["web"].Address, at[other].Address)
	assert.Contains(t, l.must("list"), "web")

	// Others work with it while it runs.
	out, _, code := l.run("exec", "-u", "alice", "-e", "X=y", "web", "sh", "-c", "id -u; echo $X; exit 9")
	assert.Equal(t, 9, code)
	assert.Equal(t, "1000\ny\n", out)
	cmd := l.command("exec", "-i", "web", "cat")
	cmd.Stdin = strings.NewReader("through\n")
	piped, err := cmd.Output()
	require.NoError(t, err)
	assert.Equal(t, "through\n", string(piped))
	var stats []usage
	require.NoError(t, json.Unmarshal([]byte(l.must("stats", "--json", "--interval", "100ms", "web")), &stats))
	require.Len(t, stats, 1)
	assert.Equal(t, int64(64<<20), stats[0].MemoryLimit)
	assert.Equal(t, int64(50), stats[0].PIDsLimit)
	assert.Contains(t, l.must("stats", "--interval", "100ms"), "of 50")

	// Its log, in another process, until its end.
	follow := l.command("logs", "-f", "web")
	read, err := follow.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, follow.Start())
	first := make([]byte, 3)
	_, err = read.Read(first)
	require.NoError(t, err)
	assert.Equal(t, "up\n", string(first))
	l.must("stop", "web")
	rest := &bytes.Buffer{}
	_, err = rest.ReadFrom(read)
	require.NoError(t, err)
	require.NoError(t, follow.Wait())
	assert.Equal(t, "bye\n", rest.String())
	out, errs, _ := l.run("logs", "-t", "web")
	assert.Contains(t, out, "up\n")
	assert.Contains(t, errs, "warn\n")
	assert.Equal(t, "bye\n", l.must("logs", "-n", "1", "web"))
	var line struct{ Stream, Message string }
	require.NoError(t, json.Unmarshal([]byte(l.must("logs", "--json", "-n", "1", "web")), &line))
	assert.Equal(t, "bye", line.Message)
	assert.Contains(t, l.must("list"), "exit 3")

	// Errors say what to do.
	_, errs, code = l.run("exec", "web", "true")
	assert.Equal(t, 1, code)
	assert.Contains(t, errs, "stead container logs web")
	_, errs, _ = l.run("run", "--name", "web", l.squash)
	assert.Contains(t, errs, "stead container rm web")
	_, errs, _ = l.run("rm", other)
	assert.Contains(t, errs, "--force")
	_, errs, _ = l.run("logs", "nobody")
	assert.Contains(t, errs, "stead container list")
	_, errs, _ = l.run("stop", "nobody")
	assert.Contains(t, errs, "stead container list")
	_, errs, _ = l.run("run", "/no/such/image")
	assert.Contains(t, errs, "OCI layout")
	_, errs, _ = l.run("run", "-v", "x", l.squash)
	assert.Contains(t, errs, "HOST:PATH")
	_, errs, _ = l.run("run", "-t", l.squash)
	assert.Contains(t, errs, "no terminal")
	l.must("rm", "web")
	l.must("rm", "-f", other)
	assert.Equal(t, "[]", strings.TrimSpace(l.must("list", "--json")))
}

// TestContainerFromLayout: the command, user, folder and environment of an OCI image hold.
func TestContainerFromLayout(t *testing.T) {
	l := newContainerLab(t)
	dir, cache := t.TempDir(), t.TempDir()
	blobs := filepath.Join(dir, "blobs/sha256")
	require.NoError(t, os.MkdirAll(blobs, 0o755))
	blob := func(b []byte) map[string]any {
		sum := fmt.Sprintf("%x", sha256.Sum256(b))
		require.NoError(t, os.WriteFile(filepath.Join(blobs, sum), b, 0o644))
		return map[string]any{"digest": "sha256:" + sum, "size": len(b)}
	}
	object := func(v any) []byte {
		b, err := json.Marshal(v)
		require.NoError(t, err)
		return b
	}
	layer, err := exec.Command("tar", "-C", l.root, "--owner=0", "--group=0", "--numeric-owner", "-cf", "-", ".").Output()
	require.NoError(t, err)
	one := blob(layer)
	config := blob(object(map[string]any{"rootfs": map[string]any{"diff_ids": []any{one["digest"]}},
		"config": map[string]any{"Env": []string{"A=b"}, "Entrypoint": []string{"/bin/sh", "-c"}, "Cmd": []string{"id -u; pwd; echo $A"}, "User": "alice", "WorkingDir": "/tmp"}}))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "index.json"), object(map[string]any{"manifests": []any{blob(object(map[string]any{"config": config, "layers": []any{one}}))}}), 0o644))
	assert.Equal(t, "1000\n/tmp\nb\n", l.must("run", "--rm", "--cache", cache, dir))
	assert.Equal(t, "0\n", l.must("run", "--rm", "--cache", cache, "--user", "root", dir, "id -u"))
}

func TestContainerTampered(t *testing.T) {
	l := newContainerLab(t)
	require.NoError(t, os.WriteFile(l.squash+".sha256", []byte(strings.Repeat("0", 64)+"\n"), 0o600))
	_, errs, code := l.run("run", "--rm", l.squash, "true")
	assert.Equal(t, 1, code)
	assert.Contains(t, errs, "changed since it was made")
}

// onTerminal starts the program on a terminal of its own and returns the other end.
func (l *containerLab) onTerminal(rows, cols uint16, args ...string) (*exec.Cmd, *os.File) {
	l.t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(l.t, err)
	l.t.Cleanup(func() { master.Close() })
	require.NoError(l.t, unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	require.NoError(l.t, err)
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(l.t, err)
	defer slave.Close()
	resizeTerminal(l.t, master, rows, cols)
	cmd := l.command(args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	require.NoError(l.t, cmd.Start())
	return cmd, master
}

func resizeTerminal(t *testing.T, master *os.File, rows, cols uint16) {
	t.Helper()
	require.NoError(t, unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols}))
}

// readUntil reads a terminal until it has said something as often as wanted.
func readUntil(t *testing.T, f *os.File, text *strings.Builder, want string, times int) {
	t.Helper()
	buf := make([]byte, 1024)
	for strings.Count(text.String(), want) < times {
		n, err := f.Read(buf)
		text.Write(buf[:n])
		require.NoError(t, err, text.String())
	}
}

func TestContainerTerminal(t *testing.T) {
	l := newContainerLab(t)
	cmd, tty := l.onTerminal(31, 91, "run", "--rm", "-it", l.squash, "sh", "-c",
		`tty; stty size; while [ "$(stty size)" != "11 22" ]; do sleep 0.01; done; echo resized; read x; echo got $x; exit 5`)
	var text strings.Builder
	readUntil(t, tty, &text, "31 91", 1)
	resizeTerminal(t, tty, 11, 22)
	readUntil(t, tty, &text, "resized", 1)
	_, err := tty.WriteString("word\n")
	require.NoError(t, err)
	readUntil(t, tty, &text, "got word", 1)
	_ = cmd.Wait()
	assert.Equal(t, 5, cmd.ProcessState.ExitCode(), text.String())
	assert.Contains(t, text.String(), "/dev/pts/")

	// On a terminal usage is shown again and again, until interrupted.
	l.must("run", "-d", "--name", "web", l.squash, "sleep", "1000")
	cmd, tty = l.onTerminal(24, 80, "stats", "--interval", "100ms")
	text.Reset()
	readUntil(t, tty, &text, "\x1b[H\x1b[2J", 3)
	_, err = tty.WriteString("\x03")
	require.NoError(t, err)
	assert.NoError(t, cmd.Wait(), text.String())
	assert.Contains(t, text.String(), "web")
}

// TestContainerInterrupted: an interrupt asks the container to end.
func TestContainerInterrupted(t *testing.T) {
	l := newContainerLab(t)
	cmd := l.command("run", "--rm", l.squash, "sh", "-c", "trap 'echo bye; exit 6' TERM; echo up; while :; do sleep 1000 & wait $!; done")
	read, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	buf := make([]byte, 3)
	_, err = read.Read(buf)
	require.NoError(t, err)
	require.NoError(t, cmd.Process.Signal(unix.SIGINT))
	rest := &bytes.Buffer{}
	_, _ = rest.ReadFrom(read)
	_ = cmd.Wait()
	assert.Equal(t, "bye\n", rest.String())
	assert.Equal(t, 6, cmd.ProcessState.ExitCode())
	assert.Empty(t, (&containers{dir: l.dir}).names())
}

func TestContainerCompletion(t *testing.T) {
	l := newContainerLab(t)
	l.must("run", "-d", "--name", "web", l.squash, "sleep", "1000")
	self, err := os.Executable()
	require.NoError(t, err)
	for _, words := range [][]string{{"exec", ""}, {"stop", ""}, {"logs", ""}, {"rm", ""}, {"stats", ""}} {
		cmd := exec.Command(self, append([]string{"__complete", "container", "--dir", l.dir}, words...)...)
		cmd.Env = append(os.Environ(), "STEAD_TEST_PROGRAM=1")
		out, err := cmd.Output()
		require.NoError(t, err)
		assert.Contains(t, string(out), "web\t", words)
	}
}

func TestParseContainerFlags(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int64{"512M": 512 << 20, "1.5g": 3 << 29, "64KiB": 64 << 10, "1000": 1000} {
		got, err := parseBytes(text)
		require.NoError(t, err)
		assert.Equal(t, want, got, text)
	}
	for _, text := range []string{"", "x", "-1M", "1X", "0", "5Mx"} {
		_, err := parseBytes(text)
		assert.Error(t, err, text)
	}
}
