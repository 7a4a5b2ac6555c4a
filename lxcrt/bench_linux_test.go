package lxcrt_test

import (
	"context"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/selfstead/selfstead/lxcrt"
	"github.com/selfstead/selfstead/lxcrt/lxcrttest"
)

func TestMain(m *testing.M) { lxcrttest.Main(m) }

// median of some durations, in milliseconds.
func median(d []time.Duration) float64 {
	slices.Sort(d)
	return float64(d[len(d)/2].Microseconds()) / 1000
}

// BenchmarkLifeCycle reports medians: create to running, a program executed
// inside, stop and destroy.
func BenchmarkLifeCycle(b *testing.B) {
	lab := lxcrttest.NewLab(b)
	ctx := context.Background()
	// Another container holds the image mounted, as it is on a used server.
	lab.Start(lab.Spec(""))
	var create, start, exec, stop []time.Duration
	for b.Loop() {
		s := lab.Spec("")
		s.Addr4, s.Addr6 = lab.Options.Subnet4.Addr().Next().Next().Next().Next(), lab.Options.Subnet6.Addr().Next().Next().Next().Next()
		t0 := time.Now()
		c, err := lab.Create(ctx, s)
		if err != nil {
			b.Fatal(err)
		}
		t1 := time.Now()
		if err := c.Start(ctx); err != nil {
			b.Fatal(err)
		}
		t2 := time.Now()
		lxcrttest.MustSh(b, c, "true") // and PID 1 has set its trap by then
		t3 := time.Now()
		p, err := c.Exec(ctx, lxcrt.ExecSpec{Argv: []string{"/bin/true"}, Env: []string{"A=b"}, Stdout: os.Stderr})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := p.Wait(); err != nil {
			b.Fatal(err)
		}
		t4 := time.Now()
		if err := c.Stop(ctx, lxcrt.StopOptions{}); err != nil {
			b.Fatal(err)
		}
		if err := c.Destroy(ctx); err != nil {
			b.Fatal(err)
		}
		create, start, exec, stop = append(create, t2.Sub(t0)), append(start, t2.Sub(t1)), append(exec, t4.Sub(t3)), append(stop, time.Since(t4))
	}
	b.ReportMetric(median(create), "ms-create-to-running")
	b.ReportMetric(median(start), "ms-start")
	b.ReportMetric(median(exec), "ms-exec-true")
	b.ReportMetric(median(stop), "ms-stop-destroy")
}
