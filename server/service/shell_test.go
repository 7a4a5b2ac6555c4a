package service_test

import (
	"context"
	"encoding/json"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/selfstead/selfstead/server/api"
)

// shell runs a command in a terminal inside a package and returns what it shows
// and how it ends. What is typed goes in at first.
func (l *lab) shell(id, typed string, q url.Values) (string, api.ShellExit) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), time.Minute)
	defer cancel()
	c, _, err := websocket.Dial(ctx, "ws://stead/v1/packages/"+id+"/shell?"+q.Encode(), &websocket.DialOptions{HTTPClient: l.http})
	require.NoError(l.t, err)
	defer c.CloseNow() //nolint:errcheck // it may be closed
	c.SetReadLimit(1 << 20)
	require.NoError(l.t, c.Write(ctx, websocket.MessageBinary, []byte(typed)))
	var out strings.Builder
	for {
		kind, data, err := c.Read(ctx)
		require.NoError(l.t, err, out.String())
		if kind == websocket.MessageBinary {
			out.Write(data)
			continue
		}
		var m api.ShellMessage
		require.NoError(l.t, json.Unmarshal(data, &m))
		require.NotNil(l.t, m.Exit)
		return out.String(), *m.Exit
	}
}

// TestShellInAService: a terminal inside the real container, and figures of it.
func TestShellInAService(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.start()
	l.install(build(t, testPackage{ID: "alpha", Port: 18080}))
	l.healthy("alpha")

	text, end := l.shell("alpha", "tty; id -u; stty size; exit 5\n", url.Values{"rows": {"31"}, "cols": {"77"}})
	require.Equal(t, 5, end.Code, text)
	require.Contains(t, text, "/dev/")
	require.Contains(t, text, "31 77")
	text, end = l.shell("alpha", "", url.Values{"command": {"cat", "/proc/1/cmdline"}})
	require.Zero(t, end.Code)
	require.Contains(t, text, "start-container", "it is the container's own PID namespace")
	l.json("GET", "/v1/packages/none/shell", "", 426, nil)

	var stats api.PackageStats
	l.json("GET", "/v1/packages/alpha/stats", "", 200, &stats)
	require.Equal(t, "alpha", stats.ID)
	require.Greater(t, stats.Memory, int64(10<<20), "a Node runtime is in there")
	require.Positive(t, stats.CPUSeconds)
	require.Greater(t, stats.PIDs, int64(1))
	var all api.Metrics
	l.json("GET", "/v1/metrics", "", 200, &all)
	require.Len(t, all.Packages, 1)

	// A client that goes hangs its program up.
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c, _, err := websocket.Dial(ctx, "ws://stead/v1/packages/alpha/shell?command=sleep&command=4711", &websocket.DialOptions{HTTPClient: l.http})
	require.NoError(t, err)
	there := func() bool {
		text, _ := l.shell("alpha", "", url.Values{"command": {"sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"}})
		return strings.Contains(text, "sleep 4711")
	}
	l.await("the program", 20*time.Second, there)
	c.CloseNow() //nolint:errcheck // it goes without a word
	l.await("its end", 20*time.Second, func() bool { return !there() })
}
