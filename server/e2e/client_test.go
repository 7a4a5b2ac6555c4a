package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"github.com/stretchr/testify/require"
)

const password = "correct horse battery"

// api is a signed-in user of a server.
type api struct {
	s     *server
	c     *http.Client
	token string
}

// problem is an RFC 9457 body.
type problem struct {
	Type, Title, Detail, Code, Entry string
	Status                           int
}

type operation struct {
	ID, Kind, Status string
	Progress         struct {
		Phase       string
		Done, Total *int64
		Unit        string
	}
	Result  map[string]any
	Problem *problem
}

type pkg struct {
	ID, Version, State, DesiredState string
	Health                           map[string]struct{ Result, Message string }
	Error                            any
}

type host struct {
	HostID   string
	Bindings []struct {
		InternalPort uint16
		SSL          bool
		Addresses    []struct {
			IP   string
			Port uint16
			URL  string
		}
	}
}

// claim claims a fresh server and signs in.
func claim(t testing.TB, s *server) *api {
	t.Helper()
	a := &api{s: s, c: client(s.lab.lan)}
	code, err := os.ReadFile(filepath.Join(s.dir, "claim-code"))
	require.NoError(t, err)
	a.want(t, 204, "POST", "/v1/setup:claim", map[string]string{"code": strings.TrimSpace(string(code)), "password": password}, nil)
	_, err = os.Stat(filepath.Join(s.dir, "claim-code"))
	require.ErrorIs(t, err, os.ErrNotExist, "the claim code is gone after the claim")
	a.login(t)
	return a
}

func (a *api) login(t testing.TB) {
	t.Helper()
	var out struct{ Token string }
	a.want(t, 201, "POST", "/v1/sessions", map[string]string{"password": password}, &out)
	require.NotEmpty(t, out.Token)
	a.token = out.Token
}

// do sends one request; body may be nil, an io.Reader (sent as it is) or a
// value for JSON.
func (a *api) do(ctx context.Context, method, path string, body any) (*http.Response, error) {
	var r io.Reader
	kind := "application/json"
	switch b := body.(type) {
	case nil:
	case io.Reader:
		r, kind = b, "application/octet-stream"
	default:
		raw, err := json.Marshal(b)
		if err != nil {
			return nil, err
		}
		r = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, method, a.s.url(path), r)
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", kind)
	}
	if a.token != "" {
		req.Header.Set("Authorization", "Bearer "+a.token)
	}
	return a.c.Do(req)
}

// want expects a status and decodes the answer.
func (a *api) want(t testing.TB, status int, method, path string, body, into any) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	r, err := a.do(ctx, method, path, body)
	require.NoError(t, err, "%s %s", method, path)
	raw, err := io.ReadAll(r.Body)
	r.Body.Close()
	require.NoError(t, err)
	require.Equal(t, status, r.StatusCode, "%s %s: %s", method, path, raw)
	if status >= 400 {
		require.Equal(t, "application/problem+json", strings.Split(r.Header.Get("Content-Type"), ";")[0])
	}
	if into != nil {
		require.NoError(t, json.Unmarshal(raw, into), "%s", raw)
	}
}

// event is one message of a stream.
type event struct {
	Name, ID string
	Data     []byte
}

// stream reads SSE from path and calls fn until it returns false, the stream
// ends or ctx does.
func (a *api) stream(ctx context.Context, path, last string, fn func(event) bool) error {
	req, err := http.NewRequestWithContext(ctx, "GET", a.s.url(path), nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+a.token)
	if last != "" {
		req.Header.Set("Last-Event-ID", last)
	}
	r, err := a.c.Do(req)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	if r.StatusCode != 200 || !strings.HasPrefix(r.Header.Get("Content-Type"), "text/event-stream") {
		return fmt.Errorf("%s: %s %s", path, r.Status, r.Header.Get("Content-Type"))
	}
	var e event
	in := bufio.NewReader(r.Body)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return err
		}
		line = strings.TrimRight(line, "\r\n")
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case line == "":
			if e.Data != nil && !fn(e) {
				return nil
			}
			e = event{}
		case field == "event":
			e.Name = value
		case field == "id":
			e.ID = value
		case field == "data":
			if e.Data != nil {
				e.Data = append(e.Data, '\n')
			}
			e.Data = append(e.Data, value...)
		}
	}
}

// follow waits for the end of an operation and returns all that it showed.
func (a *api) follow(t testing.TB, id string) (seen []operation, last operation) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	done := false
	err := a.stream(ctx, "/v1/operations/"+id+"/events", "", func(e event) bool {
		var o operation
		require.NoError(t, json.Unmarshal(e.Data, &o), "%s", e.Data)
		seen = append(seen, o)
		require.Contains(t, []string{"progress", "done"}, e.Name)
		done = e.Name == "done"
		return !done
	})
	require.NoError(t, err)
	require.True(t, done)
	return seen, seen[len(seen)-1]
}

// sideload uploads a package and waits for the end of the operation.
func (a *api) sideload(t testing.TB, path string) (seen []operation, last operation) {
	t.Helper()
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	var o operation
	a.want(t, 202, "POST", "/v1/packages:sideload", f, &o)
	require.NotEmpty(t, o.ID)
	return a.follow(t, o.ID)
}

// waitState waits until the package is in state, and, for running, until all
// its health checks succeed.
func (a *api) waitState(t testing.TB, id, state string) pkg {
	t.Helper()
	var p pkg
	eventually(t, 60*time.Second, id+" is "+state, func() error {
		a.want(t, 200, "GET", "/v1/packages/"+id, nil, &p)
		if p.State != state {
			return fmt.Errorf("state %s, error %v", p.State, p.Error)
		}
		if state == "running" {
			if len(p.Health) == 0 {
				return fmt.Errorf("no health yet")
			}
			for n, h := range p.Health {
				if h.Result != "success" {
					return fmt.Errorf("health %s: %s %s", n, h.Result, h.Message)
				}
			}
		}
		return nil
	})
	return p
}

// page is the URL of the service's page on an address.
func (a *api) page(t testing.TB, id, ip string) string {
	t.Helper()
	var hosts []host
	a.want(t, 200, "GET", "/v1/packages/"+id+"/hosts", nil, &hosts)
	for _, h := range hosts {
		for _, b := range h.Bindings {
			for _, addr := range b.Addresses {
				if addr.IP == ip {
					require.Contains(t, addr.URL, fmt.Sprint(addr.Port))
					return addr.URL
				}
			}
		}
	}
	t.Fatalf("no address %s in %+v", ip, hosts)
	return ""
}

// get fetches url from a host of the lab.
func get(c *http.Client, url string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		return "", err
	}
	r, err := c.Do(req)
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != 200 {
		return "", fmt.Errorf("%s: %s %v", url, r.Status, err)
	}
	return string(b), nil
}

// replica applies a state stream.
type replica struct {
	ID    uint64
	Value json.RawMessage
}

func (r *replica) apply(e event) error {
	switch e.Name {
	case "dump":
		return json.Unmarshal(e.Data, r)
	case "patch":
		var rev struct {
			ID    uint64
			Patch json.RawMessage
		}
		if err := json.Unmarshal(e.Data, &rev); err != nil {
			return err
		}
		p, err := jsonpatch.DecodePatch(rev.Patch)
		if err != nil {
			return err
		}
		if r.Value, err = p.Apply(r.Value); err != nil {
			return fmt.Errorf("revision %d: %w", rev.ID, err)
		}
		r.ID = rev.ID
		return nil
	}
	return fmt.Errorf("unknown event %q", e.Name)
}
