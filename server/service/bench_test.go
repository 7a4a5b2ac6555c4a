package service_test

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// BenchmarkRoundTrip measures effects from Node inside a service to the server
// and back, one after another. The bar is a median of 1 ms.
func BenchmarkRoundTrip(b *testing.B) {
	l := newLab(b)
	l.start()
	l.install(build(b, testPackage{ID: "alpha", Port: 18080}))
	l.healthy("alpha")
	var result struct{ Message string }
	for b.Loop() {
		l.json("POST", "/v1/packages/alpha/actions/measure/runs", `{}`, 200, &result)
	}
	var micros struct{ Echo, Status, Health [3]float64 } // median, 99 of 100, least
	require.NoError(b, json.Unmarshal([]byte(result.Message), &micros))
	for name, m := range map[string][3]float64{"echo": micros.Echo, "get-status": micros.Status, "set-health": micros.Health} {
		fmt.Printf("  round trip of %-12s median %6.0f µs, least %5.0f, 99 of 100 within %6.0f; of the bar of 1,000 µs %.2f\n", name, m[0], m[2], m[1], m[0]/1000)
	}
	b.ReportMetric(micros.Echo[0], "µs-median")
}

// BenchmarkSubscriptions measures what 1,000 subscriptions cost a server while
// nothing happens: its processor time beside that without any.
func BenchmarkSubscriptions(b *testing.B) {
	l := newLab(b)
	l.start()
	l.install(build(b, testPackage{ID: "alpha", Port: 18080}))
	l.healthy("alpha")
	const span = 15 * time.Second
	idle := func() time.Duration {
		start := l.cpu()
		<-time.After(span)
		return l.cpu() - start
	}
	for range b.N {
		<-time.After(3 * time.Second)
		without := idle()
		for i := range 1000 {
			_, e := l.effect("alpha", "get-host-info", map[string]any{"hostId": "ui-multi", "callback": 1_000_000 + i})
			require.Nil(b, e)
		}
		<-time.After(3 * time.Second)
		with := idle()
		fmt.Printf("  processor time in %s: %s without subscriptions, %s with 1,000: %.3f %% of a core more\n", span, without, with, 100*(with-without).Seconds()/span.Seconds())
	}
}

// cpu is the processor time of the server so far.
func (l *lab) cpu() time.Duration {
	l.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", l.cmd.Process.Pid))
	require.NoError(l.t, err)
	f := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	return time.Duration(user+system) * 10 * time.Millisecond
}
