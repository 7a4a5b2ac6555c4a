package server_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/selfstead/selfstead/patchdb"
	"github.com/selfstead/selfstead/server"
	"github.com/selfstead/selfstead/server/account"
	"github.com/selfstead/selfstead/server/api"
	"github.com/selfstead/selfstead/server/authority"
	"github.com/selfstead/selfstead/server/idempotency"
	"github.com/selfstead/selfstead/server/journal"
	"github.com/selfstead/selfstead/server/notification"
	"github.com/selfstead/selfstead/server/operation"
	"github.com/selfstead/selfstead/server/state"
	"github.com/selfstead/selfstead/server/system"
)

const password = "correct horse"

// lab is a server on real listeners over real rooms, services apart.
type lab struct {
	t        testing.TB
	db       *patchdb.DB
	ops      *operation.Manager
	account  *account.Manager
	services *services
	notes    *notification.Manager
	keys     string // file of SSH keys
	server   *server.Server
	url      string // remote listener
	local    *http.Client
	token    string
	power    chan string
	log      *logBuffer

	bodyTimeout time.Duration
	heartbeat   time.Duration
	notReady    error
	before      func(dir string)
}

type logBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// owner is the private part of a claimed server with one session, made once:
// hashing passwords is slow on purpose.
var owner = sync.OnceValues(func() (state.PrivatePart, string) {
	fail := func(err error) {
		if err != nil {
			panic(err)
		}
	}
	dir, err := os.MkdirTemp("", "")
	fail(err)
	defer os.RemoveAll(dir)
	db, err := patchdb.Open(filepath.Join(dir, "state.db"), patchdb.Options{})
	fail(err)
	defer db.Close()
	_, err = db.Put(context.Background(), "", state.New())
	fail(err)
	m, err := account.Open(context.Background(), account.Options{DB: db, ClaimFile: filepath.Join(dir, "claim-code")})
	fail(err)
	fail(m.Claim(context.Background(), netipLoopback, m.ClaimCode(), password))
	_, token, err := m.SignIn(context.Background(), netipLoopback, password, "test", false)
	fail(err)
	private, err := patchdb.Get[state.PrivatePart](db, state.Private)
	fail(err)
	return private, token
})

// newLab starts a claimed server with a signed-in user and hello-world
// installed and running.
func newLab(t testing.TB, tune ...func(*lab)) *lab {
	t.Helper()
	private, token := owner()
	doc := state.New()
	doc.Private = private
	l := startLab(t, doc, tune...)
	l.token = token
	require.NoError(t, l.services.put(helloWorld))
	return l
}

func newUnclaimedLab(t testing.TB) *lab { t.Helper(); return startLab(t, state.New()) }

func startLab(t testing.TB, doc state.Document, tune ...func(*lab)) *lab {
	t.Helper()
	dir := t.TempDir()
	l := &lab{t: t, power: make(chan string, 1), log: &logBuffer{}, heartbeat: 50 * time.Millisecond}
	for _, fn := range tune {
		fn(l)
	}
	var err error
	l.db, err = patchdb.Open(filepath.Join(dir, "state.db"), patchdb.Options{})
	require.NoError(t, err)
	doc.Public.ServerInfo = state.Server{ID: "abc", Hostname: "stead"}
	_, err = l.db.Put(t.Context(), "", doc)
	require.NoError(t, err)
	l.ops = operation.New(operation.Options{})
	l.account, err = account.Open(t.Context(), account.Options{DB: l.db, ClaimFile: filepath.Join(dir, "claim-code")})
	require.NoError(t, err)
	root, err := authority.Open(authority.Options{Dir: filepath.Join(dir, "tls")})
	require.NoError(t, err)
	l.services = newServices(l.db, l.ops, filepath.Join(dir, "logs"))
	l.notes = notification.New(notification.Options{DB: l.db, Pause: time.Millisecond})
	require.NoError(t, l.notes.Start(t.Context()))
	l.keys = filepath.Join(dir, "ssh", "authorized_keys")
	machine := system.New(system.Options{DB: l.db, AuthorizedKeys: l.keys})
	ownLog, err := journal.NewWriter(dir, "server.log")
	require.NoError(t, err)
	fmt.Fprintln(ownLog, "from the server")
	require.NoError(t, ownLog.Close())
	if l.before != nil {
		l.before(dir)
	}
	requests, err := idempotency.Open(t.Context(), filepath.Join(dir, "requests.db"), idempotency.Options{})
	require.NoError(t, err)
	l.server = server.New(server.Deps{
		Notifications: l.notes, Requests: requests, Inspector: l.services, Shell: l.services.shell,
		System: machine, ServerLog: journal.OpenName(dir, "server.log"),
		Gateways: func() ([]api.Gateway, error) {
			return []api.Gateway{{ID: "eth0", Addresses: []string{"192.0.2.7/24"}, Default4: true}}, nil
		},
		DB: l.db, Operations: l.ops, Account: l.account, Services: l.services, Authority: root,
		Forwards: func() []api.Forward {
			return []api.Forward{{Name: "hello-world/ui/80", Source: "192.0.2.7:49152", Target: "10.43.0.2:80", Count: 1, Protocols: "tcp"}}
		},
	}, server.Options{
		Version: "0.0.0-test", Architecture: "x86_64", Heartbeat: l.heartbeat, BodyTimeout: l.bodyTimeout,
		Ready: func() error { return l.notReady },
		Power: func(action string) { l.power <- action }, Logger: slog.New(slog.NewTextHandler(l.log, nil)),
	})
	remote, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	l.url = "http://" + remote.Addr().String()
	socket := filepath.Join(dir, "stead.sock")
	local, err := net.Listen("unix", socket)
	require.NoError(t, err)
	var wg sync.WaitGroup
	wg.Go(func() { assert.NoError(t, l.server.Serve(remote, false)) })
	wg.Go(func() { assert.NoError(t, l.server.Serve(local, true)) })
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}}
	l.local = &http.Client{Transport: transport}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		http.DefaultClient.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		assert.NoError(t, l.server.Shutdown(ctx))
		wg.Wait()
		assert.NoError(t, l.ops.Close(ctx))
		assert.NoError(t, l.notes.Close())
		assert.NoError(t, requests.Close())
		assert.NoError(t, l.db.Close())
	})
	return l
}

// answer is a response with its body read.
type answer struct {
	status int
	header http.Header
	body   string
}

func (a answer) code() string {
	var p struct {
		Code string `json:"code"`
	}
	json.Unmarshal([]byte(a.body), &p) //nolint:errcheck // no code then
	return p.Code
}

// request makes a request as the user; who "guest" or "local" changes that.
func (l *lab) request(who, method, path, body string, header ...string) *http.Request {
	l.t.Helper()
	base := l.url
	if who == "local" {
		base = "http://local"
	}
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(l.t.Context(), method, base+path, r)
	require.NoError(l.t, err)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if who == "user" {
		req.Header.Set("Authorization", "Bearer "+l.token)
	}
	for i := 0; i+1 < len(header); i += 2 {
		if header[i] == "Host" {
			req.Host = header[i+1]
		} else {
			req.Header.Set(header[i], header[i+1])
		}
	}
	return req
}

func (l *lab) client(who string) *http.Client {
	if who == "local" {
		return l.local
	}
	return http.DefaultClient
}

func (l *lab) do(who, method, path, body string, header ...string) answer {
	l.t.Helper()
	client := *l.client(who)
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	res, err := client.Do(l.request(who, method, path, body, header...))
	require.NoError(l.t, err)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	require.NoError(l.t, err)
	return answer{res.StatusCode, res.Header, string(text)}
}

// events is an open stream.
type events struct {
	t   testing.TB
	res *http.Response
	r   *bufio.Reader
}

type sse struct{ name, id, data string }

func (l *lab) open(who, path string, header ...string) *events {
	l.t.Helper()
	res, err := l.client(who).Do(l.request(who, "GET", path, "", header...))
	require.NoError(l.t, err)
	l.t.Cleanup(func() { res.Body.Close() })
	require.Equal(l.t, 200, res.StatusCode)
	require.Equal(l.t, "text/event-stream", res.Header.Get("Content-Type"))
	return &events{l.t, res, bufio.NewReader(res.Body)}
}

// read returns the next event, passing over comments; io.EOF at the end.
func (e *events) read() (sse, error) {
	var ev sse
	for {
		line, err := e.r.ReadString('\n')
		if err != nil {
			if errors.Is(err, io.ErrUnexpectedEOF) {
				err = io.EOF
			}
			return ev, err
		}
		line = strings.TrimSuffix(line, "\n")
		field, value, _ := strings.Cut(line, ": ")
		switch field {
		case "event":
			ev.name = value
		case "id":
			ev.id = value
		case "data":
			ev.data = value
		case "":
			if ev.name != "" {
				return ev, nil
			}
		}
	}
}

func (e *events) next(name string) sse {
	e.t.Helper()
	ev, err := e.read()
	require.NoError(e.t, err)
	require.Equal(e.t, name, ev.name, "%s", ev.data)
	return ev
}

// comment waits for a heartbeat.
func (e *events) comment() {
	e.t.Helper()
	for {
		line, err := e.r.ReadString('\n')
		require.NoError(e.t, err)
		if strings.HasPrefix(line, ":") {
			return
		}
	}
}

func decode[T any](t testing.TB, text string) T {
	t.Helper()
	var v T
	require.NoError(t, json.Unmarshal([]byte(text), &v), fmt.Sprintf("%.200s", text))
	return v
}
