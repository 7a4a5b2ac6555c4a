package service_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/selfstead/selfstead/patchdb"
	"github.com/selfstead/selfstead/server/operation"
	"github.com/stretchr/testify/require"
)

// One service from its upload to its removal, on real parts.
func TestLife(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	file := build(t, testPackage{ID: "alpha", Port: 18080})
	l.start()
	began := time.Now()
	op := l.sideload(file)
	uploaded := time.Now()
	done := l.finish(op.ID)
	require.Equal(t, operation.Succeeded, done.Status, "%+v", done.Problem)
	require.JSONEq(t, `{"packageId":"alpha","version":"1.0.0:0"}`, string(done.Result))
	l.healthy("alpha")
	t.Logf("upload %s, then to healthy %s", uploaded.Sub(began), time.Since(uploaded))

	page := "http://" + serverAddr + ":18080"
	require.Equal(t, "hello from alpha\n", l.get(page+"/"))
	require.Equal(t, "hello from alpha\n", l.get(page+"/get?url="+page+"/"), "from inside, on the outside address")
	own, err := l.fetch(l.srv, page+"/")
	require.NoError(t, err)
	require.Equal(t, "hello from alpha\n", own)
	require.Equal(t, "install\n", l.get(page+"/file?path=/data/inits"))
	require.Equal(t, "install\n", l.get(page+"/file?path=/mapped/inits"))
	require.Contains(t, l.get(page+"/file?path=/etc/hosts"), "127.0.0.1 localhost")

	var page1 struct{ Entries []struct{ Message string } }
	l.json("GET", "/v1/packages/alpha/logs", "", 200, &page1)
	text, _ := json.Marshal(page1)
	require.Contains(t, string(text), "workload alpha started")

	// An action with a form: its result comes up to date, and it restarts the
	// service.
	born := l.get(page + "/born")
	var form struct {
		EventID string
		Value   map[string]string
	}
	l.json("POST", "/v1/packages/alpha/actions/set-name/input", `{}`, 200, &form)
	require.Equal(t, map[string]string{"name": "alpha"}, form.Value)
	var result map[string]any
	l.json("POST", "/v1/packages/alpha/actions/set-name/runs", `{"eventId":"`+form.EventID+`","input":{"name":"beta"}}`, 200, &result)
	require.Equal(t, "1", result["version"])
	require.Equal(t, "it is beta now", result["message"])
	l.json("POST", "/v1/packages/alpha/actions/set-name/runs", `{"input":{}}`, 422, nil)
	l.json("POST", "/v1/packages/alpha/actions/nix/runs", `{}`, 404, nil)
	l.await("the new name", 20*time.Second, func() bool {
		body, err := l.fetch(l.lan, page+"/")
		return err == nil && body == "hello from beta\n"
	})
	require.NotEqual(t, born, l.get(page+"/born"))

	l.json("PUT", "/v1/packages/alpha/desired-state", `{"state":"stopped"}`, 200, nil)
	p := l.reach("alpha", "stopped")
	require.Empty(t, p.Health)
	require.Empty(t, p.Started)
	_, err = l.fetch(l.lan, page+"/")
	require.Error(t, err)
	l.json("PUT", "/v1/packages/alpha/desired-state", `{"state":"running"}`, 200, nil)
	l.healthy("alpha")
	born = l.get(page + "/born")
	l.json("POST", "/v1/packages/alpha:restart", "", 202, nil)
	l.await("a restart", 20*time.Second, func() bool {
		now, err := l.fetch(l.lan, page+"/born")
		return err == nil && now != born
	})
	l.healthy("alpha")
	l.json("POST", "/v1/packages/alpha:rebuild", "", 202, nil)
	l.await("a new container", 20*time.Second, func() bool {
		inits, err := l.fetch(l.lan, page+"/file?path=/data/inits")
		return err == nil && inits == "install\nnull\n"
	})
	l.healthy("alpha")

	require.Equal(t, "already-installed", l.refused(file, 409).Code)
	l.json("DELETE", "/v1/packages/alpha", "", 202, &op)
	done = l.finish(op.ID)
	require.Equal(t, operation.Succeeded, done.Status, "%+v", done.Problem)
	l.nothingLeft("alpha")
	l.stop(syscall.SIGINT)
	l.nothingRuns()
	l.notInDocument("alpha")
}

// notInDocument looks through the whole document, the private part too; only
// the list of operations goes on to say what was done.
func (l *lab) notInDocument(id string) {
	l.t.Helper()
	db, err := patchdb.Open(filepath.Join(l.dir, "state.db"), patchdb.Options{})
	require.NoError(l.t, err)
	defer db.Close()
	_, err = db.Update(l.t.Context(), func(tx *patchdb.Tx) error { return tx.Remove("/private/operations") })
	require.NoError(l.t, err)
	doc, err := db.Dump("")
	require.NoError(l.t, err)
	require.NotContains(l.t, string(doc.Value), id)
}

// nothingLeft looks for traces of a removed package on disk and in the state.
func (l *lab) nothingLeft(id string) {
	l.t.Helper()
	_, there := l.pkg(id)
	require.False(l.t, there)
	for _, dir := range []string{"packages", "uploads", "volumes", "logs"} {
		entries, err := os.ReadDir(filepath.Join(l.dir, dir))
		require.NoError(l.t, err)
		require.Empty(l.t, entries, dir)
	}
	containers, err := filepath.Glob(l.dir + "/containers/[A-Z2-7]*")
	require.NoError(l.t, err)
	require.Empty(l.t, containers)
	var doc struct{ Value json.RawMessage }
	l.json("GET", "/v1/state", "", 200, &doc)
	require.NotContains(l.t, string(doc.Value), id)
}

// nothingRuns looks for what a stopped server left in the kernel.
func (l *lab) nothingRuns() {
	l.t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	require.NoError(l.t, err)
	require.NotContains(l.t, string(mounts), l.dir)
	loops, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, f := range loops {
		text, _ := os.ReadFile(f)
		require.NotContains(l.t, string(text), l.dir)
	}
	groups, _ := filepath.Glob("/sys/fs/cgroup/*selfstead-" + filepath.Base(l.dir) + "*")
	require.Empty(l.t, groups)
	processes, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range processes {
		text, _ := os.ReadFile(f)
		require.False(l.t, strings.Contains(string(text), l.dir), "%s: %s", f, text)
	}
}

// document reads a part of the document while no server runs.
func (l *lab) document(at patchdb.Pointer) json.RawMessage {
	l.t.Helper()
	db, err := patchdb.Open(filepath.Join(l.dir, "state.db"), patchdb.Options{})
	require.NoError(l.t, err)
	defer db.Close()
	doc, err := db.Dump(at)
	require.NoError(l.t, err)
	return json.RawMessage(doc.Value)
}

func ids(info os.FileInfo) [2]uint32 {
	st := info.Sys().(*syscall.Stat_t)
	return [2]uint32{st.Uid, st.Gid}
}

// What a check said when it failed stays, and a short failure is none.
func TestHealth(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.start()
	l.install(build(t, testPackage{ID: "alpha", Port: 18080}))
	l.healthy("alpha")
	ill := l.dir + "/volumes/alpha/data/main/ill"
	require.NoError(t, os.WriteFile(ill, []byte("no space in the attic"), 0o644))
	l.await("the failure", 10*time.Second, func() bool {
		p, _ := l.pkg("alpha")
		return p.Failures["web"].Message == "no space in the attic"
	})
	p, _ := l.pkg("alpha")
	require.Equal(t, "success", p.Health["web"].Result, "not yet")
	l.await("that it counts", 20*time.Second, func() bool {
		p, _ := l.pkg("alpha")
		return p.Health["web"].Result == "failure"
	})
	require.NoError(t, os.Remove(ill))
	l.healthy("alpha")
	l.json("PUT", "/v1/packages/alpha/desired-state", `{"state":"stopped"}`, 200, nil)
	l.reach("alpha", "stopped")
	l.stop(syscall.SIGINT)
	l.start()
	p, _ = l.pkg("alpha")
	require.Equal(t, "no space in the attic", p.Failures["web"].Message)
	require.WithinDuration(t, time.Now(), p.Failures["web"].At, time.Minute)
}
