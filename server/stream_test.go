package server_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/selfstead/selfstead/server/api"
	"github.com/selfstead/selfstead/server/journal"
	"github.com/selfstead/selfstead/server/operation"
)

// replica is a client that applies the state stream, with a JSON Patch library
// that is not ours.
type replica struct {
	t     *testing.T
	id    uint64
	value json.RawMessage
}

func (r *replica) apply(ev sse) {
	r.t.Helper()
	switch ev.name {
	case "dump":
		d := decode[api.Dump](r.t, ev.data)
		r.id, r.value = d.ID, d.Value
	case "patch":
		p := decode[api.Revision](r.t, ev.data)
		require.Greater(r.t, p.ID, r.id)
		patch, err := jsonpatch.DecodePatch(p.Patch)
		require.NoError(r.t, err)
		r.value, err = patch.Apply(r.value)
		require.NoError(r.t, err)
		r.id = p.ID
	default:
		require.Fail(r.t, "unexpected event", "%s %s", ev.name, ev.data)
	}
	require.Equal(r.t, strconv.FormatUint(r.id, 10), ev.id)
}

// catchUp applies events until the replica is at the server's revision.
func (r *replica) catchUp(e *events, l *lab) {
	r.t.Helper()
	now := decode[api.Dump](r.t, l.do("user", "GET", "/v1/state", "").body)
	for r.id < now.ID {
		ev, err := e.read()
		require.NoError(r.t, err)
		r.apply(ev)
	}
	require.JSONEq(r.t, string(now.Value), string(r.value))
}

func TestStateStreamGivesTheState(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	e := l.open("user", "/v1/state/events")
	r := &replica{t: t}
	r.apply(e.next("dump"))
	for i := range 50 {
		p := helloWorld
		p.State = []string{"running", "stopping", "stopped"}[i%3]
		p.ID = fmt.Sprintf("hello-%d", i%5)
		require.NoError(t, l.services.put(p))
	}
	r.catchUp(e, l)

	// The stream breaks, changes go on, and it resumes without a dump.
	e.res.Body.Close()
	require.NoError(t, l.services.SetDesired(t.Context(), "hello-world", "stopped", false))
	e = l.open("user", "/v1/state/events", "Last-Event-ID", strconv.FormatUint(r.id, 10))
	r.apply(e.next("patch"))
	r.catchUp(e, l)
	e = l.open("user", "/v1/state/events?since="+strconv.FormatUint(r.id, 10))
	require.NoError(t, l.services.SetDesired(t.Context(), "hello-world", "running", false))
	r.apply(e.next("patch"))
	r.catchUp(e, l)

	// A revision that the server never had starts over.
	e = l.open("user", "/v1/state/events", "Last-Event-ID", "99999999")
	other := &replica{t: t}
	other.apply(e.next("dump"))
	assert.JSONEq(t, string(r.value), string(other.value))
}

func TestStateStreamOfAPart(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	e := l.open("user", "/v1/state/events?pointer=/packageData/hello-world/desiredState")
	assert.Contains(t, e.next("dump").data, `"value":"running"`)
	require.NoError(t, l.services.put(api.Package{ID: "another", State: "running"}))
	require.NoError(t, l.services.SetDesired(t.Context(), "hello-world", "stopped", false))
	ev := e.next("patch")
	assert.Contains(t, ev.data, `"stopped"`)
	assert.NotContains(t, ev.data, "another")
}

func TestStreamsShowNothingPrivate(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	e := l.open("user", "/v1/state/events")
	assert.NotContains(t, e.next("dump").data, "argon2")
	a := l.do("guest", "POST", "/v1/sessions", `{"password":"correct horse"}`) // changes the private part alone
	require.Equal(t, 201, a.status)
	require.NoError(t, l.services.SetDesired(t.Context(), "hello-world", "stopped", false))
	assert.Contains(t, e.next("patch").data, "desiredState")
}

func TestStreamsEndWithTheirSession(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	require.NoError(t, l.services.log("hello-world", `{"t":"2026-01-02T03:04:05Z","s":"stdout","m":"hello"}`))
	job := l.ops.Begin("test")
	defer job.Finish(nil, nil)
	var open []*events
	for _, path := range []string{"/v1/state/events", "/v1/packages/hello-world/logs/events", "/v1/operations/" + job.ID() + "/events"} {
		e := l.open("user", path)
		_, err := e.read()
		require.NoError(t, err)
		open = append(open, e)
	}
	local := l.open("local", "/v1/state/events")
	local.next("dump")
	assert.Equal(t, 204, l.do("user", "DELETE", "/v1/sessions/current", "").status)
	for _, e := range open {
		_, err := e.read()
		assert.ErrorIs(t, err, io.EOF)
	}
	local.comment()
}

func TestShutdownEndsStreams(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	e := l.open("user", "/v1/state/events")
	e.next("dump")
	e.comment()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	require.NoError(t, l.server.Shutdown(ctx))
	for {
		if _, err := e.read(); err != nil {
			assert.ErrorIs(t, err, io.EOF)
			return
		}
	}
}

func TestOperationStream(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	job := l.ops.Begin("test")
	job.Progress("work", 1, 10, operation.Steps)
	e := l.open("user", "/v1/operations/"+job.ID()+"/events")
	op := decode[operation.Operation](t, e.next("progress").data)
	assert.Equal(t, "work", op.Progress.Phase)
	assert.EqualValues(t, 10, *op.Progress.Total)
	job.Progress("work", 2, 10, operation.Steps)
	assert.EqualValues(t, 2, decode[operation.Operation](t, e.next("progress").data).Progress.Done)
	job.Finish(map[string]string{"packageId": "x"}, nil)
	op = decode[operation.Operation](t, e.next("done").data)
	assert.Equal(t, operation.Succeeded, op.Status)
	assert.JSONEq(t, `{"packageId":"x"}`, string(op.Result))
	_, err := e.read()
	assert.ErrorIs(t, err, io.EOF, "done is the last event")
	assert.Equal(t, "done", l.open("user", "/v1/operations/"+job.ID()+"/events").next("done").name, "who comes late hears the end")

	running := l.ops.Start("test", func(ctx context.Context, _ *operation.Job) (any, error) { <-ctx.Done(); return nil, ctx.Err() })
	e = l.open("user", "/v1/operations/"+running.ID+"/events")
	e.next("progress")
	assert.Equal(t, 202, l.do("user", "DELETE", "/v1/operations/"+running.ID, "").status)
	assert.Equal(t, operation.Cancelled, decode[operation.Operation](t, e.next("done").data).Status)
	assert.Equal(t, 409, l.do("user", "DELETE", "/v1/operations/"+running.ID, "").status)
}

func TestLogs(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	line := func(i int) string {
		return fmt.Sprintf(`{"t":"2026-01-02T03:04:%02dZ","s":"stdout","m":"line %d"}`, i, i)
	}
	for i := range 5 {
		require.NoError(t, l.services.log("hello-world", line(i)))
	}
	page := decode[journal.Page](t, l.do("user", "GET", "/v1/packages/hello-world/logs?limit=2", "").body)
	require.Len(t, page.Entries, 2)
	assert.Equal(t, "line 4", page.Entries[1].Message)
	before := decode[journal.Page](t, l.do("user", "GET", "/v1/packages/hello-world/logs?limit=2&before=true&cursor="+page.StartCursor, "").body)
	assert.Equal(t, "line 2", before.Entries[1].Message)

	e := l.open("user", "/v1/packages/hello-world/logs/events?limit=1")
	ev := e.next("log")
	entry := decode[journal.Entry](t, ev.data)
	assert.Equal(t, "line 4", entry.Message)
	assert.Equal(t, entry.Cursor, ev.id)
	require.NoError(t, l.services.log("hello-world", line(5)))
	assert.Equal(t, "line 5", decode[journal.Entry](t, e.next("log").data).Message)
	e = l.open("user", "/v1/packages/hello-world/logs/events", "Last-Event-ID", ev.id)
	assert.Equal(t, "line 5", decode[journal.Entry](t, e.next("log").data).Message, "it resumes behind the last entry seen")
}

// TestASlowClientHoldsNobodyUp has a client that never reads its stream while
// the state changes by more than any buffer holds.
func TestASlowClientHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	c, err := net.Dial("tcp", strings.TrimPrefix(l.url, "http://"))
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, c.(*net.TCPConn).SetReadBuffer(4096))
	fmt.Fprintf(c, "GET /v1/state/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n", l.token)
	head := make([]byte, 16)
	_, err = io.ReadFull(c, head)
	require.NoError(t, err)
	require.Equal(t, "HTTP/1.1 200 OK\r", string(head))

	good := l.open("user", "/v1/state/events")
	r := &replica{t: t}
	r.apply(good.next("dump"))
	big := strings.Repeat("x", 64<<10)
	for i := range 200 {
		p := helloWorld
		p.State, p.DesiredState = big, strconv.Itoa(i)
		require.NoError(t, l.services.put(p))
	}
	r.catchUp(good, l)
}

func TestManyStreamsHearOfAChange(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	const n = 200
	var ready, done sync.WaitGroup
	for range n {
		e := l.open("user", "/v1/state/events?pointer=/packageData/hello-world/desiredState")
		ready.Add(1)
		done.Go(func() {
			ev, err := e.read()
			ready.Done()
			if !assert.NoError(t, err) || !assert.Equal(t, "dump", ev.name) {
				return
			}
			ev, err = e.read()
			assert.NoError(t, err)
			assert.Contains(t, ev.data, "stopped")
		})
	}
	ready.Wait()
	require.NoError(t, l.services.SetDesired(t.Context(), "hello-world", "stopped", false))
	done.Wait()
}

// TestSideload walks a package from its first byte to the end of its install.
func TestSideload(t *testing.T) {
	t.Parallel()
	for _, chunked := range []bool{false, true} {
		t.Run(fmt.Sprintf("chunked %v", chunked), func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			l.services.mu.Lock()
			delete(l.services.packages, "hello-world")
			l.services.mu.Unlock()
			pr, pw := io.Pipe()
			req := l.request("user", "POST", "/v1/packages:sideload", "", "Content-Type", "application/octet-stream")
			req.Body = pr
			req.ContentLength = -1
			if !chunked {
				req.ContentLength = 1 << 20
			}
			type result struct {
				res *http.Response
				err error
			}
			answered := make(chan result, 1)
			go func() {
				res, err := http.DefaultClient.Do(req)
				answered <- result{res, err}
			}()
			_, err := pw.Write(make([]byte, 1000))
			require.NoError(t, err)
			assert.Positive(t, <-l.services.received)
			ops := decode[[]operation.Operation](t, l.do("user", "GET", "/v1/operations", "").body)
			require.Len(t, ops, 1, "it is listed from the first byte on")
			assert.Equal(t, operation.Running, ops[0].Status)
			assert.Equal(t, "upload", ops[0].Progress.Phase)
			assert.Equal(t, chunked, ops[0].Progress.Total == nil)
			_, err = pw.Write(make([]byte, 1<<20-1000))
			require.NoError(t, err)
			pw.Close()
			got := <-answered
			require.NoError(t, got.err)
			defer got.res.Body.Close()
			require.Equal(t, 202, got.res.StatusCode)
			assert.Equal(t, "/v1/operations/"+ops[0].ID, got.res.Header.Get("Location"))
			var op operation.Operation
			require.NoError(t, json.NewDecoder(got.res.Body).Decode(&op))
			assert.Equal(t, ops[0].ID, op.ID)
			e := l.open("user", "/v1/operations/"+op.ID+"/events")
			e.next("progress")
			close(l.services.finish)
			end := decode[operation.Operation](t, e.next("done").data)
			assert.Equal(t, operation.Succeeded, end.Status)
			assert.Contains(t, l.do("user", "GET", "/v1/packages/hello-world", "").body, `"state":"running"`)
		})
	}
}

// TestSideloadIsRefusedAtTheFault: the answer comes while the client has most
// of the body still to send, and reaches a client that keeps sending.
func TestSideloadIsRefusedAtTheFault(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	address := strings.TrimPrefix(l.url, "http://")
	for _, head := range []string{"Content-Length: 100000000\r\n", "Transfer-Encoding: chunked\r\n"} {
		c, err := net.Dial("tcp", address)
		require.NoError(t, err)
		defer c.Close()
		fmt.Fprintf(c, "POST /v1/packages:sideload HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n%s\r\n", l.token, head)
		body := "0123456789!"
		if strings.HasPrefix(head, "Transfer") {
			body = "b\r\n" + body + "\r\n"
		}
		_, err = io.WriteString(c, body)
		require.NoError(t, err)
		// Nothing more is sent until the answer is here.
		buf := make([]byte, 4096)
		n, err := c.Read(buf)
		require.NoError(t, err)
		text := string(buf[:n])
		assert.Contains(t, text, "422 Unprocessable Entity")
		assert.Contains(t, text, "Connection: close")
		assert.Contains(t, text, `"entry":"images/x86_64/main.squashfs","offset":10`)
	}

	// A client that only reads after it has sent everything.
	c, err := net.Dial("tcp", address)
	require.NoError(t, err)
	defer c.Close()
	const size = 32 << 20
	fmt.Fprintf(c, "POST /v1/packages:sideload HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n", l.token, size)
	_, err = c.Write(bytes.Repeat([]byte("!"), size))
	require.NoError(t, err)
	text, err := io.ReadAll(c)
	require.NoError(t, err)
	assert.Contains(t, string(text), `"code":"corrupt"`)

	ops := l.ops.List()
	require.Len(t, ops, 3)
	for _, op := range ops {
		assert.Equal(t, operation.Failed, op.Status)
	}
}

func TestGuestsCannotSideload(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	c, err := net.Dial("tcp", strings.TrimPrefix(l.url, "http://"))
	require.NoError(t, err)
	defer c.Close()
	fmt.Fprint(c, "POST /v1/packages:sideload HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n")
	buf := make([]byte, 4096)
	n, err := c.Read(buf)
	require.NoError(t, err)
	assert.Contains(t, string(buf[:n]), "401 Unauthorized", "before a byte of the body is sent")
	assert.Empty(t, l.ops.List())
}

// A client that goes on sending, of a length that it did not announce, gets the
// answer and no reset.
func TestACancelledUploadIsAnswered(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	pr, pw := io.Pipe()
	req := l.request("user", "POST", "/v1/packages:sideload", "")
	req.Body, req.ContentLength = pr, -1
	stop := make(chan struct{})
	go func() { // as a program on a fast line: always something on the way
		block := bytes.Repeat([]byte("x"), 64<<10)
		for {
			select {
			case <-stop:
				pw.Close()
				return
			default:
				if _, err := pw.Write(block); err != nil {
					return
				}
			}
		}
	}()
	go func() {
		<-l.services.received
		l.do("user", "DELETE", "/v1/operations/"+l.ops.List()[0].ID, "")
		time.AfterFunc(500*time.Millisecond, func() { close(stop) })
	}()
	res, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	res.Body.Close()
	assert.Equal(t, 409, res.StatusCode)
}

func TestAnUploadIsCancelled(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	pr, pw := io.Pipe()
	req := l.request("user", "POST", "/v1/packages:sideload", "")
	req.Body, req.ContentLength = pr, -1
	answered := make(chan int, 1)
	go func() {
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			answered <- -1
			return
		}
		res.Body.Close()
		answered <- res.StatusCode
	}()
	_, err := pw.Write([]byte("x"))
	require.NoError(t, err)
	<-l.services.received
	op := l.ops.List()[0]
	e := l.open("user", "/v1/operations/"+op.ID+"/events")
	e.next("progress")
	assert.Equal(t, 202, l.do("user", "DELETE", "/v1/operations/"+op.ID, "").status)
	assert.Equal(t, operation.Cancelled, decode[operation.Operation](t, e.next("done").data).Status)
	pw.Close()
	assert.Contains(t, []int{409, -1}, <-answered)
}

func TestAClientThatGoesAwayEndsItsUpload(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	c, err := net.Dial("tcp", strings.TrimPrefix(l.url, "http://"))
	require.NoError(t, err)
	fmt.Fprintf(c, "POST /v1/packages:sideload HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: 1000\r\n\r\nabc", l.token)
	<-l.services.received
	op := l.ops.List()[0]
	e := l.open("user", "/v1/operations/"+op.ID+"/events")
	e.next("progress")
	c.Close()
	end := decode[operation.Operation](t, e.next("done").data)
	assert.Equal(t, operation.Failed, end.Status)
	assert.Equal(t, "truncated", end.Problem.Code)
}

func TestShutdownEndsUploads(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	c, err := net.Dial("tcp", strings.TrimPrefix(l.url, "http://"))
	require.NoError(t, err)
	defer c.Close()
	fmt.Fprintf(c, "POST /v1/packages:sideload HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: 1000\r\n\r\nabc", l.token)
	<-l.services.received
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	stopped := make(chan error, 1)
	go func() { stopped <- l.server.Shutdown(ctx) }()
	buf := make([]byte, 4096)
	n, err := c.Read(buf)
	require.NoError(t, err)
	assert.Contains(t, string(buf[:n]), "503 Service Unavailable")
	assert.Contains(t, string(buf[:n]), `"code":"stopping"`)
	c.Close()
	require.NoError(t, <-stopped)
}
