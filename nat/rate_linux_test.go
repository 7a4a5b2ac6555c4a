package nat_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
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
		if err := again(func() error { return unix.Connect(fd, addr) }); err != nil && err != unix.EISCONN {
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
		return again(func() error { _, err := unix.Read(fd, make([]byte, 64)); return err })
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

// again repeats a call that a signal of the runtime interrupted.
func again(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}

// answer accepts and closes TCP connections and sends datagrams back.
func answer(b *testing.B, host *nattest.Space, addr string) {
	host.Do(func() error {
		l, err := net.Listen("tcp4", addr)
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
		u, err := net.ListenPacket("udp4", addr)
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
}

// BenchmarkConnections compares new connections through the only forward of a
// kind with those through the last of 10,000 (bar: at least 0.9), that one with
// an open one, and, for scale, the last of a linear chain of the same rules.
// Rounds alternate, so that all see the same machine; the best of each counts.
func BenchmarkConnections(b *testing.B) {
	nattest.Require(b, "nft", "conntrack")
	n := newSite(b, "point-to-point")
	for _, port := range []string{"8080", "5000"} {
		answer(b, n.a, "10.0.3.5:"+port)
	}
	c := controller(b, n.s)
	last := nat.Forward{Name: "last", Source: at(wanAddr["4"], 5000), Target: nat.Target{Addr: addrA["4"], Prefix: 32, Port: 8080}}
	// of returns the forward that clients use, and with before+1 forwards of its kind.
	of := func(kind string, before int) func() {
		f := last
		if strings.HasSuffix(kind, "range") {
			f.Count, f.Target.Port = 10, 5000
		}
		if strings.HasPrefix(kind, "restricted") {
			f.AllowFrom = []netip.Prefix{netip.PrefixFrom(lanHost["4"], 24).Masked()}
		}
		return func() {
			cfg := many(before, kind)
			cfg.Forwards = append(cfg.Forwards, f)
			apply(b, c, cfg)
		}
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
	type state struct {
		name string
		rate int // connections a round
		set  func()
	}
	var states []state
	for _, kind := range []string{"open", "restricted", "range", "restricted range"} {
		states = append(states, state{"1 " + kind, 500, of(kind, 0)}, state{"10000 " + kind, 500, of(kind, 9999)})
	}
	states = append(states, state{"10000 linear", 30, func() {
		require.NoError(b, c.CleanUp(ctx))
		n.s.Nft(linear.String())
	}})
	best := map[string][2]float64{}
	for b.Loop() {
		for _, st := range states {
			st.set()
			for range 12 {
				tcp, udp := connects(b, n.l, last.Source, st.rate)
				r := best[st.name]
				best[st.name] = [2]float64{max(r[0], float64(st.rate)/tcp.Seconds()), max(r[1], float64(st.rate)/udp.Seconds())}
			}
			if st.name == "10000 linear" {
				n.s.Nft("delete table ip linear\n")
				n.s.Run("conntrack", "-F") // flows that another program translated are not ours to let through
			}
		}
	}
	b.ReportMetric(best["1 open"][0], "tcp/cpu-s")
	b.ReportMetric(best["1 open"][1], "udp/cpu-s")
	for _, st := range states[1:] {
		_, kind, _ := strings.Cut(st.name, " ")
		than := "1 " + kind
		if st.name == than || kind == "linear" {
			than = "1 open"
		}
		for i, proto := range networks {
			b.ReportMetric(best[st.name][i]/best[than][i], strings.ReplaceAll(proto+"-"+st.name+"-of-"+than, " ", "-"))
		}
	}
	b.ReportMetric(0, "ns/op")
}
