package lxcrttest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const insideKey = "LXCRTTEST_INSIDE"

// Main is for TestMain: it runs the tests in a new network namespace, by
// executing the test binary again. Without root it runs them as they are, and
// they skip.
func Main(m *testing.M) {
	if os.Geteuid() != 0 || os.Getenv(insideKey) != "" {
		code := m.Run()
		if rootfs.dir != "" {
			_ = os.RemoveAll(filepath.Dir(rootfs.dir))
		}
		os.Exit(code)
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), insideKey+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	// An interrupt goes to the whole foreground group; the tests decide.
	signal.Ignore(syscall.SIGINT)
	err := cmd.Run()
	if ee := (*exec.ExitError)(nil); errors.As(err, &ee) {
		os.Exit(max(ee.ExitCode(), 1))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "lxcrttest: network namespace:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// Missing skips a test for want of something, and fails it in CI.
func Missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("missing here, where nothing may be: %s", what)
	}
	t.Skipf("missing: %s", what)
}

// Need skips (in CI: fails) unless the test is root, in its own network
// namespace, and has the named programs.
func Need(t testing.TB, programs ...string) {
	t.Helper()
	if os.Geteuid() != 0 {
		Missing(t, "root")
	}
	if os.Getenv(insideKey) == "" {
		t.Fatal("TestMain does not call lxcrttest.Main")
	}
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			Missing(t, "the program "+p)
		}
	}
}
