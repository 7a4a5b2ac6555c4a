package guest

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// asInit starts "init" as PID 1 of a PID namespace.
func asInit(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := startContainer(append([]string{"init"}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS}
	cmd.Stderr = os.Stderr
	return cmd
}

func awaitLine(t *testing.T, path, text string) {
	t.Helper()
	require.Eventually(t, func() bool { return strings.Contains(messages(readLog(t, path)), text) },
		10*time.Second, time.Millisecond, "%q does not come up in the log", text)
}

func TestInit(t *testing.T) {
	inside(t, func(t *testing.T) {
		const dir = "/media/log"
		const log = dir + "/" + logName
		cmd := asInit(t, "--log", dir, "--", "sh", "-c", `
			echo "pid $$, out"; echo err >&2; printf 'no end'; sh -c 'sleep 0.01 &'
			echo reopened > /dev/stdout
			exit 42`)
		assert.Error(t, cmd.Run())
		assert.Equal(t, 42, cmd.ProcessState.ExitCode())
		out := messages(readLog(t, log))
		assert.Contains(t, out, "stdout: pid ")
		assert.Contains(t, out, "stderr: err\n")
		assert.Contains(t, out, "no end")
		assert.Contains(t, out, "reopened\n")

		// A stop signal becomes SIGTERM; stragglers get it too; zombies of
		// orphans are reaped meanwhile.
		for _, s := range []syscall.Signal{unix.SIGTERM, unix.SIGPWR, syscall.Signal(37)} {
			require.NoError(t, os.RemoveAll(dir))
			cmd = asInit(t, "--log", dir, "--", "sh", "-c", `
				trap 'echo main ends; exit 6' TERM
				(trap 'echo straggler ends; exit 0' TERM; echo up; while :; do sleep 0.05; done) &
				for i in 1 2 3; do sh -c 'sh -c "exit 0" &'; done
				while :; do sleep 0.05; done`)
			require.NoError(t, cmd.Start())
			awaitLine(t, log, "up")
			require.NoError(t, cmd.Process.Signal(s))
			assert.Error(t, cmd.Wait())
			assert.Equal(t, 6, cmd.ProcessState.ExitCode(), s.String())
			out = messages(readLog(t, log))
			assert.Contains(t, out, "main ends")
			assert.Contains(t, out, "straggler ends")
		}

		cmd = asInit(t, "--log", dir, "--grace", "50ms", "--", "sh", "-c",
			`(trap '' TERM; echo stubborn; while :; do sleep 0.05; done) & sleep 0.2; kill -9 $$`)
		assert.Error(t, cmd.Run())
		assert.Equal(t, 128+9, cmd.ProcessState.ExitCode())
		assert.Contains(t, messages(readLog(t, log)), "killed by signal 9")

		cmd = asInit(t, "--log", dir, "--", "sh", "-c", "echo path $PATH")
		cmd.Env = []string{"X=1"} // no PATH
		assert.NoError(t, cmd.Run())
		assert.Contains(t, messages(readLog(t, log)), "path "+defaultPath)

		cmd = asInit(t, "--log", dir, "--", "no-such-command")
		assert.Error(t, cmd.Run())
		assert.Equal(t, 127, cmd.ProcessState.ExitCode())
	})
}

// PID 1 makes what the container's start left out.
func TestInitPrepares(t *testing.T) {
	inside(t, func(t *testing.T) {
		require.NoError(t, unix.Mount("tmpfs", "/dev", "tmpfs", 0, "mode=0755"))
		require.NoError(t, os.WriteFile("/dev/null", nil, 0o666))
		cmd := asInit(t, "--log", "/media/log", "--", "sh", "-c", `
			stat -f -c %T /dev/shm /dev/pts /dev/mqueue
			ls -d /dev/fd /dev/stdin /dev/ptmx | wc -l
			cat /sys/class/net/lo/flags
			grep -c 'shared:' /proc/self/mountinfo > /dev/null && echo shared`)
		require.NoError(t, cmd.Run())
		out := messages(readLog(t, "/media/log/"+logName))
		assert.Contains(t, out, "stdout: tmpfs\nstdout: devpts\nstdout: mqueue\nstdout: 3\n")
		assert.Contains(t, out, "stdout: shared\n")
		assert.Contains(t, out, "stdout: 0x9\n", "loopback is up")
	})
}

func TestPipeWrap(t *testing.T) {
	t.Parallel()
	var out, errs bytes.Buffer
	cmd := startContainer("pipe-wrap", "sh", "-c", `echo out; echo err > /dev/stderr; env | grep STARTOS; exit 4`)
	cmd.Stdout, cmd.Stderr = &out, &errs
	assert.Error(t, cmd.Run())
	assert.Equal(t, 4, cmd.ProcessState.ExitCode())
	assert.Equal(t, "out\nSTARTOS_ENVIRONMENT=\n", out.String())
	assert.Equal(t, "err\n", errs.String())

	cmd = startContainer("pipe-wrap", "sh", "-c", "kill -9 $$")
	assert.Error(t, cmd.Run())
	assert.Equal(t, 1, cmd.ProcessState.ExitCode())
}

// BenchmarkLaunch measures how long ROOT/proc/1 takes to show after the spawn
// of a launch; the SDK gives it about 100 ms.
func BenchmarkLaunch(b *testing.B) {
	inside(b, func(b *testing.B) {
		root := newRoot(b, "A")
		var worst time.Duration
		for b.Loop() {
			start := time.Now()
			cmd := startContainer("subcontainer", "launch", root)
			require.NoError(b, cmd.Start())
			for {
				if _, err := os.Stat(root + "/proc/1"); err == nil {
					break
				}
			}
			worst = max(worst, time.Since(start))
			b.StopTimer()
			require.NoError(b, cmd.Process.Signal(unix.SIGTERM))
			require.NoError(b, cmd.Wait())
			b.StartTimer()
		}
		b.ReportMetric(float64(worst.Microseconds())/1000, "worst-ms")
	})
}
