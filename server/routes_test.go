package server_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/selfstead/selfstead/patchdb"
	"github.com/selfstead/selfstead/server/state"
)

var netipLoopback = netip.MustParseAddr("127.0.0.1")

// TestRoutes asks each route as a guest and as the user. A route that guests
// may not use must refuse them and say nothing else.
func TestRoutes(t *testing.T) {
	t.Parallel()
	tests := []struct {
		who, method, path, body string
		status                  int
		has                     []string
		hasNot                  []string
	}{
		{"guest", "GET", "/v1/ping", "", 200, []string{`"ok":true`}, nil},
		{"guest", "GET", "/healthz", "", 200, nil, nil},
		{"guest", "GET", "/readyz", "", 200, nil, nil},
		{"guest", "GET", "/v1/mode", "", 200, []string{`"mode":"running"`, `"version":"0.0.0-test"`}, nil},
		{"guest", "GET", "/v1/certificates/root-ca", "", 200, []string{"BEGIN CERTIFICATE"}, []string{"PRIVATE"}},
		{"guest", "GET", "/", "", 302, nil, nil},
		{"guest", "GET", "/docs", "", 200, []string{"<!doctype html>", "/docs/docs.js"}, []string{"https://"}},
		{"guest", "GET", "/docs/docs.js", "", 200, []string{"/openapi.json"}, []string{"https://"}},
		{"guest", "GET", "/docs/docs.css", "", 200, nil, []string{"url(", "@import"}},
		{"guest", "GET", "/openapi.json", "", 200, []string{`"openapi":"3.1.0"`}, nil},
		{"guest", "GET", "/openapi.yaml", "", 200, []string{"openapi: 3.1.0"}, nil},
		{"guest", "GET", "/openapi-3.0.json", "", 200, []string{`"openapi":"3.0.3"`}, nil},

		{"guest", "POST", "/v1/setup:claim", `{"code":"AAAA-AAAA-AAAA-AAAA","password":"new password"}`, 409, []string{"already-claimed"}, []string{"new password"}},
		{"guest", "POST", "/v1/setup:claim", `{"code":"x","password":"short"}`, 422, []string{"body.password", `"code":"invalid"`}, []string{"short\""}},
		{"guest", "POST", "/v1/setup:claim", `{"password":"longer secret"}`, 422, []string{"code"}, []string{"longer secret"}},
		{"guest", "POST", "/v1/setup:claim", `"my password by mistake"`, 422, nil, []string{"mistake"}},
		{"guest", "POST", "/v1/setup:claim", `{"password": broken`, 400, []string{"bad-request"}, []string{"broken"}},
		{"guest", "POST", "/v1/sessions", `{"password":"correct horse"}`, 201, []string{`"token":"`}, []string{"correct horse"}},
		{"guest", "POST", "/v1/sessions", `{"password":"wrong horse"}`, 401, []string{"wrong-password"}, []string{"wrong horse"}},
		{"guest", "POST", "/v1/sessions", "", 400, nil, nil},
		{"user", "GET", "/v1/sessions", "", 200, []string{`"current":true`, `"name":"test"`}, []string{"token"}},
		{"user", "DELETE", "/v1/sessions/none", "", 404, []string{"not-found"}, nil},
		{"local", "DELETE", "/v1/sessions/current", "", 404, nil, nil},
		{"user", "PUT", "/v1/account/password", `{"oldPassword":"wrong horse","newPassword":"next password"}`, 401, []string{"wrong-password"}, nil},

		{"user", "GET", "/v1/state", "", 200, []string{`"serverInfo"`, `"hello-world"`, `"id":`}, []string{"private", "passwordHash", "argon2", "sessions"}},
		{"user", "GET", "/v1/state?pointer=/serverInfo/hostname", "", 200, []string{`"value":"stead"`}, nil},
		{"user", "GET", "/v1/state?pointer=/private", "", 404, nil, []string{"argon2"}},
		{"user", "GET", "/v1/state?pointer=/../private", "", 404, nil, []string{"argon2"}},
		{"user", "GET", "/v1/state?pointer=private", "", 422, []string{"query.pointer"}, nil},
		{"user", "GET", "/v1/state?pointer=/a~2", "", 422, []string{"query.pointer"}, nil},
		{"local", "GET", "/v1/state?pointer=/private", "", 404, nil, nil},
		{"user", "GET", "/v1/state/events?since=x", "", 422, nil, nil},

		{"user", "GET", "/v1/operations", "", 200, []string{"[]"}, nil},
		{"user", "GET", "/v1/operations/none", "", 404, nil, nil},
		{"user", "DELETE", "/v1/operations/none", "", 404, nil, nil},
		{"user", "GET", "/v1/operations/none/events", "", 404, nil, nil},

		{"user", "GET", "/v1/packages", "", 200, []string{`"id":"hello-world"`}, []string{"manifest"}},
		{"user", "GET", "/v1/packages/hello-world", "", 200, []string{`"state":"running"`, `"desiredState":"running"`, `"health":{"web":{`, `"result":"success"`, `"message":"ready"`, `"manifest"`}, nil},
		{"user", "GET", "/v1/packages/none", "", 404, []string{"there is no package none"}, nil},
		{"user", "PUT", "/v1/packages/hello-world/desired-state", `{"state":"stopped"}`, 200, []string{`"desiredState":"stopped"`}, nil},
		{"user", "PUT", "/v1/packages/hello-world/desired-state", `{"state":"paused"}`, 422, []string{"body.state", "paused"}, nil},
		{"user", "PUT", "/v1/packages/none/desired-state", `{"state":"running"}`, 404, nil, nil},
		{"user", "POST", "/v1/packages/hello-world:restart", "", 202, []string{`"id":"hello-world"`}, nil},
		{"user", "POST", "/v1/packages/none:restart", "", 404, nil, nil},
		{"user", "POST", "/v1/packages/hello-world:rebuild", "", 202, nil, nil},
		{"user", "POST", "/v1/packages/hello-world:explode", "", 405, nil, nil},
		{"user", "GET", "/v1/packages/hello-world/grants", "", 200, []string{`"client":"dashboard"`, `"declared":true`}, nil},
		{"user", "GET", "/v1/packages/none/grants", "", 404, nil, nil},
		{"user", "PUT", "/v1/packages/hello-world/grants/dashboard", "", 200, []string{`"client":"dashboard"`}, nil},
		{"user", "PUT", "/v1/packages/hello-world/grants/none", "", 404, []string{"there is no package none"}, nil},
		{"user", "DELETE", "/v1/packages/hello-world/grants/dashboard", "", 204, nil, nil},
		{"user", "DELETE", "/v1/packages/none/grants/dashboard", "", 404, nil, nil},
		{"user", "GET", "/v1/packages/hello-world/limits", "", 200, []string{`"default":{"memory":1073741824}`, `"set":{}`}, nil},
		{"user", "GET", "/v1/packages/none/limits", "", 404, nil, nil},
		{"user", "PUT", "/v1/packages/hello-world/limits", `{"memory":1073741824,"cpus":0.5,"pids":100,"cpuWeight":50}`, 200, []string{`"effective":`}, nil},
		{"user", "PUT", "/v1/packages/hello-world/limits", `{"memory":134217728}`, 409, []string{"conflict"}, nil},
		{"user", "PUT", "/v1/packages/hello-world/limits", `{"memory":4096,"cpus":0}`, 422, []string{"body.memory", "body.cpus"}, nil},
		{"user", "PUT", "/v1/packages/none/limits", `{}`, 404, nil, nil},
		{"user", "GET", "/v1/packages/hello-world/hosts", "", 200, []string{`"hostId":"ui"`, `"internalPort":80`, `"ip":"192.0.2.7"`, `"port":49152`, `"url":"http://`}, nil},
		{"user", "GET", "/v1/packages/hello-world/logs", "", 200, []string{`"entries":[`}, nil},
		{"user", "GET", "/v1/packages/hello-world/logs?cursor=junk", "", 422, []string{"query.cursor"}, nil},
		{"user", "GET", "/v1/packages/hello-world/logs?limit=100000", "", 422, []string{"query.limit"}, nil},
		{"user", "GET", "/v1/packages/hello-world/logs/events?cursor=junk", "", 422, []string{"query.cursor"}, nil},
		{"user", "GET", "/v1/packages/none/logs", "", 404, nil, nil},
		{"user", "GET", "/v1/packages/none/logs/events", "", 404, nil, nil},
		{"user", "GET", "/v1/packages/hello-world/actions", "", 200, []string{`"id":"greet"`, `"name":"Greet"`, `"visibility":"enabled"`}, nil},
		{"user", "GET", "/v1/packages/none/actions", "", 404, nil, nil},
		{"user", "GET", "/v1/packages/hello-world/tasks", "", 200, []string{`"id":"t1"`, `"active":true`, `"severity":"critical"`}, nil},
		{"user", "POST", "/v1/packages/hello-world/actions/greet/input", "", 200, []string{`"eventId":"e1"`, `"spec"`, `"value":null`}, nil},
		{"user", "POST", "/v1/packages/hello-world/actions/greet/input", `{"prefill":{"name":"A"}}`, 200, []string{`"value":{"name":"A"}`}, nil},
		{"user", "POST", "/v1/packages/hello-world/actions/none/input", "", 404, nil, nil},
		{"user", "POST", "/v1/packages/hello-world/actions/greet/runs", `{"eventId":"e1","input":{"name":"A"}}`, 200, []string{`"title":"Done"`, `"input":{"name":"A"}`, `"event":"e1"`}, nil},
		{"user", "POST", "/v1/packages/hello-world/actions/nothing/runs", "", 200, []string{"null"}, nil},
		{"user", "DELETE", "/v1/packages/none", "", 404, nil, nil},
		{"user", "DELETE", "/v1/packages/hello-world?soft=true", "", 202, []string{`"kind":"uninstall"`, `"status":"running"`}, nil},

		{"user", "GET", "/v1/network/forwards", "", 200, []string{`"source":"192.0.2.7:49152"`}, nil},
		{"user", "GET", "/v1/system", "", 200, []string{`"hostname":"stead"`, `"architecture":"x86_64"`, `"claimed":true`}, nil},
		{"user", "GET", "/v1/system/smtp", "", 404, []string{"not-found"}, nil},
		{"user", "DELETE", "/v1/system/smtp", "", 204, nil, nil},
		{"user", "PUT", "/v1/system/smtp", `{"host":"mail.example.org","port":587,"from":"Me <me@example.org>","username":"me","password":"mail secret"}`, 200, []string{`"passwordSet":true`, `"security":"starttls"`}, []string{"mail secret"}},
		{"user", "PUT", "/v1/system/smtp", `{"host":"mail.example.org","port":587,"from":"nobody","username":"me","password":"mail secret"}`, 422, []string{"body.from"}, []string{"mail secret"}},
		{"user", "PUT", "/v1/system/smtp", `{"host":"h","port":0,"from":"me@example.org","username":"me","security":"none"}`, 422, []string{"body.port", "body.security"}, nil},
		{"user", "POST", "/v1/system/power", `{"action":"shutdown"}`, 403, []string{"local-only"}, nil},
		{"local", "POST", "/v1/system/power", `{"action":"shutdown"}`, 202, nil, nil},
		{"local", "POST", "/v1/system/power", `{"action":"explode"}`, 422, nil, nil},
		{"local", "GET", "/v1/packages", "", 200, nil, nil},

		{"user", "GET", "/v1/none", "", 404, []string{"not-found"}, nil},
		{"user", "GET", "/..%2f..%2fetc/passwd", "", 404, nil, nil},
		{"user", "PATCH", "/v1/packages", "", 405, []string{"method-not-allowed"}, nil},
		{"user", "POST", "/v1/ping", "", 405, nil, nil},
	}
	for _, tt := range tests {
		t.Run(tt.who+" "+tt.method+" "+tt.path, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			if tt.who == "user" && strings.HasPrefix(tt.path, "/v1/") && tt.status != 405 && !strings.HasSuffix(tt.path, "/none") {
				a := l.do("guest", tt.method, tt.path, tt.body)
				if a.status != 404 || !strings.Contains(a.body, "no such path") {
					assert.Contains(t, []int{401, 403}, a.status, "a guest is refused")
					assert.NotContains(t, a.body, "hello-world\"")
				}
			}
			a := l.do(tt.who, tt.method, tt.path, tt.body)
			assert.Equal(t, tt.status, a.status, a.body)
			for _, s := range tt.has {
				assert.Contains(t, a.body, s)
			}
			for _, s := range append(tt.hasNot, l.token) {
				assert.NotContains(t, a.body, s)
			}
			if a.status == 405 {
				assert.NotEmpty(t, a.header.Get("Allow"))
			}
			if a.status >= 400 {
				assert.Equal(t, "application/problem+json", a.header.Get("Content-Type"))
				p := decode[map[string]any](t, a.body)
				assert.EqualValues(t, a.status, p["status"])
				assert.NotEmpty(t, p["code"])
				assert.Equal(t, "urn:selfstead:request:"+a.header.Get("X-Request-Id"), p["instance"])
			}
			assert.Equal(t, "nosniff", a.header.Get("X-Content-Type-Options"))
			assert.NotContains(t, l.log.String(), l.token)
			assert.NotContains(t, l.log.String(), password)
		})
	}
}

// The password of the mail server is written and never read, and follows no
// change of the server that it is for.
func TestSMTPPassword(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	const path = "/v1/system/smtp"
	set := func(host, rest string) string {
		t.Helper()
		a := l.do("user", "PUT", path, `{"host":"`+host+`","port":587,"from":"me@example.org","username":"me"`+rest+`}`)
		require.Equal(t, 200, a.status, a.body)
		return a.body
	}
	stored := func() *string {
		t.Helper()
		v, err := patchdb.Get[state.SMTP](l.db, state.SMTPPointer)
		require.NoError(t, err)
		return v.Password
	}
	set("one.example", `,"password":"mail secret"`)
	for _, from := range []string{path, "/v1/state", "/v1/state?pointer=/serverInfo/smtp"} {
		a := l.do("user", "GET", from, "")
		require.Equal(t, 200, a.status)
		assert.Contains(t, a.body, `"passwordSet":true`)
		assert.NotContains(t, a.body, "mail secret")
	}
	set("one.example", `,"security":"tls"`)
	require.Equal(t, "mail secret", *stored(), "kept")
	assert.Contains(t, set("two.example", ""), `"passwordSet":false`)
	require.Nil(t, stored(), "it was another server's")
	set("one.example", `,"password":"mail secret"`)
	set("one.example", `,"password":""`)
	require.Nil(t, stored())
	require.Equal(t, 204, l.do("user", "DELETE", path, "").status)
	require.Equal(t, 404, l.do("user", "GET", path, "").status)
	assert.NotContains(t, l.do("user", "GET", "/v1/state", "").body, "smtp")
}

func TestWrongMediaType(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	a := l.do("user", "PUT", "/v1/packages/hello-world/desired-state", "state: running", "Content-Type", "application/yaml")
	assert.Equal(t, 415, a.status, a.body)
	assert.Equal(t, "unsupported-media-type", a.code())
	a = l.do("user", "POST", "/v1/packages:sideload", "{}", "Content-Type", "application/json")
	assert.Equal(t, 415, a.status, a.body)
	a = l.do("user", "PUT", "/v1/packages/hello-world/desired-state", `{"state":"`+strings.Repeat("x", 2<<20)+`"}`)
	assert.Equal(t, 413, a.status, a.body[:min(len(a.body), 300)])
}

func TestETag(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	first := l.do("user", "GET", "/v1/state", "")
	tag := first.header.Get("ETag")
	require.Regexp(t, `^"\d+"$`, tag)
	assert.Contains(t, first.body, `"id":`+strings.Trim(tag, `"`))
	again := l.do("user", "GET", "/v1/state", "", "If-None-Match", `"0", W/`+tag)
	assert.Equal(t, 304, again.status)
	assert.Empty(t, again.body)
	assert.Equal(t, tag, again.header.Get("ETag"))
	require.NoError(t, l.services.SetDesired(t.Context(), "hello-world", "stopped", false))
	assert.Equal(t, 200, l.do("user", "GET", "/v1/state", "", "If-None-Match", tag).status)
}

// TestClaimToSignOut walks the way of a new owner.
func TestClaimToSignOut(t *testing.T) {
	t.Parallel()
	l := newUnclaimedLab(t)
	assert.Contains(t, l.do("guest", "GET", "/v1/mode", "").body, `"mode":"setup"`)
	a := l.do("guest", "GET", "/v1/packages", "")
	assert.Equal(t, 401, a.status)
	assert.Contains(t, a.body, "/v1/setup:claim", "it says what to do")
	a = l.do("guest", "POST", "/v1/sessions", `{"password":"anything at all"}`)
	assert.Equal(t, 409, a.status)
	assert.Equal(t, "unclaimed", a.code())
	assert.Equal(t, 200, l.do("local", "GET", "/v1/packages", "").status, "the socket works before the claim")

	a = l.do("guest", "POST", "/v1/setup:claim", `{"code":"AAAA-AAAA-AAAA-AAAA","password":"correct horse"}`)
	assert.Equal(t, 403, a.status)
	assert.Equal(t, "bad-claim-code", a.code())
	a = l.do("guest", "POST", "/v1/setup:claim", `{"code":"`+l.account.ClaimCode()+`","password":"correct horse"}`)
	assert.Equal(t, 204, a.status, a.body)
	assert.Empty(t, a.body)

	a = l.do("guest", "POST", "/v1/sessions", `{"password":"correct horse","name":"phone"}`)
	require.Equal(t, 201, a.status)
	cookie := a.header.Get("Set-Cookie")
	for _, part := range []string{"stead_session=", "Path=/", "HttpOnly", "SameSite=Strict"} {
		assert.Contains(t, cookie, part)
	}
	assert.NotContains(t, cookie, "Secure", "the listener has no TLS")
	token := decode[struct{ Token string }](t, a.body).Token
	l.token = token
	assert.Equal(t, 200, l.do("user", "GET", "/v1/packages", "").status)
	pair, _, _ := strings.Cut(cookie, ";")
	assert.Equal(t, 200, l.do("guest", "GET", "/v1/packages", "", "Cookie", pair).status)

	a = l.do("user", "DELETE", "/v1/sessions/current", "")
	assert.Equal(t, 204, a.status)
	assert.Contains(t, a.header.Get("Set-Cookie"), "Max-Age=0")
	assert.Equal(t, 401, l.do("user", "GET", "/v1/packages", "").status)
	assert.Equal(t, 401, l.do("guest", "GET", "/v1/packages", "", "Cookie", pair).status)
}

// TestOrigins: what a browser sends for a page of another origin is refused,
// also for the calls that need no session.
func TestOrigins(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	cookie := "stead_session=" + l.token
	own := l.url
	const path, body = "/v1/packages/hello-world/desired-state", `{"state":"stopped"}`
	for _, tt := range []struct {
		name   string
		status int
		header []string
	}{
		{"own page", 200, []string{"Cookie", cookie, "Origin", own}},
		{"own page by fetch metadata", 200, []string{"Cookie", cookie, "Sec-Fetch-Site", "same-origin"}},
		{"not a browser", 200, []string{"Cookie", cookie}},
		{"other origin", 403, []string{"Cookie", cookie, "Origin", "http://evil.example"}},
		{"other port of the same host", 403, []string{"Cookie", cookie, "Origin", "http://127.0.0.1:1", "Sec-Fetch-Site", "same-site"}},
		{"opaque origin", 403, []string{"Cookie", cookie, "Origin", "null"}},
		{"bearer token from another page", 200, []string{"Authorization", "Bearer " + l.token, "Origin", "http://evil.example"}},
		{"a bad bearer token is not saved by a cookie", 401, []string{"Authorization", "Bearer x", "Cookie", cookie}},
		{"basic", 401, []string{"Authorization", "Basic " + l.token}},
	} {
		a := l.do("guest", http.MethodPut, path, body, tt.header...)
		assert.Equal(t, tt.status, a.status, "%s: %s", tt.name, a.body)
	}
	a := l.do("guest", "POST", "/v1/sessions", `{"password":"correct horse"}`, "Origin", "http://evil.example")
	assert.Equal(t, 403, a.status)
	assert.Equal(t, "cross-origin", a.code())
}

func TestGuessingIsThrottled(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	var a answer
	for range 6 {
		a = l.do("guest", "POST", "/v1/sessions", `{"password":"guess guess"}`)
	}
	assert.Equal(t, 429, a.status)
	assert.Equal(t, "too-many-tries", a.code())
	assert.NotEmpty(t, a.header.Get("Retry-After"))
	assert.Equal(t, 204, l.do("local", "PUT", "/v1/account/password", `{"newPassword":"another one"}`).status, "the socket is never throttled")
}

func TestAllow(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	for path, want := range map[string]string{
		"/v1/packages/hello-world:restart": "POST", "/v1/packages/hello-world": "GET, DELETE", "/v1/sessions": "GET, POST", "/v1/packages:sideload": "POST",
	} {
		assert.Equal(t, want, l.do("user", "PATCH", path, "").header.Get("Allow"), path)
	}
}

func TestHead(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	get, head := l.do("user", "GET", "/v1/state", ""), l.do("user", "HEAD", "/v1/state", "")
	assert.Equal(t, 200, head.status)
	assert.Empty(t, head.body)
	assert.Equal(t, get.header.Get("ETag"), head.header.Get("ETag"))
	assert.Equal(t, 401, l.do("guest", "HEAD", "/v1/state", "").status)
	assert.Equal(t, 405, l.do("user", "HEAD", "/v1/state/events", "").status)
}

func TestPanicsAreProblems(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	a := l.do("user", "POST", "/v1/packages/panic:restart", "")
	assert.Equal(t, 500, a.status)
	assert.Equal(t, "internal", a.code())
	assert.NotContains(t, a.body, "secret")
	assert.Contains(t, l.log.String(), "handler panicked")
}

// TestWorkOutlastsTheBodysDeadline: the time that a body has to arrive is not
// the time that the request has.
func TestWorkOutlastsTheBodysDeadline(t *testing.T) {
	t.Parallel()
	l := newLab(t, func(l *lab) { l.bodyTimeout = 200 * time.Millisecond })
	a := l.do("user", "POST", "/v1/packages/hello-world/actions/slow/runs", `{"input":{}}`)
	assert.Equal(t, 200, a.status, a.body)
}

func TestASlowBodyIsGivenUp(t *testing.T) {
	t.Parallel()
	l := newLab(t, func(l *lab) { l.bodyTimeout = 100 * time.Millisecond })
	c, err := net.Dial("tcp", strings.TrimPrefix(l.url, "http://"))
	require.NoError(t, err)
	defer c.Close()
	fmt.Fprint(c, "POST /v1/sessions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
	text, err := io.ReadAll(c)
	require.NoError(t, err)
	assert.Contains(t, string(text), "408 Request Timeout")
	assert.Contains(t, string(text), `"code":"timeout"`)
}
