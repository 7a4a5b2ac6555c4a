package guest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// fakeHost answers effects with what answer returns: the members of the
// response besides the id, or "" to hang up. It serves until stop, or the
// test's end.
func fakeHost(t *testing.T, path string, answer func(method string, params json.RawMessage, callID string) string) (stop func()) {
	t.Helper()
	l, err := net.Listen("unix", path)
	require.NoError(t, err)
	var running sync.WaitGroup
	stop = func() { l.Close(); running.Wait() }
	t.Cleanup(stop)
	running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer conn.Close()
				line, err := bufio.NewReader(conn).ReadBytes('\n')
				if err != nil {
					return
				}
				var r struct {
					ID     int             `json:"id"`
					Method string          `json:"method"`
					Params json.RawMessage `json:"params"`
					CallID string          `json:"callId"`
				}
				if json.Unmarshal(line, &r) != nil {
					return
				}
				if a := answer(r.Method, r.Params, r.CallID); a != "" {
					fmt.Fprintf(conn, `{"jsonrpc":"2.0","id":%d,%s}`+"\n", r.ID, a)
				}
			})
		}
	})
	return stop
}

func TestEffects(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "host.sock")
	type request struct{ method, params string }
	seen := make(chan request, 1)
	result := `"result":null`
	fakeHost(t, socket, func(method string, params json.RawMessage, id string) string {
		assert.Len(t, id, 26)
		seen <- request{method, string(params)}
		return result
	})
	for _, c := range []struct {
		line, method, params, result, out string
	}{
		{"echo hello", "echo", `{"message":"hello"}`, `"hello"`, "hello\n"},
		{"action clear --except a --except b", "action.clear", `{"except":["a","b"]}`, `null`, ""},
		{"action clear", "action.clear", `{"except":[]}`, `null`, ""},
		{"action clear-tasks only x y", "action.clear-tasks", `{"only":["x","y"]}`, `null`, ""},
		{"action get-input conf --package p", "action.get-input", `{"actionId":"conf","packageId":"p"}`, `{"a":1}`, "{\n  \"a\": 1\n}\n"},
		{"action run conf --input -", "action.run", `{"actionId":"conf","input":{"in":true}}`, `null`, ""},
		{"rebuild", "rebuild", `{}`, `null`, ""},
		{"restart", "restart", `{}`, `null`, ""},
		{"shutdown", "shutdown", `{}`, `null`, ""},
		{"set-main-status running", "set-main-status", `{"status":"running"}`, `null`, ""},
		{"get-status -p other", "get-status", `{"packageId":"other"}`, `null`, ""},
		{`set-dependencies [{"id":"x"}]`, "set-dependencies", `{"dependencies":[{"id":"x"}]}`, `null`, ""},
		{"get-dependencies", "get-dependencies", `{}`, `[]`, "[]\n"},
		{"check-dependencies a b", "check-dependencies", `{"packageIds":["a","b"]}`, `[]`, "[]\n"},
		{"subcontainer create-fs main --name n", "subcontainer.create-fs", `{"imageId":"main","name":"n"}`, `["/r","G"]`, "[\n  \"/r\",\n  \"G\"\n]\n"},
		{"subcontainer destroy-fs G", "subcontainer.destroy-fs", `{"guid":"G"}`, `null`, ""},
		{"set-data-version 1.0:0", "set-data-version", `{"version":"1.0:0"}`, `null`, ""},
		{"set-data-version", "set-data-version", `{"version":null}`, `null`, ""},
		{"get-data-version", "get-data-version", `{}`, `"1.0:0"`, "1.0:0\n"},
		{"get-os-ip", "get-os-ip", `{}`, `"10.9.8.1"`, "10.9.8.1\n"},
		{"bind-mount --source /a --target /b --idmap 0:5:2", "selfstead.bind-mount",
			`{"source":"/a","target":"/b","recursive":false,"readonly":false,"file":false,"idmap":[{"fromId":0,"toId":5,"range":2}]}`, `null`, ""},
	} {
		result = `"result":` + c.result
		var out bytes.Buffer
		run := &call{socket: "/nowhere", stdin: strings.NewReader(`{"in":true}`), stdout: &out, stderr: &out}
		err := run.run(append([]string{"start-container", "--socket", socket}, strings.Fields(c.line)...))
		require.NoError(t, err, c.line)
		r := <-seen
		assert.Equal(t, c.method, r.method)
		assert.JSONEq(t, c.params, r.params, c.line)
		assert.Equal(t, c.out, out.String(), c.line)
	}
	for _, bad := range []string{"", "nope", "subcontainer", "subcontainer nope", "echo", "echo a b", "action run", "action run x --input {",
		"action clear-tasks --only a --except b", "rebuild x", "action clear x"} {
		run := &call{socket: socket, stdin: strings.NewReader("")}
		err := run.run(append([]string{"start-container"}, strings.Fields(bad)...))
		assert.ErrorIs(t, err, ErrUsage, bad)
	}
	assert.Empty(t, seen)
}

func TestEffectErrors(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "host.sock")
	var mu sync.Mutex
	ids := map[string]int{}
	fakeHost(t, socket, func(method string, _ json.RawMessage, id string) string {
		mu.Lock()
		defer mu.Unlock()
		ids[id]++
		switch {
		case method == "get-data-version" && ids[id] < 3:
			return "" // hung up before the answer: asked again under the same id
		case method == "get-data-version":
			return `"result":"2:0"`
		case method == "restart":
			return `"error":{"code":-32601,"message":"Method not found","data":"restart"}`
		}
		return `"error":{"code":6,"message":"Not Found","data":{"details":"no image x","debug":""}}`
	})
	run := func(args ...string) (string, error) {
		var out bytes.Buffer
		c := &call{socket: socket, stdout: &out}
		err := c.run(append([]string{"start-container"}, args...))
		return out.String(), err
	}
	_, err := run("subcontainer", "create-fs", "x")
	assert.EqualError(t, err, "Not Found: no image x")
	assert.Equal(t, 6, exitCode(err))
	_, err = run("restart")
	assert.EqualError(t, err, "Method not found: restart")
	assert.Equal(t, 1, exitCode(err))
	out, err := run("get-data-version")
	assert.NoError(t, err)
	assert.Equal(t, "2:0\n", out)

	cl := &client{socket: socket + ".none"}
	_, err = cl.Call("echo", nil)
	assert.ErrorIs(t, err, os.ErrNotExist)
}

// A host that comes up late is waited for.
func TestEffectWaits(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "host.sock")
	answered := make(chan error, 1)
	go func() {
		_, err := (&call{socket: socket}).client().Call("echo", map[string]string{"message": "x"})
		answered <- err
	}()
	fakeHost(t, socket, func(string, json.RawMessage, string) string { return `"result":"x"` })
	assert.NoError(t, <-answered)
}
