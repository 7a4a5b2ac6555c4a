package server_test

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/selfstead/selfstead/server"
	"github.com/selfstead/selfstead/server/api"
	"github.com/selfstead/selfstead/server/problem"
)

func (s *services) Stats(_ context.Context, id string) (api.PackageStats, error) {
	p, err := s.Get(id)
	if err == nil && p.State != "running" {
		err = problem.New(409, "no-container", "it does not run")
	}
	return api.PackageStats{ID: id, CPUSeconds: 1.5, Memory: 4096}, err
}

func (s *services) AllStats(ctx context.Context) ([]api.PackageStats, error) {
	st, err := s.Stats(ctx, "hello-world")
	return []api.PackageStats{st}, err
}

func (s *services) Subcontainers(_ context.Context, id string) ([]api.Subcontainer, error) {
	_, err := s.Get(id)
	return []api.Subcontainer{{ID: "g1", Image: "main"}}, err
}

// localTerminal is a program of this machine on a real terminal.
type localTerminal struct {
	tty *os.File
	cmd *exec.Cmd
}

func (s *services) shell(_ context.Context, id string, o api.ShellOptions) (server.Terminal, error) {
	if _, err := s.Get(id); err != nil {
		return nil, err
	}
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		return nil, err
	}
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		return nil, err
	}
	slave, err := os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	defer slave.Close()
	t := &localTerminal{tty: master, cmd: exec.Command("/bin/sh")}
	if len(o.Command) > 0 {
		t.cmd = exec.Command(o.Command[0], o.Command[1:]...)
	}
	t.cmd.Stdin, t.cmd.Stdout, t.cmd.Stderr = slave, slave, slave
	t.cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true, Setctty: true}
	if err := t.Resize(o.Rows, o.Cols); err != nil {
		return nil, err
	}
	return t, t.cmd.Start()
}

func (t *localTerminal) TTY() *os.File { return t.tty }
func (t *localTerminal) Resize(rows, cols uint16) error {
	return unix.IoctlSetWinsize(int(t.tty.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols})
}
func (t *localTerminal) Hangup() { unix.Kill(-t.cmd.Process.Pid, unix.SIGKILL) } //nolint:errcheck // it may have ended
func (t *localTerminal) Wait() (int, int, error) {
	err := t.cmd.Wait()
	t.tty.Close()
	if err != nil && t.cmd.ProcessState == nil {
		return -1, 0, err
	}
	if ws := t.cmd.ProcessState.Sys().(syscall.WaitStatus); ws.Signaled() {
		return -1, int(ws.Signal()), nil
	}
	return t.cmd.ProcessState.ExitCode(), 0, nil
}

func (l *lab) shell(path string, header ...string) (*websocket.Conn, *http.Response, error) {
	l.t.Helper()
	h := http.Header{"Authorization": {"Bearer " + l.token}}
	for i := 0; i+1 < len(header); i += 2 {
		h.Set(header[i], header[i+1])
	}
	c, res, err := websocket.Dial(l.t.Context(), "ws"+strings.TrimPrefix(l.url, "http")+path, &websocket.DialOptions{HTTPHeader: h})
	if err == nil {
		c.SetReadLimit(1 << 20)
		l.t.Cleanup(func() { c.CloseNow() }) //nolint:errcheck // it may be closed
	}
	return c, res, err
}

// until reads what a terminal shows until it says want, or ends.
func until(t *testing.T, c *websocket.Conn, want string) (string, *api.ShellMessage) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var text strings.Builder
	for want == "" || !strings.Contains(text.String(), want) {
		kind, data, err := c.Read(ctx)
		require.NoError(t, err, text.String())
		if kind == websocket.MessageText {
			m := &api.ShellMessage{}
			require.NoError(t, json.Unmarshal(data, m))
			return text.String(), m
		}
		text.Write(data)
	}
	return text.String(), nil
}

func TestShell(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	c, _, err := l.shell("/v1/packages/hello-world/shell?rows=33&cols=99")
	require.NoError(t, err)
	write := func(text string) { require.NoError(t, c.Write(t.Context(), websocket.MessageBinary, []byte(text))) }
	write("stty size; echo ready-$((1+1))\n")
	text, _ := until(t, c, "ready-2")
	assert.Contains(t, text, "33 99")
	require.NoError(t, c.Write(t.Context(), websocket.MessageText, []byte(`{"resize":{"rows":10,"cols":20}}`)))
	write("stty size; echo done-$((2+2))\n")
	text, _ = until(t, c, "done-4")
	assert.Contains(t, text, "10 20")
	write("exit 7\n")
	_, m := until(t, c, "")
	require.NotNil(t, m)
	assert.Equal(t, &api.ShellExit{Code: 7}, m.Exit)
	_, _, err = c.Read(t.Context())
	assert.Equal(t, websocket.StatusNormalClosure, websocket.CloseStatus(err))

	c, _, err = l.shell("/v1/packages/hello-world/shell?command=sh&command=-c&command=kill+-9+$$")
	require.NoError(t, err)
	_, m = until(t, c, "")
	require.NotNil(t, m)
	assert.Equal(t, &api.ShellExit{Code: -1, Signal: 9}, m.Exit)
}

// TestShellIsForTheOwner: who may not, and what is no WebSocket.
func TestShellIsForTheOwner(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	for _, tt := range []struct {
		name, path string
		status     int
		header     []string
	}{
		{"guest", "/v1/packages/hello-world/shell", 401, []string{"Authorization", "Bearer x"}},
		{"another page", "/v1/packages/hello-world/shell", 403, []string{"Authorization", "", "Cookie", "stead_session=" + l.token, "Origin", "http://evil.example"}},
		{"no such package", "/v1/packages/none/shell", 404, nil},
		{"bad size", "/v1/packages/hello-world/shell?rows=0", 422, nil},
	} {
		_, res, err := l.shell(tt.path, tt.header...)
		require.Error(t, err, tt.name)
		require.NotNil(t, res, tt.name)
		assert.Equal(t, tt.status, res.StatusCode, tt.name)
	}
	a := l.do("user", "GET", "/v1/packages/hello-world/shell", "")
	assert.Equal(t, 426, a.status)
	assert.Equal(t, "upgrade-required", a.code())
	c, _, err := l.shell("/v1/packages/hello-world/shell", "Authorization", "", "Cookie", "stead_session="+l.token, "Origin", l.url)
	require.NoError(t, err, "the server's own page may")
	// The end of the session ends the terminal.
	id := decode[[]api.Session](t, l.do("user", "GET", "/v1/sessions", "").body)[0].ID
	require.Equal(t, 204, l.do("local", "DELETE", "/v1/sessions/"+id, "").status)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for err == nil {
		_, _, err = c.Read(ctx)
	}
	assert.NoError(t, ctx.Err())
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	a := l.do("user", "GET", "/v1/metrics", "")
	require.Equal(t, 200, a.status, a.body)
	m := decode[api.Metrics](t, a.body)
	assert.Positive(t, m.Host.MemoryTotal)
	assert.Positive(t, m.Host.DiskTotal)
	assert.Positive(t, m.Server.Goroutines)
	assert.Equal(t, "hello-world", m.Packages[0].ID)
	text := l.do("user", "GET", "/v1/metrics", "", "Accept", "application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
	assert.Equal(t, "application/openmetrics-text; version=1.0.0; charset=utf-8", text.header.Get("Content-Type"))
	assert.Contains(t, text.body, "\nselfstead_package_cpu_seconds_total{package=\"hello-world\"} 1.5\n")
	assert.True(t, strings.HasSuffix(text.body, "# EOF\n"))
	if path := os.Getenv("OPENMETRICS_OUT"); path != "" { // for another parser
		require.NoError(t, os.WriteFile(path, []byte(text.body), 0o644))
	}
	ev, err := l.open("user", "/v1/metrics/events").read()
	require.NoError(t, err)
	assert.Equal(t, "metrics", ev.name)
	assert.Positive(t, decode[api.Metrics](t, ev.data).Host.CPUs)
	assert.Equal(t, 200, l.do("user", "GET", "/v1/packages/hello-world/stats", "").status)
	assert.Equal(t, 404, l.do("user", "GET", "/v1/packages/none/stats", "").status)
	assert.Contains(t, l.do("user", "GET", "/v1/packages/hello-world/subcontainers", "").body, `"main"`)
	assert.Equal(t, 401, l.do("guest", "GET", "/v1/metrics", "").status)
}
