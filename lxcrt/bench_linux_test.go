package lxcrt_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/selfstead/selfstead/lxcrt"
	"github.com/selfstead/selfstead/lxcrt/lxcrttest"
)

func TestMain(m *testing.M) {
	if job := os.Getenv(victimKey); job != "" {
		victim(job)
		return
	}
	lxcrttest.Main(m)
}

// median of some durations, in milliseconds.
func median(d []time.Duration) float64 {
	slices.Sort(d)
	return float64(d[len(d)/2].Microseconds()) / 1000
}

// BenchmarkLifeCycle reports medians: create to running with id-mapped squashfs,
// overlay and network; a program executed inside; stop and destroy of a container
// that ends when asked. Beside it, in turn, lxc-start of a bare folder without
// network, and the ratio of the two.
func BenchmarkLifeCycle(b *testing.B) {
	lab := lxcrttest.NewLab(b)
	ctx := context.Background()
	// Another container holds the image mounted, as it is on a used server.
	lab.Start(lab.Spec(""))
	bare := newBare(b)
	spec := lab.Spec("trap 'exit 0' TERM; echo >/ready; while :; do sleep 1000 & wait $!; done")
	var create, program, stop, plain []time.Duration
	for b.Loop() {
		plain = append(plain, bare.start(b))
		bare.stop(b)
		t0 := time.Now()
		c, err := lab.Create(ctx, spec)
		if err != nil {
			b.Fatal(err)
		}
		if err := c.Start(ctx); err != nil {
			b.Fatal(err)
		}
		create = append(create, time.Since(t0))
		lxcrttest.MustSh(b, c, "until [ -e /ready ]; do sleep 0.01; done")
		t0 = time.Now()
		p, err := c.Exec(ctx, lxcrt.ExecSpec{Argv: []string{"/bin/true"}, Env: []string{"A=b"}})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := p.Wait(); err != nil {
			b.Fatal(err)
		}
		program = append(program, time.Since(t0))
		t0 = time.Now()
		if err := c.Stop(ctx, lxcrt.StopOptions{}); err != nil {
			b.Fatal(err)
		}
		if err := c.Destroy(ctx); err != nil {
			b.Fatal(err)
		}
		stop = append(stop, time.Since(t0))
	}
	b.ReportMetric(median(create), "ms-create-to-running")
	b.ReportMetric(median(plain), "ms-lxc-start-bare")
	b.ReportMetric(median(create)/median(plain), "times-lxc-start")
	b.ReportMetric(median(program), "ms-exec-true")
	b.ReportMetric(median(stop), "ms-stop-destroy")
}

// bare is a container of plain LXC: a folder as root, no network, no overlay.
type bare struct{ dir string }

func newBare(b *testing.B) bare {
	if _, err := exec.LookPath("lxc-start"); err != nil {
		b.Skip("lxc-start is not installed")
	}
	dir := b.TempDir()
	root, _ := lxcrttest.Rootfs(b)
	for p := dir; p != "/" && strings.HasPrefix(p, os.TempDir()+"/"); p = filepath.Dir(p) {
		if err := os.Chmod(p, 0o755); err != nil {
			b.Fatal(err)
		}
	}
	place := filepath.Join(dir, "bare")
	if err := os.Mkdir(place, 0o755); err != nil {
		b.Fatal(err)
	}
	config := "lxc.uts.name = bare\nlxc.net.0.type = empty\nlxc.rootfs.path = dir:" + root + "\nlxc.mount.auto = proc:rw sys:rw\n" +
		"lxc.init.cmd = /bin/sleep 1000\nlxc.tty.max = 0\nlxc.console.path = none\n" +
		"lxc.cgroup.dir.monitor = lxcrtbench/monitor\nlxc.cgroup.dir.monitor.pivot = lxcrtbench/pivot\nlxc.cgroup.dir.container = lxcrtbench/payload\n"
	if err := os.WriteFile(filepath.Join(place, "config"), []byte(config), 0o644); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		for p := filepath.Join("/run/lxc/lock", dir, ".bare"); strings.HasPrefix(p, "/run/lxc/lock/"); p = filepath.Dir(p) {
			_ = os.Remove(p)
		}
		for _, d := range []string{"monitor", "pivot/lxc.pivot", "pivot", "payload", ""} {
			groups, _ := filepath.Glob(filepath.Join("/sys/fs/cgroup/*/lxcrtbench", d))
			for _, g := range groups {
				_ = os.Remove(g)
			}
		}
	})
	return bare{dir}
}

func (p bare) start(b *testing.B) time.Duration {
	t0 := time.Now()
	if out, err := exec.Command("lxc-start", "-P", p.dir, "-n", "bare", "-d").CombinedOutput(); err != nil {
		b.Fatalf("lxc-start: %v: %s", err, out)
	}
	return time.Since(t0)
}

func (p bare) stop(b *testing.B) {
	if out, err := exec.Command("lxc-stop", "-P", p.dir, "-n", "bare", "-k").CombinedOutput(); err != nil {
		b.Fatalf("lxc-stop: %v: %s", err, out)
	}
}

// BenchmarkFifty starts fifty containers at once, and reports how long the last
// took.
func BenchmarkFifty(b *testing.B) {
	lab := lxcrttest.NewLab(b)
	ctx := context.Background()
	const n = 50
	for b.Loop() {
		containers := make([]*lxcrt.Container, n)
		for i := range containers {
			c, err := lab.Create(ctx, lab.Spec(""))
			if err != nil {
				b.Fatal(err)
			}
			containers[i] = c
		}
		t0 := time.Now()
		var wg sync.WaitGroup
		for _, c := range containers {
			wg.Go(func() {
				if err := c.Start(ctx); err != nil {
					b.Error(err)
				}
			})
		}
		wg.Wait()
		b.ReportMetric(float64(time.Since(t0).Milliseconds()), "ms-50-at-once")
		b.ReportMetric(float64(idlePSS(b, containers))/n/1024, "KiB-idle-pss")
		b.ReportMetric(float64(loggedPSS(b, lab)/1024), "KiB-idle-pss-with-log")
		for _, c := range containers {
			wg.Go(func() {
				if err := c.Stop(ctx, lxcrt.StopOptions{Grace: -1}); err != nil {
					b.Error(err)
				}
				if err := c.Destroy(ctx); err != nil {
					b.Error(err)
				}
			})
		}
		wg.Wait()
	}
}

// loggedPSS is what each of ten more containers takes together with the processes
// that keep its log.
func loggedPSS(b *testing.B, lab *lxcrttest.Lab) int64 {
	const n = 10
	containers := make([]*lxcrt.Container, n)
	for i := range containers {
		s := lab.Spec("")
		s.Log = &lxcrt.Log{}
		containers[i] = lab.Start(s)
	}
	sum := idlePSS(b, containers)
	for _, c := range containers {
		text, err := os.ReadFile(filepath.Join(c.Dir(), "run.json"))
		if err != nil {
			b.Fatal(err)
		}
		var rec struct{ Logger struct{ PID int } }
		if err := json.Unmarshal(text, &rec); err != nil || rec.Logger.PID == 0 {
			b.Fatalf("no logger in %s: %v", text, err)
		}
		pids := []int{rec.Logger.PID}
		kids, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", rec.Logger.PID))
		if err != nil {
			b.Fatal(err)
		}
		for f := range strings.FieldsSeq(string(kids)) {
			pid, err := strconv.Atoi(f)
			if err != nil {
				b.Fatal(err)
			}
			pids = append(pids, pid)
		}
		if len(pids) != 2 {
			b.Fatalf("processes of a logger: %v", pids)
		}
		for _, pid := range pids {
			sum += pss(b, pid)
		}
	}
	return sum / n
}

// idlePSS is the proportional set size of all monitors and PIDs 1.
func idlePSS(b *testing.B, containers []*lxcrt.Container) int64 {
	var sum int64
	for _, c := range containers {
		var ppid int
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", c.PID()))
		if err != nil {
			b.Fatal(err)
		}
		if _, err := fmt.Sscanf(string(stat[strings.LastIndexByte(string(stat), ')')+3:]), "%d", &ppid); err != nil {
			b.Fatal(err)
		}
		for _, pid := range []int{c.PID(), ppid} {
			sum += pss(b, pid)
		}
	}
	return sum
}

// pss is the proportional set size of a process, in bytes.
func pss(b *testing.B, pid int) int64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		b.Fatal(err)
	}
	for l := range strings.Lines(string(text)) {
		var kb int64
		if _, err := fmt.Sscanf(l, "Pss: %d kB", &kb); err == nil {
			return kb << 10
		}
	}
	b.Fatalf("no Pss of %d", pid)
	return 0
}
