package service_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Random operations on two packages with kills at random moments: after each,
// the next server ends with every package either installed and as desired, or
// gone without a trace. SERVICE_KILLS sets the number of rounds.
func TestRandomKills(t *testing.T) {
	t.Parallel()
	rounds := 2
	if n, err := strconv.Atoi(os.Getenv("SERVICE_KILLS")); err == nil {
		rounds = n
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	l := newLab(t)
	files := map[string][]byte{}
	ports := map[string]int{"alpha": 18080, "beta": 18081}
	for id, port := range ports {
		files[id] = build(t, testPackage{ID: id, Port: port})
	}
	l.start()
	for round := range rounds {
		did := ""
		for _, id := range []string{"alpha", "beta"} {
			p, there := l.pkg(id)
			var op struct{ ID string }
			switch what := rnd.IntN(5); {
			case !there:
				did += "install " + id + ", "
				op := l.sideload(files[id])
				if rnd.IntN(3) > 0 {
					l.finish(op.ID)
				}
			case what == 0:
				did += "remove " + id + ", "
				l.json("DELETE", "/v1/packages/"+id, "", 202, &op)
			case what == 1:
				want := map[string]string{"running": "stopped", "stopped": "running"}[p.DesiredState]
				did += want + " " + id + ", "
				l.json("PUT", "/v1/packages/"+id+"/desired-state", `{"state":"`+want+`"}`, 200, nil)
			case what == 2:
				did += "restart " + id + ", "
				l.json("POST", "/v1/packages/"+id+":restart", "", 202, nil)
			case what == 3:
				did += "rebuild " + id + ", "
				l.json("POST", "/v1/packages/"+id+":rebuild", "", 202, nil)
			default:
				did += "nothing " + id + ", "
			}
		}
		pause := time.NewTimer(time.Duration(rnd.IntN(1500)) * time.Millisecond)
		<-pause.C
		sig := syscall.SIGKILL
		if rnd.IntN(4) == 0 {
			sig = syscall.SIGTERM
		}
		l.stop(sig)
		l.start()
		t.Logf("round %d: %s%s", round, did, sig)
		known := 0
		for id, port := range ports {
			desired := ""
			l.await(id+" as desired", 60*time.Second, func() bool {
				p, there := l.pkg(id)
				desired = p.DesiredState
				return !there || p.State == p.DesiredState && (p.State != "running" || p.Health["web"].Result == "success")
			})
			if _, there := l.pkg(id); there {
				known++
			}
			body, err := l.fetch(l.lan, fmt.Sprintf("http://%s:%d/", serverAddr, port))
			if desired == "running" {
				require.NoError(t, err, id)
				require.Equal(t, "hello from "+id+"\n", body)
			} else {
				require.Error(t, err, id)
			}
		}
		for _, dir := range []string{"packages", "volumes", "logs"} {
			entries, err := os.ReadDir(l.dir + "/" + dir)
			require.NoError(t, err)
			require.Len(t, entries, known, dir)
		}
		l.await("a container for each", 20*time.Second, func() bool { return len(l.inits()) == known })
	}
	l.stop(syscall.SIGINT)
	l.nothingRuns()
}
