package e2e

import (
	"bufio"
	"crypto/tls"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestUp runs what `make up` runs, twice on the same folder: with TLS, since
// the address is not loopback and nothing says plain. Both runs tell where the
// service is; Ctrl-C ends the first one, stead down the second.
func TestUp(t *testing.T) {
	l := newLab(t)
	dir := filepath.Join(t.TempDir(), "state")
	secure := client(l.lan)
	secure.Transport.(*http.Transport).TLSClientConfig = &tls.Config{InsecureSkipVerify: true} // the root is the server's own
	var claimed []string
	for run, end := range []func(cmd *exec.Cmd){
		func(cmd *exec.Cmd) { require.NoError(t, cmd.Process.Signal(syscall.SIGINT)) },
		func(*exec.Cmd) {
			out, err := exec.Command(os.Getenv("STEAD_BIN"), "down", "--dir", dir).CombinedOutput()
			require.NoError(t, err, "%s", out)
		},
	} {
		cmd := exec.Command("nsenter", "--net=/run/netns/"+l.srv, os.Getenv("STEAD_BIN"), "up", "--dir", dir,
			"--listen", serverAddr+":"+apiPort, "--base-image", os.Getenv("STEAD_BASE"), "--package", os.Getenv("STEAD_EXAMPLE"))
		pipe, err := cmd.StdoutPipe()
		require.NoError(t, err)
		cmd.Stderr = os.Stderr
		require.NoError(t, cmd.Start())
		watchdog := time.AfterFunc(2*time.Minute, func() { cmd.Process.Kill() })
		t.Cleanup(func() { cmd.Process.Signal(syscall.SIGINT) })
		told := map[string][]string{}
		out := bufio.NewScanner(pipe)
		for out.Scan() && !strings.HasPrefix(out.Text(), "Ready") {
			words := strings.Fields(out.Text())
			if len(words) > 1 {
				told[words[0]] = append(told[words[0]], words[len(words)-1])
			}
		}
		require.Equal(t, []string{"https://" + serverAddr + ":" + apiPort + "/v1"}, told["API"], "run %d: %v", run, told)
		require.Len(t, told["Docs"], 1)
		require.Contains(t, told["Service"], "http://"+serverAddr+":49152", "run %d: %v", run, told)
		require.Len(t, told["Claim"], 1, "the first package leaves the server without an owner")
		claimed = append(claimed, told["Claim"][0])
		page, err := get(client(l.lan), "http://"+serverAddr+":49152")
		require.NoError(t, err)
		require.Contains(t, page, "<h1>Hello")
		docs, err := get(secure, told["Docs"][0])
		require.NoError(t, err)
		require.Contains(t, docs, "<title>")
		_, err = get(client(l.lan), "http://"+serverAddr+":"+apiPort+"/v1/mode")
		require.Error(t, err, "not in plain")
		end(cmd)
		for out.Scan() {
		}
		require.NoError(t, cmd.Wait())
		watchdog.Stop()
		require.NoFileExists(t, filepath.Join(dir, "stead.sock"))
	}
	require.Equal(t, claimed[0], claimed[1], "resumed with the same state")
}
