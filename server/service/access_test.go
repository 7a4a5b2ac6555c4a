package service_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/selfstead/selfstead/s9pk"
	"github.com/selfstead/selfstead/server/api"
	"github.com/selfstead/selfstead/server/operation"
	"github.com/stretchr/testify/require"
)

// Between containers everything is shut but what a manifest declares and what
// the owner grants, at the gateway's address and at the container's own.
func TestAccessBetweenPackages(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.start()
	l.install(build(t, testPackage{ID: "base", Port: 18081, Code: map[string]any{"inner": 18091}}))
	l.install(build(t, testPackage{ID: "user", Port: 18082, Code: map[string]any{"needs": "base"},
		Manifest: func(m *s9pk.Manifest) { m.Dependencies["base"] = s9pk.Dependency{} }}))
	// What a package only says while it runs opens nothing.
	sibling := build(t, testPackage{ID: "sibling", Port: 18083, Code: map[string]any{"claims": "base"}})
	l.install(sibling)
	for _, id := range []string{"base", "user", "sibling"} {
		l.healthy(id)
	}
	ports := map[string]int{"base": 18081, "user": 18082, "sibling": 18083}
	const gateway = "10.61.0.1"
	inside := []string{"http://" + gateway + ":18081/", "http://" + gateway + ":18091/", "http://" + l.containerIP("base") + ":8080/", "http://base.startos:8080/"}
	from := func(id, address string) bool {
		t.Helper()
		body, err := l.fetch(l.lan, fmt.Sprintf("http://%s:%d/get?ms=700&url=%s", serverAddr, ports[id], url.QueryEscape(address)))
		if err == nil {
			require.Equal(t, "hello from base\n", body)
		}
		return err == nil
	}
	reaches := func(id string, want bool) {
		t.Helper()
		for _, address := range inside {
			require.Equal(t, want, from(id, address), "%s to %s", id, address)
		}
	}
	reaches("user", true)
	reaches("base", true)
	reaches("sibling", false)

	// By an outside address a sibling is one machine of the LAN among others:
	// what the LAN may use it may use, what the LAN may not it may not.
	outside := func(port string, want bool) {
		t.Helper()
		address := "http://" + net.JoinHostPort(serverAddr, port) + "/"
		_, err := l.fetch(l.lan, address)
		require.Equal(t, want, err == nil, "the LAN to %s: %v", address, err)
		require.Equal(t, want, from("sibling", address), "the sibling to %s", address)
	}
	outside("18081", true)
	outside("18091", false) // of this one the package tells nobody
	for _, address := range []string{"127.0.0.1:18091", gateway + ":18091"} {
		body, err := l.fetch(l.srv, "http://"+address+"/")
		require.NoError(t, err, "the server itself")
		require.Equal(t, "hello from base\n", body)
	}
	_, err := l.fetch(l.lan, "http://"+gateway+":18081/")
	require.Error(t, err, "another machine to the containers' side")
	var hosts []api.Host
	l.json("GET", "/v1/packages/base/hosts", "", 200, &hosts)
	for _, h := range hosts {
		require.Equal(t, h.HostID == "ui-multi", len(h.Bindings[0].Addresses) > 0, "%+v", h)
	}

	var list []api.Grant
	l.json("GET", "/v1/packages/base/grants", "", 200, &list)
	require.Equal(t, []api.Grant{{Client: "user", Declared: true}}, list)
	l.json("PUT", "/v1/packages/base/grants/nobody", "", 404, nil)
	l.json("PUT", "/v1/packages/nobody/grants/sibling", "", 404, nil)
	l.json("PUT", "/v1/packages/base/grants/base", "", 422, nil)
	l.json("DELETE", "/v1/packages/base/grants/user", "", 404, nil)
	l.json("PUT", "/v1/packages/base/grants/sibling", "", 200, &list)
	require.Len(t, list, 2)
	require.Equal(t, "sibling", list[0].Client)
	require.NotNil(t, list[0].Granted)
	reaches("sibling", true) // at once
	require.False(t, l.reachable("base", "sibling"), "not the other way round")
	l.json("PUT", "/v1/packages/base/grants/sibling", "", 200, nil)
	var doc struct{ Value json.RawMessage }
	l.json("GET", "/v1/state?pointer=/packageData/base/grants", "", 200, &doc)
	require.Contains(t, string(doc.Value), `"sibling":"20`)

	l.kill()
	l.start()
	l.healthy("sibling")
	reaches("sibling", true)

	// A grant that is taken back ends what is open, and nobody else's.
	streams := map[string]*stream{}
	for _, id := range []string{"user", "sibling"} {
		for _, at := range []string{inside[0], inside[2]} {
			streams[id+at] = l.ticks(fmt.Sprintf("http://%s:%d/relay?url=%s", serverAddr, ports[id], url.QueryEscape(at+"ticks")))
		}
	}
	for name, s := range streams {
		require.True(t, s.next(5*time.Second), name)
	}
	l.json("DELETE", "/v1/packages/base/grants/sibling", "", 204, nil)
	reaches("sibling", false)
	reaches("user", true)
	for name, s := range streams {
		s.drain()
		require.Equal(t, strings.HasPrefix(name, "user"), s.next(time.Second), name)
	}

	// It goes with either package.
	l.json("PUT", "/v1/packages/base/grants/sibling", "", 200, nil)
	var op operation.Operation
	l.json("DELETE", "/v1/packages/sibling", "", 202, &op)
	require.Equal(t, operation.Succeeded, l.finish(op.ID).Status)
	l.json("GET", "/v1/packages/base/grants", "", 200, &list)
	require.Len(t, list, 1)
	l.install(sibling)
	l.healthy("sibling")
	reaches("sibling", false)
	l.json("PUT", "/v1/packages/base/grants/sibling", "", 200, nil)
	l.stop(syscall.SIGINT)
	l.start()
	l.healthy("base")
	l.healthy("sibling")
	inside[2] = inside[0]
	reaches("sibling", true)
}

// reachable asks from inside one package for another one's gateway port.
func (l *lab) reachable(from, to string) bool {
	ports := map[string]int{"base": 18081, "user": 18082, "sibling": 18083}
	_, err := l.fetch(l.lan, fmt.Sprintf("http://%s:%d/get?ms=700&url=http://10.61.0.1:%d/", serverAddr, ports[from], ports[to]))
	return err == nil
}

// stream is an answer that goes on.
type stream struct{ lines chan string }

func (l *lab) ticks(address string) *stream {
	l.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	l.t.Cleanup(cancel)
	c := &http.Client{Transport: &http.Transport{DialContext: func(_ context.Context, network, addr string) (net.Conn, error) { return l.dial(l.lan, network, addr) }}}
	req, err := http.NewRequestWithContext(ctx, "GET", address, nil)
	require.NoError(l.t, err)
	resp, err := c.Do(req)
	require.NoError(l.t, err)
	require.Equal(l.t, 200, resp.StatusCode)
	s := &stream{make(chan string, 1024)}
	go func() {
		defer resp.Body.Close()
		defer close(s.lines)
		for sc := bufio.NewScanner(resp.Body); sc.Scan(); {
			select {
			case s.lines <- sc.Text():
			default:
			}
		}
	}()
	return s
}

// next reports whether a further line comes.
func (s *stream) next(limit time.Duration) bool {
	select {
	case _, ok := <-s.lines:
		return ok
	case <-time.After(limit):
		return false
	}
}

// drain takes what has come already.
func (s *stream) drain() {
	for {
		select {
		case _, ok := <-s.lines:
			if ok {
				continue
			}
		default:
		}
		return
	}
}
