package server_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/selfstead/selfstead/server/api"
	"github.com/selfstead/selfstead/server/client"
	"github.com/selfstead/selfstead/server/journal"
	"github.com/selfstead/selfstead/server/operation"
	"github.com/selfstead/selfstead/server/problem"
)

// TestClient walks one life of a server with the Go client: claim, sign in,
// sideload, follow, look, act, uninstall, sign out.
func TestClient(t *testing.T) {
	t.Parallel()
	l := newUnclaimedLab(t)
	ctx := t.Context()
	guest, err := client.New(client.Options{URL: l.url})
	require.NoError(t, err)
	defer guest.Close()
	mode, err := guest.Mode(ctx)
	require.NoError(t, err)
	assert.Equal(t, "setup", mode.Mode)
	require.NoError(t, guest.Ready(ctx))
	require.NoError(t, guest.Claim(ctx, l.account.ClaimCode(), password))
	_, err = guest.Packages(ctx)
	assert.ErrorIs(t, err, problem.New(0, "unauthorized", ""), "problems come through")
	session, err := guest.SignIn(ctx, api.SignIn{Password: password, Name: "go"})
	require.NoError(t, err)

	c, err := client.New(client.Options{URL: l.url, Token: session.Token})
	require.NoError(t, err)
	defer c.Close()
	op, err := c.Sideload(ctx, strings.NewReader("0123456789!"), -1)
	require.Error(t, err)
	p := problem.From(err)
	assert.Equal(t, "corrupt", p.Code)
	assert.EqualValues(t, 10, *p.Offset)
	assert.Empty(t, op.ID)
	close(l.services.finish)
	op, err = c.Sideload(ctx, bytes.NewReader(make([]byte, 1<<20)), 1<<20)
	require.NoError(t, err)
	seen := 0
	op, err = c.FollowOperation(ctx, op.ID, func(operation.Operation) { seen++ })
	require.NoError(t, err)
	assert.Equal(t, operation.Succeeded, op.Status)
	assert.Positive(t, seen)
	again, err := c.Operation(ctx, op.ID)
	require.NoError(t, err)
	assert.JSONEq(t, string(op.Result), string(again.Result))
	ops, err := c.Operations(ctx)
	require.NoError(t, err)
	assert.Len(t, ops, 2)
	_, err = c.CancelOperation(ctx, op.ID)
	assert.ErrorIs(t, err, problem.New(0, "conflict", ""))

	list, err := c.Packages(ctx)
	require.NoError(t, err)
	require.Len(t, list, 1)
	pkg, err := c.SetDesired(ctx, "hello-world", "stopped", false)
	require.NoError(t, err)
	assert.Equal(t, "stopped", pkg.DesiredState)
	_, err = c.Restart(ctx, "hello-world")
	require.NoError(t, err)
	_, err = c.Rebuild(ctx, "hello-world")
	require.NoError(t, err)
	pkg, err = c.Package(ctx, "hello-world")
	require.NoError(t, err)
	assert.Equal(t, "Hello World", pkg.Title)
	hosts, err := c.Hosts(ctx, "hello-world")
	require.NoError(t, err)
	assert.Len(t, hosts, 1)
	actions, err := c.Actions(ctx, "hello-world")
	require.NoError(t, err)
	assert.Len(t, actions, 1)
	form, err := c.ActionInput(ctx, "hello-world", "greet", api.ActionInputRequest{Prefill: json.RawMessage(`{"a":1}`)})
	require.NoError(t, err)
	assert.Equal(t, "e1", form.EventID)
	result, err := c.RunAction(ctx, "hello-world", "greet", api.ActionRunRequest{EventID: form.EventID, Input: form.Value})
	require.NoError(t, err)
	assert.Contains(t, string(result), "Done")
	tasks, err := c.Tasks(ctx, "hello-world")
	require.NoError(t, err)
	assert.Len(t, tasks, 1)
	forwards, err := c.Forwards(ctx)
	require.NoError(t, err)
	assert.Len(t, forwards, 1)
	system, err := c.System(ctx)
	require.NoError(t, err)
	assert.True(t, system.Claimed)

	require.NoError(t, l.services.log("hello-world", `{"t":"2026-01-02T03:04:05Z","s":"stdout","m":"hello"}`))
	page, err := c.Log(ctx, "hello-world", journal.Query{Limit: 5})
	require.NoError(t, err)
	assert.Len(t, page.Entries, 1)
	enough := errors.New("enough")
	err = c.FollowLog(ctx, "hello-world", "", 5, func(e journal.Entry) error {
		assert.Equal(t, "hello", e.Message)
		return enough
	})
	assert.ErrorIs(t, err, enough)
	assert.ErrorIs(t, c.FollowLog(ctx, "none", "", 5, func(journal.Entry) error { return nil }), problem.New(0, "not-found", ""))
	dump, err := c.State(ctx, "/packageData/hello-world/desiredState")
	require.NoError(t, err)
	assert.Equal(t, `"stopped"`, string(dump.Value))
	err = c.FollowState(ctx, "/packageData/hello-world/desiredState", 0, func(d api.Dump) error {
		assert.Equal(t, dump.ID, d.ID)
		_, err := c.SetDesired(ctx, "hello-world", "running", false)
		return err
	}, func(r api.Revision) error {
		assert.Contains(t, string(r.Patch), "running")
		return enough
	})
	assert.ErrorIs(t, err, enough)

	sessions, err := c.Sessions(ctx)
	require.NoError(t, err)
	require.Len(t, sessions, 1)
	assert.Equal(t, "go", sessions[0].Name)
	assert.ErrorIs(t, c.RevokeSession(ctx, "none"), problem.New(0, "not-found", ""))
	require.NoError(t, c.ChangePassword(ctx, api.PasswordChange{OldPassword: password, NewPassword: "next password"}))
	assert.ErrorIs(t, c.Power(ctx, "shutdown"), problem.New(0, "local-only", ""))
	op, err = c.Uninstall(ctx, "hello-world", true, false)
	require.NoError(t, err)
	op, err = c.FollowOperation(ctx, op.ID, nil)
	require.NoError(t, err)
	assert.JSONEq(t, `{"soft":true,"force":false}`, string(op.Result))
	require.NoError(t, c.SignOut(ctx))
	_, err = c.Packages(ctx)
	assert.Error(t, err)
}

// TestClientResumes: the connection breaks, and the client goes on
// where it was.
func TestClientResumes(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	via := newCutter(t, strings.TrimPrefix(l.url, "http://"))
	c, err := client.New(client.Options{URL: "http://" + via.address, Token: l.token})
	require.NoError(t, err)
	defer c.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	dumps := 0
	values := []string{}
	err = c.FollowState(ctx, "/packageData/hello-world/desiredState", 0, func(api.Dump) error {
		dumps++
		return l.services.SetDesired(ctx, "hello-world", "stopped", false)
	}, func(r api.Revision) error {
		values = append(values, string(r.Patch))
		if len(values) == 1 {
			via.cut()
			return l.services.SetDesired(ctx, "hello-world", "running", false)
		}
		cancel()
		return ctx.Err()
	})
	assert.ErrorIs(t, err, context.Canceled)
	assert.Equal(t, 1, dumps)
	require.Len(t, values, 2)
	assert.Contains(t, values[1], "running")
}

// cutter passes connections on to a server until it cuts them.
type cutter struct {
	address string
	mu      sync.Mutex
	conns   []net.Conn
}

func newCutter(t *testing.T, to string) *cutter {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	c := &cutter{address: l.Addr().String()}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				in.Close()
				continue
			}
			c.mu.Lock()
			c.conns = append(c.conns, in, out)
			c.mu.Unlock()
			wg.Go(func() { io.Copy(out, in); out.Close() }) //nolint:errcheck // cut
			wg.Go(func() { io.Copy(in, out); in.Close() })  //nolint:errcheck // cut
		}
	})
	t.Cleanup(func() { l.Close(); c.cut(); wg.Wait() })
	return c
}

func (c *cutter) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.conns {
		conn.Close()
	}
	c.conns = nil
}
