package nat_test

import (
	"context"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/selfstead/selfstead/nat"
	"github.com/selfstead/selfstead/nat/nattest"
)

// hammer makes TCP connections as fast as it can until stop is called, which
// returns how many there were and how many failed.
func hammer(t *testing.T, from *nattest.Space, to netip.AddrPort) (stop func() (made, failed int64)) {
	t.Helper()
	var done atomic.Bool
	var made, failed int64
	var wg sync.WaitGroup
	wg.Go(func() {
		from.Do(func() error {
			for !done.Load() {
				fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
				if err != nil {
					return err
				}
				if unix.Connect(fd, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}) != nil {
					failed++
				} else {
					made++
					_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
				}
				unix.Close(fd)
			}
			return nil
		})
	})
	return func() (int64, int64) {
		done.Store(true)
		wg.Wait()
		return made, failed
	}
}

// TestMoves changes a forward from one form into another, over and over: open,
// restricted in several ways, longer and shorter, with another target. Most
// forms have their elements in other sets. A client that all of them admit never
// finds the forward missing, and one that only the open ones admit never gets in
// while it goes from one restricted form to another.
func TestMoves(t *testing.T) {
	t.Parallel()
	n := newSite(t, "bridge")
	n.s.BridgeRules(false)
	n.s.Sysctl("net.netfilter.nf_conntrack_tcp_timeout_close", "1") // the flows are dumped after each change
	n.a.Serve(at(addrA["4"], 5000))
	n.b.Serve(at(addrB["4"], 5000))
	form := func(change func(f *nat.Forward)) nat.Config {
		f := nat.Forward{Name: "it", Source: at(wanAddr["4"], 5000), Target: nat.Target{Addr: addrA["4"], Prefix: 24, Port: 5000}}
		change(&f)
		return nat.Config{Forwards: []nat.Forward{f}}
	}
	from := func(prefixes ...string) func(f *nat.Forward) {
		return func(f *nat.Forward) {
			for _, p := range prefixes {
				f.AllowFrom = append(f.AllowFrom, netip.MustParsePrefix(p))
			}
		}
	}
	long := func(first uint16, count int, more func(f *nat.Forward)) func(f *nat.Forward) {
		return func(f *nat.Forward) {
			f.Source, f.Target.Port, f.Count = at(wanAddr["4"], first), first, count
			more(f)
		}
	}
	elsewhere := func(more func(f *nat.Forward)) func(f *nat.Forward) {
		return func(f *nat.Forward) {
			f.Target.Addr = addrB["4"]
			more(f)
		}
	}
	open := from()
	restricted := []nat.Config{
		form(from("192.168.1.0/24")), form(from("192.168.0.0/16")), form(from("192.168.1.50/32")),
		form(long(4992, 16, from("192.168.1.0/24"))), form(long(5000, 2, from("192.168.1.0/25"))),
		form(func(f *nat.Forward) { f.AllowVia = []string{"lan0"} }), form(elsewhere(from("192.168.1.0/24"))),
		form(func(f *nat.Forward) { f.Protocols = nat.TCP; from("192.168.1.0/24")(f) }),
	}
	all := append([]nat.Config{
		form(open), form(elsewhere(open)), form(long(5000, 8, open)), form(long(4999, 4, open)), form(func(f *nat.Forward) { f.Protocols = nat.TCP }),
	}, restricted...)
	c := controller(t, n.s)
	turn := func(forms []nat.Config, steps int) {
		r := randomSource(7)
		for range steps {
			require.NoError(t, c.Apply(context.Background(), forms[r.IntN(len(forms))]))
		}
	}
	turn(all, 1)
	stop := hammer(t, n.l, at(wanAddr["4"], 5000))
	turn(all, 60**changes)
	made, failed := stop()
	t.Logf("admitted: %d connections, %d failed", made, failed)
	require.Zero(t, failed)
	require.NotZero(t, made)

	turn(restricted, 1)
	stopAdmitted, stopRefused := hammer(t, n.l, at(wanAddr["4"], 5000)), hammer(t, n.i, at(wanAddr["4"], 5000))
	turn(restricted, 30**changes)
	made, failed = stopAdmitted()
	t.Logf("admitted: %d connections, %d failed", made, failed)
	require.Zero(t, failed)
	require.NotZero(t, made)
	made, failed = stopRefused()
	t.Logf("not admitted: %d connections, %d refused", made, failed)
	require.Zero(t, made)
	require.NotZero(t, failed)
}
