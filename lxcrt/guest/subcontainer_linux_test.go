package guest

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// launchRoot launches root and waits for its PID 1 to show.
func launchRoot(t *testing.T, root string, command ...string) *exec.Cmd {
	t.Helper()
	cmd := startContainer(append([]string{"subcontainer", "launch", root}, command...)...)
	cmd.Stderr = os.Stderr
	require.NoError(t, cmd.Start())
	awaitLeader(t, root)
	return cmd
}

func awaitLeader(t *testing.T, root string) {
	t.Helper()
	require.Eventually(t, func() bool {
		_, err := os.Stat(root + "/proc/1")
		return err == nil
	}, 10*time.Second, time.Millisecond, "proc/1 does not show")
}

// run executes a command in root and returns its output and exit status.
func run(t *testing.T, root string, options []string, command ...string) (string, int) {
	t.Helper()
	args := append([]string{"subcontainer", "exec"}, options...)
	cmd := startContainer(append(append(args, root), command...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		require.ErrorAs(t, err, new(*exec.ExitError), "%s", out)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

func TestLaunchAndExec(t *testing.T) {
	inside(t, func(t *testing.T) {
		root := newRoot(t, "A")
		leader := launchRoot(t, root)

		out, code := run(t, root, nil, "sh", "-c", `echo "$$ $(id -u)"; ls / | tr '\n' ' '; exit 7`)
		assert.Equal(t, 7, code)
		assert.NotContains(t, out, "media", "the root is the image's")
		assert.Contains(t, out, "etc")
		assert.Contains(t, out, "proc")

		out, code = run(t, root, nil, "sh", "-c", "cat /proc/1/comm; readlink /proc/self/ns/net")
		assert.Zero(t, code, out)
		net, err := os.Readlink("/proc/self/ns/net")
		require.NoError(t, err)
		assert.Contains(t, out, net, "the network namespace is the container's")

		out, code = run(t, root, []string{"--user=app", "--workdir=/tmp", "--env=A=b c", "-e", "D=e"}, "sh", "-c",
			`echo "$(id -u):$(id -g):$(id -G) $PWD $HOME $A $D $PATH"`)
		assert.Zero(t, code)
		assert.Equal(t, "1000:1001:1001 2000 /tmp /home/app b c e /usr/bin:/bin\n", out)

		env := root + "/../image.env"
		write(t, env, "A=file\nB=file\nbroken\nPATH=/usr/bin:/bin:/image")
		out, code = run(t, root, []string{"--env-file=" + env, "--env=B=option", "-u", "1234:2000"}, "sh", "-c",
			`echo "$(id -u):$(id -g) $A $B $PATH"`)
		assert.Zero(t, code)
		assert.Contains(t, out, "1234:2000 file option /usr/bin:/bin:/image\n")
		assert.Contains(t, out, "line 3")

		shell := startContainer("subcontainer", "exec", "--user", "app", root)
		shell.Stdin = strings.NewReader("echo shell of $(id -un); exit 4\n")
		text, err := shell.Output()
		assert.Error(t, err)
		assert.Equal(t, 4, shell.ProcessState.ExitCode())
		assert.Equal(t, "shell of app\n", string(text))

		out, code = run(t, root, nil, "no-such-command")
		assert.Equal(t, 127, code, out)
		out, code = run(t, root, []string{"--user=nobody-here"}, "true")
		assert.Equal(t, 1, code, out)
		assert.Contains(t, out, "nobody-here")

		require.NoError(t, leader.Process.Signal(unix.SIGTERM))
		assert.NoError(t, leader.Wait())
		_, err = os.Stat(root + "/proc/1")
		assert.ErrorIs(t, err, os.ErrNotExist)
		out, code = run(t, root, nil, "true")
		assert.Equal(t, 1, code)
		assert.Contains(t, out, "not running")
	})
}

// A command launched as PID 1 replaces the idle leader.
func TestLaunchCommand(t *testing.T) {
	inside(t, func(t *testing.T) {
		root := newRoot(t, "A")
		first := launchRoot(t, root)
		done := make(chan error, 1)
		go func() { done <- first.Wait() }()

		second := startContainer("subcontainer", "launch", "--user=app", root, "sh", "-c",
			`trap 'exit 5' USR1; echo $$ > /tmp/pid; while :; do sleep 0.05; done`)
		second.Stderr = os.Stderr
		require.NoError(t, second.Start())
		err := <-done
		require.Error(t, err, "the first leader was killed")
		assert.Equal(t, 1, first.ProcessState.ExitCode())
		require.Eventually(t, func() bool {
			b, err := os.ReadFile(root + "/tmp/pid")
			return err == nil && string(b) == "1\n"
		}, 10*time.Second, time.Millisecond)
		require.NoError(t, second.Process.Signal(unix.SIGUSR1))
		assert.Error(t, second.Wait())
		assert.Equal(t, 5, second.ProcessState.ExitCode())
	})
}

// An exec that comes before the leader waits for it where its place is ready.
func TestExecBeforeLaunch(t *testing.T) {
	inside(t, func(t *testing.T) {
		root := newRoot(t, "A")
		require.NoError(t, os.MkdirAll(root+"/proc/1", 0o755))
		early := startContainer("subcontainer", "exec", root, "sh", "-c", "exit 6")
		early.Stderr = os.Stderr
		require.NoError(t, early.Start())
		leader := startContainer("subcontainer", "launch", root)
		require.NoError(t, leader.Start())
		assert.Error(t, early.Wait())
		assert.Equal(t, 6, early.ProcessState.ExitCode())
		require.NoError(t, leader.Process.Signal(unix.SIGTERM))
		assert.NoError(t, leader.Wait())
	})
}

// A leader that is told to end while it begins does end: PID 1 has no default
// for signals, so one that came before its handlers would be lost.
func TestLaunchEndedEarly(t *testing.T) {
	inside(t, func(t *testing.T) {
		root := newRoot(t, "A")
		for i := range 40 {
			leader := startContainer("subcontainer", "launch", root)
			require.NoError(t, leader.Start())
			timer := time.NewTimer(time.Duration(i) * 500 * time.Microsecond)
			<-timer.C // the moment is what differs
			require.NoError(t, leader.Process.Signal(unix.SIGTERM))
			done := make(chan error, 1)
			go func() { done <- leader.Wait() }()
			select {
			case <-done:
			case <-time.After(10 * time.Second):
				t.Fatalf("the leader that was told after %d half milliseconds goes on", i)
			}
		}
	})
}

func TestSignalsAndEnds(t *testing.T) {
	inside(t, func(t *testing.T) {
		root := newRoot(t, "A")
		launchRoot(t, root)
		start := func(script string) *exec.Cmd {
			cmd := startContainer("subcontainer", "exec", root, "sh", "-c", script)
			out, err := cmd.StdoutPipe()
			require.NoError(t, err)
			cmd.Stderr = os.Stderr
			require.NoError(t, cmd.Start())
			_, err = out.Read(make([]byte, 16)) // "up"
			require.NoError(t, err)
			return cmd
		}
		loop := "; while :; do sleep 0.05; done"
		for _, s := range []unix.Signal{unix.SIGUSR2, unix.SIGHUP, unix.SIGINT, unix.SIGURG, unix.SIGWINCH} {
			if s == unix.SIGWINCH {
				continue // not forwarded
			}
			cmd := start(fmt.Sprintf("trap 'exit 9' %d; echo up%s", s, loop))
			require.NoError(t, cmd.Process.Signal(s))
			assert.Error(t, cmd.Wait())
			assert.Equal(t, 9, cmd.ProcessState.ExitCode(), s.String())
		}
		cmd := start("echo up" + loop)
		require.NoError(t, cmd.Process.Signal(unix.SIGTERM))
		assert.NoError(t, cmd.Wait(), "killed by SIGTERM counts as success")

		cmd = start("echo up; kill -9 $$")
		assert.Error(t, cmd.Wait())
		assert.Equal(t, 1, cmd.ProcessState.ExitCode())

		// The wrapper's own death takes the workload along.
		cmd = start("echo $$ > /tmp/workload; echo up" + loop)
		b, err := os.ReadFile(root + "/tmp/workload")
		require.NoError(t, err)
		path := filepath.Join(root, "proc", strings.TrimSpace(string(b)))
		require.DirExists(t, path)
		require.NoError(t, cmd.Process.Kill())
		assert.Error(t, cmd.Wait())
		require.Eventually(t, func() bool {
			// Until the container's PID 1 (here this test) reaps it, it is a zombie.
			status, err := os.ReadFile(path + "/status")
			return err != nil || bytes.Contains(status, []byte("State:\tZ"))
		}, 10*time.Second, time.Millisecond)
	})
}

// An idle leader reaps what its subcontainer orphans.
func TestLeaderReaps(t *testing.T) {
	inside(t, func(t *testing.T) {
		root := newRoot(t, "A")
		launchRoot(t, root)
		_, code := run(t, root, nil, "sh", "-c", "for i in 1 2 3 4 5; do sh -c 'sleep 0.01 &' ; done")
		require.Zero(t, code)
		require.Eventually(t, func() bool {
			list, err := filepath.Glob(root + "/proc/[0-9]*")
			return err == nil && len(list) == 1
		}, 10*time.Second, time.Millisecond, "only PID 1 is left")
	})
}

func TestTerminal(t *testing.T) {
	inside(t, func(t *testing.T) {
		root := newRoot(t, "A")
		if _, err := os.Stat("/dev/pts/ptmx"); err != nil {
			require.NoError(t, unix.Mount("devpts", "/dev/pts", "devpts", 0, "newinstance,ptmxmode=0666"))
		}
		require.NoError(t, unix.Mount("devpts", "/dev/pts", "devpts", 0, "newinstance,ptmxmode=0666"))
		require.NoError(t, unix.Mount("/dev/pts/ptmx", "/dev/ptmx", "", unix.MS_BIND, ""))
		launchRoot(t, root)
		cmd := startContainer("subcontainer", "exec", "--force-tty", "--force-stderr-tty", "--pty-size", "33:77", "--user", "app", root, "--",
			"sh", "-c", "test -t 0 && test -t 1 && test -t 2 && stty size; read -r line; echo \"got $line\"; exit 3")
		cmd.Stdin = strings.NewReader("words\n")
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		assert.Error(t, cmd.Run())
		assert.Equal(t, 3, cmd.ProcessState.ExitCode())
		assert.Contains(t, out.String(), "33 77\r\n")
		assert.Contains(t, out.String(), "got words\r\n")
	})
}

func TestBindMount(t *testing.T) {
	inside(t, func(t *testing.T) {
		root := newRoot(t, "A")
		require.NoError(t, os.MkdirAll("/media/startos/volumes/main/sub", 0o755))
		require.NoError(t, unix.Mount("tmpfs", "/media/startos/volumes/main/sub", "tmpfs", 0, ""))
		write(t, "/media/startos/volumes/main/file", "hello")
		write(t, "/media/startos/volumes/main/sub/below", "x")
		launchRoot(t, root)
		bind := func(args ...string) string {
			out, err := startContainer(append([]string{"bind-mount"}, args...)...).CombinedOutput()
			if err == nil {
				return ""
			}
			return string(out)
		}
		const volume = "/media/startos/volumes/main"
		assert.Empty(t, bind("--source", volume, "--target", root+"/data/deep/er", "--recursive"))
		assert.FileExists(t, root+"/data/deep/er/sub/below")
		assert.NoError(t, os.WriteFile(root+"/data/deep/er/new", nil, 0o600))

		assert.Empty(t, bind("--source", volume, "--target", root+"/ro", "--recursive", "--readonly"))
		assert.ErrorIs(t, os.WriteFile(root+"/ro/new2", nil, 0o600), unix.EROFS)
		assert.ErrorIs(t, os.WriteFile(root+"/ro/sub/new2", nil, 0o600), unix.EROFS, "read-only reaches submounts")

		assert.Empty(t, bind("--source", volume+"/file", "--target", root+"/etc/app/config", "--file", "--readonly"))
		b, err := os.ReadFile(root + "/etc/app/config")
		assert.NoError(t, err)
		assert.Equal(t, "hello", string(b))

		// Links in the image mean the image's own folders.
		require.NoError(t, os.Symlink("/elsewhere", root+"/link"))
		require.NoError(t, os.Mkdir(root+"/elsewhere", 0o755))
		assert.Empty(t, bind("--source", volume, "--target", root+"/link/x"))
		assert.FileExists(t, root+"/elsewhere/x/file")
		require.NoError(t, os.Symlink("../../../../../../etc", root+"/up"))
		assert.Empty(t, bind("--source", volume, "--target", root+"/up/y"))
		assert.FileExists(t, root+"/etc/y/file")

		// Nor do links in a volume lead out of it.
		require.NoError(t, os.Symlink("/etc/passwd", volume+"/passwd"))
		assert.Contains(t, bind("--source", volume+"/passwd", "--target", root+"/stolen", "--file"), "passwd")
		require.NoError(t, os.Symlink("sub", volume+"/inner"))
		assert.Empty(t, bind("--source", volume+"/inner", "--target", root+"/inner"))
		assert.FileExists(t, root+"/inner/below")

		out, code := run(t, root, nil, "cat", "/data/deep/er/file", "/elsewhere/x/file")
		assert.Zero(t, code, out)
		assert.Equal(t, "hellohello", out)

		assert.Contains(t, bind("--source", volume+"/none", "--target", root+"/z"), "none")
	})
}

func TestUserNamespaceHolder(t *testing.T) {
	inside(t, func(t *testing.T) {
		cmd := exec.Command("/proc/self/exe")
		cmd.Args[0] = "unshare-userns"
		cmd.Env = []string{"PATH=/usr/bin:/bin"}
		in, err := cmd.StdinPipe()
		require.NoError(t, err)
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		buf := make([]byte, 16)
		n, err := out.Read(buf)
		require.NoError(t, err)
		assert.Equal(t, "ready\n", string(buf[:n]))
		theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/user", cmd.Process.Pid))
		require.NoError(t, err)
		ours, err := os.Readlink("/proc/self/ns/user")
		require.NoError(t, err)
		assert.NotEqual(t, ours, theirs)
		require.NoError(t, os.WriteFile(fmt.Sprintf("/proc/%d/uid_map", cmd.Process.Pid), []byte("0 1000 10\n"), 0))
		require.NoError(t, in.Close())
		assert.NoError(t, cmd.Wait())
	})
}
