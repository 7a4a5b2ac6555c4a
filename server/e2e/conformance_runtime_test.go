package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// dialRuntime connects to the service socket of a package's container, as the
// server does. A socket's path is short, so the way is by a descriptor.
func dialRuntime(t testing.TB, dir, id string) net.Conn {
	t.Helper()
	name := containers(t, dir)[id]
	require.NotEmpty(t, name, "a container of %s", id)
	folder, err := os.Open(filepath.Join(dir, "containers", name, "rpc"))
	require.NoError(t, err)
	defer folder.Close()
	conn, err := net.Dial("unix", fmt.Sprintf("/proc/self/fd/%d/service.sock", folder.Fd()))
	require.NoError(t, err)
	require.NoError(t, conn.SetDeadline(time.Now().Add(time.Minute)))
	t.Cleanup(func() { conn.Close() })
	return conn
}

// runtimeSocket asks the Node runtime what a server asks it, one request a row.
func runtimeSocket(t *testing.T, a *api) {
	conn := dialRuntime(t, a.s.dir, probe)
	r := bufio.NewReader(conn)
	ask := func(line string) map[string]any {
		t.Helper()
		_, err := fmt.Fprintf(conn, "%s\n", line)
		require.NoError(t, err)
		text, err := r.ReadBytes('\n')
		require.NoError(t, err, line)
		var answer map[string]any
		require.NoError(t, json.Unmarshal(text, &answer))
		require.Equal(t, "2.0", answer["jsonrpc"])
		delete(answer, "jsonrpc")
		return answer
	}
	journal := filepath.Join(a.s.dir, "volumes", probe, "data", "main", "journal.txt")
	before, err := os.ReadFile(journal)
	require.NoError(t, err)
	execute := func(event, procedure, input string) string {
		return fmt.Sprintf(`{"id":5,"method":"execute","params":{"id":%q,"procedure":%q,"input":%s,"timeout":null}}`, event, procedure, input)
	}
	const one, two = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB"
	for _, row := range []struct{ name, line, want string }{
		{"an init after the first does nothing", `{"id":1,"method":"init","params":{"id":"x","kind":"install"}}`, `{"id":1,"result":null}`},
		{"the kind of an init must be there", `{"id":1,"method":"init","params":{"id":"x"}}`, `"code":1,.*kind`},
		{"a start of what runs does nothing", `{"id":"two","method":"start","params":{}}`, `{"id":"two","result":null}`},
		{"empty lines are none", "\n\n" + `{"id":null,"method":"start"}`, `{"id":null,"result":null}`},
		{"a callback is not answered", `{"id":7,"method":"callback","params":{"id":99999,"args":[]}}` + "\n" + `{"id":8,"method":"start"}`, `{"id":8,"result":null}`},
		{"an unknown method", `{"id":3,"method":"reboot","params":{}}`, `"code":-32601,"data":{[^}]*"details":"reboot"`},
		{"no method", `{"id":3}`, `"code":-32602`},
		{"no JSON", `{"id":3,`, `"code":1,.*"id":null`},
		{"what no host may", `{"id":3,"method":"eval","params":{"script":"1"}}`, `"code":-32601`},
		{"an unknown procedure", execute(one, "/nothing", "null"), `"code":1,"data":{.*"message":"object"`},
		{"a procedure of older systems", execute(one, "/packageInit", "null"), `{"id":5,"result":null}`},
		{"an action that is not there", execute(one, "/actions/nothing/run", "{}"), `"code":0,.*not found`},
		{"a run before its form was asked for", execute(two, "/actions/form/run", `{"input":{"text":"a"}}`), `"code":0,.*getActionInput has not been called for EventID B+`},
		{"a form", execute(one, "/actions/form/getInput", `{"prefill":{"text":"given"}}`), `"result":{"eventId":"A+","spec":{.*"value":{"text":"given"}}`},
		{"the run that fills it in", execute(one, "/actions/form/run", `{"input":{"text":"a","number":1}}`), `"result":{"message":"a 1","result":null,"title":"Form","version":"1"}`},
		{"a sandbox is an execute", strings.Replace(execute(one, "/actions/form/getInput", `{"prefill":null}`), "execute", "sandbox", 1), `"value":{"text":"kept"}`},
		{"text beyond ASCII", execute(one, "/actions/form/run", `{"input":{"text":"gr\u00fc\u00dfe 🌍","number":2}}`), `"message":"grüße 🌍 2"`},
	} {
		t.Run(row.name, func(t *testing.T) {
			answer := ask(row.line)
			text, err := json.Marshal(answer) // members in order
			require.NoError(t, err)
			if strings.HasPrefix(row.want, "{") {
				require.JSONEq(t, row.want, string(text))
			} else {
				require.Regexp(t, regexp.MustCompile("(?s)"+row.want), string(text))
			}
		})
	}
	after, err := os.ReadFile(journal)
	require.NoError(t, err)
	require.Equal(t, string(before), string(after), "nothing was initialised again")
}

// versions lets the data of the probe go to an older version and come back, be
// kept without it, and come back from a version that is given.
func versions(t *testing.T, a *api) {
	file := filepath.Join(a.s.dir, "volumes", probe, "data", "main", "journal.txt")
	version := filepath.Join(a.s.dir, "volumes", probe, "data", ".version")
	lines := func() []string {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		return strings.Split(strings.TrimSpace(string(text)), "\n")
	}
	is := func(want string) {
		t.Helper()
		text, err := os.ReadFile(version)
		require.NoError(t, err)
		require.Equal(t, want, strings.TrimSpace(string(text)))
	}
	a.ready(t)
	is("1.0.0:0")

	// What an update to something older asks of the old version. The runtime ends
	// with its answer, and the server brings the package up again.
	before, old := len(lines()), containers(t, a.s.dir)[probe]
	conn := dialRuntime(t, a.s.dir, probe)
	_, err := fmt.Fprintln(conn, `{"id":1,"method":"exit","params":{"id":"CCCCCCCCCCCCCCCCCCCCCCCCCCCCCCCC","target":"0.9.0:0"}}`)
	require.NoError(t, err)
	answer, err := bufio.NewReader(conn).ReadString('\n')
	require.NoError(t, err)
	require.JSONEq(t, `{"jsonrpc":"2.0","id":1,"result":null}`, answer)
	eventually(t, time.Minute, "a new container", func() error {
		if now := containers(t, a.s.dir)[probe]; now == old || now == "" {
			return fmt.Errorf("container %q", now)
		}
		return nil
	})
	a.ready(t)
	is("1.0.0:0")
	require.Equal(t, []string{"uninit 0.9.0:0", "down from 1.0.0:0", "up to 1.0.0:0", "init null"}, lines()[before:])

	// Removed with its data kept: the removal is the target null, and the data has
	// no version any more.
	before = len(lines())
	var o operation
	a.want(t, 202, "DELETE", "/v1/packages/"+probe+"?soft=true", nil, &o)
	_, last := a.follow(t, o.ID)
	require.Equal(t, "succeeded", last.Status, "%+v", last.Problem)
	require.Equal(t, []string{"uninit null"}, lines()[before:])
	_, err = os.Stat(version)
	require.ErrorIs(t, err, os.ErrNotExist)

	// Data of a version that is given: an update, a step at a time.
	require.NoError(t, os.WriteFile(version, []byte("0.8.0:0\n"), 0o644))
	a.install(t, "probe", probe)
	is("1.0.0:0")
	require.Equal(t, []string{"uninit null", "up to 0.9.0:0", "up to 1.0.0:0", "init update"}, lines()[before:])

	// Data of a version that this one cannot take: refused, nothing lost.
	a.want(t, 202, "DELETE", "/v1/packages/"+probe+"?soft=true", nil, &o)
	_, last = a.follow(t, o.ID)
	require.Equal(t, "succeeded", last.Status, "%+v", last.Problem)
	require.NoError(t, os.WriteFile(version, []byte("7.0.0:0\n"), 0o644))
	archive, err := os.Open(testPackage(t, "probe"))
	require.NoError(t, err)
	defer archive.Close()
	var p problem
	a.want(t, 422, "POST", "/v1/packages:sideload", archive, &p)
	require.Equal(t, "incompatible", p.Code)
	require.Contains(t, p.Detail, "7.0.0:0")
	is("7.0.0:0")
}

// watches changes from outside what the probe watches from inside.
func watches(t *testing.T, l *lab, a *api) {
	a.ready(t)
	a.act(t, probe, "watch", nil, nil)
	type seen struct {
		Times int
		Value any
	}
	watched := func() (w map[string]seen) {
		a.act(t, probe, "watched", nil, &w)
		return w
	}
	until := func(name string, ok func(seen) bool) {
		t.Helper()
		eventually(t, 30*time.Second, name, func() error {
			if s := watched()[name]; !ok(s) {
				return fmt.Errorf("%s: %+v", name, s)
			}
			return nil
		})
	}
	value := func(want any) func(seen) bool { return func(s seen) bool { return s.Value == want } }
	until("gateway", value("eth0"))

	// Mail.
	until("smtp", value(nil))
	mail := map[string]any{"host": "mail.example.org", "port": 587, "from": "me@example.org", "username": "me", "password": "secret", "security": "starttls"}
	a.want(t, 200, "PUT", "/v1/system/smtp", mail, nil)
	until("smtp", func(s seen) bool { m, ok := s.Value.(map[string]any); return ok && fmt.Sprint(m) == fmt.Sprint(mail) })
	a.want(t, 204, "DELETE", "/v1/system/smtp", nil, nil)
	until("smtp", value(nil))

	// The default route moves to another interface and comes back.
	ip(t, "-n", l.srv, "link", "add", "other", "type", "veth", "peer", "name", "other", "netns", l.lan)
	ip(t, "-n", l.lan, "link", "set", "other", "up")
	ip(t, "-n", l.srv, "addr", "add", "198.51.100.2/24", "dev", "other")
	ip(t, "-n", l.srv, "link", "set", "other", "up")
	ip(t, "-n", l.srv, "route", "replace", "default", "via", "198.51.100.1", "dev", "other")
	ip(t, "-n", l.srv, "-6", "route", "del", "default")
	until("gateway", value("other"))
	ip(t, "-n", l.srv, "route", "replace", "default", "via", lanAddr)
	ip(t, "-n", l.srv, "-6", "route", "replace", "default", "via", lanAddr6)
	ip(t, "-n", l.srv, "link", "del", "other")
	until("gateway", value("eth0"))

	// The peer goes and comes.
	before := watched()
	require.Zero(t, before["manifest"].Times)
	address := before["address"].Value
	require.Regexp(t, `^\d+\.\d+\.\d+\.\d+$`, address)
	var o operation
	a.want(t, 202, "DELETE", "/v1/packages/"+peer, nil, &o)
	_, last := a.follow(t, o.ID)
	require.Equal(t, "succeeded", last.Status, "%+v", last.Problem)
	until("address", value(nil))
	until("status", value(nil))
	until("manifest", func(s seen) bool { return s.Times == 1 })
	a.install(t, "peer", peer)
	until("address", func(s seen) bool { return s.Value != nil })
	until("status", func(s seen) bool { m, ok := s.Value.(map[string]any); return ok && m["started"] != nil })
	require.Equal(t, 1, watched()["manifest"].Times, "a callback fires once")
	require.Zero(t, watched()["certificate"].Times)
}
