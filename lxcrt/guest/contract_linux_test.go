package guest

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// The sentences of the start-container contract that no other test takes.

// What a subcontainer has of its own, and what it shares with the container.
func TestNamespaces(t *testing.T) {
	inside(t, func(t *testing.T) {
		root := newRoot(t, "A")
		launchRoot(t, root)
		of := func(path string) map[string]string {
			m := map[string]string{}
			for _, ns := range []string{"pid", "cgroup", "ipc", "user", "net", "uts", "mnt"} {
				link, err := os.Readlink(path + "/ns/" + ns)
				require.NoError(t, err)
				m[ns] = link
			}
			return m
		}
		ours, leader := of("/proc/self"), of(root+"/proc/1")
		out, code := run(t, root, nil, "sh", "-c", "cd /proc/self/ns; for n in pid cgroup ipc user net uts mnt; do echo $n $(readlink $n); done")
		require.Zero(t, code, out)
		command := map[string]string{}
		for line := range strings.Lines(out) {
			name, link, _ := strings.Cut(strings.TrimSpace(line), " ")
			command[name] = link
		}
		for _, ns := range []string{"pid", "cgroup", "ipc"} {
			assert.NotEqual(t, ours[ns], leader[ns], ns)
			assert.Equal(t, leader[ns], command[ns], ns)
		}
		for _, ns := range []string{"user", "net", "uts"} {
			assert.Equal(t, ours[ns], leader[ns], ns)
			assert.Equal(t, ours[ns], command[ns], ns)
		}
		assert.Equal(t, ours["mnt"], leader["mnt"], "procfs shows in the container")
		assert.NotEqual(t, ours["mnt"], command["mnt"])
	})
}

// Every signal of the list reaches the command, by way of exec and of launch.
func TestEverySignalIsForwarded(t *testing.T) {
	inside(t, func(t *testing.T) {
		names := []string{"ABRT", "ALRM", "CONT", "HUP", "INT", "IO", "PIPE", "QUIT", "TERM", "TRAP", "TSTP", "TTIN", "TTOU", "URG", "USR1", "USR2", "VTALRM"}
		require.Len(t, forwarded, len(names)+1, "and SIGPROF, which Go's runtime keeps to itself")
		script := "import signal, sys, os\n" +
			"got = open('/tmp/got', 'a', buffering=1)\n" +
			"for n in sys.argv[1:]:\n" +
			"    signal.signal(getattr(signal, 'SIG' + n), lambda s, f: got.write(signal.Signals(s).name + '\\n'))\n" +
			"got.write('up\\n')\n" +
			"while True: signal.pause()\n"
		if _, err := exec.LookPath("python3"); err != nil { // a shell sees them as well, one after another
			traps := ""
			for _, n := range names {
				traps += "trap 'echo SIG" + n + " >>/tmp/got' " + n + "; "
			}
			script = traps + "echo up >>/tmp/got; while :; do sleep 0.01; done"
		}
		for _, applet := range []string{"exec", "launch"} {
			root := newRoot(t, "of-"+applet)
			args := []string{"subcontainer", applet, root, "python3", "-c", script}
			if strings.HasPrefix(script, "trap") {
				args = []string{"subcontainer", applet, root, "sh", "-c", script}
			} else {
				args = append(args, names...)
			}
			if applet == "exec" {
				launchRoot(t, root)
			}
			cmd := startContainer(args...)
			cmd.Stderr = os.Stderr
			require.NoError(t, cmd.Start())
			await := func(text string) {
				t.Helper()
				require.Eventually(t, func() bool {
					b, err := os.ReadFile(root + "/tmp/got")
					return err == nil && strings.Contains("\n"+string(b), "\n"+text+"\n")
				}, 10*time.Second, time.Millisecond, "%s by way of %s", text, applet)
			}
			await("up")
			for _, n := range names {
				require.NoError(t, cmd.Process.Signal(unix.SignalNum("SIG"+n)))
				await("SIG" + n)
			}
			require.NoError(t, cmd.Process.Kill())
			assert.Error(t, cmd.Wait())
		}
	})
}

// An idle leader ends well by each of the three signals; one that is killed does not.
func TestIdleLeaderEnds(t *testing.T) {
	inside(t, func(t *testing.T) {
		root := newRoot(t, "A")
		for _, s := range []syscall.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGQUIT} {
			leader := launchRoot(t, root)
			require.NoError(t, leader.Process.Signal(s))
			assert.NoError(t, leader.Wait(), s.String())
			assert.NoFileExists(t, root+"/proc/1")
		}
		cmd := startContainer("subcontainer", "launch", root, "sh", "-c", "kill -9 1; echo >/tmp/up; sleep 1000")
		var errs bytes.Buffer
		cmd.Stderr = &errs
		require.NoError(t, cmd.Start())
		awaitLeader(t, root)
		require.Eventually(t, func() bool { _, err := os.Stat(root + "/tmp/up"); return err == nil }, 10*time.Second, time.Millisecond)
		children, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(cmd.Process.Pid), "task", strconv.Itoa(cmd.Process.Pid), "children"))
		require.NoError(t, err)
		var inner int
		for f := range strings.FieldsSeq(string(children)) {
			inner, err = strconv.Atoi(f)
			require.NoError(t, err)
		}
		require.NoError(t, unix.Kill(inner, unix.SIGKILL))
		assert.Error(t, cmd.Wait())
		assert.Equal(t, 1, cmd.ProcessState.ExitCode())
		assert.Contains(t, errs.String(), "killed by signal 9")
	})
}

func TestUsersAndEnvironment(t *testing.T) {
	inside(t, func(t *testing.T) {
		root := newRoot(t, "A")
		launchRoot(t, root)
		env := filepath.Join(root, "../env")
		write(t, env, "HOME=/from-file\n")
		const show = `echo "$(id -u):$(id -g):$(id -G) ${HOME-none}"`
		for _, c := range []struct {
			options []string
			want    string
		}{
			{nil, "0:0:0 /root\n"}, // the entry of uid 0
			{[]string{"-u", "1000"}, "1000:1001:1001 2000 /home/app\n"},
			{[]string{"-u", "app:extra"}, "1000:2000:2000 /home/app\n"},
			{[]string{"-u", "app:77"}, "1000:77:77 2000 /home/app\n"},
			{[]string{"-u", "4321"}, "4321:0:0 none\n"}, // not in passwd: the group as it is, no home
			{[]string{"-u", "app", "-e", "HOME=/mine"}, "1000:1001:1001 2000 /mine\n"},
			{[]string{"-u", "app", "--env-file", env}, "1000:1001:1001 2000 /from-file\n"},
		} {
			out, code := run(t, root, c.options, "sh", "-c", show)
			assert.Zero(t, code, out)
			assert.Equal(t, c.want, out, c.options)
		}
		out, code := run(t, root, []string{"--env-file=/no/such/file"}, "true")
		assert.Equal(t, 1, code)
		assert.Contains(t, out, "/no/such/file")
		out, code = run(t, root, []string{"--workdir=/no/such/folder"}, "true")
		assert.Equal(t, 1, code)
		assert.Contains(t, out, "/no/such/folder")
		out, code = run(t, root, []string{"-u", "app:no-such-group"}, "true")
		assert.Equal(t, 1, code)
		assert.Contains(t, out, "no-such-group")
		// The command is looked up in the final environment, inside the new root.
		write(t, root+"/data/tool", "#!/bin/sh\necho the image\\'s tool\n")
		require.NoError(t, os.Chmod(root+"/data/tool", 0o755))
		out, _ = run(t, root, []string{"-e", "PATH=/data:/usr/bin:/bin"}, "tool")
		assert.Equal(t, "the image's tool\n", out)
		// What stands behind the root is the command's, options included.
		out, _ = run(t, root, nil, "echo", "--user=app", "-e", "X=y")
		assert.Equal(t, "--user=app -e X=y\n", out)
		out, _ = run(t, root, nil, "--", "echo", "--", "x")
		assert.Equal(t, "-- x\n", out)
	})
}

// What the body of a command finds itself in.
func TestCommandsPlace(t *testing.T) {
	inside(t, func(t *testing.T) {
		root := newRoot(t, "A")
		launchRoot(t, root)
		// A session of its own, and files of proc that belong to its user.
		out, code := run(t, root, []string{"-u", "app"}, "sh", "-c", `test "$(cut -d' ' -f6 /proc/$$/stat)" = $$ && stat -c %u /proc/$$ /proc/$$/fd`)
		assert.Zero(t, code, out)
		assert.Equal(t, "1000\n1000\n", out)
		// Its streams are its own to open again.
		out, code = run(t, root, []string{"-u", "app"}, "sh", "-c", "echo out >/dev/stdout && echo err >/dev/stderr")
		assert.Zero(t, code, out)
		assert.Equal(t, "out\nerr\n", out)
		// Not a chroot: it may make user namespaces. Nothing of the old root is left.
		out, code = run(t, root, []string{"-u", "app"}, "sh", "-c", "unshare --user --map-root-user id -u; ls -d /.put_old 2>/dev/null; grep -c ' /media ' /proc/self/mountinfo")
		assert.Equal(t, "0\n0\n", out)
		assert.NotZero(t, code, "grep counted nothing")
		// Capabilities, limits and privileges are the container's.
		for _, line := range []string{"CapBnd", "NoNewPrivs", "Seccomp"} {
			own, err := os.ReadFile("/proc/self/status")
			require.NoError(t, err)
			inside, _ := run(t, root, nil, "grep", "^"+line+":", "/proc/self/status")
			assert.Contains(t, string(own), inside, line)
		}
		// Mounts of the container that come later still arrive, its own stay inside.
		require.NoError(t, os.MkdirAll(root+"/late", 0o755))
		cmd := startContainer("subcontainer", "exec", root, "sh", "-c", "mount -t tmpfs own /mnt 2>/dev/null || mount -t tmpfs own /data; echo up; while ! test -e /late/file; do sleep 0.01; done")
		read, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		_, err = read.Read(make([]byte, 8))
		require.NoError(t, err)
		b, err := os.ReadFile("/proc/self/mountinfo")
		require.NoError(t, err)
		assert.NotContains(t, string(b), " own ")
		require.NoError(t, unix.Mount("tmpfs", root+"/late", "tmpfs", 0, ""))
		write(t, root+"/late/file", "")
		assert.NoError(t, cmd.Wait())
	})
}

// pipe-wrap hands signals on and ends as its command does.
func TestPipeWrapSignals(t *testing.T) {
	t.Parallel()
	cmd := startContainer("pipe-wrap", "sh", "-c", "trap 'echo got; exit 6' USR1; echo up; while :; do sleep 0.01; done")
	read, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	buf := make([]byte, 16)
	n, err := read.Read(buf)
	require.NoError(t, err)
	require.Equal(t, "up\n", string(buf[:n]))
	require.NoError(t, cmd.Process.Signal(unix.SIGUSR1))
	n, err = read.Read(buf)
	require.NoError(t, err)
	assert.Equal(t, "got\n", string(buf[:n]))
	assert.Error(t, cmd.Wait())
	assert.Equal(t, 6, cmd.ProcessState.ExitCode())
}

// PID 1 of any image: a user, a folder, signals, stragglers and the exit status.
func TestRun(t *testing.T) {
	inside(t, func(t *testing.T) {
		asRun := func(args ...string) (*exec.Cmd, *bytes.Buffer) {
			cmd := startContainer(append([]string{"run"}, args...)...)
			cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS}
			out := &bytes.Buffer{}
			cmd.Stdout, cmd.Stderr = out, out
			return cmd, out
		}
		cmd, out := asRun("--user=65534:65534", "-w", "/tmp", "--", "sh", "-c", "id -u; pwd; echo again >/dev/stdout; sh -c 'sleep 0.01 &'; exit 42")
		assert.Error(t, cmd.Run())
		assert.Equal(t, 42, cmd.ProcessState.ExitCode(), out)
		assert.Equal(t, "65534\n/tmp\nagain\n", out.String())
		cmd, out = asRun("--", "no-such-command")
		assert.Error(t, cmd.Run())
		assert.Equal(t, 127, cmd.ProcessState.ExitCode(), out)
		cmd, out = asRun("-w", "/no/such/folder", "--", "true")
		assert.Error(t, cmd.Run())
		assert.Contains(t, out.String(), "/no/such/folder")
		cmd, _ = asRun("--", "sh", "-c", "kill -9 $$")
		assert.Error(t, cmd.Run())
		assert.Equal(t, 128+9, cmd.ProcessState.ExitCode())

		cmd = startContainer("run", "--", "sh", "-c", "trap 'exit 0' TERM; echo up; while :; do sleep 0.01; done")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS}
		read, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		_, err = read.Read(make([]byte, 3))
		require.NoError(t, err)
		require.NoError(t, cmd.Process.Signal(unix.SIGTERM))
		assert.NoError(t, cmd.Wait())
	})
}
