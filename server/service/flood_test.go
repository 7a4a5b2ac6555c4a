package service_test

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A package that asks without end, by every means the socket gives it, is served
// within bounds; the server stays small and others are served as before.
func TestFloods(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.start()
	l.install(build(t, testPackage{ID: "alpha", Port: 18080}))
	l.install(build(t, testPackage{ID: "evil", Port: 18081}))
	l.healthy("alpha")
	l.healthy("evil")
	born := l.get("http://" + serverAddr + ":18080/born")
	before := l.resident()

	var stop atomic.Bool
	var floods sync.WaitGroup
	flood := func(n int, send func(c net.Conn, i int)) {
		var conns []net.Conn
		for range n {
			conns = append(conns, l.hostSocket("evil"))
		}
		for _, c := range conns {
			floods.Go(func() {
				defer c.Close()
				for i := 0; !stop.Load(); i++ {
					c.SetDeadline(time.Now().Add(time.Second))
					send(c, i)
				}
			})
		}
	}
	ask := func(c net.Conn, line string) {
		if _, err := c.Write([]byte(line + "\n")); err == nil {
			c.Read(make([]byte, 64<<10))
		}
	}
	flood(20, func(c net.Conn, i int) { // subscriptions
		ask(c, fmt.Sprintf(`{"id":1,"method":"get-status","params":{"packageId":"alpha","callback":%d}}`, i))
	})
	flood(10, func(c net.Conn, i int) { // writes
		ask(c, fmt.Sprintf(`{"id":1,"method":"set-health","params":{"id":"h%d","name":"n","result":"loading","message":"%d"}}`, i%400, i))
	})
	flood(4, func(c net.Conn, i int) { c.Write([]byte("[" + strings.Repeat("1,", 1<<20) + "1]\n")) }) // amplification
	flood(10, func(c net.Conn, _ int) { c.Write([]byte(strings.Repeat("[", 1<<20))) })                // lines without end
	flood(50, func(c net.Conn, _ int) {                                                               // answers that nobody reads
		c.Write([]byte(strings.Repeat(`{"id":1,"method":"get-service-manifest","params":{"packageId":"alpha"}}`+"\n", 50)))
	})
	held := make([]net.Conn, 0, 400)
	for range 400 {
		held = append(held, l.hostSocket("evil"))
	}

	peak, slowest := before, time.Duration(0)
	for end := time.Now().Add(4 * time.Second); time.Now().Before(end); {
		start := time.Now()
		result, e := l.effect("alpha", "echo", map[string]any{"message": "hello"})
		require.Nil(t, e)
		require.Equal(t, `"hello"`, string(result))
		_, e = l.effect("alpha", "set-health", map[string]any{"id": "web", "name": "Web", "result": "loading", "message": strconv.Itoa(int(start.UnixNano()))})
		require.Nil(t, e)
		slowest = max(slowest, time.Since(start))
		peak = max(peak, l.resident())
	}
	t.Logf("resident %d MiB before, %d at the most; the slowest answer to another %s", before, peak, slowest)
	require.Less(t, slowest, 3*time.Second)
	require.Less(t, peak, before+400)
	stop.Store(true)
	for _, c := range held {
		c.Close()
	}
	floods.Wait()
	p, _ := l.pkg("evil")
	require.LessOrEqual(t, len(p.Health), 256)
	l.await("the package itself is served again", 20*time.Second, func() bool {
		_, e := l.effect("evil", "echo", map[string]any{"message": "x"})
		return e == nil
	})
	require.Equal(t, born, l.get("http://"+serverAddr+":18080/born"))
	l.healthy("alpha")
}

// resident is how much memory the server holds, in MiB.
func (l *lab) resident() int {
	l.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", l.cmd.Process.Pid))
	require.NoError(l.t, err)
	_, rest, ok := strings.Cut(string(text), "VmRSS:")
	require.True(l.t, ok)
	kib, err := strconv.Atoi(strings.Fields(rest)[0])
	require.NoError(l.t, err)
	return kib >> 10
}
