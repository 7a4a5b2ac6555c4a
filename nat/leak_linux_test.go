package nat_test

import (
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/selfstead/selfstead/nat"
	"github.com/selfstead/selfstead/nat/nattest"
)

// holdings is what a process and its namespace hold.
type holdings struct {
	heap            uint64
	fds, goroutines int
	rules           string // all tables with their elements
	flows           int    // of a forward that is long gone
}

// leak makes many random changes, through some of which a client sends, and
// returns what was held before and after. A flow of another forward lives on.
func leak(tb testing.TB, changes int) (before, after holdings) {
	tb.Helper()
	nattest.Require(tb, "conntrack")
	n := newSite(tb, "point-to-point")
	for _, fam := range families {
		n.a.Serve(at(addrA[fam], 8080))
	}
	c := controller(tb, n.s)
	prefix := map[string]int{"4": 32, "6": 128}
	passing := publish(prefix)
	passing.Forwards = append(passing.Forwards, nat.Forward{Name: "passing", Source: at(wanAddr["4"], 9000), Target: nat.Target{Addr: addrA["4"], Prefix: 32, Port: 8080}})
	apply(tb, c, publish(prefix))
	f, err := n.l.Open(nattest.Dialer{Network: "tcp"}, at(wanAddr["4"], 5000))
	require.NoError(tb, err)
	defer f.Close()
	_, err = f.Seen(time.Second)
	require.NoError(tb, err)
	r := randomSource(1)
	run := func(changes int) {
		for i := range changes {
			if i%100 == 50 {
				apply(tb, c, passing)
				_, err := n.l.Ask(nattest.Dialer{Network: "udp"}, at(wanAddr["4"], 9000))
				require.NoError(tb, err)
			}
			apply(tb, c, changing(r, 30))
		}
		apply(tb, c, publish(prefix))
	}
	measure := func() (h holdings) {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		list, err := os.ReadDir("/proc/self/fd")
		require.NoError(tb, err)
		flows := strings.Count(n.s.Run("conntrack", "-L", "-p", "udp"), "dport=9000")
		return holdings{m.HeapAlloc, len(list), runtime.NumGoroutine(), n.s.Ruleset(), flows}
	}
	run(60)
	before = measure()
	run(changes)
	after = measure()
	require.NoError(tb, f.Echo("alive after all changes", time.Second))
	require.Equal(tb, before.rules, after.rules)
	require.Zero(tb, after.flows, "flows of a forward that went")
	require.Less(tb, after.heap, before.heap+1<<20)
	return before, after
}

// TestNothingLeaks makes 50 random changes, or more with -changes.
func TestNothingLeaks(t *testing.T) {
	before, after := leak(t, 50**changes)
	t.Logf("%d changes: heap %d -> %d bytes, descriptors %d -> %d, goroutines %d -> %d", 50**changes,
		before.heap, after.heap, before.fds, after.fds, before.goroutines, after.goroutines)
	require.LessOrEqual(t, after.fds, before.fds)
	tick := time.NewTicker(20 * time.Millisecond) // those of the last connections may still be on their way out
	defer tick.Stop()
	for range 500 {
		if after.goroutines <= before.goroutines {
			break
		}
		<-tick.C
		after.goroutines = runtime.NumGoroutine()
	}
	require.LessOrEqual(t, after.goroutines, before.goroutines)
}

// BenchmarkChanges makes 10,000 random changes and reports what the process
// holds more of afterwards; elements and flows must be the same.
func BenchmarkChanges(b *testing.B) {
	const changes = 10000
	for b.Loop() {
		start := time.Now()
		before, after := leak(b, changes)
		b.ReportMetric(float64(int64(after.heap)-int64(before.heap)), "heap-bytes")
		b.ReportMetric(float64(after.fds-before.fds), "descriptors")
		b.ReportMetric(float64(after.goroutines-before.goroutines), "goroutines")
		b.ReportMetric(ms(time.Since(start))/changes, "ms/change")
	}
	b.ReportMetric(0, "ns/op")
}
