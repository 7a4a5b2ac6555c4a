package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// natSpace moves the test to a network namespace of its own.
func natSpace(t *testing.T) {
	t.Helper()
	missing := ""
	if os.Geteuid() != 0 {
		missing = "root"
	} else if _, err := exec.LookPath("nft"); err != nil {
		missing = "the program nft"
	}
	if missing != "" && os.Getenv("CI") == "true" {
		t.Fatalf("this test needs %s", missing)
	}
	if missing != "" {
		t.Skipf("this test needs %s", missing)
	}
	runtime.LockOSThread() // for good: the thread ends with the test
	require.NoError(t, unix.Unshare(unix.CLONE_NEWNET))
}

// runNAT runs `stead nat ARGS` and returns what it printed.
func runNAT(stdin string, args ...string) (string, error) {
	cmd := newNATCommand()
	cmd.SilenceErrors = true
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SetIn(strings.NewReader(stdin))
	cmd.SetArgs(args)
	err := cmd.Execute()
	return out.String(), err
}

func setForwarding(t *testing.T, value string) {
	t.Helper()
	for _, path := range []string{"/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding"} {
		require.NoError(t, os.WriteFile(path, []byte(value), 0))
	}
}

func TestNATCommand(t *testing.T) {
	natSpace(t)
	file := filepath.Join(t.TempDir(), "forwards.json")
	const text = `{"forwards":[{"name":"web","source":{"addr":"203.0.113.7","port":443},"target":{"addr":"10.59.0.2","prefix":24,"port":8443},"count":1,"protocols":["tcp","udp"],"allowFrom":["192.168.7.0/24"]},
{"name":"media","source":{"addr":"2001:db8::7","port":5000},"target":{"addr":"fd00::5","prefix":64,"port":6000},"count":3}]}`
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))

	out, err := runNAT("", "list")
	require.NoError(t, err)
	require.Equal(t, "NAME  SOURCE  TARGET  PORTS  PROTOCOLS  ALLOWED\n", out)
	out, err = runNAT("", "apply", file)
	require.NoError(t, err)
	require.Empty(t, out)
	rules, err := exec.Command("nft", "list", "table", "inet", natTable).Output()
	require.NoError(t, err)
	require.Contains(t, string(rules), `203.0.113.7 . 443 comment "web" : 10.59.0.2 . 8443`)

	listed, err := runNAT("", "list")
	require.NoError(t, err)
	require.Contains(t, listed, "203.0.113.7:443")
	require.Contains(t, listed, "192.168.7.0/24")
	written, err := runNAT("", "list", "--json")
	require.NoError(t, err)
	require.Contains(t, written, `"count": 3`)
	_, err = runNAT(written, "apply", "-")
	require.NoError(t, err)
	again, err := runNAT("", "list")
	require.NoError(t, err)
	require.Equal(t, listed, again, "what list prints is what apply reads")

	// A refused file leaves the old state.
	entry := func(edit string) string {
		return `{"name":"a","source":{"addr":"203.0.113.7","port":1000},"target":{"addr":"10.59.0.2","prefix":24,"port":2000}` + edit + `}`
	}
	for name, bad := range map[string]string{
		"past 65535":     `{"name":"a","source":{"addr":"203.0.113.7","port":65530},"target":{"addr":"10.59.0.2","prefix":24,"port":1},"count":10}`,
		"is 0":           `{"name":"a","source":{"addr":"203.0.113.7","port":0},"target":{"addr":"10.59.0.2","prefix":24,"port":1}}`,
		"family":         `{"name":"a","source":{"addr":"203.0.113.7","port":1},"target":{"addr":"fd00::1","prefix":64,"port":1}}`,
		"target.prefix":  `{"name":"a","source":{"addr":"203.0.113.7","port":1},"target":{"addr":"10.59.0.2","prefix":33,"port":1}}`,
		"already":        entry("") + "," + strings.Replace(entry(""), `"a"`, `"b"`, 1),
		"used twice":     entry("") + "," + strings.Replace(entry(""), "1000", "1001", 1),
		"ParsePrefix":    entry(`,"allowFrom":["192.168.7.0/33"]`),
		"less than 1":    entry(`,"count":0`),
		"unknown field":  entry(`,"colour":"red"`),
		"is given twice": entry(`,"count":1,"count":2`),
		"allows no one":  entry(`,"allowFrom":[]`),
		"unknown protoc": entry(`,"protocols":["icmp"]`),
	} {
		_, err := runNAT(`{"forwards":[`+bad+`]}`, "apply", "-")
		require.ErrorContains(t, err, name)
		require.NotContains(t, err.Error(), "\n")
	}
	_, err = runNAT("", "apply", file+".missing")
	require.ErrorIs(t, err, os.ErrNotExist)
	again, err = runNAT("", "list")
	require.NoError(t, err)
	require.Equal(t, listed, again)

	setForwarding(t, "0")
	out, err = runNAT("", "check")
	require.ErrorIs(t, err, errNATFindings)
	require.Contains(t, out, "sysctl net.ipv4.ip_forward")
	require.Contains(t, out, "10.59.0.2: has no route")

	_, err = runNAT("", "clear")
	require.NoError(t, err)
	rules, err = exec.Command("nft", "list", "ruleset").Output()
	require.NoError(t, err)
	require.Empty(t, string(rules))
	_, err = runNAT("", "clear")
	require.NoError(t, err, "clearing twice")
	setForwarding(t, "1")
	out, err = runNAT("", "check")
	require.NoError(t, err)
	require.Equal(t, "nothing found that keeps forwards from working\n", out)
}
