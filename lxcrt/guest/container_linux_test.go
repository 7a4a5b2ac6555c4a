package guest

import (
	"bufio"
	_ "embed"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/selfstead/selfstead/lxcrt/guest/node"
)

// host is the server's side of host.sock: a data version and subcontainers.
type host struct {
	t *testing.T

	mu      sync.Mutex
	version string
	made    int
	alive   map[string]bool
}

func (h *host) answer(method string, params json.RawMessage, _ string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var p struct {
		Version *string `json:"version"`
		GUID    string  `json:"guid"`
	}
	assert.NoError(h.t, json.Unmarshal(params, &p))
	switch method {
	case "set-data-version":
		h.version = ""
		if p.Version != nil {
			h.version = *p.Version
		}
		return `"result":null`
	case "get-data-version":
		return fmt.Sprintf(`"result":%q`, h.version)
	case "subcontainer.create-fs":
		h.made++
		guid := fmt.Sprintf("G%d", h.made)
		h.alive[guid] = true
		return fmt.Sprintf(`"result":[%q,%q]`, newRoot(h.t, guid), guid)
	case "subcontainer.destroy-fs":
		delete(h.alive, p.GUID)
		return `"result":null`
	}
	return `"error":{"code":-32601,"message":"Method not found","data":null}`
}

// now is the data version and the number of subcontainers there are.
func (h *host) now() (version string, alive int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.version, len(h.alive)
}

// TestContainer runs a whole service container's inside: PID 1, the Node
// runtime, a package, its subcontainers, and both sockets.
func TestContainer(t *testing.T) {
	inside(t, func(t *testing.T) {
		nodePath, err := exec.LookPath("node")
		if err != nil {
			require.NotEqual(t, "true", os.Getenv("CI"), "needs node")
			t.Skip("needs node")
		}
		const rpc, log, bin = "/media/startos/rpc", "/media/log/" + logName, "/media/bin"
		for _, dir := range []string{rpc, bin, "/media/init", "/media/package", "/media/startos/volumes/main", "/media/startos/images"} {
			require.NoError(t, os.MkdirAll(dir, 0o755))
		}
		require.NoError(t, os.Chmod("/media/startos/volumes/main", 0o777))
		self, err := os.Executable()
		require.NoError(t, err)
		require.NoError(t, os.Symlink(self, bin+"/start-container"))
		require.NoError(t, os.WriteFile("/media/init/index.js", node.Script, 0o644))
		require.NoError(t, os.WriteFile("/media/package/index.js", bundle, 0o644))
		write(t, "/media/startos/images/main.env", "FROM=image\nPATH=/usr/bin:/bin")

		h := &host{t: t, alive: map[string]bool{}}
		stopHost := fakeHost(t, rpc+"/host.sock", h.answer)
		boot := func() *exec.Cmd {
			args := append([]string{"--log", "/media/log", "--", nodePath}, node.Args[:len(node.Args)-1]...)
			cmd := asInit(t, append(args, "-e", `require('/media/init/index.js').index.main('/media/package', '/media/startos/rpc')`)...)
			cmd.Env = []string{"PATH=" + bin + ":/usr/bin:/bin", "RPC=" + rpc}
			require.NoError(t, cmd.Start())
			return cmd
		}
		cmd := boot()
		ask := func(method, params string) string { return askService(t, rpc+"/service.sock", method, params) }

		assert.Equal(t, `null`, ask("init", `{"id":"E1","kind":"install"}`))
		assert.Equal(t, `null`, ask("start", `{}`))
		up := func(times int) {
			t.Helper()
			require.Eventually(t, func() bool {
				return strings.Count(messages(readLog(t, log)), "up as 1000 in /data with image") == times
			}, 20*time.Second, 5*time.Millisecond, "the workload does not come up")
		}
		up(1)
		assert.JSONEq(t, `{"out":"größe/data\n","status":3,"version":"1.0:0"}`,
			ask("execute", `{"id":"E2","procedure":"/actions/look/run","input":{"input":"größe"},"timeout":null}`))

		// The host restarts: a call made meanwhile is answered by the new one.
		stopHost()
		answered := make(chan string, 1)
		go func() {
			answered <- ask("execute", `{"id":"E3","procedure":"/actions/look/run","input":{"input":"x"},"timeout":null}`)
		}()
		assert.Contains(t, ask("selfstead.status", `{}`), `"started":true`)
		fakeHost(t, rpc+"/host.sock", h.answer)
		assert.JSONEq(t, `{"out":"x/data\n","status":3,"version":"1.0:0"}`, <-answered)

		assert.Equal(t, `null`, ask("stop", `{}`))
		awaitLine(t, log, "stdout: workload ends\nstdout: workload status 0\n")
		_, alive := h.now()
		assert.Zero(t, alive)

		assert.Equal(t, `null`, ask("start", `{}`))
		up(2)
		assert.Equal(t, `null`, ask("exit", `{"id":"E4","target":">=2:0 <3:0"}`))
		assert.NoError(t, cmd.Wait())
		version, alive := h.now()
		assert.Equal(t, ">=2:0 && <3:0", version)
		assert.Zero(t, alive)
		assert.Equal(t, 2, strings.Count(messages(readLog(t, log)), "workload ends"))

		// The signal that stops a container ends the workload the same way.
		require.NoError(t, os.Remove(rpc+"/service.sock"))
		cmd = boot()
		assert.Equal(t, `null`, ask("init", `{"id":"E5","kind":null}`))
		assert.Equal(t, `null`, ask("start", `{}`))
		up(3)
		require.NoError(t, cmd.Process.Signal(unix.SIGTERM))
		assert.NoError(t, cmd.Wait())
		_, alive = h.now()
		assert.Zero(t, alive)
		assert.Equal(t, 3, strings.Count(messages(readLog(t, log)), "workload ends"))
	})
}

//go:embed testdata/service/index.js
var bundle []byte

// askService makes one call over service.sock, which may still be coming up,
// and returns the result or the error as JSON.
func askService(t *testing.T, socket, method, params string) string {
	var conn net.Conn
	if !assert.Eventually(t, func() bool {
		var err error
		conn, err = net.Dial("unix", socket)
		return err == nil
	}, 20*time.Second, 5*time.Millisecond, "service.sock does not come up") {
		return ""
	}
	defer conn.Close()
	fmt.Fprintf(conn, `{"id":1,"method":%q,"params":%s}`+"\n", method, params)
	line, err := bufio.NewReader(conn).ReadBytes('\n')
	assert.NoError(t, err)
	var answer struct{ Result, Error json.RawMessage }
	assert.NoError(t, json.Unmarshal(line, &answer))
	if answer.Error != nil {
		return string(answer.Error)
	}
	return string(answer.Result)
}
