package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// BenchmarkIdleServices runs 20 services (SERVICES sets another number) made
// with the SDK and measures what the server needs while nothing happens, and
// what each service holds. The bars are 120 MiB resident and 1 % of a core.
func BenchmarkIdleServices(b *testing.B) {
	count := 20
	if n, err := strconv.Atoi(os.Getenv("SERVICES")); err == nil {
		count = n
	}
	l := newLab(b)
	s := startServer(b, l, filepath.Join(b.TempDir(), "state"))
	a := claim(b, s)
	key := filepath.Join(b.TempDir(), "key.pem")
	out, err := exec.Command(os.Getenv("STEAD_BIN"), "s9pk", "key", "new", key).CombinedOutput()
	require.NoError(b, err, "%s", out)
	for i := range count {
		id := fmt.Sprintf("%s-%d", example, i)
		file := filepath.Join(b.TempDir(), "p.s9pk")
		out, err := exec.Command(os.Getenv("STEAD_BIN"), "s9pk", "edit", "manifest", os.Getenv("STEAD_EXAMPLE"), `.id = "`+id+`"`, "--key", key, "-o", file).CombinedOutput()
		require.NoError(b, err, "%s", out)
		_, last := a.sideload(b, file)
		require.Equal(b, "succeeded", last.Status, "%+v", last.Problem)
		require.NoError(b, os.Remove(file))
	}
	for i := range count {
		a.waitState(b, fmt.Sprintf("%s-%d", example, i), "running")
	}
	<-time.After(45 * time.Second) // each has come to its idle pace
	pid := s.cmd.Process.Pid
	for range b.N {
		const span = 30 * time.Second
		before := processorTime(b, pid)
		<-time.After(span)
		used := processorTime(b, pid) - before
		rss, share := resident(b, pid), 100*used.Seconds()/span.Seconds()
		fmt.Printf("  %d idle services: server resident %.1f MiB, of the bar of 120 MiB %.2f; %.2f %% of a core, of the bar of 1 %% %.2f\n", count, rss, rss/120, share, share)
		b.ReportMetric(rss, "MiB-resident")
	}
	var sum float64
	nodes := 0
	for _, p := range runtimes(b, pid) {
		sum += resident(b, p)
		nodes++
	}
	if nodes > 0 {
		fmt.Printf("  the Node of a service: %.1f MiB resident\n", sum/float64(nodes))
	}
}

// processorTime is what a process has used so far.
func processorTime(t testing.TB, pid int) time.Duration {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	require.NoError(t, err)
	f := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	return time.Duration(user+system) * 10 * time.Millisecond
}

// runtimes are the Node processes of the server's containers: their network is
// none of its own, and their program is the runtime.
func runtimes(t testing.TB, server int) (pids []int) {
	t.Helper()
	folder, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", server))
	require.NoError(t, err)
	dir := ""
	args := strings.Split(string(folder), "\x00")
	for i, arg := range args {
		if arg == "--dir" {
			dir = args[i+1]
		}
	}
	names := map[string]bool{}
	containers, _ := filepath.Glob(filepath.Join(dir, "containers", "*", "spec.json"))
	for _, c := range containers {
		names[filepath.Base(filepath.Dir(c))] = true
	}
	processes, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range processes {
		text, _ := os.ReadFile(p)
		host, _ := os.ReadFile(filepath.Join(filepath.Dir(p), "root/etc/hostname"))
		if strings.HasPrefix(string(text), "/usr/bin/node\x00") && names[strings.TrimSpace(string(host))] {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(p)))
			pids = append(pids, pid)
		}
	}
	return pids
}
