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
	_, last := a.sideload(t, testPackage(t, name))
	require.Equal(t, "succeeded", last.Status, "%+v", last.Problem)
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
	Results []struct {
		Name  string
		Error *string
		MS    int
	}
}

// begin starts a suite, report asks how far it is.
func (a *api) begin(t testing.TB, suite string) {
	t.Helper()
	var total int
	a.act(t, probe, "run", map[string]string{"suite": suite}, &total)
	require.NotZero(t, total)
}

func (a *api) report(t testing.TB) (r suiteReport) {
	t.Helper()
	a.act(t, probe, "results", nil, &r)
	return r
}

// await waits for the end of the suite and shows each result as a test.
func (a *api) await(t *testing.T) {
	t.Helper()
	var r suiteReport
	eventually(t, 4*time.Minute, "the suite ends", func() error {
		// Its file and not the action: the suite takes actions away and brings
		// them back.
		text, err := os.ReadFile(filepath.Join(a.s.dir, "volumes", probe, "data", "main", "report.json"))
		if err != nil {
			return err
		}
		r = suiteReport{}
		if err := json.Unmarshal(text, &r); err != nil {
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
	slices.SortFunc(r.Results, func(a, b struct {
		Name  string
		Error *string
		MS    int
	}) int {
		return b.MS - a.MS
	})
	for _, row := range r.Results[:min(6, len(r.Results))] {
		t.Logf("%d ms: %s", row.MS, row.Name)
	}
}

func newConformance(t *testing.T) (*lab, *api) {
	t.Helper()
	testPackage(t, "probe")
	l := newLab(t)
	a := claim(t, startServer(t, l, filepath.Join(t.TempDir(), "state")))
	a.install(t, "peer", peer)
	a.install(t, "probe", probe)
	return l, a
}

func TestConformance(t *testing.T) {
	_, a := newConformance(t)
	for _, suite := range []string{"effects", "callbacks", "behaviours"} {
		t.Run(suite, func(t *testing.T) {
			a.want(t, 200, "PUT", "/v1/packages/"+peer+"/desired-state", map[string]string{"state": "running"}, nil)
			a.waitState(t, peer, "running")
			a.begin(t, suite)
			a.await(t)
		})
	}
}
