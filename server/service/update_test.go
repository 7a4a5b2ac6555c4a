package service_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/selfstead/selfstead/s9pk"
	"github.com/selfstead/selfstead/s9pk/exver"
	"github.com/selfstead/selfstead/s9pk/s9pktest"
	"github.com/selfstead/selfstead/server/operation"
	"github.com/selfstead/selfstead/server/problem"
	"github.com/stretchr/testify/require"
)

const ledger = "seven coins\n"

func first(t testing.TB, id string, port int) []byte {
	return build(t, testPackage{ID: id, Port: port, Version: "1.0.0:0", Code: map[string]any{"ledger": ledger}})
}

func (l *lab) volume(id, name string) string {
	text, _ := os.ReadFile(filepath.Join(l.dir, "volumes", id, "data/main", name))
	return string(text)
}

func (l *lab) dataVersion(id string) string {
	text, _ := os.ReadFile(filepath.Join(l.dir, "volumes", id, "data/.version"))
	return strings.TrimSpace(string(text))
}

// tree is every file of a package's data with mode, owner, time and content.
func (l *lab) tree(id string) map[string]string {
	l.t.Helper()
	files := map[string]string{}
	base := filepath.Join(l.dir, "volumes", id, "data")
	require.NoError(l.t, filepath.Walk(base, func(p string, info os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		text := ""
		if info.Mode().IsRegular() {
			data, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			text = string(data)
		}
		name, _ := filepath.Rel(base, p)
		if name == "main/inits" || name == "main/leaves" { // told by each load
			return nil
		}
		st := info.Sys().(*syscall.Stat_t)
		files[name] = fmt.Sprint(info.Mode(), st.Uid, st.Gid, text)
		return nil
	}))
	return files
}

// onlyArchive checks that nothing but one archive and the data of id is there.
func (l *lab) onlyArchive(id string) {
	l.t.Helper()
	for dir, want := range map[string]int{"packages": 1, "uploads": 0, "volumes/" + id: 1, "volumes": 1} {
		l.await(dir+" is tidy", 5*time.Second, func() bool {
			entries, err := os.ReadDir(filepath.Join(l.dir, dir))
			return err == nil && len(entries) == want
		})
	}
}

// asBefore returns a check that the package runs as it does now, with the data
// that it has now.
func (l *lab) asBefore(id, page string) func(what string) {
	l.t.Helper()
	before := l.tree(id)
	require.Contains(l.t, before["main/ledger"], ledger)
	p, _ := l.pkg(id)
	return func(what string) {
		l.t.Helper()
		l.healthy(id)
		now, _ := l.pkg(id)
		require.Equal(l.t, p.Version, now.Version, what)
		require.Equal(l.t, p.Signer, now.Signer, what)
		require.Equal(l.t, "hello from "+id+"\n", l.get(page+"/"), what)
		require.Equal(l.t, before, l.tree(id), what)
		l.onlyArchive(id)
	}
}

func TestUpdate(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.start()
	l.install(first(t, "alpha", 18080))
	l.healthy("alpha")
	page := "http://" + serverAddr + ":18080"
	born := l.get(page + "/born")
	second := testPackage{ID: "alpha", Port: 18080, Version: "1.1.0:0", Code: map[string]any{"steps": 2}, Manifest: func(m *s9pk.Manifest) {
		m.CanMigrateFrom, m.CanMigrateTo = exver.MustParseRange(">=1.0.0:0"), exver.MustParseRange("=1.0.0:0")
	}}

	op := l.finish(l.sideload(build(t, second)).ID)
	require.Equal(t, operation.Succeeded, op.Status, "%+v", op.Problem)
	require.Equal(t, "update", op.Kind)
	require.JSONEq(t, `{"packageId":"alpha","version":"1.1.0:0"}`, string(op.Result))
	l.healthy("alpha")
	p, _ := l.pkg("alpha")
	require.Equal(t, "1.1.0:0", p.Version)
	require.NotEqual(t, born, l.get(page+"/born"))
	require.Equal(t, "install\nupdate\n", l.volume("alpha", "inits"))
	require.Equal(t, "1.0.0:0 to 1.0.0:0\n", l.volume("alpha", "leaves"), "the old side had nothing to do")
	require.Equal(t, "step 2 of 1.1.0:0\n", l.volume("alpha", "ledger"))
	require.Equal(t, "1.1.0:0", l.dataVersion("alpha"))
	l.onlyArchive("alpha")

	// It is what a later server brings up, too.
	l.stop(syscall.SIGINT)
	l.start()
	l.healthy("alpha")
	require.Equal(t, "install\nupdate\nnull\n", l.volume("alpha", "inits"))

	// What is stopped stays stopped.
	l.json("PUT", "/v1/packages/alpha/desired-state", `{"state":"stopped"}`, 200, nil)
	l.reach("alpha", "stopped")
	third := second
	third.Version = "1.2.0:0"
	l.install(build(t, third))
	p = l.reach("alpha", "stopped")
	require.Equal(t, "1.2.0:0", p.Version)

	// Back to a version that the installed one can move the data to, and the new
	// one would not have taken it.
	back := second
	back.Version = "1.0.0:0"
	back.Manifest = func(m *s9pk.Manifest) { m.CanMigrateFrom = exver.MustParseRange("<1.0.0:0") }
	mover := third
	mover.Version, mover.Code = "1.2.1:0", map[string]any{"leaveMoves": true}
	l.install(build(t, mover))
	l.install(build(t, back))
	require.Equal(t, "1.0.0:0", l.reach("alpha", "stopped").Version)
	require.Contains(t, l.volume("alpha", "leaves"), "1.2.1:0 to 1.0.0:0\n")

	// And no further: neither side can.
	older := second
	older.Version = "0.9.0:0"
	older.Manifest = func(m *s9pk.Manifest) { m.CanMigrateFrom = exver.MustParseRange("<0.9.0:0") }
	no := l.refused(build(t, older), 422)
	require.Equal(t, problem.CodeIncompatible, no.Code)
	require.Contains(t, no.Detail, "cannot go from 1.0.0:0 to 0.9.0:0")

	// The installed version once more only when that is said.
	same := build(t, back)
	no = l.refused(same, 409)
	require.Equal(t, problem.CodeAlreadyInstalled, no.Code)
	require.Equal(t, "/v1/packages:sideload?reinstall=true", no.Fix.Path)
	for range 2 {
		var op operation.Operation
		require.Equal(t, 202, l.call("POST", no.Fix.Path, bytes.NewReader(same), &op))
		op = l.finish(op.ID)
		require.Equal(t, operation.Succeeded, op.Status, "%+v", op.Problem)
		l.onlyArchive("alpha")
	}
	l.json("PUT", "/v1/packages/alpha/desired-state", `{"state":"running"}`, 200, nil)
	l.healthy("alpha")
	l.json("DELETE", "/v1/packages/alpha", "", 202, &op)
	require.Equal(t, operation.Succeeded, l.finish(op.ID).Status)
	l.nothingLeft("alpha")
	l.stop(syscall.SIGINT)
	l.nothingRuns()
	l.notInDocument("alpha")
}

// A package belongs to who signed it first, until its owner says otherwise.
func TestSigner(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.start()
	key := s9pktest.Key("another")
	hexKey := hex.EncodeToString(key[32:])
	other := build(t, testPackage{ID: "alpha", Port: 18080, Version: "1.1.0:0", Key: key})
	l.install(first(t, "alpha", 18080))
	p := l.refused(other, 409)
	require.Equal(t, "signer-changed", p.Code)
	require.Contains(t, p.Detail, hexKey)
	// Not through a removal that keeps the data either, nor after a kill.
	var op operation.Operation
	l.json("DELETE", "/v1/packages/alpha?soft=true", "", 202, &op)
	require.Equal(t, operation.Succeeded, l.finish(op.ID).Status)
	l.kill()
	l.start()
	require.Equal(t, "signer-changed", l.refused(other, 409).Code)
	l.install(first(t, "alpha", 18080))
	l.healthy("alpha")
	require.Equal(t, 409, l.call("POST", "/v1/packages:sideload?acceptSigner="+strings.Repeat("0", 64), bytes.NewReader(other), nil), "another one is accepted")
	require.Equal(t, 202, l.call("POST", p.Fix.Path, bytes.NewReader(other), &op))
	require.Equal(t, operation.Succeeded, l.finish(op.ID).Status)
	l.healthy("alpha")
	installed, _ := l.pkg("alpha")
	require.Equal(t, hexKey, installed.Signer)
	again := build(t, testPackage{ID: "alpha", Port: 18080, Version: "1.2.0:0"})
	require.Equal(t, "signer-changed", l.refused(again, 409).Code, "now it is the other's")
	l.json("DELETE", "/v1/packages/alpha", "", 202, &op)
	require.Equal(t, operation.Succeeded, l.finish(op.ID).Status)
	l.install(again) // with the data the trust went
}

// Whatever stops an update, the old version runs again with its old data.
func TestFailedUpdate(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.start("SERVICE_SETUP_LIMIT=5s")
	l.install(first(t, "alpha", 18080))
	l.healthy("alpha")
	page := "http://" + serverAddr + ":18080"
	asBefore := l.asBefore("alpha", page)
	next := func(code map[string]any) []byte {
		return build(t, testPackage{ID: "alpha", Port: 18080, Version: "1.1.0:0", Code: code})
	}
	for step, faults := range map[string][]string{"1": {"throw", "kill"}, "2": {"throw", "exit"}, "3": {"throw", "hang"}} {
		for _, fault := range faults {
			op := l.finish(l.sideload(next(map[string]any{"steps": 3, "fault": map[string]string{step: fault}})).ID)
			require.Equal(t, operation.Failed, op.Status, "%s at %s", fault, step)
			want := map[string]string{"throw": "init-failed", "hang": problem.CodeTimeout}[fault]
			if want != "" {
				require.Equal(t, want, op.Problem.Code, "%+v", op.Problem)
			}
			asBefore(fault + " at " + step)
		}
	}

	// A damaged file, one for another machine, and one that ends early never get
	// that far: the old one runs on.
	born := l.get(page + "/born")
	good := next(nil)
	bad := append([]byte(nil), good...)
	bad[len(bad)-100] ^= 1
	require.Equal(t, problem.CodeCorrupt, l.refused(bad, 422).Code)
	require.Equal(t, problem.CodeTruncated, l.refused(good[:len(good)/2], 422).Code)
	require.Equal(t, problem.CodeArchitecture, l.refused(build(t, testPackage{ID: "alpha", Version: "1.1.0:0", Manifest: func(m *s9pk.Manifest) {
		m.Images = map[string]s9pk.Image{"main": {Arch: []string{"riscv64"}}}
		m.HardwareRequirements.Arch = nil
	}}), 422).Code)
	require.Equal(t, born, l.get(page+"/born"))
	asBefore("refused")

	// The old version that has to prepare the data and fails.
	var again operation.Operation
	require.Equal(t, http.StatusAccepted, l.call("POST", "/v1/packages:sideload?reinstall=true", bytes.NewReader(build(t, testPackage{ID: "alpha", Port: 18080, Version: "1.0.0:0",
		Code: map[string]any{"leaveFault": "throw"}, Manifest: func(m *s9pk.Manifest) { m.CanMigrateTo = exver.Any() }})), &again))
	require.Equal(t, operation.Succeeded, l.finish(again.ID).Status)
	l.healthy("alpha")
	op := l.finish(l.sideload(build(t, testPackage{ID: "alpha", Port: 18080, Version: "1.1.0:0",
		Manifest: func(m *s9pk.Manifest) { m.CanMigrateFrom = exver.None() }})).ID)
	require.Equal(t, "exit-failed", op.Problem.Code)
	require.Contains(t, op.Problem.Detail, "leave says no")
	asBefore("the old side fails")

	// And then it works, whatever failed before; the owner was told of it all.
	l.install(next(map[string]any{"steps": 3}))
	l.healthy("alpha")
	require.Equal(t, "step 3 of 1.1.0:0\n", l.volume("alpha", "ledger"))
	l.stop(syscall.SIGINT)
	l.nothingRuns()
	var titles []string
	for _, n := range l.notes() {
		titles = append(titles, n.Title)
	}
	sort.Strings(titles)
	require.Contains(t, titles, "Updating failed")
}

// An update that is cut off in any phase is taken back, too.
func TestInterruptedUpdate(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.start()
	l.install(first(t, "alpha", 18080))
	l.healthy("alpha")
	page := "http://" + serverAddr + ":18080"
	asBefore := l.asBefore("alpha", page)
	born := l.get(page + "/born")
	next := func(code map[string]any) []byte {
		return build(t, testPackage{ID: "alpha", Port: 18080, Version: "1.1.0:0", Code: code})
	}
	good := next(nil)

	// While another version comes in the package can be used, but not updated
	// twice.
	r, w := io.Pipe()
	go w.Write(good[:len(good)/2])
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if resp, err := l.http.Post("http://stead/v1/packages:sideload", "application/octet-stream", r); err == nil {
			resp.Body.Close()
		}
	}()
	updating := func() (id string) {
		var list []operation.Operation
		l.json("GET", "/v1/operations", "", 200, &list)
		if len(list) > 0 && list[0].Status == operation.Running && list[0].Kind == "update" {
			return list[0].ID
		}
		return ""
	}
	l.await("the upload", 10*time.Second, func() bool { return updating() != "" })
	require.Equal(t, problem.CodeBusy, l.refused(good, 409).Code)
	require.Equal(t, born, l.get(page+"/born"))
	l.json("POST", "/v1/packages/alpha:restart", "", 202, nil)
	l.await("a restart meanwhile", 20*time.Second, func() bool {
		now, err := l.fetch(l.lan, page+"/born")
		return err == nil && now != born
	})
	l.call("DELETE", "/v1/operations/"+updating(), nil, nil)
	w.Close()
	<-ended
	asBefore("cut off")

	// Cancelled and killed in each phase.
	slow := next(map[string]any{"steps": 3, "fault": map[string]string{"3": "hang"}})
	for _, end := range []string{"cancel", "kill", "hand over"} {
		for _, phase := range []string{"update", "snapshot", "init"} {
			if end == "hand over" && phase != "init" || end == "cancel" && phase == "snapshot" {
				continue
			}
			op := l.sideload(slow)
			l.await("phase "+phase, 20*time.Second, func() bool {
				l.json("GET", "/v1/operations/"+op.ID, "", 200, &op)
				order := map[string]int{"upload": 0, "update": 1, "snapshot": 2, "init": 3}
				return order[op.Progress.Phase] >= order[phase]
			})
			switch end {
			case "cancel":
				require.Equal(t, 202, l.call("DELETE", "/v1/operations/"+op.ID, nil, nil))
				require.Equal(t, operation.Cancelled, l.finish(op.ID).Status)
			case "kill":
				l.kill()
				l.start()
				op = l.finish(op.ID)
				require.Equal(t, operation.Failed, op.Status, "%+v", op)
				require.Equal(t, "interrupted", op.Problem.Code)
				require.Equal(t, "update", op.Kind)
			default:
				l.stop(syscall.SIGTERM)
				l.start()
				require.NotEqual(t, operation.Succeeded, l.finish(op.ID).Status)
			}
			asBefore(end + " at " + phase)
		}
	}
	l.install(good)
	l.healthy("alpha")
	l.stop(syscall.SIGINT)
	l.nothingRuns()
}

// notes are the owner's notifications, read while no server runs.
func (l *lab) notes() (list []struct{ PackageID, Level, Title, Message string }) {
	l.t.Helper()
	text := l.document("/private/notifications")
	require.NoError(l.t, json.Unmarshal(text, &list))
	return list
}
