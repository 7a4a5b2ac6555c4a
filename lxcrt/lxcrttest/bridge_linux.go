package lxcrttest

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/selfstead/selfstead/lxcrt"
)

// onBridge makes a bridge with an address of the host's, and another host that is
// on it as well.
func onBridge(t testing.TB, name string, filtered string) (gate4, gate6 netip.Addr, neighbour int) {
	t.Helper()
	run(t, "ip link add "+name+" type bridge")
	t.Cleanup(func() { _ = exec.Command("ip", "link", "del", name).Run() })
	run(t, "ip addr add 192.0.2.1/24 dev "+name)
	run(t, "ip addr add 2001:db8:b::1/64 dev "+name+" nodad")
	run(t, "ip link set "+name+" up")
	for _, f := range []string{"iptables", "ip6tables"} {
		file := "/proc/sys/net/bridge/bridge-nf-call-" + f
		before, err := os.ReadFile(file)
		if err != nil {
			Missing(t, "br_netfilter")
		}
		must(t, os.WriteFile(file, []byte(filtered), 0))
		t.Cleanup(func() { _ = os.WriteFile(file, before, 0) })
	}
	holder := exec.Command("unshare", "-n", "sleep", "1000")
	must(t, holder.Start())
	t.Cleanup(func() { _ = holder.Process.Kill(); _ = holder.Wait() })
	pid := itoa(holder.Process.Pid)
	own, err := os.Readlink("/proc/self/ns/net")
	must(t, err)
	eventually(t, func() bool { ns, err := os.Readlink("/proc/" + pid + "/ns/net"); return err == nil && ns != own })
	run(t, "ip link add "+name+"p type veth peer name eth0 netns "+pid)
	run(t, "ip link set "+name+"p master "+name+" up")
	for _, c := range []string{"ip link set lo up", "ip addr add 192.0.2.99/24 dev eth0", "ip addr add 2001:db8:b::99/64 dev eth0 nodad", "ip link set eth0 up"} {
		run(t, "nsenter -t "+pid+" -n "+c)
	}
	return netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8:b::1"), holder.Process.Pid
}

// bridged puts a container on the bridge, as its nth.
func bridged(s lxcrt.Spec, name string, n int) lxcrt.Spec {
	s.Addr4, s.Addr6 = netip.MustParseAddr(fmt.Sprintf("192.0.2.%d", 10+n)), netip.MustParseAddr(fmt.Sprintf("2001:db8:b::%d", 10+n))
	s.Bridge = &lxcrt.Bridge{Name: name, Net4: netip.MustParsePrefix("192.0.2.0/24"), Net6: netip.MustParsePrefix("2001:db8:b::/64"),
		Gateway4: netip.MustParseAddr("192.0.2.1"), Gateway6: netip.MustParseAddr("2001:db8:b::1")}
	return s
}

func testBridge(t *testing.T, f Factory) {
	for _, filtered := range []string{"0", "1"} {
		t.Run("bridge-nf-call-iptables="+filtered, func(t *testing.T) { testOneBridge(t, f, filtered) })
	}
}

func testOneBridge(t *testing.T, f Factory, filtered string) {
	ctx := Context(t)
	out := NewOutside(t)
	gate4, gate6, lan := onBridge(t, "br7", filtered)
	l := f(t)
	for what, edit := range map[string]func(*lxcrt.Spec){
		"name":    func(s *lxcrt.Spec) { s.Bridge.Name = "a/b" },
		"outside": func(s *lxcrt.Spec) { s.Addr4 = netip.MustParseAddr("192.0.3.1") },
		"gateway": func(s *lxcrt.Spec) { s.Bridge.Gateway4 = netip.MustParseAddr("192.0.3.1") },
		"none":    func(s *lxcrt.Spec) { s.Addr4, s.Addr6 = netip.Addr{}, netip.Addr{} },
	} {
		s := bridged(l.Spec(""), "br7", 0)
		edit(&s)
		if _, err := l.Create(ctx, s); err == nil {
			t.Errorf("%s: taken", what)
		}
	}
	missing, err := l.Create(ctx, bridged(l.Spec(""), "br-none", 9))
	must(t, err)
	is(t, missing.Start(ctx), lxcrt.ErrNotFound)
	must(t, missing.Destroy(ctx))
	mac, err := net.InterfaceByName("br7")
	must(t, err)

	specA, specB, specC := bridged(l.Spec(""), "br7", 1), bridged(l.Spec(""), "br7", 2), bridged(l.Spec(""), "br7", 3)
	routed := l.Spec("")
	must(t, l.SetEdges(ctx, []lxcrt.Edge{
		{From: specA.Name, To: specB.Name, Protocol: "tcp", Port: 80}, {From: specA.Name, To: specB.Name, Protocol: "udp", Port: 81},
		{From: routed.Name, To: specB.Name, Protocol: "tcp", Port: 82}, {From: specB.Name, To: routed.Name, Protocol: "tcp", Port: 83},
	}))
	a, b, c, r := l.Start(specA), l.Start(specB), l.Start(specC), l.Start(routed)
	after, err := net.InterfaceByName("br7")
	must(t, err)
	equal(t, after.HardwareAddr.String(), mac.HardwareAddr.String())

	none := netip.Addr{}
	var all, later []reach
	one := func(what string, pid int, network string, to netip.Addr, port uint16, want netip.Addr) reach {
		return reach{what: what, pid: pid, network: network, to: netip.AddrPortFrom(to, port), want: want}
	}
	for _, fam := range []struct{ a, b, c, r, gate, lan, outside, here netip.Addr }{
		{specA.Addr4, specB.Addr4, specC.Addr4, routed.Addr4, gate4, netip.MustParseAddr("192.0.2.99"), out.Addr4, out.Here4},
		{specA.Addr6, specB.Addr6, specC.Addr6, routed.Addr6, gate6, netip.MustParseAddr("2001:db8:b::99"), out.Addr6, out.Here6},
	} {
		for _, p := range []uint16{80, 81, 82} {
			listen(t, b.PID(), netip.AddrPortFrom(fam.b, p))
		}
		listen(t, a.PID(), netip.AddrPortFrom(fam.a, 80))
		listen(t, c.PID(), netip.AddrPortFrom(fam.c, 80))
		listen(t, r.PID(), netip.AddrPortFrom(fam.r, 83))
		listen(t, out.PID, netip.AddrPortFrom(fam.outside, 80))
		listen(t, lan, netip.AddrPortFrom(fam.lan, 80))
		for _, p := range []uint16{53, 80} {
			listen(t, 0, netip.AddrPortFrom(fam.gate, p))
		}
		listen(t, 0, netip.AddrPortFrom(fam.here, 8080))
		all = append(all,
			one("along the edge", a.PID(), "tcp", fam.b, 80, fam.a),
			one("along the edge", a.PID(), "udp", fam.b, 81, fam.a),
			one("another protocol", a.PID(), "udp", fam.b, 80, none),
			one("another port", a.PID(), "tcp", fam.b, 81, none),
			one("against the edge", b.PID(), "tcp", fam.a, 80, none),
			one("against the edge", b.PID(), "udp", fam.a, 80, none),
			one("without an edge", c.PID(), "tcp", fam.b, 80, none),
			one("from a routed one", r.PID(), "tcp", fam.b, 82, fam.r),
			one("from a routed one, another port", r.PID(), "tcp", fam.b, 80, none),
			one("to a routed one", b.PID(), "tcp", fam.r, 83, fam.b),
			one("to a routed one without an edge", a.PID(), "tcp", fam.r, 83, none),
			one("from the other host to a container", lan, "tcp", fam.b, 80, none),
			one("from the other host to a container", lan, "udp", fam.b, 81, none))
		all = append(all, both("to the other host on the bridge", a.PID(), netip.AddrPortFrom(fam.lan, 80), fam.a)...)
		all = append(all, both("to the world", a.PID(), netip.AddrPortFrom(fam.outside, 80), fam.here)...)
		all = append(all, both("to the gateway's names", a.PID(), netip.AddrPortFrom(fam.gate, 53), fam.a)...)
		all = append(all, both("to the gateway's names", b.PID(), netip.AddrPortFrom(fam.gate, 53), fam.b)...)
		all = append(all, both("to another port of the gateway", a.PID(), netip.AddrPortFrom(fam.gate, 80), none)...)
		all = append(all, both("to another address of the host", a.PID(), netip.AddrPortFrom(fam.here, 8080), none)...)
		all = append(all, both("from the host", 0, netip.AddrPortFrom(fam.c, 80), fam.gate)...)
		later = append(later,
			one("an edge that was taken away", a.PID(), "tcp", fam.b, 80, none),
			one("a new edge", c.PID(), "udp", fam.b, 80, fam.c))
	}
	check(t, all)
	// Around the bridge: through the host, to the container's own address.
	for _, via := range []string{"192.0.2.1", "2001:db8:b::1"} {
		to := specB.Addr4
		if strings.Contains(via, ":") {
			to = specB.Addr6
		}
		MustSh(t, c, fmt.Sprintf("ip route add %s via %s", to, via))
		check(t, []reach{one("around by the host", c.PID(), "tcp", to, 80, none), one("around by the host", c.PID(), "udp", to, 80, none)})
		MustSh(t, c, fmt.Sprintf("ip route del %s via %s", to, via))
	}
	must(t, l.SetEdges(ctx, []lxcrt.Edge{{From: specC.Name, To: specB.Name, Protocol: "udp", Port: 80}}))
	check(t, later)
	// What was DNATed by another table passes.
	table := "dnat-" + l.Options.Table
	load := exec.Command("nft", "-f", "-")
	load.Stdin = strings.NewReader(fmt.Sprintf("table ip %s {\n chain pre { type nat hook prerouting priority dstnat; ip daddr 198.51.100.1 tcp dport 8443 dnat to %s:80; }\n}\n", table, specB.Addr4))
	if o, err := load.CombinedOutput(); err != nil {
		t.Fatalf("nft: %v: %s", err, o)
	}
	t.Cleanup(func() { _ = exec.Command("nft", "delete", "table", "ip", table).Run() })
	check(t, []reach{one("from outside, DNATed", out.PID, "tcp", out.Here4, 8443, out.Addr4)})

	testBridgeSpoofing(t, l, b, c, lan)

	// The next runtime knows the ports again.
	must(t, l.Close())
	l.Open()
	must(t, l.SetEdges(ctx, []lxcrt.Edge{{From: specC.Name, To: specB.Name, Protocol: "udp", Port: 80}}))
	again, err := l.Load(ctx, specC.Name)
	must(t, err)
	check(t, []reach{one("after a restart", again.PID(), "udp", specB.Addr4, 80, specC.Addr4), one("after a restart", again.PID(), "tcp", specB.Addr4, 80, none)})
	for _, s := range []lxcrt.Spec{specA, specB, specC, routed} {
		c, err := l.Load(ctx, s.Name)
		must(t, err)
		must(t, c.Stop(ctx, lxcrt.StopOptions{Grace: -1}))
		must(t, c.Destroy(ctx))
	}
	for _, set := range []string{"macs", "own", "addrs4", "addrs6", "nd", "own4", "own6"} {
		out, err := exec.Command("nft", "list", "set", "bridge", l.Options.Table, set).CombinedOutput()
		if err != nil || strings.Contains(string(out), "elements") {
			t.Errorf("ports are left in the table (%v): %s", err, out)
		}
	}
}

// testBridgeSpoofing sends frames as somebody else, and looks at who believes it.
func testBridgeSpoofing(t *testing.T, l *Lab, b, c *lxcrt.Container, lan int) {
	t.Helper()
	// Whom everybody takes for whom. What has been forgotten meanwhile is no fault.
	neighbours := func() map[string]string {
		all := map[string]string{}
		for _, pid := range []int{0, lan, b.PID()} {
			must(t, within(pid, func() error {
				for _, fam := range []string{"-4", "-6"} {
					out, err := exec.Command("ip", fam, "neigh").Output()
					if err != nil {
						return err
					}
					for line := range strings.Lines(string(out)) {
						// Whether an entry is fresh is not the point, but whom it names.
						if f := strings.Fields(line); len(f) > 4 && strings.Contains(line, "lladdr") {
							all[fmt.Sprint(pid, " ", f[0])] = f[4]
						}
					}
				}
				return nil
			}))
		}
		return all
	}
	macOf := func(ct *lxcrt.Container) net.HardwareAddr {
		m, err := net.ParseMAC(MustSh(t, ct, "cat /sys/class/net/eth0/address"))
		must(t, err)
		return m
	}
	mine, theirs := macOf(c), macOf(b)
	broadcast := net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	victim4, victim6, own4 := b.Spec().Addr4.As4(), b.Spec().Addr6.As16(), c.Spec().Addr4.As4()
	gate4 := netip.MustParseAddr("192.0.2.1").As4()
	arp := func(op byte, sha net.HardwareAddr, spa [4]byte, tpa [4]byte) []byte {
		p := []byte{0, 1, 8, 0, 6, 4, 0, op}
		p = append(append(p, sha...), spa[:]...)
		return append(append(p, broadcast...), tpa[:]...)
	}
	udp := func(source [4]byte) []byte {
		p := []byte{0x45, 0, 0, 32, 0, 0, 0, 0, 64, unix.IPPROTO_UDP, 0, 0}
		p = append(append(p, source[:]...), gate4[:]...)
		var sum uint32
		for i := 0; i < 20; i += 2 {
			sum += uint32(p[i])<<8 | uint32(p[i+1])
		}
		for sum>>16 != 0 {
			sum = sum>>16 + sum&0xffff
		}
		p[10], p[11] = byte(^sum>>8), byte(^sum)
		return append(p, 0, 53, 0, 53, 0, 12, 0, 0, 'e', 'v', 'i', 'l')
	}
	// The gateway and the other host know the victim, as do those it speaks with.
	MustSh(t, b, "ping -c 1 192.0.2.99 >/dev/null && ping -6 -c 1 2001:db8:b::99 >/dev/null")
	before := neighbours()
	if !slices.Contains(slices.Collect(maps.Values(before)), theirs.String()) {
		t.Errorf("nobody knows the victim: %v", before)
	}
	dropped := func() string {
		out, err := exec.Command("nft", "list", "table", "bridge", l.Options.Table).CombinedOutput()
		must(t, err)
		return string(out)
	}
	bridge, err := net.InterfaceByName("br7")
	must(t, err)
	for what, frame := range map[string][]byte{
		"ARP answer for the victim":        ether(broadcast, mine, 0x0806, arp(2, mine, victim4, victim4)),
		"ARP answer for the gateway":       ether(broadcast, mine, 0x0806, arp(2, mine, gate4, gate4)),
		"ARP with another's MAC":           ether(broadcast, mine, 0x0806, arp(1, theirs, own4, gate4)),
		"Ethernet with the victim's MAC":   ether(broadcast, theirs, 0x0806, arp(1, theirs, victim4, gate4)),
		"with the bridge's MAC":            ether(broadcast, bridge.HardwareAddr, 0x0806, arp(2, bridge.HardwareAddr, own4, own4)),
		"ND advertisement for the victim":  ether(broadcast, mine, 0x86dd, neighbourAdvert(c.Spec().Addr6.As16(), victim6, mine)),
		"ND advertisement from the victim": ether(broadcast, mine, 0x86dd, neighbourAdvert(victim6, victim6, mine)),
		"ND advertisement for the gateway": ether(broadcast, mine, 0x86dd, neighbourAdvert(c.Spec().Addr6.As16(), netip.MustParseAddr("2001:db8:b::1").As16(), mine)),
		"a datagram from the victim":       ether(bridge.HardwareAddr, mine, 0x0800, udp(victim4)),
		"a datagram with the victim's MAC": ether(bridge.HardwareAddr, theirs, 0x0800, udp(victim4)),
		"a datagram from nowhere":          ether(bridge.HardwareAddr, mine, 0x0800, udp([4]byte{203, 0, 113, 1})),
		"a frame with a tag":               ether(broadcast, mine, 0x8100, append([]byte{0, 1, 8, 6}, arp(2, mine, victim4, victim4)...)),
		"a frame of another protocol":      ether(broadcast, mine, 0x88cc, make([]byte, 60)),
	} {
		counted := dropped()
		must(t, within(c.PID(), func() error { return sendFrame("eth0", frame) }))
		// The wall counts what it drops, in the moment that it is sent.
		if now := dropped(); now == counted {
			t.Errorf("%s: nothing was dropped", what)
		}
		for who, mac := range neighbours() {
			if was, known := before[who]; known && was != mac {
				t.Errorf("%s: believed: %s was %s, is %s", what, who, was, mac)
			}
			before[who] = mac
		}
	}
	// The honest one is heard.
	must(t, within(c.PID(), func() error {
		return sendFrame("eth0", ether(broadcast, mine, 0x0806, arp(1, mine, own4, gate4)))
	}))
	if out, err := exec.Command("bridge", "fdb", "show", "br", "br7").CombinedOutput(); err != nil || strings.Count(string(out), theirs.String()+" dev") > 2 {
		t.Errorf("the bridge believes in two places of one MAC (%v): %s", err, out)
	}
}

// neighbourAdvert is a packet that tells everybody on a link who has an address.
func neighbourAdvert(source, target [16]byte, mac net.HardwareAddr) []byte {
	all := netip.MustParseAddr("ff02::1").As16()
	body := append([]byte{136, 0, 0, 0, 0x20, 0, 0, 0}, target[:]...)
	body = append(append(body, 2, 1), mac...)
	sum := uint32(len(body)) + unix.IPPROTO_ICMPV6
	for _, part := range [][]byte{source[:], all[:], body} {
		for i := 0; i+1 < len(part); i += 2 {
			sum += uint32(part[i])<<8 | uint32(part[i+1])
		}
	}
	for sum>>16 != 0 {
		sum = sum>>16 + sum&0xffff
	}
	body[2], body[3] = byte(^sum>>8), byte(^sum)
	p := []byte{0x60, 0, 0, 0, 0, byte(len(body)), unix.IPPROTO_ICMPV6, 255}
	return append(append(append(p, source[:]...), all[:]...), body...)
}

func ether(to, from net.HardwareAddr, kind uint16, body []byte) []byte {
	f := append(append([]byte{}, to...), from...)
	f = append(append(f, byte(kind>>8), byte(kind)), body...)
	for len(f) < 60 {
		f = append(f, 0)
	}
	return f
}

// sendFrame puts a frame on a link of the calling thread's network.
func sendFrame(link string, frame []byte) error {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq(link)
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, ifr); err != nil {
		return err
	}
	return unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: int(ifr.Uint32()), Halen: 6})
}
