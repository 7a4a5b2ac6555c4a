package e2e

import (
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

	"github.com/stretchr/testify/require"
)

// TestDescribed runs a program of Debian's whose package is described as data,
// through all that its description says: the page, an action with a form, the
// settings, a restart that keeps the data, and a removal that leaves nothing.
func TestDescribed(t *testing.T) {
	const id = "radicale"
	l := newLab(t)
	dir := filepath.Join(t.TempDir(), "state")
	s := startServer(t, l, dir)
	a := claim(t, s)
	a.install(t, id, id)

	healthy := func() {
		t.Helper()
		eventually(t, 60*time.Second, "both checks are good", func() error {
			var p pkg
			a.want(t, 200, "GET", "/v1/packages/"+id, nil, &p)
			for _, check := range []string{"server", "storage"} {
				if p.Health[check].Result != "success" {
					return fmt.Errorf("%+v", p.Health)
				}
			}
			return nil
		})
	}
	healthy()
	var p pkg
	a.want(t, 200, "GET", "/v1/packages/"+id, nil, &p)
	require.Equal(t, "Calendars are served", p.Health["server"].Message)

	// The interfaces, and the page from another host.
	var hosts json.RawMessage
	a.want(t, 200, "GET", "/v1/packages/"+id+"/hosts", nil, &hosts)
	require.Contains(t, string(hosts), "CalDAV and CardDAV")
	base := strings.TrimSuffix(a.page(t, id, serverAddr), "/.web/")
	body, err := get(client(l.lan), base+"/.web/")
	require.NoError(t, err)
	require.Contains(t, body, "Radicale")

	// The task and the notice of the installation.
	var tasks []struct {
		Active bool
		Task   struct{ ActionID, Severity string }
	}
	a.want(t, 200, "GET", "/v1/packages/"+id+"/tasks", nil, &tasks)
	require.Len(t, tasks, 1)
	require.True(t, tasks[0].Active)
	require.Equal(t, "set-user", tasks[0].Task.ActionID)
	require.Equal(t, "important", tasks[0].Task.Severity)

	var notices []struct{ Package, Message string }
	a.want(t, 200, "GET", "/v1/notifications", nil, &notices)
	require.Len(t, notices, 1)
	require.Equal(t, id, notices[0].Package)
	require.Contains(t, notices[0].Message, "first user is yet to be added")

	dav := func(method, path, name, password, body string) (int, string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		r, err := http.NewRequestWithContext(ctx, method, base+path, strings.NewReader(body))
		require.NoError(t, err)
		r.SetBasicAuth(name, password)
		answer, err := client(l.lan).Do(r)
		require.NoError(t, err)
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		require.NoError(t, err)
		return answer.StatusCode, string(text)
	}
	// name and password hold what a shell would stumble over.
	const name, word = "ann.b", `se"cret $(id) 'x'`
	status, _ := dav("PROPFIND", "/"+name+"/", name, word, "")
	require.Equal(t, 401, status, "nobody is let in before there is a user")

	// The action: a form whose input is judged, a command in a container, a result.
	run := func(status int, action string, input any, into any) {
		t.Helper()
		var form struct {
			EventID string
			Spec    map[string]map[string]any
		}
		a.want(t, 200, "POST", "/v1/packages/"+id+"/actions/"+action+"/input", map[string]any{}, &form)
		a.want(t, status, "POST", "/v1/packages/"+id+"/actions/"+action+"/runs", map[string]any{"eventId": form.EventID, "input": input}, into)
	}
	var result struct {
		Title, Message string
		Result         struct {
			Type  string
			Value []struct{ Name, Value string }
		}
	}
	run(200, "set-user", map[string]any{"name": name, "password": word}, &result)
	require.Equal(t, "Done", result.Title)
	require.Equal(t, name+" can sign in.", result.Message)
	a.want(t, 200, "GET", "/v1/packages/"+id+"/tasks", nil, &tasks)
	require.False(t, len(tasks) > 0 && tasks[0].Active, "the task is done")

	status, text := dav("PROPFIND", "/"+name+"/", name, word, "")
	require.Equal(t, 207, status, text)
	status, text = dav("MKCALENDAR", "/"+name+"/home/", name, word, "")
	require.Equal(t, 201, status, text)
	const event = "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:-//lab//EN\r\nBEGIN:VEVENT\r\nUID:1\r\nDTSTAMP:20260101T000000Z\r\n" +
		"DTSTART:20260102T100000Z\r\nSUMMARY:Tea\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n"
	status, text = dav("PUT", "/"+name+"/home/1.ics", name, word, event)
	require.Equal(t, 201, status, text)

	// A result that is JSON.
	a.want(t, 200, "POST", "/v1/packages/"+id+"/actions/users/runs", map[string]any{}, &result)
	require.Equal(t, "group", result.Result.Type)
	require.Len(t, result.Result.Value, 1)
	require.Equal(t, name, result.Result.Value[0].Name)
	require.Equal(t, "1", result.Result.Value[0].Value)

	// The settings: prefilled with the defaults; a change starts the service again
	// and reaches the program's own file.
	var settings struct {
		EventID string
		Value   map[string]any
	}
	a.want(t, 200, "POST", "/v1/packages/"+id+"/actions/config/input", map[string]any{}, &settings)
	require.Equal(t, map[string]any{"rights": "owner_only", "maxSize": 100.0, "level": "info"}, settings.Value)
	var before, after struct{ Started string }
	a.want(t, 200, "GET", "/v1/packages/"+id, nil, &before)
	a.want(t, 200, "POST", "/v1/packages/"+id+"/actions/config/runs",
		map[string]any{"eventId": settings.EventID, "input": map[string]any{"rights": "authenticated", "maxSize": 7, "level": "debug"}}, nil)
	eventually(t, 60*time.Second, "a restart", func() error {
		a.want(t, 200, "GET", "/v1/packages/"+id, nil, &after)
		if after.Started == "" || after.Started == before.Started {
			return fmt.Errorf("started %q", after.Started)
		}
		return nil
	})
	healthy()
	ini, err := os.ReadFile(filepath.Join(dir, "volumes", id, "data/main/radicale.ini"))
	require.NoError(t, err)
	require.Contains(t, string(ini), "type = authenticated\n")
	require.Contains(t, string(ini), "max_content_length = 7000000\n")

	users, err := os.Stat(filepath.Join(dir, "volumes", id, "data/main/users"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), users.Mode().Perm())

	// A restart keeps the data.
	a.want(t, 202, "POST", "/v1/packages/"+id+":restart", nil, nil)
	a.waitState(t, id, "running")
	healthy()
	status, text = dav("GET", "/"+name+"/home/1.ics", name, word, "")
	require.Equal(t, 200, status, text)
	require.Contains(t, text, "SUMMARY:Tea")

	_, container := inside(t, l, dir)
	var o operation
	a.want(t, 202, "DELETE", "/v1/packages/"+id, nil, &o)
	_, last := a.follow(t, o.ID)
	require.Equal(t, "succeeded", last.Status, "%+v", last.Problem)
	require.Empty(t, leftovers(t, l, dir, id, container))
	requireEmpty(t, dir, "after the removal")
}
