package service_test

import (
	"encoding/json"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// moments are when a service's workload said something, oldest first.
func (l *lab) moments(id, what string) (list []time.Time) {
	l.t.Helper()
	text, err := os.ReadFile(l.dir + "/logs/" + id + "/service.log")
	require.NoError(l.t, err)
	for line := range strings.Lines(string(text)) {
		var e struct {
			T time.Time
			M string
		}
		if json.Unmarshal([]byte(line), &e) == nil && e.M == "workload "+id+" "+what {
			list = append(list, e.T)
		}
	}
	return list
}

// Services start after those they need and stop before them, whatever is
// missing or goes in a circle.
func TestOrder(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.start()
	needs := map[string]string{"front": "middle", "middle": "store", "store": "nowhere", "one": "other", "other": "one"}
	port := 18080
	for id, other := range needs {
		l.install(build(t, testPackage{ID: id, Port: port, Code: map[string]any{"claims": other}}))
		port++
	}
	for id := range needs {
		l.healthy(id)
	}
	l.stop(syscall.SIGINT)
	l.nothingRuns()
	last := func(id, what string) time.Time {
		all := l.moments(id, what)
		require.NotEmpty(t, all, id)
		return all[len(all)-1]
	}
	require.Negative(t, last("front", "stops").Compare(last("middle", "stops")))
	require.Negative(t, last("middle", "stops").Compare(last("store", "stops")))
	l.start()
	for id := range needs {
		l.healthy(id)
	}
	require.Negative(t, last("store", "started").Compare(last("middle", "started")))
	require.Negative(t, last("middle", "started").Compare(last("front", "started")))
	text, err := os.ReadFile(l.log.Name())
	require.NoError(t, err)
	require.Contains(t, string(text), "store needs nowhere, which is not installed")
	require.Contains(t, string(text), "one, other need each other and start together")

	// One that does not come up holds nobody for ever: who needs it starts after
	// its first try.
	l.install(build(t, testPackage{ID: "broken", Port: 18090, Code: map[string]any{"failInit": map[string]any{"not": "install"}}}))
	l.install(build(t, testPackage{ID: "brave", Port: 18091, Code: map[string]any{"claims": "broken"}}))
	l.healthy("brave")
	l.stop(syscall.SIGINT)
	l.start()
	l.healthy("brave")
	l.reach("broken", "failed")
}
