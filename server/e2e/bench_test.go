package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// BenchmarkUploadToHealthy measures from the last byte of an upload to the
// first healthy answer of the page, split by phase; the base image is warm. Run
// it with -benchtime 5x. The bar is 3 s on 2 cores.
func BenchmarkUploadToHealthy(b *testing.B) {
	l := newLab(b)
	s := startServer(b, l, filepath.Join(b.TempDir(), "state"))
	a := claim(b, s)
	sum := map[string]time.Duration{}
	var order []string
	note := func(phase string, d time.Duration) {
		if _, ok := sum[phase]; !ok {
			order = append(order, phase)
		}
		sum[phase] += d
	}
	b.ResetTimer()
	for range b.N {
		b.StopTimer()
		f, err := os.Open(os.Getenv("STEAD_EXAMPLE"))
		require.NoError(b, err)
		var o operation
		a.want(b, 202, "POST", "/v1/packages:sideload", f, &o)
		f.Close()
		start := time.Now()
		b.StartTimer()
		last, phase := start, "upload"
		err = a.stream(context.Background(), "/v1/operations/"+o.ID+"/events", "", func(e event) bool {
			var o operation
			require.NoError(b, json.Unmarshal(e.Data, &o))
			if o.Progress.Phase != phase || e.Name == "done" {
				note("after "+phase, time.Since(last))
				last, phase = time.Now(), o.Progress.Phase
			}
			if e.Name == "done" {
				require.Equal(b, "succeeded", o.Status, "%+v", o.Problem)
			}
			return e.Name != "done"
		})
		require.NoError(b, err)
		url, c := a.page(b, example, serverAddr), client(l.lan)
		eventually(b, 30*time.Second, "the page", func() error { _, err := get(c, url); return err })
		note("to first page", time.Since(last))
		last = time.Now()
		a.waitState(b, example, "running")
		note("to health", time.Since(last))
		note("TOTAL", time.Since(start))
		b.StopTimer()
		a.want(b, 202, "DELETE", "/v1/packages/"+example, nil, &o)
		a.follow(b, o.ID)
		b.StartTimer()
	}
	b.StopTimer()
	for _, phase := range order {
		fmt.Printf("  %-24s %8.0f ms\n", phase, float64(sum[phase].Milliseconds())/float64(b.N))
	}
	fmt.Printf("  of the bar of 3,000 ms   %8.2f\n", sum["TOTAL"].Seconds()/float64(b.N)/3)
}

// BenchmarkResident measures the server's resident memory with one service, ten
// seconds after a log-in. The bar is 60 MiB.
func BenchmarkResident(b *testing.B) {
	l := newLab(b)
	s := startServer(b, l, filepath.Join(b.TempDir(), "state"))
	a := claim(b, s)
	_, last := a.sideload(b, os.Getenv("STEAD_EXAMPLE"))
	require.Equal(b, "succeeded", last.Status, "%+v", last.Problem)
	a.waitState(b, example, "running")
	for range b.N {
		a.login(b)
		<-time.After(10 * time.Second)
	}
	rss := resident(b, s.cmd.Process.Pid)
	fmt.Printf("  resident, one service, 10 s after a log-in: %.1f MiB, of the bar of 60 MiB %.2f\n", rss, rss/60)
	b.ReportMetric(rss, "MiB-resident")
}

// resident is VmRSS of a process in MiB.
func resident(t testing.TB, pid int) float64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	require.NoError(t, err)
	for _, line := range strings.Split(string(text), "\n") {
		if v, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, err := strconv.Atoi(strings.Fields(v)[0])
			require.NoError(t, err)
			return float64(kb) / 1024
		}
	}
	t.Fatal("no VmRSS")
	return 0
}
