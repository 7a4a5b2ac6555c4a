package service_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/selfstead/selfstead/lxcrt/guest/node"
	"github.com/selfstead/selfstead/server/service/effect"
	"github.com/selfstead/selfstead/server/service/rpc"
	"github.com/stretchr/testify/require"
)

// A server that is killed, or hands over, loses no service: the next one takes
// over the containers as they run, and everything works with them.
func TestAdoption(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.start()
	l.install(build(t, testPackage{ID: "alpha", Port: 18080}))
	l.healthy("alpha")
	page := "http://" + serverAddr + ":18080"
	born := l.get(page + "/born")
	for i, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		l.stop(sig)
		require.Equal(t, born, l.get(page+"/born"), "the service runs on without a server")
		refused := make(chan error, 1)
		stop := make(chan struct{})
		go func() { // no request is refused meanwhile
			defer close(refused)
			for {
				if _, err := l.fetch(l.lan, page+"/"); err != nil {
					refused <- err
					return
				}
				select {
				case <-stop:
					return
				default:
				}
			}
		}()
		l.start()
		close(stop)
		require.NoError(t, <-refused)
		l.healthy("alpha")
		require.Equal(t, born, l.get(page+"/born"), "adopted, not made anew")
		var result map[string]any
		name := "name" + strconv.Itoa(i)
		l.json("POST", "/v1/packages/alpha/actions/set-name/runs", `{"input":{"name":"`+name+`"}}`, 200, &result)
		l.await("the new name", 20*time.Second, func() bool {
			body, err := l.fetch(l.lan, page+"/")
			return err == nil && body == "hello from "+name+"\n"
		})
		l.healthy("alpha")
		born = l.get(page + "/born")
	}
	require.Equal(t, "install\n", l.get(page+"/file?path=/data/inits"), "never loaded again")

	// A container of an older making runs on until its next restart.
	other := filepath.Join(t.TempDir(), "base.squashfs")
	require.NoError(t, os.Symlink(os.Getenv("STEAD_BASE"), other))
	l.kill()
	l.start("STEAD_BASE=" + other)
	l.healthy("alpha")
	require.Equal(t, born, l.get(page+"/born"))
	l.json("POST", "/v1/packages/alpha:restart", "", 202, nil)
	l.await("a container of the new making", 20*time.Second, func() bool {
		inits, err := l.fetch(l.lan, page+"/file?path=/data/inits")
		return err == nil && inits == "install\nnull\n"
	})
	l.healthy("alpha")
	l.stop(syscall.SIGINT)
	l.start()
	l.healthy("alpha")

	// What was desired while no server was there counts.
	l.json("PUT", "/v1/packages/alpha/desired-state", `{"state":"stopped"}`, 200, nil)
	l.kill()
	l.start()
	l.reach("alpha", "stopped")
	l.json("PUT", "/v1/packages/alpha/desired-state", `{"state":"running"}`, 200, nil)
	l.healthy("alpha")

	// A container that is gone is made anew.
	l.kill()
	for _, pid := range l.inits() {
		require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
	}
	l.await("the container's end", 10*time.Second, func() bool { return len(l.inits()) == 0 })
	l.start()
	l.healthy("alpha")
	require.Equal(t, "install\nnull\nnull\nnull\n", l.get(page+"/file?path=/data/inits"))
	l.stop(syscall.SIGINT)
	l.nothingRuns()

	// And after an orderly stop everything comes back as desired.
	l.start()
	l.healthy("alpha")
	require.Equal(t, "install\nnull\nnull\nnull\nnull\n", l.get(page+"/file?path=/data/inits"))
}

// A server that dies while a package sets itself up in a new container is
// followed by one that waits for the end of that, and does not begin again.
func TestAdoptionDuringInit(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.start()
	l.install(build(t, testPackage{ID: "alpha", Port: 18080, Code: map[string]any{"slowInit": 1000}}))
	l.healthy("alpha")
	l.json("POST", "/v1/packages/alpha:rebuild", "", 202, nil)
	file := l.dir + "/volumes/alpha/data/main/inits"
	l.await("the init", 20*time.Second, func() bool {
		text, _ := os.ReadFile(file)
		return string(text) == "install\nnull\n"
	})
	l.kill()
	l.start()
	l.healthy("alpha")
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, "install\nnull\n", string(text))
	require.Len(t, l.inits(), 1)

	// The same when it hands over.
	l.json("POST", "/v1/packages/alpha:rebuild", "", 202, nil)
	l.await("the init", 20*time.Second, func() bool {
		text, _ := os.ReadFile(file)
		return string(text) == "install\nnull\nnull\n"
	})
	l.stop(syscall.SIGTERM)
	l.start()
	l.healthy("alpha")
	text, err = os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, "install\nnull\nnull\n", string(text))
	require.Len(t, l.inits(), 1)
}

// A container whose runtime speaks another protocol runs on, too, until its next
// restart.
func TestAdoptionOfAnotherProtocol(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.start()
	scripts, err := filepath.Glob(l.dir + "/guest/*" + node.Path)
	require.NoError(t, err)
	require.Len(t, scripts, 1)
	now := fmt.Sprintf("protocol: %d,", node.Protocol)
	older := strings.Replace(string(node.Script), now, "protocol: 1,", 1)
	require.NotEqual(t, string(node.Script), older)
	require.NoError(t, os.WriteFile(scripts[0], []byte(older), 0o644))
	l.install(build(t, testPackage{ID: "alpha", Port: 18080}))
	l.healthy("alpha")
	page := "http://" + serverAddr + ":18080"
	born := l.get(page + "/born")
	l.kill()
	require.NoError(t, os.WriteFile(scripts[0], node.Script, 0o644))
	l.start()
	l.healthy("alpha")
	require.Equal(t, born, l.get(page+"/born"), "nobody asked for a restart")
	l.json("POST", "/v1/packages/alpha:restart", "", 202, nil)
	l.await("a container of the new making", 20*time.Second, func() bool {
		inits, err := l.fetch(l.lan, page+"/file?path=/data/inits")
		return err == nil && inits == "install\nnull\n"
	})
	l.healthy("alpha")
	born = l.get(page + "/born")
	l.json("POST", "/v1/packages/alpha:restart", "", 202, nil)
	l.await("a restart", 20*time.Second, func() bool {
		now, err := l.fetch(l.lan, page+"/born")
		return err == nil && now != born
	})
	require.Equal(t, "install\nnull\n", l.get(page+"/file?path=/data/inits"), "that one is of now")
}

// What a service does once, it does once, whenever the server dies: the next
// server asks again and joins what is under way.
func TestNothingRunsTwice(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.start()
	l.install(build(t, testPackage{ID: "base", Port: 18081, Code: map[string]any{"slowRun": 1500, "slowUninit": 1500}}))
	l.install(build(t, testPackage{ID: "user", Port: 18082, Code: map[string]any{"relay": "base"}}))
	l.healthy("base")
	l.healthy("user")
	file := func(pkg, name string) string {
		text, _ := os.ReadFile(l.dir + "/volumes/" + pkg + "/data/main/" + name)
		return string(text)
	}
	go l.http.Post("http://stead/v1/packages/user/actions/relay/runs", "application/json", strings.NewReader(`{}`))
	l.await("the run", 20*time.Second, func() bool { return file("base", "runs") != "" })
	l.kill()
	l.start()
	l.await("its answer", 20*time.Second, func() bool { return file("user", "relayed") != "" })
	require.Equal(t, "counted\n", file("user", "relayed"))
	require.Equal(t, "run\n", file("base", "runs"))
	// Another run is another one.
	l.json("POST", "/v1/packages/user/actions/relay/runs", `{}`, 200, nil)
	require.Equal(t, "run\nrun\n", file("base", "runs"))

	l.json("DELETE", "/v1/packages/base?soft=true", "", 202, nil)
	l.await("the clean-up", 20*time.Second, func() bool { return file("base", "uninits") != "" })
	l.kill()
	l.start()
	l.await("the removal's end", 20*time.Second, func() bool { _, there := l.pkg("base"); return !there })
	require.Equal(t, "uninit\n", file("base", "uninits"))
}

// A run that goes under with the container it runs in is not made again in the
// next: who asks again under the same name is told.
func TestRunOfAContainerThatIsGone(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.start()
	l.install(build(t, testPackage{ID: "base", Port: 18081, Code: map[string]any{"slowRun": 60_000}}))
	l.install(build(t, testPackage{ID: "user", Port: 18082}))
	l.healthy("base")
	l.healthy("user")
	ask := func() (result json.RawMessage, e *rpc.Error) {
		return l.request("user", `{"id":1,"method":"action.run","params":{"packageId":"base","actionId":"count"},"callId":"one"}`)
	}
	runs := func() string { return l.volume("base", "runs") }
	c := l.hostSocket("user")
	defer c.Close()
	_, err := c.Write([]byte(`{"id":1,"method":"action.run","params":{"packageId":"base","actionId":"count"},"callId":"one"}` + "\n"))
	require.NoError(t, err)
	l.await("the run", 20*time.Second, func() bool { return runs() == "run\n" })
	pid := l.pid("base")
	l.kill()
	require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
	l.await("the container's end", 10*time.Second, func() bool { return len(l.inits()) == 1 })
	l.start()
	l.healthy("base")
	l.healthy("user")
	_, e := ask()
	require.NotNil(t, e)
	require.Equal(t, effect.KindCancelled, e.Code, e.Details())
	require.Contains(t, e.Details(), "container of base ended")
	require.Equal(t, "run\n", runs())
	l.kill()
	l.start()
	l.healthy("base")
	_, e = ask()
	require.NotNil(t, e, "later, too")
	require.Equal(t, "run\n", runs())
}

// inits are the processes PID 1 of this lab's containers.
func (l *lab) inits() (pids []int) {
	groups, _ := filepath.Glob("/sys/fs/cgroup/selfstead-" + filepath.Base(l.dir) + "/*")
	if len(groups) == 0 {
		groups, _ = filepath.Glob("/sys/fs/cgroup/*/selfstead-" + filepath.Base(l.dir) + "/*")
	}
	seen := map[int]bool{}
	for _, g := range groups {
		filepath.WalkDir(g, func(p string, d os.DirEntry, err error) error {
			if err != nil || d.Name() != "cgroup.procs" {
				return nil
			}
			text, _ := os.ReadFile(p)
			for _, f := range strings.Fields(string(text)) {
				cmd, _ := os.ReadFile("/proc/" + f + "/cmdline")
				if pid, _ := strconv.Atoi(f); strings.HasPrefix(string(cmd), "/usr/bin/start-container\x00init\x00") && !seen[pid] {
					seen[pid] = true
					pids = append(pids, pid)
				}
			}
			return nil
		})
	}
	return pids
}

// A runtime that dies is replaced, and what ran runs again.
func TestCrash(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.start()
	l.install(build(t, testPackage{ID: "alpha", Port: 18080}))
	l.healthy("alpha")
	page := "http://" + serverAddr + ":18080"
	for n := 1; n <= 2; n++ {
		pids := l.inits()
		require.Len(t, pids, 1)
		require.NoError(t, syscall.Kill(pids[0], syscall.SIGKILL))
		want := "install\n" + strings.Repeat("null\n", n)
		l.await("a new container", 20*time.Second, func() bool {
			inits, err := l.fetch(l.lan, page+"/file?path=/data/inits")
			return err == nil && inits == want
		})
		l.healthy("alpha")
	}
}

// A service that crashes again and again, or never starts, is started again for
// ever, in growing intervals that its state shows, and after a while its owner
// is told.
func TestCrashLoop(t *testing.T) {
	t.Parallel()
	for id, c := range map[string]struct {
		code map[string]any
		show []string // what its state says, one after the other
	}{
		"alpha": {map[string]any{"crash": 100}, []string{"2 times in a row; the next try is in 1s", "3 times in a row; the next try is in 2s"}},
		"beta":  {map[string]any{"refuse": true}, []string{"start says no"}},
	} {
		t.Run(id, func(t *testing.T) { t.Parallel(); crashLoop(t, id, c.code, c.show) })
	}
}

func crashLoop(t *testing.T, id string, code map[string]any, show []string) {
	l := newLab(t)
	l.start("SERVICE_DRIFT_LIMIT=2s")
	l.install(build(t, testPackage{ID: id, Port: 18080, Code: code}))
	for _, want := range show {
		l.await(want, 20*time.Second, func() bool {
			p, _ := l.pkg(id)
			return p.State == "failed" && strings.Contains(p.Error.Message, want)
		})
	}
	unread := func() int {
		var doc struct {
			Value struct{ UnreadNotificationCount int }
		}
		l.json("GET", "/v1/state?pointer=/serverInfo", "", 200, &doc)
		return doc.Value.UnreadNotificationCount
	}
	l.await("its owner is told", 30*time.Second, func() bool { return unread() >= 1 })
	require.NoError(t, os.WriteFile(l.dir+"/volumes/"+id+"/data/main/mended", nil, 0o644))
	l.healthy(id)
	// Warnings and all-clears take turns, also where it seemed well for a moment
	// under load: an even number of them ends with an all-clear.
	l.await("its owner is told again", 30*time.Second, func() bool { n := unread(); return n >= 2 && n%2 == 0 })
	l.stop(syscall.SIGINT)
	told := l.notes()
	require.NotEmpty(t, told)
	require.Zero(t, len(told)%2, "the last one is an all-clear")
	for i, n := range told {
		want := "warning Service is not running"
		if i%2 == 1 {
			want = "success Service is running again"
		}
		require.Equal(t, id, n.PackageID)
		require.Equal(t, want, n.Level+" "+n.Title)
	}
}
