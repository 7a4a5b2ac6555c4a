package guest

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestMain lets the test binary stand in for start-container: the applets
// start themselves again under that name.
func TestMain(m *testing.M) {
	switch filepath.Base(os.Args[0]) {
	case "start-container", "unshare-userns":
		os.Exit(Main(os.Args, os.Environ()))
	}
	os.Exit(m.Run())
}

const insideEnv = "GUEST_TEST_INSIDE"

// inside runs fn, once, in a process of its own whose namespaces resemble a
// service container's: a user namespace with shifted ids, and PID, mount, IPC,
// UTS and network namespaces. fn runs as root of these, with a procfs of its
// own and an empty tmpfs on /media.
func inside[T testing.TB](t T, fn func(t T)) {
	t.Helper()
	if os.Getenv(insideEnv) != t.Name() {
		needRoot(t)
		args := []string{"-test.run=^" + t.Name() + "$", "-test.v", "-test.timeout=50s"}
		switch t := testing.TB(t).(type) {
		case *testing.T:
			t.Parallel()
		case *testing.B:
			args = []string{"-test.run=^$", "-test.bench=^" + t.Name() + "$"}
		}
		self := reachableSelf(t)
		cmd := exec.Command(self, args...)
		cmd.Env = append(os.Environ(), insideEnv+"="+t.Name())
		ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 100000, Size: 65536}}
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS |
				unix.CLONE_NEWNET | unix.CLONE_NEWCGROUP,
			UidMappings: ids, GidMappings: ids, GidMappingsEnableSetgroups: true,
			Credential: &syscall.Credential{},
		}
		cmd.Dir = "/"
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		t.Logf("%s", out)
		return
	}
	require.NoError(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""))
	require.NoError(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""))
	require.NoError(t, unix.Mount("proc", "/proc", "proc", 0, ""))
	require.NoError(t, unix.Mount("tmpfs", "/media", "tmpfs", 0, "mode=0755"))
	fn(t)
}

// reachableSelf is a copy of the test binary that the shifted user may execute:
// the folders that go test builds in are root's alone.
func reachableSelf(t testing.TB) string {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	dir, err := os.MkdirTemp("", "guest-test")
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, os.RemoveAll(dir)) })
	require.NoError(t, os.Chmod(dir, 0o755))
	path := filepath.Join(dir, "guest.test")
	if os.Link(self, path) != nil {
		data, err := os.ReadFile(self)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(path, data, 0o755))
	}
	return path
}

// needRoot skips without root, except in CI, where that is a failure.
func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("this test needs root to make namespaces")
	}
	t.Skip("needs root to make namespaces")
}

// newRoot makes a subcontainer's root folder out of the machine's own /usr.
func newRoot(t testing.TB, name string) string {
	t.Helper()
	root := subcontainers + name
	for _, dir := range []string{"etc", "usr", "tmp", "dev", "data"} {
		require.NoError(t, os.MkdirAll(filepath.Join(root, dir), 0o755))
	}
	require.NoError(t, os.Chmod(root+"/tmp", 0o1777))
	require.NoError(t, unix.Mount("/usr", root+"/usr", "", unix.MS_BIND|unix.MS_REC, ""))
	require.NoError(t, unix.Mount("/dev", root+"/dev", "", unix.MS_BIND|unix.MS_REC, ""))
	for _, link := range []string{"bin", "lib", "lib64", "sbin"} {
		if target, err := os.Readlink("/" + link); err == nil {
			require.NoError(t, os.Symlink(target, filepath.Join(root, link)))
		}
	}
	write(t, root+"/etc/passwd", "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001:App:/home/app:/bin/sh\n")
	write(t, root+"/etc/group", "root:x:0:\napp:x:1001:\nextra:x:2000:app\n")
	return root
}

func write(t testing.TB, path, text string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
}

// startContainer prepares a run of start-container by this test binary.
func startContainer(args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Args[0] = "start-container"
	cmd.Env = []string{"PATH=/usr/bin:/bin"}
	return cmd
}
