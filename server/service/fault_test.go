package service_test

import (
	"io"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/selfstead/selfstead/s9pk"
	"github.com/selfstead/selfstead/s9pk/exver"
	"github.com/selfstead/selfstead/server/operation"
	"github.com/selfstead/selfstead/server/problem"
	"github.com/stretchr/testify/require"
)

// A package whose code fails to set itself up is not installed.
func TestFailedInstall(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.start()
	op := l.finish(l.sideload(build(t, testPackage{ID: "alpha", Code: map[string]any{"failInit": map[string]any{}}})).ID)
	require.Equal(t, operation.Failed, op.Status)
	require.Equal(t, "init-failed", op.Problem.Code)
	require.Contains(t, op.Problem.Detail, "init says no")
	l.nothingLeft("alpha")

	// One that fails later stays, says why, and can be tried again or removed.
	l.install(build(t, testPackage{ID: "alpha", Port: 18080, Code: map[string]any{"failInit": map[string]any{"not": "install"}, "failUninit": true}}))
	l.healthy("alpha")
	l.json("POST", "/v1/packages/alpha:rebuild", "", 202, nil)
	p := l.reach("alpha", "failed")
	require.Contains(t, p.Error.Message, "init says no")
	require.Equal(t, "running", p.DesiredState)
	l.json("POST", "/v1/packages/alpha:restart", "", 202, nil)
	l.json("DELETE", "/v1/packages/alpha", "", 202, &op)
	require.Equal(t, operation.Succeeded, l.finish(op.ID).Status, "what is not loaded has nothing to say")
	l.nothingLeft("alpha")

	l.install(build(t, testPackage{ID: "alpha", Port: 18080, Code: map[string]any{"failUninit": true}}))
	l.healthy("alpha")
	l.json("DELETE", "/v1/packages/alpha", "", 202, &op)
	op = l.finish(op.ID)
	require.Equal(t, "exit-failed", op.Problem.Code)
	l.healthy("alpha")
	l.json("DELETE", "/v1/packages/alpha?force=true&soft=true", "", 202, &op)
	require.Equal(t, operation.Succeeded, l.finish(op.ID).Status)
	entries, err := os.ReadDir(l.dir + "/volumes/alpha/data/main")
	require.NoError(t, err)
	require.NotEmpty(t, entries, "soft keeps the data")

	// Kept data outlives restarts and a failed install, and the next install
	// updates it.
	l.kill()
	l.start()
	op = l.finish(l.sideload(build(t, testPackage{ID: "alpha", Code: map[string]any{"failInit": map[string]any{}}})).ID)
	require.Equal(t, operation.Failed, op.Status)
	require.DirExists(t, l.dir+"/volumes/alpha/data/main")
	l.install(build(t, testPackage{ID: "alpha", Port: 18080}))
	l.healthy("alpha")
	require.Equal(t, "install\nnull\nupdate\n", l.volume("alpha", "inits"), "the failed install left no trace in the kept data")
}

// A set-up that never ends can be given up.
func TestHungInit(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.start()
	l.install(build(t, testPackage{ID: "alpha", Port: 18080, Code: map[string]any{"hangInit": true}}))
	l.healthy("alpha")
	hung := l.dir + "/volumes/alpha/data/main/hung"
	rebuild := func() {
		l.json("POST", "/v1/packages/alpha:rebuild", "", 202, nil)
	}
	rebuild()
	l.await("the hang", 20*time.Second, func() bool { _, err := os.Stat(hung); return err == nil })
	rebuild()
	l.healthy("alpha")
	require.NoError(t, os.Remove(hung))
	rebuild()
	l.await("the hang", 20*time.Second, func() bool { _, err := os.Stat(hung); return err == nil })
	var op operation.Operation
	l.json("DELETE", "/v1/packages/alpha", "", 202, &op)
	require.Equal(t, operation.Succeeded, l.finish(op.ID).Status)
	l.nothingLeft("alpha")
}

// A package that attacks the server's socket harms itself alone.
func TestHostilePackage(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.start()
	l.install(build(t, testPackage{ID: "alpha", Port: 18080}))
	l.install(build(t, testPackage{ID: "evil", Code: map[string]any{"hostile": true}}))
	l.healthy("alpha")
	page := "http://" + serverAddr + ":18080"
	born := l.get(page + "/born")
	l.json("POST", "/v1/packages/alpha:restart", "", 202, nil)
	l.await("a restart beside the flood", 20*time.Second, func() bool {
		now, err := l.fetch(l.lan, page+"/born")
		return err == nil && now != born
	})
	done := l.dir + "/volumes/evil/data/main/done"
	l.await("the flood's end", 40*time.Second, func() bool { _, err := os.Stat(done); return err == nil })
	p, _ := l.pkg("evil")
	require.LessOrEqual(t, len(p.Health), 256)
	born = l.get(page + "/born")
	l.kill()
	l.start()
	l.healthy("alpha")
	require.Equal(t, born, l.get(page+"/born"))
	l.reach("evil", "running") // in a container made anew: its socket folder was spoilt
	var op operation.Operation
	l.json("DELETE", "/v1/packages/evil", "", 202, &op)
	require.Equal(t, operation.Succeeded, l.finish(op.ID).Status)
}

func TestTasksAndDependencies(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.start()
	l.install(build(t, testPackage{ID: "base", Port: 18081}))
	l.healthy("base")
	l.install(build(t, testPackage{ID: "user", Port: 18082, Code: map[string]any{"needs": "base", "task": true},
		Manifest: func(m *s9pk.Manifest) { m.Dependencies["base"] = s9pk.Dependency{} }}))
	l.reach("user", "stopped")
	l.json("PUT", "/v1/packages/user/desired-state", `{"state":"running"}`, 409, nil)
	var result map[string]any
	l.json("POST", "/v1/packages/user/actions/set-name/runs", `{"input":{"name":"named"}}`, 200, &result)
	l.json("PUT", "/v1/packages/user/desired-state", `{"state":"running"}`, 200, nil)
	l.healthy("user")
	page := "http://" + serverAddr + ":18082"
	require.Equal(t, "install\n", l.get(page+"/file?path=/needed/inits"), "the dependency's volume")
	// The dependency's container is reached by its name, at the port it binds;
	// the other way round nothing is.
	require.Equal(t, "hello from base\n", l.get(page+"/get?url=http://"+l.containerIP("base")+":8080/"))
	require.Equal(t, "hello from base\n", l.get(page+"/get?url=http://base.startos:8080/"))
	_, err := l.fetch(l.lan, "http://"+serverAddr+":18081/get?url=http://"+l.containerIP("user")+":8080/")
	require.Error(t, err)

	// What it follows of the other package reaches it, after an adoption too.
	followed := func() string { return l.get(page + "/file?path=/data/followed") }
	l.json("PUT", "/v1/packages/base/desired-state", `{"state":"stopped"}`, 200, nil)
	l.await("the news", 10*time.Second, func() bool { return strings.HasSuffix(followed(), "stopped\n") })
	l.kill()
	l.start()
	l.healthy("user")
	l.json("PUT", "/v1/packages/base/desired-state", `{"state":"running"}`, 200, nil)
	l.await("the news", 10*time.Second, func() bool { return strings.HasSuffix(followed(), "running\n") })
	l.healthy("base")

	l.json("POST", "/v1/packages/user/actions/set-name/runs", `{"input":{"name":"other"}}`, 200, &result)
	l.reach("user", "stopped") // the critical task is active again
}

// A killed server leaves a package either installed or not there at all.
func TestKillDuringInstall(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	file := build(t, testPackage{ID: "alpha", Port: 18080, Code: map[string]any{"slowInit": 1500}})
	l.start()

	// In the middle of the upload.
	r, w := io.Pipe()
	go func() {
		w.Write(file[:len(file)/2]) // the rest never comes
	}()
	go l.http.Post("http://stead/v1/packages:sideload", "application/octet-stream", r)
	l.await("the upload's entry", 10*time.Second, func() bool { p, ok := l.pkg("alpha"); return ok && p.State == "installing" })
	require.Equal(t, "busy", l.refused(file, 409).Code, "the same package at the same time")
	l.kill()
	w.Close()
	l.start()
	l.nothingLeft("alpha")

	// Cancelled in the middle of the upload.
	r, w = io.Pipe()
	go func() { w.Write(file[:len(file)/2]) }()
	ended := make(chan *http.Response, 1)
	go func() {
		resp, err := l.http.Post("http://stead/v1/packages:sideload", "application/octet-stream", r)
		if err != nil {
			resp = nil
		}
		ended <- resp
	}()
	l.await("the upload's entry", 10*time.Second, func() bool { _, ok := l.pkg("alpha"); return ok })
	var running []operation.Operation
	l.json("GET", "/v1/operations", "", 200, &running)
	require.Contains(t, []int{200, 202, 204}, l.call("DELETE", "/v1/operations/"+running[0].ID, nil, nil))
	require.Equal(t, operation.Cancelled, l.finish(running[0].ID).Status)
	l.nothingLeft("alpha")
	w.Close()
	if resp := <-ended; resp != nil {
		require.Equal(t, 409, resp.StatusCode)
		resp.Body.Close()
	}

	// Right after the last byte, and while the package sets itself up.
	for _, phase := range []string{"install", "init"} {
		op := l.sideload(file)
		l.await("phase "+phase, 10*time.Second, func() bool {
			l.json("GET", "/v1/operations/"+op.ID, "", 200, &op)
			return op.Progress.Phase == phase
		})
		l.kill()
		l.start()
		l.nothingLeft("alpha")
	}

	// A cancel leaves nothing either.
	op := l.sideload(file)
	l.await("init", 10*time.Second, func() bool {
		l.json("GET", "/v1/operations/"+op.ID, "", 200, &op)
		return op.Progress.Phase == "init"
	})
	require.Contains(t, []int{200, 202, 204}, l.call("DELETE", "/v1/operations/"+op.ID, nil, nil))
	require.Equal(t, operation.Cancelled, l.finish(op.ID).Status)
	l.nothingLeft("alpha")

	// While it is removed.
	l.install(file)
	l.healthy("alpha")
	l.json("DELETE", "/v1/packages/alpha", "", 202, nil)
	l.kill()
	l.start()
	l.await("the removal's end", 20*time.Second, func() bool { _, there := l.pkg("alpha"); return !there })
	l.nothingLeft("alpha")
	l.stop(syscall.SIGINT)
	l.nothingRuns()
	l.notInDocument("alpha")
}

func TestRefusedUploads(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.start()
	good := build(t, testPackage{ID: "alpha"})
	flipped := append([]byte(nil), good...)
	flipped[len(flipped)-100] ^= 1
	signature := append([]byte(nil), good...)
	signature[100] ^= 1
	for code, file := range map[string][]byte{
		problem.CodeNotAnArchive: []byte(strings.Repeat("not an s9pk ", 100)),
		problem.CodeTruncated:    good[:len(good)/2],
		problem.CodeCorrupt:      flipped,
		problem.CodeSignature:    signature,
		problem.CodeArchitecture: build(t, testPackage{ID: "alpha", Manifest: func(m *s9pk.Manifest) {
			m.Images = map[string]s9pk.Image{"main": {Arch: []string{"riscv64"}}}
			m.HardwareRequirements.Arch = nil
		}}),
		problem.CodeManifest: build(t, testPackage{ID: "alpha", Files: map[string][]byte{s9pk.JavascriptPath: nil}}),
	} {
		p := l.refused(file, 422)
		require.Equal(t, code, p.Code, "%+v", p)
		require.NotEmpty(t, p.Detail)
		l.nothingLeft("alpha")
	}
	much := uint64(1 << 60)
	for what, ask := range map[string]func(*s9pk.Manifest){
		"bytes of memory": func(m *s9pk.Manifest) { m.HardwareRequirements.RAM = &much },
		"a quantum computer": func(m *s9pk.Manifest) {
			product := "Quantum"
			m.HardwareRequirements.Devices = []s9pk.DeviceFilter{{Description: "a quantum computer", Class: s9pk.ClassProcessor, Product: &product}}
		},
		"release 99.0.0": func(m *s9pk.Manifest) { m.OSVersion = exver.MustParseExtended("99.0.0:0").Upstream },
	} {
		p := l.refused(build(t, testPackage{ID: "alpha", Manifest: ask}), 422)
		require.Equal(t, problem.CodeIncompatible, p.Code)
		require.Contains(t, p.Detail, what)
		l.nothingLeft("alpha")
	}
	empty := l.refused([]byte{}, 422)
	require.Equal(t, problem.CodeTruncated, empty.Code)
}

// A full disk is said to be one, before the upload where its size is known.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	require.NoError(t, syscall.Mount("tmpfs", l.dir, "tmpfs", 0, "size=70m"))
	defer syscall.Unmount(l.dir, syscall.MNT_DETACH)
	l.start()
	defer l.stop(syscall.SIGINT)
	good := build(t, testPackage{ID: "alpha", Files: map[string][]byte{"extra.bin": make([]byte, 80<<20)}})
	require.Equal(t, problem.CodeDiskFull, l.refused(good, 507).Code)
	r, w := io.Pipe()
	go func() { w.Write(good); w.Close() }()
	var p problem.Problem
	require.Equal(t, 507, l.call("POST", "/v1/packages:sideload", r, &p))
	require.Equal(t, problem.CodeDiskFull, p.Code)
	l.nothingLeft("alpha")
}

// An update that fills the disk, or would, leaves the old version as it was.
func TestUpdateDiskFull(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	require.NoError(t, syscall.Mount("tmpfs", l.dir, "tmpfs", 0, "size=220m"))
	defer syscall.Unmount(l.dir, syscall.MNT_DETACH)
	l.start()
	defer l.stop(syscall.SIGINT)
	l.install(first(t, "alpha", 18080))
	l.healthy("alpha")
	page := "http://" + serverAddr + ":18080"
	asBefore := l.asBefore("alpha", page)
	big := l.dir + "/volumes/alpha/data/main/big"
	require.NoError(t, os.WriteFile(big, make([]byte, 100<<20), 0o644))
	next := build(t, testPackage{ID: "alpha", Port: 18080, Version: "1.1.0:0", Code: map[string]any{"steps": 2, "fault": map[string]string{"2": "fill"}}})
	p := l.refused(next, 507)
	require.Equal(t, problem.CodeDiskFull, p.Code)
	require.Contains(t, p.Detail, "a copy of its data")
	require.NoError(t, os.Remove(big))
	asBefore("refused")
	op := l.finish(l.sideload(next).ID)
	require.Equal(t, operation.Failed, op.Status)
	require.Equal(t, problem.CodeDiskFull, op.Problem.Code, "%+v", op.Problem)
	asBefore("filled")
}

// Who fills the disk is stopped before the server's own reserve is used up, and
// nobody else is.
func TestWriterIsStopped(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	require.NoError(t, syscall.Mount("tmpfs", l.dir, "tmpfs", 0, "size=150m"))
	defer syscall.Unmount(l.dir, syscall.MNT_DETACH)
	l.start()
	defer l.stop(syscall.SIGINT)
	l.install(build(t, testPackage{ID: "quiet", Port: 18080}))
	l.install(build(t, testPackage{ID: "writer", Code: map[string]any{"write": true}}))
	l.reach("writer", "running")
	p := l.reach("writer", "stopped")
	require.Equal(t, "stopped", p.DesiredState)
	l.healthy("quiet")
	var fs syscall.Statfs_t
	require.NoError(t, syscall.Statfs(l.dir, &fs))
	require.Greater(t, int64(fs.Bavail)*int64(fs.Bsize), int64(16<<20), "most of the reserve is there")
	p, _ = l.pkg("writer")
	require.Greater(t, p.Disk["main"], int64(10<<20))
	quiet, _ := l.pkg("quiet")
	require.Positive(t, quiet.Disk["main"])
	require.Less(t, quiet.Disk["main"], int64(1<<20))
	var no problem.Problem
	l.json("PUT", "/v1/packages/writer/desired-state", `{"state":"running"}`, 507, &no)
	require.Equal(t, problem.CodeDiskFull, no.Code)
	require.NoError(t, os.Remove(l.dir+"/volumes/writer/data/main/written"))
	l.await("a start where there is room", 10*time.Second, func() bool {
		return l.call("PUT", "/v1/packages/writer/desired-state", strings.NewReader(`{"state":"running"}`), nil) == 200
	})
	l.reach("writer", "stopped") // and again
	l.stop(syscall.SIGINT)
	var told []string
	for _, n := range l.notes() {
		told = append(told, n.Level+" "+n.Title+": "+n.Message)
	}
	require.Len(t, told, 2)
	require.Contains(t, told[0], "error Service stopped: the disk is full: writer was stopped")
}

// containerIP asks the service itself.
func (l *lab) containerIP(id string) string {
	l.t.Helper()
	text, err := os.ReadFile(l.dir + "/logs/" + id + "/service.log")
	require.NoError(l.t, err)
	_, rest, ok := strings.Cut(string(text), "address ")
	require.True(l.t, ok, "%s", text)
	ip, _, _ := strings.Cut(rest, `"`)
	return ip
}
