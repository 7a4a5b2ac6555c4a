package nat_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/selfstead/selfstead/nat"
	"github.com/selfstead/selfstead/nat/nattest"
)

// connects opens and resets n TCP connections one after another, and sends n
// UDP datagrams from new ports each waiting for its answer; it returns the
// processor time that each took at both ends and in between, which the machine's
// other work does not distort.
func connects(tb testing.TB, from *nattest.Space, to netip.AddrPort, n int) (tcp, udp time.Duration) {
	tb.Helper()
	addr := &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
	once := func(typ int) error {
		fd, err := unix.Socket(unix.AF_INET, typ|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := unix.Connect(fd, addr); err != nil {
			return err
		}
		if typ == unix.SOCK_STREAM {
			return unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		}
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 2}); err != nil {
			return err
		}
		if _, err := unix.Write(fd, []byte("?")); err != nil {
			return err
		}
		_, err = unix.Read(fd, make([]byte, 64))
		return err
	}
	from.Do(func() error {
		for i, typ := range []int{unix.SOCK_STREAM, unix.SOCK_DGRAM} {
			start := cpuTime(tb)
			for range n {
				if err := once(typ); err != nil {
					return err
				}
			}
			*[]*time.Duration{&tcp, &udp}[i] = cpuTime(tb) - start
		}
		return nil
	})
	return tcp, udp
}

// BenchmarkConnections compares new connections through the only forward with
// those through the last of 10,000, and, for scale, through the last of a
// linear chain of the same rules. Rounds alternate, so that both see the same
// machine; the best of each counts.
func BenchmarkConnections(b *testing.B) {
	nattest.Require(b, "nft", "conntrack")
	n := newSite(b, "point-to-point")
	n.a.Do(func() error {
		l, err := net.Listen("tcp4", "10.0.3.5:8080")
		if err != nil {
			return err
		}
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				c.Close()
			}
		}()
		b.Cleanup(func() { l.Close() })
		u, err := net.ListenPacket("udp4", "10.0.3.5:8080")
		if err != nil {
			return err
		}
		go func() {
			buf := make([]byte, 64)
			for {
				m, from, err := u.ReadFrom(buf)
				if err != nil {
					return
				}
				_, _ = u.WriteTo(buf[:m], from)
			}
		}()
		b.Cleanup(func() { u.Close() })
		return nil
	})
	last := nat.Forward{Name: "last", Source: at(wanAddr["4"], 5000), Target: nat.Target{Addr: addrA["4"], Prefix: 32, Port: 8080}}
	limited := last
	limited.AllowFrom = []netip.Prefix{netip.PrefixFrom(lanHost["4"], 24)}
	with := func(kind string, f nat.Forward) nat.Config {
		cfg := many(9999, kind)
		cfg.Forwards = append(cfg.Forwards, f)
		return cfg
	}
	var linear strings.Builder
	linear.WriteString("table ip linear {\nchain p {\ntype nat hook prerouting priority -100\n")
	for _, f := range many(9999, "open").Forwards {
		for _, proto := range networks {
			fmt.Fprintf(&linear, "ip daddr %s %s dport %d dnat to %s:%d\n", f.Source.Addr(), proto, f.Source.Port(), f.Target.Addr, f.Target.Port)
		}
	}
	for _, proto := range networks {
		fmt.Fprintf(&linear, "ip daddr 203.0.113.7 %s dport 5000 dnat to 10.0.3.5:8080\n", proto)
	}
	linear.WriteString("}\n}\n")

	ctx := context.Background()
	c := controller(b, n.s)
	states := []struct {
		name string
		rate int // connections a round
		set  func()
	}{
		{"1", 500, func() { apply(b, c, nat.Config{Forwards: []nat.Forward{last}}) }},
		{"10000", 500, func() { apply(b, c, with("open", last)) }},
		{"10000-ranges", 500, func() { apply(b, c, with("range", last)) }},
		{"10000-restricted", 500, func() { apply(b, c, with("restricted", limited)) }},
		{"10000-linear", 30, func() {
			require.NoError(b, c.CleanUp(ctx))
			n.s.Nft(linear.String())
		}},
	}
	best := map[string][2]float64{}
	for b.Loop() {
		for _, st := range states {
			st.set()
			for range 12 {
				tcp, udp := connects(b, n.l, last.Source, st.rate)
				r := best[st.name]
				best[st.name] = [2]float64{max(r[0], float64(st.rate)/tcp.Seconds()), max(r[1], float64(st.rate)/udp.Seconds())}
			}
			if st.name == "10000-linear" {
				n.s.Nft("delete table ip linear\n")
				n.s.Run("conntrack", "-F") // flows that another program translated are not ours to let through
			}
		}
	}
	b.ReportMetric(best["1"][0], "tcp/cpu-s")
	b.ReportMetric(best["1"][1], "udp/cpu-s")
	for _, st := range states[1:] {
		b.ReportMetric(best[st.name][0]/best["1"][0], "tcp-ratio-"+st.name)
		b.ReportMetric(best[st.name][1]/best["1"][1], "udp-ratio-"+st.name)
	}
	b.ReportMetric(0, "ns/op")
}

// TestNothingLeaks makes many random changes and compares memory, descriptors,
// threads, elements and flows before and after.
func TestNothingLeaks(t *testing.T) {
	n := newSite(t, "point-to-point")
	for _, fam := range families {
		n.a.Serve(at(addrA[fam], 8080))
	}
	c := controller(t, n.s)
	prefix := map[string]int{"4": 32, "6": 128}
	apply(t, c, publish(prefix))
	clean := n.s.Ruleset()
	f, err := n.l.Open(nattest.Dialer{Network: "tcp"}, at(wanAddr["4"], 5000))
	require.NoError(t, err)
	defer f.Close()
	_, err = f.Seen(time.Second)
	require.NoError(t, err)
	r := randomSource(1)
	run := func(changes int) {
		for range changes {
			apply(t, c, changing(r, 30))
		}
		apply(t, c, publish(prefix))
	}
	measure := func() (heap uint64, fds, goroutines int) {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		list, err := os.ReadDir("/proc/self/fd")
		require.NoError(t, err)
		return m.HeapAlloc, len(list), runtime.NumGoroutine()
	}
	run(20)
	heap, fds, goroutines := measure()
	run(50 * *changes)
	heap2, fds2, goroutines2 := measure()
	t.Logf("%d changes: heap %d -> %d bytes, descriptors %d -> %d, goroutines %d -> %d", 50**changes, heap, heap2, fds, fds2, goroutines, goroutines2)
	require.LessOrEqual(t, fds2, fds)
	require.LessOrEqual(t, goroutines2, goroutines)
	require.Less(t, heap2, heap+1<<20)
	require.Equal(t, clean, n.s.Ruleset())
	require.NoError(t, f.Echo("alive after all changes", time.Second))
}
