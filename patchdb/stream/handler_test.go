package stream

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/selfstead/selfstead/patchdb"
)

// received is a message as a client sees it.
type received struct {
	kind string
	body string
}

// client reads messages over one of the two transports.
type client interface {
	next(t *testing.T) received
	close()
}

type harness struct {
	db     *patchdb.DB
	srv    *httptest.Server
	client *http.Client
}

// narrow makes a connection hold little, so that a slow client is felt soon.
func narrow(c net.Conn, err error) (net.Conn, error) {
	if tcp, ok := c.(*net.TCPConn); ok && err == nil {
		err = errors.Join(tcp.SetReadBuffer(8<<10), tcp.SetWriteBuffer(8<<10))
	}
	return c, err
}

type narrowListener struct{ net.Listener }

func (l narrowListener) Accept() (net.Conn, error) { return narrow(l.Listener.Accept()) }

func newHarness(t *testing.T, o Options) *harness {
	t.Helper()
	db, err := patchdb.Open(filepath.Join(t.TempDir(), "a.db"), patchdb.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	h := &harness{db: db, srv: httptest.NewUnstartedServer(Handler(db, o))}
	h.srv.Listener = narrowListener{h.srv.Listener}
	h.srv.Start()
	t.Cleanup(h.srv.Close)
	h.client = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		var d net.Dialer
		return narrow(d.DialContext(ctx, network, addr))
	}}}
	t.Cleanup(h.client.CloseIdleConnections)
	h.put(t, "", `{"a":{"x":1},"b":[1,2]}`)
	return h
}

func (h *harness) put(t *testing.T, p patchdb.Pointer, v string) {
	t.Helper()
	if _, err := h.db.Put(t.Context(), p, json.RawMessage(v)); err != nil {
		t.Fatal(err)
	}
}

func (h *harness) url(p patchdb.Pointer, since string) string {
	q := url.Values{"pointer": {string(p)}}
	if since != "" {
		q.Set("since", since)
	}
	return h.srv.URL + "?" + q.Encode()
}

type eventClient struct {
	resp *http.Response
	r    *bufio.Reader
}

func (h *harness) events(t *testing.T, p patchdb.Pointer, since string) client {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, h.url(p, ""), nil)
	if err != nil {
		t.Fatal(err)
	}
	if since != "" {
		req.Header.Set("Last-Event-ID", since)
	}
	resp, err := h.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("%s %v", resp.Status, resp.Header)
	}
	return &eventClient{resp, bufio.NewReader(resp.Body)}
}

func (c *eventClient) next(t *testing.T) received {
	t.Helper()
	var m received
	var id string
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			return received{"end", ""}
		}
		line = strings.TrimSuffix(line, "\n")
		switch field, value, _ := strings.Cut(line, ": "); field {
		case "event":
			m.kind = value
		case "id":
			id = value
		case "data":
			m.body = value
		case "":
			if !strings.HasPrefix(m.body, `{"id":`+id) {
				t.Fatalf("event id %q of %s", id, m.body)
			}
			return m
		}
	}
}

func (c *eventClient) close() { c.resp.Body.Close() }

type socketClient struct {
	c   *websocket.Conn
	ctx context.Context
}

func (h *harness) socket(t *testing.T, p patchdb.Pointer, since string) client {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	t.Cleanup(cancel)
	c, _, err := websocket.Dial(ctx, strings.Replace(h.url(p, since), "http", "ws", 1), &websocket.DialOptions{HTTPClient: h.client})
	if err != nil {
		t.Fatal(err)
	}
	c.SetReadLimit(-1)
	return &socketClient{c, ctx}
}

func (c *socketClient) next(t *testing.T) received {
	t.Helper()
	_, b, err := c.c.Read(c.ctx)
	if err != nil {
		return received{"end", ""}
	}
	var m map[string]json.RawMessage
	if err := json.Unmarshal(b, &m); err != nil || len(m) != 1 {
		t.Fatalf("%s: %v", b, err)
	}
	for kind, body := range m {
		return received{kind, string(body)}
	}
	return received{}
}

func (c *socketClient) close() { c.c.CloseNow() }

// both runs a test over each transport.
func both(t *testing.T, o Options, fn func(t *testing.T, h *harness, connect func(p patchdb.Pointer, since string) client)) {
	t.Run("events", func(t *testing.T) {
		t.Parallel()
		h := newHarness(t, o)
		fn(t, h, func(p patchdb.Pointer, since string) client { return h.events(t, p, since) })
	})
	t.Run("websocket", func(t *testing.T) {
		t.Parallel()
		h := newHarness(t, o)
		fn(t, h, func(p patchdb.Pointer, since string) client { return h.socket(t, p, since) })
	})
}

func expect(t *testing.T, c client, kind, body string) {
	t.Helper()
	if m := c.next(t); m.kind != kind || m.body != body {
		t.Fatalf("heard %s %s, want %s %s", m.kind, m.body, kind, body)
	}
}

func TestDumpThenRevisions(t *testing.T) {
	t.Parallel()
	both(t, Options{}, func(t *testing.T, h *harness, connect func(patchdb.Pointer, string) client) {
		c := connect("/a", "")
		defer c.close()
		expect(t, c, "dump", `{"id":1,"value":{"x":1}}`)
		h.put(t, "/a/x", `2`)
		expect(t, c, "revision", `{"id":2,"after":1,"patch":[{"op":"replace","path":"/x","value":2}]}`)
		h.put(t, "/b", `[]`)
		h.put(t, "/a", `null`)
		expect(t, c, "revision", `{"id":4,"after":2,"patch":[{"op":"replace","path":"","value":null}]}`)
	})
}

func TestResume(t *testing.T) {
	t.Parallel()
	both(t, Options{}, func(t *testing.T, h *harness, connect func(patchdb.Pointer, string) client) {
		h.put(t, "/a/x", `2`)
		h.put(t, "/b/0", `9`)
		h.put(t, "/a/x", `3`)
		c := connect("/a", "2")
		expect(t, c, "revision", `{"id":4,"after":2,"patch":[{"op":"replace","path":"/x","value":3}]}`)
		c.close()
		// Nothing new: silence until something is.
		c = connect("/a", "4")
		h.put(t, "/a/y", `1`)
		expect(t, c, "revision", `{"id":5,"after":4,"patch":[{"op":"add","path":"/y","value":1}]}`)
		c.close()
		// A revision that has not been yet, of another life of the database.
		c = connect("/a", "77")
		defer c.close()
		expect(t, c, "dump", `{"id":5,"value":{"x":3,"y":1}}`)
	})
}

func TestHeartbeat(t *testing.T) {
	t.Parallel()
	both(t, Options{Heartbeat: 20 * time.Millisecond}, func(t *testing.T, h *harness, connect func(patchdb.Pointer, string) client) {
		c := connect("/a", "")
		defer c.close()
		expect(t, c, "dump", `{"id":1,"value":{"x":1}}`)
		expect(t, c, "heartbeat", `{"id":1}`)
		h.put(t, "/b", `[]`)
		for {
			m := c.next(t)
			if m.kind != "heartbeat" {
				t.Fatalf("heard %v", m)
			}
			if m.body == `{"id":2}` {
				break
			}
		}
		h.put(t, "/a/x", `5`)
		for {
			if m := c.next(t); m.kind == "revision" {
				if m.body != `{"id":3,"after":2,"patch":[{"op":"replace","path":"/x","value":5}]}` {
					t.Fatal(m.body)
				}
				break
			}
		}
	})
}

func TestEndsWithTheDatabase(t *testing.T) {
	t.Parallel()
	both(t, Options{}, func(t *testing.T, h *harness, connect func(patchdb.Pointer, string) client) {
		c := connect("", "")
		defer c.close()
		if m := c.next(t); m.kind != "dump" {
			t.Fatal(m)
		}
		if err := h.db.Close(); err != nil {
			t.Fatal(err)
		}
		if m := c.next(t); m.kind != "end" {
			t.Fatalf("heard %v", m)
		}
		resp, err := h.client.Get(h.srv.URL)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("afterwards: %s", resp.Status)
		}
	})
}

// A client that reads nothing delays no writer, and hears a dump when it reads
// again.
func TestSlowClient(t *testing.T) {
	t.Parallel()
	both(t, Options{Buffer: 4}, func(t *testing.T, h *harness, connect func(patchdb.Pointer, string) client) {
		c := connect("", "")
		defer c.close()
		if m := c.next(t); m.kind != "dump" {
			t.Fatal(m)
		}
		const n = 40 // more than the sockets hold
		for i := range n {
			h.put(t, "/b", fmt.Sprintf(`[%q]`, strings.Repeat(string(rune('A'+i)), 64<<10)))
		}
		dumps, at := 0, uint64(1)
		for at < n+1 {
			m := c.next(t)
			var head struct{ ID, After uint64 }
			if err := json.Unmarshal([]byte(m.body), &head); err != nil {
				t.Fatalf("%s: %v", m.kind, err)
			}
			switch m.kind {
			case "dump":
				dumps++
			case "revision":
				if head.After != at {
					t.Fatalf("revision %d follows %d, the client is at %d", head.ID, head.After, at)
				}
			}
			at = head.ID
		}
		if dumps == 0 {
			t.Error("never told to start again")
		}
	})
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	h := newHarness(t, Options{Allow: func(r *http.Request, p patchdb.Pointer) bool { return !strings.HasPrefix(string(p), "/secret") }})
	for _, c := range []struct {
		method, query string
		status        int
	}{
		{"POST", "", http.StatusMethodNotAllowed},
		{"GET", "?pointer=a", http.StatusBadRequest},
		{"GET", "?pointer=/~2", http.StatusBadRequest},
		{"GET", "?since=x", http.StatusBadRequest},
		{"GET", "?since=-1", http.StatusBadRequest},
		{"GET", "?pointer=/secret/a", http.StatusForbidden},
	} {
		req, err := http.NewRequestWithContext(t.Context(), c.method, h.srv.URL+c.query, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := h.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != c.status {
			t.Errorf("%s %s: %s, want %d", c.method, c.query, resp.Status, c.status)
		}
	}
	// A page of another host may not open a WebSocket.
	_, resp, err := websocket.Dial(t.Context(), strings.Replace(h.srv.URL, "http", "ws", 1),
		&websocket.DialOptions{HTTPHeader: http.Header{"Origin": {"https://elsewhere.example"}}})
	if err == nil || resp == nil || resp.StatusCode != http.StatusForbidden {
		t.Errorf("foreign origin: %v", err)
	}
}
