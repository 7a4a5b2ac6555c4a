package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/selfstead/selfstead/server/service/effect"
	"github.com/stretchr/testify/require"
)

// The conformance probe is a package of the unmodified SDK that calls every
// effect from inside and says what came back; its peer is what it depends on.
const (
	probe = "conformance-probe"
	peer  = "conformance-peer"
)

// testPackage is a package that make built for the tests.
func testPackage(t testing.TB, name string) string {
	t.Helper()
	dir := os.Getenv("STEAD_PACKAGES")
	need(t, dir != "", "STEAD_PACKAGES (make test sets it)")
	return filepath.Join(dir, name+".s9pk")
}

// install sideloads a package and waits until it runs and is healthy.
func (a *api) install(t testing.TB, name, id string) {
	t.Helper()
	seen, last := a.sideload(t, testPackage(t, name))
	require.Equal(t, "succeeded", last.Status, "%+v", last.Problem)
	require.True(t, slices.ContainsFunc(seen, func(o operation) bool { return o.Progress.Phase == "init" }), "the package's own progress shows: %+v", seen)
	a.waitState(t, id, "running")
}

// act runs an action and returns its single value, which is JSON.
func (a *api) act(t testing.TB, id, action string, input, into any) {
	t.Helper()
	var result struct {
		Result struct{ Type, Value string }
	}
	a.want(t, 200, "POST", "/v1/packages/"+id+"/actions/"+action+"/runs", map[string]any{"input": input}, &result)
	require.Equal(t, "single", result.Result.Type)
	if into != nil {
		require.NoError(t, json.Unmarshal([]byte(result.Result.Value), into), "%s", result.Result.Value)
	}
}

// suiteReport is how far a suite of the probe is.
type suiteReport struct {
	Suite   string
	Total   int
	Done    bool
	Results []suiteResult
}

type suiteResult struct {
	Name  string
	Error *string
	MS    int
}

// begin starts a suite.
func (a *api) begin(t testing.TB, suite string) {
	t.Helper()
	var total int
	a.act(t, probe, "run", map[string]string{"suite": suite}, &total)
	require.NotZero(t, total)
}

// await waits for the end of the suite and shows each result as a test.
func (a *api) await(t *testing.T) {
	t.Helper()
	var r suiteReport
	eventually(t, 4*time.Minute, "the suite ends", func() (err error) {
		if r, err = a.reportFile(); err != nil {
			return err
		}
		if !r.Done {
			return fmt.Errorf("%d of %d, the last is %+v", len(r.Results), r.Total, r.Results[max(0, len(r.Results)-1):])
		}
		return nil
	})
	require.GreaterOrEqual(t, len(r.Results), r.Total)
	slow := 0
	for _, row := range r.Results {
		t.Run(strings.ReplaceAll(row.Name, "/", "|"), func(t *testing.T) {
			if row.Error != nil {
				t.Error(*row.Error)
			}
		})
		slow += row.MS
	}
	t.Logf("%s: %d results in %d ms", r.Suite, len(r.Results), slow)
	slices.SortFunc(r.Results, func(a, b suiteResult) int { return b.MS - a.MS })
	for _, row := range r.Results[:min(6, len(r.Results))] {
		t.Logf("%d ms: %s", row.MS, row.Name)
	}
}

func newConformance(t *testing.T) (*lab, *api) {
	t.Helper()
	testPackage(t, "probe")
	l := newLab(t)
	a := claim(t, startServer(t, l, filepath.Join(t.TempDir(), "state")))
	t.Cleanup(func() {
		if !t.Failed() {
			return
		}
		files, _ := filepath.Glob(filepath.Join(a.s.dir, "logs", "*", "service.log"))
		for _, file := range files {
			text, _ := os.ReadFile(file)
			t.Logf("%s:\n%s", file, text[max(0, len(text)-8<<10):])
		}
	})
	a.install(t, "peer", peer)
	a.install(t, "probe", probe)
	return l, a
}

// suites are those of the probe.
var suites = []string{"effects", "callbacks", "behaviours"}

// ready brings both packages to where a suite starts from.
func (a *api) ready(t testing.TB) {
	t.Helper()
	for _, id := range []string{peer, probe} {
		a.want(t, 200, "PUT", "/v1/packages/"+id+"/desired-state", map[string]string{"state": "running"}, nil)
		a.waitState(t, id, "running")
	}
}

// TestConformance runs every suite on a fresh server, then what is left to see
// from outside.
func TestConformance(t *testing.T) {
	t.Parallel()
	l, a := newConformance(t)
	for _, suite := range suites {
		t.Run(suite, func(t *testing.T) {
			a.ready(t)
			a.begin(t, suite)
			a.await(t)
			if suite == "effects" {
				a.complete(t)
			}
		})
	}
	t.Run("critical tasks", func(t *testing.T) { critical(t, a) })
	t.Run("the document", func(t *testing.T) { a.document(t, 8) })
	t.Run("the runtime's socket", func(t *testing.T) { runtimeSocket(t, a) })
	t.Run("watches from outside", func(t *testing.T) { watches(t, l, a) })
	t.Run("versions", func(t *testing.T) { versions(t, a) })
}

// TestConformanceKilled runs every suite while the server is killed and started
// anew in the middle of it, the services going on, each on a server of its own.
func TestConformanceKilled(t *testing.T) {
	t.Parallel()
	for _, suite := range suites {
		t.Run(suite, func(t *testing.T) {
			t.Parallel()
			l, a := newConformance(t)
			a.ready(t)
			before := containers(t, a.s.dir)
			a.begin(t, suite)
			a.half(t)
			a.s.kill(t)
			a.s = startServer(t, l, a.s.dir)
			a.await(t)
			after := containers(t, a.s.dir)
			require.Equal(t, before[probe], after[probe], "the container was taken over")
			if suite == "effects" {
				a.document(t, 6)
			}
		})
	}
}

// reportFile is where the probe writes how far a suite is: the file and not the
// action, since suites take actions away and bring them back.
func (a *api) reportFile() (r suiteReport, err error) {
	text, err := os.ReadFile(filepath.Join(a.s.dir, "volumes", probe, "data", "main", "report.json"))
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	return r, err
}

// complete fails for an effect that the table leaves out: each has a row with
// a result and, when there is something to refuse, one with an error.
func (a *api) complete(t *testing.T) {
	r, err := a.reportFile()
	require.NoError(t, err)
	has := func(prefix string) bool {
		return slices.ContainsFunc(r.Results, func(row suiteResult) bool { return strings.HasPrefix(row.Name, prefix) })
	}
	cases := "restart shutdown rebuild selfstead.bind-mount" // these have cases of their own
	takesNothing := "get-os-ip git-info get-data-version get-dependencies get-installed-packages restart shutdown rebuild"
	for _, m := range effect.Methods() {
		require.True(t, has(m+" answers ") || slices.Contains(strings.Fields(cases), m), "no row has a result of %s", m)
		require.True(t, has(m+" refuses ") || slices.Contains(strings.Fields(takesNothing), m), "no row has an error of %s", m)
	}
}

// half waits until half of the suite is done.
func (a *api) half(t testing.TB) {
	t.Helper()
	eventually(t, 3*time.Minute, "half of the suite", func() error {
		r, err := a.reportFile()
		if err == nil && len(r.Results) < r.Total/2 {
			err = fmt.Errorf("%d of %d", len(r.Results), r.Total)
		}
		return err
	})
}

// critical has the peer ask for something that must come first: it stops, and
// cannot be started before.
func critical(t *testing.T, a *api) {
	a.ready(t)
	call := func(method, params string) {
		t.Helper()
		a.act(t, peer, "call", map[string]string{"method": method, "params": params}, nil)
	}
	call("action.create-task", `{"replayId":"first","packageId":"`+peer+`","actionId":"configure","severity":"critical",
		"when":{"condition":"input-not-matches","once":false},"input":{"kind":"partial","accept":[{"size":9}],"set":{"size":9}}}`)
	a.waitState(t, peer, "stopped")
	var p problem
	a.want(t, 409, "PUT", "/v1/packages/"+peer+"/desired-state", map[string]string{"state": "running"}, &p)
	a.want(t, 200, "POST", "/v1/packages/"+peer+"/actions/configure/runs", map[string]any{"input": map[string]any{"name": "peer", "size": 9}}, nil)
	a.ready(t)
	call("action.clear-tasks", `{"only":["first"]}`)
}

// document looks at what effects left in the state that users see; notes is how
// many notifications were made, each once whatever was repeated.
func (a *api) document(t *testing.T, notes int) {
	a.ready(t)
	var doc struct {
		Value struct {
			ServerInfo struct{ UnreadNotificationCount int }
			Packages   map[string]struct {
				Actions             map[string]struct{ Name, AllowedStatuses string }
				Tasks               map[string]any
				Plugin              map[string]map[string]string
				CurrentDependencies map[string]struct {
					Kind, VersionRange string
					HealthChecks       []string
				}
				Hosts map[string]struct {
					Bindings map[string]struct {
						Enabled    bool
						Interfaces map[string]struct{ Name string }
					}
				}
			} `json:"packageData"`
		}
	}
	a.want(t, 200, "GET", "/v1/state", nil, &doc)
	got := doc.Value.Packages[probe]
	var actions []string
	for id := range got.Actions {
		actions = append(actions, id)
	}
	require.ElementsMatch(t, strings.Fields("run results call form kinds watch watched"), actions)
	require.Empty(t, got.Tasks)
	// With a task of its own for a moment, the entry has all that one can have.
	call := map[string]string{"method": "action.create-task", "params": `{"replayId":"shape","packageId":"` + peer + `","actionId":"configure","severity":"optional"}`}
	a.act(t, probe, "call", call, nil)
	a.shape(t, probe)
	call = map[string]string{"method": "action.clear-tasks", "params": `{"only":["shape"]}`}
	a.act(t, probe, "call", call, nil)
	require.Equal(t, "form", got.Plugin["url"]["tableAction"])
	require.Len(t, got.CurrentDependencies, 1)
	require.Equal(t, []string{"page"}, got.CurrentDependencies[peer].HealthChecks)
	require.True(t, got.Hosts["web"].Bindings["8080"].Enabled)
	require.Len(t, got.Hosts["web"].Bindings["8080"].Interfaces, 2)
	require.False(t, got.Hosts["raw"].Bindings["9001"].Enabled)
	require.Equal(t, notes, doc.Value.ServerInfo.UnreadNotificationCount)
}

// containers are the names of the running containers by package: the volumes
// that their processes see mounted tell whose they are.
func containers(t testing.TB, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	list, err := os.ReadDir(filepath.Join(dir, "containers"))
	require.NoError(t, err)
	procs, err := filepath.Glob("/proc/[0-9]*")
	require.NoError(t, err)
	for _, p := range procs {
		groups, err := os.ReadFile(p + "/cgroup")
		if err != nil {
			continue
		}
		for _, d := range list {
			if !d.IsDir() || !strings.Contains(string(groups), d.Name()) {
				continue
			}
			mounts, err := os.ReadFile(p + "/mountinfo")
			if err != nil {
				continue
			}
			for line := range strings.Lines(string(mounts)) {
				fields := strings.Fields(line)
				if _, volume, ok := strings.Cut(fields[3], "/volumes/"); ok && fields[4] == "/media/startos/volumes/main" {
					id, _, _ := strings.Cut(volume, "/")
					found[id] = d.Name()
				}
			}
		}
	}
	return found
}
