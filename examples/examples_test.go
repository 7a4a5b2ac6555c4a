// Package examples runs the examples as their readers would.
package examples

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"net/netip"
	"time"

	"github.com/selfstead/selfstead/nat/nattest"
)

// build compiles one example.
func build(t *testing.T, name string) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), name)
	out, err := exec.Command("go", "build", "-o", bin, "./"+name).CombinedOutput()
	require.NoError(t, err, "%s", out)
	return bin
}

func TestReactiveCounter(t *testing.T) {
	t.Parallel()
	bin, file := build(t, "reactive-counter"), filepath.Join(t.TempDir(), "counter.db")
	out, err := exec.Command(bin, file, "2").CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Equal(t, "dump      1: 0\n"+
		"revision  2: [{\"op\":\"replace\",\"path\":\"\",\"value\":1}]\n"+
		"revision  3: [{\"op\":\"replace\",\"path\":\"\",\"value\":2}]\n", string(out))
	out, err = exec.Command(bin, file, "0").CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Equal(t, "dump      3: 2\n", string(out))
}

// given is what make test provides by a variable of the environment.
func given(t *testing.T, name string) string {
	t.Helper()
	v := os.Getenv(name)
	if v == "" {
		if os.Getenv("CI") == "true" {
			t.Fatal("missing: " + name + ", which make test sets")
		}
		t.Skip("missing: " + name + ", which make test sets")
	}
	return v
}

func TestInspect(t *testing.T) {
	t.Parallel()
	pkg, bin := given(t, "STEAD_EXAMPLE"), build(t, "inspect-s9pk")
	out, err := exec.Command(bin, pkg).CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "hello-world 1.0.0:0, signed by ")
	require.Contains(t, string(out), "manifest.json")
	out, err = exec.Command(bin, "examples_test.go").CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(out), "s9pk: ")
}

func TestPack(t *testing.T) {
	t.Parallel()
	made := given(t, "STEAD_EXAMPLE") // then its bundle is built, and its image in the cache beside it
	bin, file := build(t, "pack-s9pk"), filepath.Join(t.TempDir(), "mine.s9pk")
	arch, err := exec.Command("uname", "-m").Output()
	require.NoError(t, err)
	cmd := exec.Command(bin, "services/hello-world", file, strings.TrimSpace(string(arch)))
	cmd.Env = append(os.Environ(), "XDG_CACHE_HOME="+filepath.Join(filepath.Dir(made), "cache"))
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Equal(t, file+"\n", string(out))
}

func TestRunContainer(t *testing.T) {
	nattest.Require(t, "ip")
	base, bin := given(t, "STEAD_BASE"), build(t, "run-container")
	host := nattest.NewLab(t).Space("host")
	out := host.Run(bin, base, "hostname; id -u; command -v node; ip -br addr 2>/dev/null; cat /proc/net/fib_trie | grep -c 10.63.0.2; exit 0")
	require.Contains(t, out, "example\n0\n/usr/bin/node\n")
	require.NotContains(t, host.Run("ip", "-br", "link"), "runc", "nothing is left")
}

func TestPersonalServer(t *testing.T) {
	nattest.Require(t, "ip")
	bin := build(t, "personal-server")
	host := nattest.NewLab(t).Space("host")
	cmd := exec.Command(bin, filepath.Join(t.TempDir(), "dir"), "127.0.0.1:8080")
	var out *bufio.Reader
	host.Do(func() error {
		pipe, err := cmd.StdoutPipe()
		if err != nil {
			return err
		}
		out = bufio.NewReader(pipe)
		return cmd.Start()
	})
	line, err := out.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "http://127.0.0.1:8080/docs\n", line)
	line, err = out.ReadString('\n')
	require.NoError(t, err)
	require.Regexp(t, "^claim code [A-Z0-9-]+\n$", line)
	require.Contains(t, host.Run("curl", "-s", "http://127.0.0.1:8080/v1/mode"), `"setup"`)
	require.NoError(t, cmd.Process.Signal(syscall.SIGINT))
	require.NoError(t, cmd.Wait())
	require.NotContains(t, host.Ruleset(), "selfstead")
}

func TestHairpin(t *testing.T) {
	nattest.Require(t, "ip")
	bin := build(t, "hairpin")
	lab := nattest.NewLab(t)
	host, inside := lab.Router("host"), lab.Space("inside")
	lab.Join(host, "in0", inside, "eth0")
	host.IP("addr add 10.59.0.1/24 dev in0\naddr add 203.0.113.7/32 dev lo")
	inside.IP("addr add 10.59.0.2/24 dev eth0\nroute add default via 10.59.0.1")
	inside.Serve(netip.MustParseAddrPort("10.59.0.2:8443"))

	var cmd *exec.Cmd
	host.Do(func() error {
		cmd = exec.Command(bin, "203.0.113.7:443", "10.59.0.2:8443", "24")
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			return err
		}
		if err := cmd.Start(); err != nil {
			return err
		}
		line, err := bufio.NewReader(out).ReadString('\n')
		require.True(t, strings.HasPrefix(line, "203.0.113.7:443 leads to"), line)
		return err
	})
	outside := netip.MustParseAddrPort("203.0.113.7:443")
	for name, s := range map[string]*nattest.Space{"the host": host, "the target itself": inside} {
		seen, err := s.Ask(nattest.Dialer{Network: "tcp", Timeout: 5 * time.Second}, outside)
		require.NoError(t, err, name)
		require.Equal(t, "10.59.0.1", seen.String(), name)
	}
	require.NoError(t, cmd.Process.Signal(syscall.SIGINT))
	require.NoError(t, cmd.Wait())
	require.NotContains(t, host.Ruleset(), "hairpin_example")
}
