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

func TestInspect(t *testing.T) {
	t.Parallel()
	bin := build(t, "inspect-s9pk")
	out, err := exec.Command(bin, filepath.Join("..", "s9pk", "testdata", "package.s9pk")).CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), ", signed by ")
	require.Contains(t, string(out), "manifest.json")
	out, err = exec.Command(bin, "examples_test.go").CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(out), "s9pk: ")
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
