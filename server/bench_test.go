package server_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Each benchmark has a bare net/http handler beside it that gives the same
// bytes to the same client: the difference is what the API costs.

func benchGet(b *testing.B, url, token string) {
	b.Helper()
	req, err := http.NewRequestWithContext(b.Context(), "GET", url, nil)
	require.NoError(b, err)
	req.Header.Set("Authorization", "Bearer "+token)
	for b.Loop() {
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			b.Fatal(err)
		}
		io.Copy(io.Discard, res.Body) //nolint:errcheck // compared below
		res.Body.Close()
		if res.StatusCode != 200 {
			b.Fatal(res.Status)
		}
	}
}

func BenchmarkRead(b *testing.B) {
	l := newLab(b)
	for _, path := range []string{"/v1/ping", "/v1/packages", "/v1/state"} {
		a := l.do("user", "GET", path, "")
		require.Equal(b, 200, a.status)
		text := []byte(a.body)
		bare := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Write(text) //nolint:errcheck // the client judges
		}))
		b.Run(strings.TrimPrefix(path, "/v1/")+"/bare", func(b *testing.B) { benchGet(b, bare.URL, l.token) })
		b.Run(strings.TrimPrefix(path, "/v1/")+"/api", func(b *testing.B) { benchGet(b, l.url+path, l.token) })
		bare.Close()
	}
}

// streams opens n streams and waits until each has had its first event.
func streams(b *testing.B, n int, address, path, token string) (conns []*bufio.Reader, done func()) {
	b.Helper()
	var closers []net.Conn
	for range n {
		c, err := net.Dial("tcp", address)
		require.NoError(b, err)
		closers = append(closers, c)
		fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n", path, token)
		conns = append(conns, bufio.NewReaderSize(c, 1024))
	}
	for _, r := range conns {
		awaitEvent(b, r)
	}
	return conns, func() {
		for _, c := range closers {
			c.Close()
		}
	}
}

func awaitEvent(b *testing.B, r *bufio.Reader) {
	for {
		line, err := r.ReadSlice('\n')
		if err != nil && err != bufio.ErrBufferFull {
			b.Error(err)
			return
		}
		if strings.HasPrefix(string(line), "data: ") {
			return
		}
	}
}

// all waits until every stream has had one more event.
func all(b *testing.B, conns []*bufio.Reader) {
	var wg sync.WaitGroup
	for part := range 4 {
		wg.Go(func() {
			for i := part; i < len(conns); i += 4 {
				awaitEvent(b, conns[i])
			}
		})
	}
	wg.Wait()
}

func heap() float64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapInuse + m.StackInuse)
}

const manyStreams = 1000

// BenchmarkStreams has 1,000 open state streams; one operation is one change
// that reaches all of them. KiB/stream counts both ends, server and client.
func BenchmarkStreams(b *testing.B) {
	b.Run("bare", func(b *testing.B) {
		var mu sync.Mutex
		next := make(chan struct{})
		text := []byte("id: 1\nevent: patch\ndata: {\"id\":1,\"patch\":[{\"op\":\"replace\",\"path\":\"\",\"value\":\"stopped\"}]}\n\n")
		ctx, cancel := context.WithCancel(b.Context())
		bare := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			for {
				mu.Lock()
				wake := next
				mu.Unlock()
				w.Write(text)            //nolint:errcheck // the client judges
				w.(http.Flusher).Flush() //nolint:errcheck // as above
				select {
				case <-wake:
				case <-ctx.Done():
					return
				}
			}
		}))
		defer bare.Close()
		defer cancel()
		before := heap()
		conns, done := streams(b, manyStreams, strings.TrimPrefix(bare.URL, "http://"), "/", "")
		defer done()
		size := heap() - before
		for b.Loop() {
			mu.Lock()
			close(next)
			next = make(chan struct{})
			mu.Unlock()
			all(b, conns)
		}
		b.ReportMetric(size/manyStreams/1024, "KiB/stream")
	})
	b.Run("api", func(b *testing.B) {
		l := newLab(b, func(l *lab) { l.heartbeat = 0 })
		before := heap()
		conns, done := streams(b, manyStreams, strings.TrimPrefix(l.url, "http://"), "/v1/state/events?pointer=/packageData/hello-world/desiredState", l.token)
		defer done()
		size := heap() - before
		worst, i := time.Duration(0), 0
		for b.Loop() {
			i++
			start := time.Now()
			require.NoError(b, l.services.SetDesired(b.Context(), "hello-world", []string{"running", "stopped"}[i%2], false))
			all(b, conns)
			worst = max(worst, time.Since(start))
		}
		b.ReportMetric(size/manyStreams/1024, "KiB/stream")
		b.ReportMetric(float64(worst.Microseconds())/1000, "ms/worst")
	})
}
