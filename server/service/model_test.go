package service_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/selfstead/selfstead/server/operation"
	"github.com/stretchr/testify/require"
)

// modelled is what can be seen of one package.
type modelled struct {
	version  string // "" when it is not installed
	desired  string
	installs int    // how often its data saw a first set-up; 0 when there are no data
	data     string // the version that they have; "" when they have none
}

// observe looks at a package that is at rest.
func (l *lab) observe(id string) modelled {
	l.t.Helper()
	p, there := l.pkg(id)
	seen := modelled{installs: strings.Count(l.volume(id, "inits"), "install\n"), data: l.dataVersion(id)}
	if there {
		seen.version, seen.desired = p.Version, p.DesiredState
	}
	return seen
}

// atRest reports whether nothing is under way and everything is as desired.
func (l *lab) atRest(ids []string) bool {
	var ops []operation.Operation
	l.json("GET", "/v1/operations", "", 200, &ops)
	if slices.ContainsFunc(ops, func(op operation.Operation) bool { return !op.Done() }) {
		return false
	}
	for _, id := range ids {
		p, there := l.pkg(id)
		if there && (p.State != p.DesiredState || p.State == "running" && p.Health["web"].Result != "success") {
			return false
		}
	}
	return true
}

// TestModel does random things to five services that need each other, kills the
// server at random moments, and compares what is there then with what a model
// says can be: each operation has happened or has not, whole. SERVICE_ROUNDS sets
// the number of rounds; 100 take some five minutes on two cores.
func TestModel(t *testing.T) {
	t.Parallel()
	rounds := 3
	if n, err := strconv.Atoi(os.Getenv("SERVICE_ROUNDS")); err == nil {
		rounds = n
	}
	seed := uint64(time.Now().UnixNano())
	if n, err := strconv.ParseUint(os.Getenv("SERVICE_SEED"), 10, 64); err == nil {
		seed = n
	}
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	ids := []string{"ant", "bee", "cat", "dog", "eel"}
	needs := map[string]string{"bee": "ant", "cat": "bee", "dog": "eel", "eel": "dog"}
	versions := []string{"1.0.0:0", "1.1.0:0"}
	file := map[string][]byte{} // id, version, fault
	for i, id := range ids {
		for _, version := range versions {
			for _, fault := range []string{"", "throw", "hang"} {
				code := map[string]any{"steps": 2, "fault": map[string]string{"2": fault}}
				if needs[id] != "" {
					code["claims"] = needs[id]
				}
				file[id+version+fault] = build(t, testPackage{ID: id, Port: 18080 + i, Version: version, Code: code})
			}
		}
	}
	other := func(version string) string { return versions[1-slices.Index(versions, version)] }
	l := newLab(t)
	l.start()
	now := map[string]modelled{}
	for round := range rounds {
		var did []string
		can := map[string][]modelled{}
		var soft []string // packages that are removed without their data
		var wait []string // operations whose end is waited for
		for _, id := range ids {
			before, said := now[id], "nothing"
			after := before
			both := false // what was asked may not come to be
			switch what := rnd.IntN(12); {
			case before.version == "":
				version := versions[rnd.IntN(2)]
				after = modelled{version, "running", before.installs, version}
				if before.data == "" {
					after.installs++
				}
				said, both = "install "+after.version, true
				wait = append(wait, l.sideload(file[id+after.version]).ID)
			case what == 0 || what == 1:
				after.desired = map[string]string{"running": "stopped", "stopped": "running"}[before.desired]
				said = "want " + after.desired
				l.json("PUT", "/v1/packages/"+id+"/desired-state", `{"state":"`+after.desired+`"}`, 200, nil)
			case what == 2:
				said = "restart"
				l.json("POST", "/v1/packages/"+id+":restart", "", 202, nil)
			case what == 3:
				said = "rebuild"
				l.json("POST", "/v1/packages/"+id+":rebuild", "", 202, nil)
			case what == 4:
				said, after = "remove", modelled{}
				l.json("DELETE", "/v1/packages/"+id, "", 202, nil)
			case what == 5:
				said, after = "remove, keep the data", modelled{installs: before.installs}
				soft = append(soft, id)
				l.json("DELETE", "/v1/packages/"+id+"?soft=true", "", 202, nil)
			case what <= 8:
				after.version = other(before.version)
				after.data = after.version
				said, both = "update to "+after.version, true
				wait = append(wait, l.sideload(file[id+after.version]).ID)
			case what == 9:
				said = "update that fails"
				l.sideload(file[id+other(before.version)+"throw"])
			case what == 10:
				said = "update that is cancelled"
				op := l.sideload(file[id+other(before.version)+"hang"])
				pause := time.NewTimer(time.Duration(rnd.IntN(600)) * time.Millisecond)
				<-pause.C
				require.Equal(t, 202, l.call("DELETE", "/v1/operations/"+op.ID, nil, nil))
			}
			did = append(did, id+": "+said)
			can[id] = []modelled{after}
			if both {
				can[id] = append(can[id], before)
			}
		}
		how := rnd.IntN(4)
		if how == 0 { // undisturbed: all comes to be
			for _, op := range wait {
				end := l.finish(op)
				require.Equal(t, operation.Succeeded, end.Status, "%s: %+v", did, end.Problem)
				can[end.Package] = can[end.Package][:1]
			}
		} else {
			for _, id := range soft { // the package's own clean-up may be cut off
				can[id] = append(can[id], modelled{installs: now[id].installs, data: now[id].data})
			}
			pause := time.NewTimer(time.Duration(rnd.IntN(1500)) * time.Millisecond)
			<-pause.C
			l.stop(map[int]syscall.Signal{1: syscall.SIGTERM, 2: syscall.SIGKILL, 3: syscall.SIGKILL}[how])
			l.start()
		}
		t.Logf("round %d: %s; end %d", round, strings.Join(did, ", "), how)
		l.await("all at rest", 90*time.Second, func() bool { return l.atRest(ids) })
		var present, data int
		for i, id := range ids {
			now[id] = l.observe(id)
			require.Contains(t, can[id], now[id], "round %d, %s", round, id)
			body, err := l.fetch(l.lan, fmt.Sprintf("http://%s:%d/", serverAddr, 18080+i))
			if now[id].desired == "running" {
				require.NoError(t, err, id)
				require.Equal(t, "hello from "+id+"\n", body)
			} else {
				require.Error(t, err, id)
			}
			if now[id].version != "" {
				present++
			}
			if now[id].installs > 0 {
				data++
			}
		}
		for dir, want := range map[string]int{"packages": present, "volumes": data, "logs": data, "uploads": 0} {
			entries, err := os.ReadDir(l.dir + "/" + dir)
			require.NoError(t, err)
			require.Len(t, entries, want, "round %d, %s", round, dir)
		}
		for _, id := range ids {
			if entries, err := os.ReadDir(l.dir + "/volumes/" + id); err == nil {
				require.Len(t, entries, 1, "round %d, beside the data of %s", round, id)
			}
		}
		l.await("a container for each", 20*time.Second, func() bool { return len(l.inits()) == present })
	}
	l.stop(syscall.SIGINT)
	l.nothingRuns()
}
