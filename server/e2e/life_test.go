package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const example = "hello-world"

// TestLife goes through the whole life of one service over HTTP, as a user of
// another machine would, and looks for what it leaves behind.
func TestLife(t *testing.T) {
	l := newLab(t)
	dir := filepath.Join(t.TempDir(), "state")
	before := surroundings(t, l)
	s := startServer(t, l, dir)

	info, err := os.Stat(dir)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), info.Mode().Perm())

	stranger := &api{s: s, c: client(l.lan)}
	var p problem
	stranger.want(t, 401, "GET", "/v1/packages", nil, &p)
	stranger.want(t, 409, "POST", "/v1/sessions", map[string]string{"password": password}, &p)
	stranger.want(t, 403, "POST", "/v1/setup:claim", map[string]string{"code": "WRONG", "password": password}, &p)
	a := claim(t, s)
	stranger.want(t, 409, "POST", "/v1/setup:claim", map[string]string{"code": "WRONG", "password": password}, &p)
	stranger.want(t, 401, "POST", "/v1/sessions", map[string]string{"password": "wrong password"}, &p)

	// The stream is open before anything happens and must end with what GET says.
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	states := make(chan replica, 4096)
	streamed := make(chan error, 1)
	go func() {
		var r replica
		var bad error
		err := a.stream(ctx, "/v1/state/events", "", func(e event) bool {
			if bad = r.apply(e); bad == nil {
				states <- r
			}
			return bad == nil
		})
		if bad != nil {
			err = bad
		}
		streamed <- err
	}()

	size := fileSize(t, os.Getenv("STEAD_EXAMPLE"))
	seen, last := a.sideload(t, os.Getenv("STEAD_EXAMPLE"))
	require.Equal(t, "succeeded", last.Status, "%+v", last.Problem)
	require.Equal(t, "install", last.Kind)
	require.NotEmpty(t, seen)

	got := a.waitState(t, example, "running")
	require.Equal(t, "running", got.DesiredState)
	require.Equal(t, "1.0.0:0", got.Version)

	// The page, from every place, on the server's outside address, v4 and v6.
	ns, _ := inside(t, l, dir)
	places := map[string]*http.Client{"another host": client(l.lan), "the server itself": client(l.srv), "its own container": client(ns)}
	everywhere := func() {
		t.Helper()
		for _, addr := range []string{serverAddr, serverAddr6} {
			url := a.page(t, example, addr)
			for place, c := range places {
				eventually(t, 20*time.Second, url+" from "+place, func() error {
					body, err := get(c, url)
					if err == nil && !strings.Contains(body, "<h1>Hello") {
						err = fmt.Errorf("page is %q", body)
					}
					return err
				})
			}
		}
	}
	everywhere()
	opensNoPorts(t, l, ns)

	// The action with its form.
	var form struct {
		EventID string
		Spec    map[string]any
		Value   map[string]any
	}
	a.want(t, 200, "POST", "/v1/packages/"+example+"/actions/set-greeting/input", map[string]any{}, &form)
	require.Contains(t, form.Spec, "name")
	require.Equal(t, "World", form.Value["name"])
	var result struct{ Result struct{ Value string } }
	a.want(t, 200, "POST", "/v1/packages/"+example+"/actions/set-greeting/runs",
		map[string]any{"eventId": form.EventID, "input": map[string]any{"name": "Lab", "colour": "#24507a"}}, &result)
	require.Equal(t, "Hello Lab!", result.Result.Value)
	body, err := get(client(l.lan), a.page(t, example, serverAddr))
	require.NoError(t, err)
	require.Contains(t, body, "Hello Lab!")

	logs(t, a)

	// Stop, start, restart.
	a.want(t, 200, "PUT", "/v1/packages/"+example+"/desired-state", map[string]string{"state": "stopped"}, nil)
	require.Empty(t, a.waitState(t, example, "stopped").Health, "health is cleared by a stop")
	_, err = get(client(l.lan), a.page(t, example, serverAddr))
	require.Error(t, err)
	a.want(t, 200, "PUT", "/v1/packages/"+example+"/desired-state", map[string]string{"state": "running"}, nil)
	a.waitState(t, example, "running")
	a.want(t, 202, "POST", "/v1/packages/"+example+":restart", nil, nil)
	a.waitState(t, example, "running")
	ns, container := inside(t, l, dir)
	places["its own container"] = client(ns)
	everywhere()
	body, err = get(client(l.lan), a.page(t, example, serverAddr))
	require.NoError(t, err)
	require.Contains(t, body, "Hello Lab!", "the volume keeps what the action wrote")

	// The state stream ends with what GET /v1/state says. Its last revision may be
	// an earlier one: what the server keeps for itself has revisions, too.
	var r replica
	same := func() {
		t.Helper()
		eventually(t, 20*time.Second, "the replica is the state", func() error {
			var now replica
			a.want(t, 200, "GET", "/v1/state", nil, &now)
			for {
				select {
				case r = <-states:
					if r.ID < now.ID {
						continue
					}
				case err := <-streamed:
					t.Fatalf("the stream ended: %v", err)
				case <-time.After(200 * time.Millisecond):
				}
				break
			}
			var is, has any
			require.NoError(t, json.Unmarshal(now.Value, &is))
			if err := json.Unmarshal(r.Value, &has); err != nil || !reflect.DeepEqual(is, has) {
				return fmt.Errorf("replica at %d, state at %d", r.ID, now.ID)
			}
			return nil
		})
	}
	same()

	parents := cgroupParents(t, ns)
	// What the host shows while it runs: no mount of the container's.
	for _, line := range leftovers(t, l, dir, container) {
		require.False(t, strings.HasPrefix(line, "mount"), line)
	}

	var o operation
	a.want(t, 202, "DELETE", "/v1/packages/"+example, nil, &o)
	_, last = a.follow(t, o.ID)
	require.Equal(t, "succeeded", last.Status, "%+v", last.Problem)
	a.want(t, 404, "GET", "/v1/packages/"+example, nil, &p)
	require.Empty(t, leftovers(t, l, dir, example, container))
	var now replica
	a.want(t, 200, "GET", "/v1/state", nil, &now)
	require.NotContains(t, string(now.Value), example)
	same()
	require.NotZero(t, size)

	cancel()
	s.stop(t)
	require.Empty(t, leftovers(t, l, dir, append(parents, container)...), "after the stop")
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	require.NoError(t, err)
	require.NotContains(t, string(mounts), dir)
	locks, err := filepath.Glob("/run/lxc/lock/*" + dir + "*")
	require.NoError(t, err)
	require.Empty(t, locks)
	require.Equal(t, before, surroundings(t, l), "what the server touches outside its folder is as before")
}

func fileSize(t testing.TB, path string) int64 {
	info, err := os.Stat(path)
	require.NoError(t, err)
	return info.Size()
}

// logs reads and follows the service's log.
func logs(t *testing.T, a *api) {
	t.Helper()
	type entry struct{ Time, Stream, Message, Cursor string }
	var page struct{ Entries []entry }
	a.want(t, 200, "GET", "/v1/packages/"+example+"/logs", nil, &page)
	var text []string
	for _, e := range page.Entries {
		require.NotEmpty(t, e.Time)
		require.NotEmpty(t, e.Cursor)
		text = append(text, e.Message)
	}
	require.Contains(t, strings.Join(text, "\n"), "Starting Hello World")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	url := a.page(t, example, serverAddr)
	heard, asked := false, false
	a.stream(ctx, "/v1/packages/"+example+"/logs/events", "", func(e event) bool {
		require.Equal(t, "log", e.Name)
		var l entry
		require.NoError(t, json.Unmarshal(e.Data, &l))
		require.Equal(t, l.Cursor, e.ID)
		if !asked { // the newest lines come first; then a request makes a new one
			asked = true
			_, err := get(client(a.s.lab.lan), url+"/asked-while-following")
			require.Error(t, err, "no such page")
		}
		heard = strings.Contains(l.Message, "asked-while-following")
		return !heard
	})
	require.True(t, heard, "the request is logged while the log is followed")
}

// TestUploadProgressIsReal watches an upload that is held back half-way.
func TestUploadProgressIsReal(t *testing.T) {
	l := newLab(t)
	s := startServer(t, l, filepath.Join(t.TempDir(), "state"))
	a := claim(t, s)
	file := os.Getenv("STEAD_EXAMPLE")
	size := fileSize(t, file)
	f, err := os.Open(file)
	require.NoError(t, err)
	defer f.Close()
	gate := &gatedReader{f: f, at: size / 2, open: make(chan struct{})}
	answer := make(chan error, 1)
	go func() {
		r, err := a.do(context.Background(), "POST", "/v1/packages:sideload", gate)
		if err == nil {
			drain(r.Body)
			if r.StatusCode != 202 {
				err = fmt.Errorf("status %s", r.Status)
			}
		}
		answer <- err
	}()
	var o operation
	eventually(t, 30*time.Second, "the operation is listed with half the bytes", func() error {
		var list []operation
		var page struct{ Operations []operation }
		var raw json.RawMessage
		a.want(t, 200, "GET", "/v1/operations", nil, &raw)
		if json.Unmarshal(raw, &list) != nil {
			require.NoError(t, json.Unmarshal(raw, &page))
			list = page.Operations
		}
		if len(list) == 0 {
			return fmt.Errorf("no operation")
		}
		o = list[0]
		if o.Progress.Done == nil || *o.Progress.Done < size/2-1<<20 {
			return fmt.Errorf("progress %+v", o.Progress)
		}
		return nil
	})
	require.Equal(t, "bytes", o.Progress.Unit)
	require.LessOrEqual(t, *o.Progress.Done, size/2)
	close(gate.open)
	require.NoError(t, <-answer)
	_, last := a.follow(t, o.ID)
	require.Equal(t, "succeeded", last.Status)
}

// gatedReader stops at a byte until the gate opens.
type gatedReader struct {
	f    *os.File
	at   int64
	n    int64
	open chan struct{}
}

func (g *gatedReader) Read(p []byte) (int, error) {
	if g.n >= g.at {
		<-g.open
	} else if int64(len(p)) > g.at-g.n {
		p = p[:g.at-g.n]
	}
	n, err := g.f.Read(p)
	g.n += int64(n)
	return n, err
}

// opensNoPorts asks what stands for the router, from the container: where port
// mapping protocols are spoken nothing comes through, next to it everything.
func opensNoPorts(t *testing.T, l *lab, ns string) {
	t.Helper()
	ask := func(addr, port string) (answer string, err error) {
		var router net.PacketConn
		require.NoError(t, within(l.lan, func() (err error) {
			router, err = net.ListenPacket("udp", net.JoinHostPort(addr, port))
			return err
		}))
		defer router.Close()
		var from net.Conn
		require.NoError(t, within(ns, func() (err error) {
			from, err = net.Dial("udp", net.JoinHostPort(addr, port))
			return err
		}))
		defer from.Close()
		if _, err := from.Write([]byte("open a port")); err != nil {
			return "", err
		}
		buf := make([]byte, 64)
		require.NoError(t, router.SetReadDeadline(time.Now().Add(500*time.Millisecond)))
		n, _, err := router.ReadFrom(buf)
		return string(buf[:n]), err
	}
	for _, addr := range []string{lanAddr, lanAddr6} {
		for _, port := range []string{"5351", "1900"} {
			_, err := ask(addr, port)
			require.ErrorIs(t, err, os.ErrDeadlineExceeded, "UDP to %s port %s", addr, port)
		}
		eventually(t, 10*time.Second, "UDP to "+addr, func() error { _, err := ask(addr, "5352"); return err })
	}
}
