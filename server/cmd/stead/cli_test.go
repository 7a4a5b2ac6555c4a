package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/selfstead/selfstead/server/client"
)

// cliLab is a server that answers as written down, on a TCP address and on the
// socket of a folder, and a home for contexts.
type cliLab struct {
	t       *testing.T
	dir     string
	url     string
	answers map[string]string // "GET /v1/packages" -> "200 {...}"
	asked   []string          // "POST /path body" in order
	queries []string          // of them
	tokens  []string
}

// newCLILab is not for parallel tests: it sets the environment.
func newCLILab(t *testing.T, answers map[string]string) *cliLab {
	t.Helper()
	l := &cliLab{t: t, dir: t.TempDir(), answers: answers}
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	t.Setenv("STEAD_DIR", "")
	t.Setenv("STEAD_CONTEXT", "")
	h := http.HandlerFunc(l.answer)
	remote := httptest.NewServer(h)
	t.Cleanup(remote.Close)
	l.url = remote.URL
	socket, err := net.Listen("unix", filepath.Join(l.dir, "stead.sock"))
	require.NoError(t, err)
	local := &httptest.Server{Listener: socket, Config: &http.Server{Handler: h}}
	local.Start()
	t.Cleanup(local.Close)
	return l
}

func (l *cliLab) answer(w http.ResponseWriter, r *http.Request) {
	var body bytes.Buffer
	body.ReadFrom(r.Body) //nolint:errcheck // empty then
	l.queries = append(l.queries, r.URL.RawQuery)
	l.asked = append(l.asked, strings.TrimSpace(r.Method+" "+r.URL.Path+" "+body.String()))
	l.tokens = append(l.tokens, strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
	status, text, ok := strings.Cut(l.answers[r.Method+" "+r.URL.Path], " ")
	if !ok {
		status, text = "404", `{"code":"not-found","detail":"nothing there","status":404}`
	}
	kind := "application/json"
	switch {
	case strings.HasPrefix(text, "event:"):
		kind = "text/event-stream"
	case status >= "400":
		kind = "application/problem+json"
	}
	w.Header().Set("Content-Type", kind)
	var n int
	json.Unmarshal([]byte(status), &n) //nolint:errcheck // written above
	w.WriteHeader(n)
	w.Write([]byte(text)) //nolint:errcheck // the client judges
}

// stead runs the program.
func (l *cliLab) stead(in string, args ...string) (status int, out, errOut string) {
	l.t.Helper()
	var o, e bytes.Buffer
	status = run(context.Background(), args, strings.NewReader(in), &o, &e)
	return status, o.String(), e.String()
}

const helloPackage = `{"id":"hello-world","title":"Hello\u001b[2J World","version":"1.0.0:0","state":"running","desiredState":"running","health":{"web":{"name":"Web","result":"success"}}}`

func TestPackagesCommands(t *testing.T) {
	l := newCLILab(t, map[string]string{
		"GET /v1/packages":                                  "200 [" + helloPackage + "]",
		"GET /v1/packages/hello-world":                      "200 " + helloPackage,
		"GET /v1/packages/hello-world/hosts":                `200 [{"hostId":"ui","bindings":[{"internalPort":80,"addresses":[{"ip":"192.0.2.7","port":49152,"url":"http://192.0.2.7:49152"}]}]}]`,
		"PUT /v1/packages/hello-world/desired-state":        "200 " + helloPackage,
		"POST /v1/packages/hello-world:restart":             "202 " + helloPackage,
		"GET /v1/packages/hello-world/logs":                 `200 {"entries":[{"time":"2026-01-02T03:04:05Z","stream":"stderr","message":"oops\u0007","cursor":"1.2"}]}`,
		"GET /v1/packages/hello-world/actions":              `200 [{"id":"greet","name":"Greet","hasInput":true,"allowedStatuses":"only-running","visibility":"enabled"}]`,
		"POST /v1/packages/hello-world/actions/greet/input": `200 {"eventId":"e1","spec":{},"value":{"name":"A"}}`,
		"POST /v1/packages/hello-world/actions/greet/runs":  `200 {"version":"1","title":"Greeted","message":"Hello A","result":null}`,
		"DELETE /v1/packages/hello-world":                   `202 {"id":"op1","kind":"uninstall","status":"running"}`,
		"GET /v1/operations/op1/events":                     "200 event: done\ndata: {\"id\":\"op1\",\"kind\":\"uninstall\",\"package\":\"hello-world\",\"status\":\"succeeded\"}\n\n",
		"GET /v1/operations":                                `200 [{"id":"op1","kind":"install","status":"running","progress":{"phase":"upload","done":1,"total":4,"unit":"bytes"}}]`,
		"GET /v1/state":                                     `200 {"id":7,"value":{"a":1}}`,
		"GET /v1/network/forwards":                          `200 [{"name":"x","source":"192.0.2.7:49152","target":"10.1.0.2:80","count":1,"protocols":"tcp"}]`,
		"GET /v1/packages/hello-world/grants":               `200 [{"client":"dashboard","declared":true},{"client":"other","declared":false,"granted":"2026-01-02T03:04:05Z"}]`,
		"PUT /v1/packages/hello-world/grants/other":         `200 [{"client":"other","declared":false,"granted":"2026-01-02T03:04:05Z"}]`,
		"DELETE /v1/packages/hello-world/grants/other":      `204 `,
		"GET /v1/packages/hello-world/limits":               `200 {"set":{"pids":100},"default":{"memory":2147483648},"effective":{"memory":2147483648,"pids":100}}`,
		"PUT /v1/packages/hello-world/limits":               `200 {"set":{"pids":100,"memory":536870912},"default":{},"effective":{"memory":536870912,"pids":100}}`,
		"GET /v1/system/smtp":                               `200 {"host":"mail.example.org","port":587,"from":"me@example.org","username":"me","passwordSet":true,"security":"tls"}`,
		"PUT /v1/system/smtp":                               `200 {"host":"two.example.org","port":25,"from":"me@example.org","username":"me","passwordSet":false,"security":"starttls"}`,
		"DELETE /v1/system/smtp":                            `204 `,
		"GET /v1/sessions":                                  `200 [{"id":"s1","name":"laptop"}]`,
	})
	for _, tt := range []struct {
		args []string
		has  []string
	}{
		{[]string{"packages", "list"}, []string{"ID ", "hello-world", "running", "ok", "Hello [2J World"}},
		{[]string{"packages", "list", "--json"}, []string{`"id": "hello-world"`}},
		{[]string{"packages", "show", "hello-world"}, []string{"address  http://192.0.2.7:49152", "Web: success"}},
		{[]string{"packages", "stop", "hello-world"}, []string{"hello-world is running"}},
		{[]string{"packages", "restart", "hello-world"}, []string{"hello-world"}},
		{[]string{"packages", "logs", "hello-world"}, []string{"! oops"}},
		{[]string{"logs", "hello-world", "--json"}, []string{`"cursor":"1.2"`}},
		{[]string{"packages", "actions", "hello-world"}, []string{"greet", "yes", "running"}},
		{[]string{"packages", "actions", "run", "hello-world", "greet", "--input", `{"name":"B"}`}, []string{"Greeted\nHello A\n"}},
		{[]string{"packages", "grants", "hello-world"}, []string{"dashboard  yes       -", "other      no        2026-"}},
		{[]string{"packages", "grants", "add", "hello-world", "other"}, []string{"other   no        2026-"}},
		{[]string{"packages", "grants", "remove", "hello-world", "other"}, []string{"other reaches hello-world no longer"}},
		{[]string{"packages", "limits", "hello-world"}, []string{"memory      2048 MiB", "pids        100"}},
		{[]string{"packages", "limits", "hello-world", "--memory", "0.5G"}, []string{"memory      512 MiB"}},
		{[]string{"system", "smtp"}, []string{"mail.example.org  587", "yes"}},
		{[]string{"system", "smtp", "set", "--host", "two.example.org", "--from", "me@example.org", "--port", "25"}, []string{"two.example.org  25"}},
		{[]string{"system", "smtp", "clear"}, nil},
		{[]string{"packages", "uninstall", "hello-world"}, []string{"uninstall hello-world: done"}},
		{[]string{"operations"}, []string{"upload 25%"}},
		{[]string{"state"}, []string{`"a": 1`}},
		{[]string{"forwards"}, []string{"192.0.2.7:49152"}},
		{[]string{"sessions"}, []string{"laptop"}},
	} {
		status, out, errOut := l.stead("", append(tt.args, "--dir", l.dir)...)
		assert.Equal(t, 0, status, "%v: %s", tt.args, errOut)
		for _, s := range tt.has {
			assert.Contains(t, out, s, "%v", tt.args)
		}
		assert.NotContains(t, out, "\x1b", "packages do not move the cursor")
	}
	_, out, _ := l.stead("", "__complete", "packages", "stop", "--dir", l.dir, "")
	assert.Contains(t, out, "hello-world\tHello [2J World\n")
	_, out, _ = l.stead("", "__complete", "operations", "cancel", "--dir", l.dir, "")
	assert.Contains(t, out, "op1\tinstall")
	assert.Contains(t, l.asked, `PUT /v1/packages/hello-world/desired-state {"state":"stopped"}`)
	assert.Contains(t, l.asked, `POST /v1/packages/hello-world/actions/greet/runs {"eventId":"e1","input":{"name":"B"}}`)
}

func TestSideloadCommand(t *testing.T) {
	file := filepath.Join(t.TempDir(), "x.s9pk")
	require.NoError(t, os.WriteFile(file, []byte("content"), 0o600))
	l := newCLILab(t, map[string]string{
		"POST /v1/packages:sideload":    `202 {"id":"op1","kind":"install","status":"running"}`,
		"GET /v1/operations/op1/events": "200 event: progress\ndata: {\"id\":\"op1\",\"kind\":\"install\",\"status\":\"running\",\"progress\":{\"phase\":\"init\",\"done\":0,\"total\":2,\"unit\":\"steps\"}}\n\nevent: done\ndata: {\"id\":\"op1\",\"kind\":\"install\",\"package\":\"x\",\"status\":\"succeeded\"}\n\n",
	})
	status, out, errOut := l.stead("", "packages", "sideload", file, "--dir", l.dir)
	assert.Equal(t, 0, status, errOut)
	assert.Equal(t, "install x: done\n", out)
	assert.Contains(t, l.asked, "POST /v1/packages:sideload content")
	status, _, _ = l.stead("", "packages", "sideload", file, "--dir", l.dir, "--reinstall", "--accept-signer", "ab")
	assert.Equal(t, 0, status)
	assert.Contains(t, l.queries, "acceptSigner=ab&reinstall=true")
	status, _, _ = l.stead("from a pipe", "packages", "sideload", "-", "--dir", l.dir)
	assert.Equal(t, 0, status)
	assert.Contains(t, l.asked, "POST /v1/packages:sideload from a pipe")

	l.answers["POST /v1/packages:sideload"] = `422 {"code":"corrupt","status":422,"detail":"content does not match its hash","entry":"icon.svg","offset":99,"fix":{"method":"GET","path":"/x","detail":"fetch it again"}}`
	status, out, errOut = l.stead("", "packages", "sideload", file, "--dir", l.dir)
	assert.Equal(t, 1, status)
	assert.Empty(t, out)
	assert.Equal(t, "stead: content does not match its hash (corrupt)\n  in icon.svg\n  at byte 99\n  what helps: fetch it again (GET /x)\n", errOut)

	l.answers["POST /v1/packages:sideload"] = `202 {"id":"op2","kind":"install","status":"running"}`
	l.answers["GET /v1/operations/op2/events"] = "200 event: done\ndata: {\"id\":\"op2\",\"status\":\"failed\",\"problem\":{\"code\":\"disk-full\",\"detail\":\"the disk is full\"}}\n\n"
	status, _, errOut = l.stead("", "packages", "sideload", file, "--dir", l.dir)
	assert.Equal(t, 1, status)
	assert.Contains(t, errOut, "the disk is full")
}

func TestContexts(t *testing.T) {
	l := newCLILab(t, map[string]string{
		"POST /v1/sessions":           `201 {"token":"tok","id":"s1"}`,
		"GET /v1/packages":            "200 []",
		"DELETE /v1/sessions/current": "204 ",
		"POST /v1/setup:claim":        "204 ",
		"PUT /v1/account/password":    "204 ",
	})
	status, out, errOut := l.stead("correct horse\n", "login", l.url, "--name", "home")
	require.Equal(t, 0, status, errOut)
	assert.Contains(t, out, "home is the current server")
	assert.Contains(t, l.asked[0], `"password":"correct horse"`)
	path, err := contextsFile()
	require.NoError(t, err)
	info, err := os.Stat(path)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode(), "it holds a token")

	status, _, errOut = l.stead("", "packages", "list")
	require.Equal(t, 0, status, errOut)
	assert.Equal(t, "tok", l.tokens[len(l.tokens)-1])
	_, out, _ = l.stead("", "contexts")
	assert.Contains(t, out, "*  home")
	status, _, errOut = l.stead("old password\nnew password\n", "password")
	require.Equal(t, 0, status, errOut)
	assert.Equal(t, `PUT /v1/account/password {"oldPassword":"old password","newPassword":"new password"}`, l.asked[len(l.asked)-1])

	require.NoError(t, os.WriteFile(filepath.Join(l.dir, "claim-code"), []byte("AAAA-BBBB\n"), 0o600))
	status, _, errOut = l.stead("correct horse\n", "claim", "--dir", l.dir)
	require.Equal(t, 0, status, errOut)
	assert.Equal(t, `POST /v1/setup:claim {"code":"AAAA-BBBB","password":"correct horse"}`, l.asked[len(l.asked)-1])
	assert.Empty(t, l.tokens[len(l.tokens)-1], "the socket needs none")

	status, _, _ = l.stead("", "logout")
	require.Equal(t, 0, status)
	assert.Contains(t, l.asked, "DELETE /v1/sessions/current")
	status, _, errOut = l.stead("", "packages", "list", "--context", "home")
	assert.Equal(t, 1, status)
	assert.Contains(t, errOut, "no context home")
}

func TestCommandsSayWhatIsMissing(t *testing.T) {
	l := newCLILab(t, nil)
	none := t.TempDir()
	for _, args := range [][]string{{"packages", "list", "--dir", none}, {"down", "--dir", none}} {
		status, _, errOut := l.stead("", args...)
		assert.Equal(t, 1, status)
		assert.Contains(t, errOut, "no server runs in "+none)
	}
	status, _, errOut := l.stead("", "packages", "show", "none", "--dir", l.dir)
	assert.Equal(t, 1, status)
	assert.Equal(t, "stead: nothing there (not-found)\n", errOut)
	for _, args := range [][]string{{"nonsense"}, {"packages", "nonsense"}} {
		status, _, errOut = l.stead("", args...)
		assert.Equal(t, 1, status)
		assert.Contains(t, errOut, "has no command \"nonsense\"")
	}
	status, out, _ := l.stead("", "completion", "bash")
	assert.Equal(t, 0, status)
	assert.Contains(t, out, "__stead_")
}

func TestFirstRunInstallsOnce(t *testing.T) {
	file := filepath.Join(t.TempDir(), "x.s9pk")
	require.NoError(t, os.WriteFile(file, []byte("content"), 0o600))
	l := newCLILab(t, map[string]string{
		"POST /v1/packages:sideload":    `202 {"id":"op1","kind":"install","status":"running"}`,
		"GET /v1/operations/op1/events": "200 event: done\ndata: {\"id\":\"op1\",\"status\":\"failed\",\"problem\":{\"code\":\"disk-full\",\"detail\":\"the disk is full\"}}\n\n",
		"GET /v1/packages":              "200 [" + helloPackage + "]",
		"GET /v1/packages/hello-world/hosts": `200 [{"hostId":"ui","bindings":[{"internalPort":80,"enabled":true,"addresses":[{"ip":"192.0.2.7","port":49152,"url":"http://192.0.2.7:49152"}]},` +
			`{"internalPort":81,"enabled":false,"addresses":[{"ip":"192.0.2.7","port":2,"url":"http://192.0.2.7:2"}]}]}]`,
	})
	c, err := client.New(client.Options{Socket: filepath.Join(l.dir, "stead.sock")})
	require.NoError(t, err)
	defer c.Close()
	f := &serveFlags{dir: l.dir}
	var out bytes.Buffer
	run := func() error { return f.firstRun(t.Context(), c, &out, []string{file}) }
	uploads := func() int {
		n := 0
		for _, a := range l.asked {
			if strings.HasPrefix(a, "POST /v1/packages:sideload") {
				n++
			}
		}
		return n
	}

	require.ErrorContains(t, run(), "the disk is full")
	l.answers["GET /v1/operations/op1/events"] = "200 event: done\ndata: {\"id\":\"op1\",\"status\":\"succeeded\"}\n\n"
	require.NoError(t, run(), "a first run that failed starts over")
	require.NoError(t, run())
	assert.Equal(t, 2, uploads(), "once it has succeeded nothing is installed again")

	require.NoError(t, os.Remove(filepath.Join(l.dir, upMark)))
	l.answers["POST /v1/packages:sideload"] = `409 {"code":"already-installed","status":409}`
	require.NoError(t, run(), "cut off between the install and its mark")
	require.NoError(t, showAddresses(t.Context(), c, &out))
	assert.Contains(t, out.String(), "http://192.0.2.7:49152\n")
	assert.NotContains(t, out.String(), "http://192.0.2.7:2\n", "not what is disabled")
}
