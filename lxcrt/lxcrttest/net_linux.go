package lxcrttest

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selfstead/selfstead/lxcrt"
)

// Outside is another host: a network namespace at the far end of an uplink of
// the test's own namespace. It has no route to containers.
type Outside struct {
	PID          int
	Here4, Here6 netip.Addr // the test namespace's side
	Addr4, Addr6 netip.Addr // the other host's
}

// NewOutside makes the other host, with the default route towards it.
func NewOutside(t testing.TB) *Outside {
	t.Helper()
	holder := exec.Command("sleep", "1000")
	holder.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	must(t, holder.Start())
	t.Cleanup(func() { _ = holder.Process.Kill(); _ = holder.Wait() })
	o := &Outside{PID: holder.Process.Pid,
		Here4: netip.MustParseAddr("198.51.100.1"), Addr4: netip.MustParseAddr("198.51.100.2"),
		Here6: netip.MustParseAddr("2001:db8::1"), Addr6: netip.MustParseAddr("2001:db8::2")}
	pid := itoa(o.PID)
	run(t, "ip link add uplink0 mtu 1400 type veth peer name eth0 netns "+pid)
	t.Cleanup(func() { _ = exec.Command("ip", "link", "del", "uplink0").Run() })
	run(t, "ip addr add 198.51.100.1/24 dev uplink0")
	run(t, "ip addr add 2001:db8::1/64 dev uplink0 nodad")
	run(t, "ip link set uplink0 up")
	for _, c := range []string{"ip link set lo up", "ip addr add 198.51.100.2/24 dev eth0", "ip addr add 2001:db8::2/64 dev eth0 nodad", "ip link set eth0 up"} {
		run(t, "nsenter -t "+pid+" -n "+c)
	}
	run(t, "ip route add default via 198.51.100.2")
	run(t, "ip -6 route add default via 2001:db8::2")
	return o
}

func run(t testing.TB, command string) {
	t.Helper()
	f := strings.Fields(command)
	if out, err := exec.Command(f[0], f[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", command, err, out)
	}
}

// within runs fn with the network of a process; 0 is the test's own.
func within(pid int, fn func() error) error {
	if pid == 0 {
		return fn()
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // not unlocked: the thread goes
		ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
		if err == nil {
			defer ns.Close()
			if unix.Gettid() == unix.Getpid() {
				done <- within(pid, fn)
				runtime.UnlockOSThread()
				return
			}
			err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
		}
		if err == nil {
			err = fn()
		}
		done <- err
	}()
	return <-done
}

// listen answers every TCP connection with the address it came from, and every
// datagram likewise.
func listen(t testing.TB, pid int, addr netip.AddrPort) {
	t.Helper()
	var l net.Listener
	var u net.PacketConn
	must(t, within(pid, func() (err error) {
		if l, err = net.Listen("tcp", addr.String()); err == nil {
			u, err = net.ListenPacket("udp", addr.String())
		}
		return err
	}))
	var wg sync.WaitGroup
	t.Cleanup(func() { l.Close(); u.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
			_, _ = io.WriteString(c, host)
			c.Close()
		}
	})
	wg.Go(func() {
		buf := make([]byte, 64)
		for {
			_, from, err := u.ReadFrom(buf)
			if err != nil {
				return
			}
			host, _, _ := net.SplitHostPort(from.String())
			_, _ = u.WriteTo([]byte(host), from)
		}
	})
}

// silence is how long nothing may come before it counts as dropped.
const silence = 400 * time.Millisecond

// seen dials and returns the source address that the other side saw; "" if
// nothing came through.
func seen(pid int, network string, to netip.AddrPort, from netip.Addr) string {
	var got string
	_ = within(pid, func() error {
		d := net.Dialer{Timeout: silence}
		if from.IsValid() && network == "tcp" {
			d.LocalAddr = &net.TCPAddr{IP: from.AsSlice()}
		} else if from.IsValid() {
			d.LocalAddr = &net.UDPAddr{IP: from.AsSlice()}
		}
		c, err := d.Dial(network, to.String())
		if err != nil {
			return err
		}
		defer c.Close()
		if network == "udp" {
			if _, err := c.Write([]byte("?")); err != nil {
				return err
			}
		}
		_ = c.SetReadDeadline(time.Now().Add(silence))
		buf := make([]byte, 64)
		n, err := c.Read(buf)
		got = string(buf[:n])
		return err
	})
	return got
}

type reach struct {
	what    string
	pid     int
	network string
	to      netip.AddrPort
	from    netip.Addr // bound to, if set
	want    netip.Addr // the source that is seen; zero: nothing comes through
}

// check tries all at once, since each that is dropped takes its time.
func check(t testing.TB, all []reach) {
	t.Helper()
	var wg sync.WaitGroup
	for _, r := range all {
		wg.Go(func() {
			got, want := "", ""
			if r.want.IsValid() {
				want = r.want.String()
			}
			for range 20 { // a busy machine may be late; what is dropped stays so
				if got = seen(r.pid, r.network, r.to, r.from); got != "" || want == "" {
					break
				}
			}
			if got != want {
				t.Errorf("%s: %s to %s is seen from %q, want %q", r.what, r.network, r.to, got, want)
			}
		})
	}
	wg.Wait()
}

func both(what string, pid int, to netip.AddrPort, want netip.Addr) []reach {
	return []reach{{what: what, pid: pid, network: "tcp", to: to, want: want}, {what: what, pid: pid, network: "udp", to: to, want: want}}
}

func testLinks(t *testing.T, f Factory) {
	out := NewOutside(t)
	l := f(t)
	a, b := l.Start(l.Spec("")), l.Start(l.Spec(""))
	gate4, gate6 := l.Gateway()
	port := func(x netip.Addr, p uint16) netip.AddrPort { return netip.AddrPortFrom(x, p) }
	var all []reach
	none := netip.Addr{}
	for _, fam := range []struct{ a, b, gate, outside, here netip.Addr }{
		{a.Spec().Addr4, b.Spec().Addr4, gate4, out.Addr4, out.Here4},
		{a.Spec().Addr6, b.Spec().Addr6, gate6, out.Addr6, out.Here6},
	} {
		listen(t, out.PID, port(fam.outside, 80))
		listen(t, 0, port(fam.gate, 53))
		listen(t, 0, port(fam.gate, 80))
		listen(t, 0, port(fam.here, 8080))
		listen(t, b.PID(), port(fam.b, 80))
		all = append(all, both("to the world", a.PID(), port(fam.outside, 80), fam.here)...)
		all = append(all, both("to the gateway's names", a.PID(), port(fam.gate, 53), fam.a)...)
		all = append(all, both("to another port of the gateway", a.PID(), port(fam.gate, 80), none)...)
		all = append(all, both("to another address of the host", a.PID(), port(fam.here, 8080), none)...)
		all = append(all, both("to a neighbour", a.PID(), port(fam.b, 80), none)...)
		all = append(all, both("from the host", 0, port(fam.b, 80), fam.gate)...)
		all = append(all, both("to itself", b.PID(), port(fam.b, 80), fam.b)...)
	}
	check(t, all)
	equal(t, strings.Join(strings.Fields(MustSh(t, a, "ip -o link | grep -v LOOPBACK | sed 's/@.*mtu/ mtu/' | cut -d' ' -f1-4")), " "), "2: eth0 mtu 1400")

	// Straight from outside: not even with a route. What some other table has
	// DNATed passes, with the source as it was.
	pid := itoa(out.PID)
	run(t, fmt.Sprintf("nsenter -t %s -n ip route add %s via 198.51.100.1", pid, l.Options.Subnet4))
	check(t, both("from outside, routed", out.PID, port(b.Spec().Addr4, 80), none))
	table := "dnat-" + l.Options.Table
	load := exec.Command("nft", "-f", "-")
	load.Stdin = strings.NewReader(fmt.Sprintf("table ip %s {\n chain pre { type nat hook prerouting priority dstnat; ip daddr 198.51.100.1 tcp dport 8443 dnat to %s:80; ip daddr 198.51.100.1 udp dport 8443 dnat to %s:80; }\n}\n", table, b.Spec().Addr4, b.Spec().Addr4))
	if o, err := load.CombinedOutput(); err != nil {
		t.Fatalf("nft: %v: %s", err, o)
	}
	t.Cleanup(func() { _ = exec.Command("nft", "delete", "table", "ip", table).Run() })
	check(t, append(both("from outside, DNATed", out.PID, port(out.Here4, 8443), out.Addr4),
		both("from a neighbour, DNATed", a.PID(), port(out.Here4, 8443), a.Spec().Addr4)...))
}

func testEdges(t *testing.T, f Factory) {
	l, ctx := f(t), Context(t)
	specA, specB := l.Spec(""), l.Spec("")
	// Declared before there is either.
	must(t, l.SetEdges(ctx, []lxcrt.Edge{{From: specA.Name, To: specB.Name, Protocol: "tcp", Port: 80}}))
	a, b := l.Start(specA), l.Start(specB)
	var all, later []reach
	none := netip.Addr{}
	for _, fam := range [][2]netip.Addr{{specA.Addr4, specB.Addr4}, {specA.Addr6, specB.Addr6}} {
		one, two, back := netip.AddrPortFrom(fam[1], 80), netip.AddrPortFrom(fam[1], 81), netip.AddrPortFrom(fam[0], 80)
		listen(t, b.PID(), one)
		listen(t, b.PID(), two)
		listen(t, a.PID(), back)
		all = append(all,
			reach{what: "along the edge", pid: a.PID(), network: "tcp", to: one, want: fam[0]},
			reach{what: "another protocol", pid: a.PID(), network: "udp", to: one},
			reach{what: "another port", pid: a.PID(), network: "tcp", to: two},
			reach{what: "against the edge", pid: b.PID(), network: "tcp", to: back})
		later = append(later,
			reach{what: "an edge that was taken away", pid: a.PID(), network: "tcp", to: one, want: none},
			reach{what: "a new edge", pid: b.PID(), network: "udp", to: back, want: fam[1]})
	}
	check(t, all)
	must(t, l.SetEdges(ctx, []lxcrt.Edge{{From: specB.Name, To: specA.Name, Protocol: "udp", Port: 80}, {From: "nobody", To: specA.Name, Protocol: "tcp", Port: 1}}))
	check(t, later)
	is(t, l.SetEdges(ctx, []lxcrt.Edge{{From: "a", To: "b", Protocol: "sctp", Port: 1}}), lxcrt.ErrInvalid)
}

func testSpoofing(t *testing.T, f Factory) {
	out := NewOutside(t)
	l := f(t)
	a, b := l.Start(l.Spec("")), l.Start(l.Spec(""))
	gate4, gate6 := l.Gateway()
	none := netip.Addr{}
	other4, other6 := netip.MustParseAddr("203.0.113.9"), netip.MustParseAddr("2001:db8:9::9")
	var all []reach
	for _, fam := range []struct{ a, b, gate, other, outside, here netip.Addr }{
		{a.Spec().Addr4, b.Spec().Addr4, gate4, other4, out.Addr4, out.Here4},
		{a.Spec().Addr6, b.Spec().Addr6, gate6, other6, out.Addr6, out.Here6},
	} {
		names, world := netip.AddrPortFrom(fam.gate, 53), netip.AddrPortFrom(fam.outside, 80)
		listen(t, 0, names)
		listen(t, out.PID, world)
		for _, from := range []netip.Addr{fam.b, fam.other, fam.outside} {
			MustSh(t, a, fmt.Sprintf("ip addr add %s/%d dev eth0", from, from.BitLen()))
			for _, n := range []string{"tcp", "udp"} {
				all = append(all, reach{"spoofed", a.PID(), n, names, from, none})
				if from != fam.outside {
					all = append(all, reach{"spoofed", a.PID(), n, world, from, none})
				}
			}
		}
		for _, n := range []string{"tcp", "udp"} {
			all = append(all, reach{"honest", a.PID(), n, names, fam.a, fam.a}, reach{"honest neighbour", b.PID(), n, names, none, fam.b},
				reach{"honest to the world", b.PID(), n, world, none, fam.here})
		}
	}
	// The neighbour's link does not answer to another's claims, nor the host.
	MustSh(t, a, fmt.Sprintf("arping -U -c 1 -w 1 -I eth0 %s >/dev/null 2>&1; arping -U -c 1 -w 1 -I eth0 %s >/dev/null 2>&1; true", b.Spec().Addr4, gate4))
	// Nor to frames and packets that are made by hand.
	mac, err := net.ParseMAC(MustSh(t, a, "cat /sys/class/net/eth0/address"))
	must(t, err)
	known := func() string {
		var lines []string
		for _, ct := range []*lxcrt.Container{a, b} {
			for _, x := range []netip.Addr{ct.Spec().Addr4, ct.Spec().Addr6} {
				o, err := exec.Command("ip", "neigh", "show", "to", x.String()).CombinedOutput()
				must(t, err)
				lines = append(lines, strings.TrimSpace(string(o)))
			}
		}
		return strings.Join(lines, "\n")
	}
	before := known()
	equal(t, strings.Count(before, "PERMANENT"), 4)
	everybody := net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	liar := net.HardwareAddr{2, 1, 2, 3, 4, 5}
	for _, x := range []netip.Addr{b.Spec().Addr4, a.Spec().Addr4, gate4} {
		as4 := x.As4()
		claim := append([]byte{0, 1, 8, 0, 6, 4, 0, 2}, liar...)
		claim = append(append(append(claim, as4[:]...), everybody...), as4[:]...)
		must(t, within(a.PID(), func() error { return sendFrame("eth0", ether(everybody, mac, 0x0806, claim)) }))
	}
	for _, x := range []netip.Addr{b.Spec().Addr6, a.Spec().Addr6, gate6} {
		must(t, within(a.PID(), func() error {
			return sendFrame("eth0", ether(everybody, mac, 0x86dd, neighbourAdvert(a.Spec().Addr6.As16(), x.As16(), liar)))
		}))
	}
	check(t, all)
	equal(t, known(), before)
}
