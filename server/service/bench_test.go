package service_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/selfstead/selfstead/server/operation"
	"github.com/stretchr/testify/require"
	"github.com/zeebo/blake3"
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

// BenchmarkAdoption measures a server that comes back after SIGKILL with ten
// services running. The bars are 300 ms to the first answer of the API and 1 s
// until all are adopted, with no request to the services refused.
func BenchmarkAdoption(b *testing.B) {
	l := newLab(b)
	l.start()
	const services = 10
	for i := range services {
		l.install(build(b, testPackage{ID: fmt.Sprint("service", i), Port: 18080 + i}))
	}
	for i := range services {
		l.healthy(fmt.Sprint("service", i))
	}
	born := map[int]string{}
	page := func(i int) string { return fmt.Sprintf("http://%s:%d", serverAddr, 18080+i) }
	for i := range services {
		born[i] = l.get(page(i) + "/born")
	}
	answered, adopted := time.Hour, time.Hour
	for b.Loop() {
		l.kill()
		stop, ended := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(ended)
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := l.fetch(l.lan, page(i%services)+"/"); err != nil {
					b.Errorf("a request was refused: %v", err)
					return
				}
			}
		}()
		start := time.Now()
		l.launch()
		for status := 0; status != http.StatusOK; {
			if resp, err := l.http.Get("http://stead/readyz"); err == nil {
				resp.Body.Close()
				if status == 0 {
					answered = min(answered, time.Since(start))
				}
				status = resp.StatusCode
			}
			<-time.After(2 * time.Millisecond)
		}
		adopted = min(adopted, time.Since(start))
		close(stop)
		<-ended
		for i := range services {
			require.Equal(b, born[i], l.get(page(i)+"/born"))
		}
	}
	fmt.Printf("  ten services after SIGKILL: the API answers after %d ms, of the bar of 300 ms %.2f; all are adopted after %d ms, of the bar of 1,000 ms %.2f\n",
		answered.Milliseconds(), answered.Seconds()/0.3, adopted.Milliseconds(), adopted.Seconds())
}

// BenchmarkInstall measures the install of a package of 50 MB against copying
// and hashing it plus the start of the same guest from a small package. The bar
// is 1.5 times that.
func BenchmarkInstall(b *testing.B) {
	l := newLab(b)
	l.start()
	extra := make([]byte, 50<<20)
	rand.NewChaCha8([32]byte{}).Read(extra)
	large := build(b, testPackage{ID: "alpha", Port: 18080, Files: map[string][]byte{"extra.bin": extra}})
	small := build(b, testPackage{ID: "alpha", Port: 18080})
	install := func(file []byte) (upload, run time.Duration) {
		start := time.Now()
		op := l.sideload(file)
		upload = time.Since(start)
		start = time.Now()
		require.Equal(b, operation.Succeeded, l.finish(op.ID).Status)
		l.reach("alpha", "running")
		run = time.Since(start)
		l.healthy("alpha")
		l.json("DELETE", "/v1/packages/alpha", "", 202, &op)
		require.Equal(b, operation.Succeeded, l.finish(op.ID).Status)
		return upload, run
	}
	least := func(d *time.Duration, now time.Duration) { *d = min(*d, now) }
	copied, guest, upload, run := time.Hour, time.Hour, time.Hour, time.Hour
	for b.Loop() {
		start := time.Now()
		f, err := os.Create(filepath.Join(l.dir, "copy"))
		require.NoError(b, err)
		h := blake3.New()
		_, err = io.Copy(io.MultiWriter(f, h), bytes.NewReader(large))
		require.NoError(b, err)
		require.NoError(b, f.Sync())
		require.NoError(b, f.Close())
		least(&copied, time.Since(start))
		_, t := install(small)
		least(&guest, t)
		u, t := install(large)
		least(&upload, u)
		least(&run, t)
	}
	fmt.Printf("  install of 50 MB: upload %d ms, then to running %d ms; copy and hash %d ms, guest %d ms: upload and run are %.2f times that, of the bar of 1.5 %.2f\n",
		upload.Milliseconds(), run.Milliseconds(), copied.Milliseconds(), guest.Milliseconds(),
		(upload+run).Seconds()/(copied+guest).Seconds(), (upload+run).Seconds()/(copied+guest).Seconds()/1.5)
}
