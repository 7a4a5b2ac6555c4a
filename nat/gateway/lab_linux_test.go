package gateway

import (
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/selfstead/selfstead/nat/nattest"
)

// house is a host with two uplinks into one internet, which takes from each link
// only what has a source address of that link, and a service behind a bridge.
//
//	world n0 ---- eth0 host eth1 ---- n1 world
//	                   br0 ---- eth0 service
type house struct {
	t                    *testing.T
	lab                  *nattest.Lab
	world, host, service *nattest.Space
}

// kin is the addresses of one family.
type kin struct {
	name                                 string
	eth0, eth1, hop0, hop1, inet, target netip.Addr
}

var kins = []kin{
	{
		"IPv4", addr("192.0.2.2"), addr("198.51.100.2"), addr("192.0.2.1"), addr("198.51.100.1"),
		addr("203.0.113.50"), addr("10.0.3.5"),
	},
	{
		"IPv6", addr("2001:db8:a::2"), addr("2001:db8:b::2"), addr("2001:db8:a::1"), addr("2001:db8:b::1"),
		addr("2001:db8:ff::50"), addr("fd00:3::5"),
	},
}

func addr(s string) netip.Addr  { return netip.MustParseAddr(s) }
func pfx(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func at(a netip.Addr, p uint16) netip.AddrPort {
	return netip.AddrPortFrom(a, p)
}

func newHouse(t *testing.T) *house {
	t.Helper()
	nattest.Require(t, "ip", "nft", "conntrack")
	lab := nattest.NewLab(t)
	h := &house{t, lab, lab.Router("world"), lab.Router("host"), lab.Space("service")}
	h.world.IP(`addr add 203.0.113.50/32 dev lo
addr add 203.0.113.60/32 dev lo
addr add 2001:db8:ff::50/128 dev lo
addr add 2001:db8:ff::60/128 dev lo`)
	h.host.IP(`link add br0 type bridge
addr add 10.0.3.1/24 dev br0
addr add fd00:3::1/64 dev br0
link set br0 up`)
	// Errors are to be told each time.
	h.host.Sysctl("net.ipv4.icmp_ratelimit", "0")
	h.host.Sysctl("net.ipv6.icmp.ratelimit", "0")
	h.plug0()
	h.plug1()
	lab.Join(h.host, "veth-s", h.service, "eth0")
	h.host.IP("link set veth-s master br0")
	h.service.IP(`addr add 10.0.3.5/24 dev eth0
addr add fd00:3::5/64 dev eth0
route add default via 10.0.3.1
route add default via fd00:3::1`)
	h.world.Nft(`table inet isp {
	chain prerouting { type filter hook prerouting priority raw
		iifname n0 meta l4proto { tcp, udp } th dport 80 counter comment "asked0"
		iifname n0 ip saddr != 192.0.2.0/24 counter drop comment "spoof0"
		iifname n0 ip6 saddr != { 2001:db8:a::/64, fe80::/10 } counter drop comment "spoof0"
		iifname n1 ip saddr != 198.51.100.0/24 counter drop comment "spoof1"
		iifname n1 ip6 saddr != { 2001:db8:b::/64, fe80::/10 } counter drop comment "spoof1"
	}
}`)
	h.host.Nft(`table inet publish {
	chain prerouting { type nat hook prerouting priority dstnat
		iifname { eth0, eth1 } meta nfproto ipv4 meta l4proto { tcp, udp } th dport 5000 dnat ip to 10.0.3.5:8080
		iifname { eth0, eth1 } meta nfproto ipv6 meta l4proto { tcp, udp } th dport 5000 dnat ip6 to [fd00:3::5]:8080
	}
	chain postrouting { type nat hook postrouting priority srcnat
		ip saddr 10.0.3.0/24 ip daddr != 10.0.3.0/24 masquerade
		ip6 saddr fd00:3::/64 ip6 daddr != fd00:3::/64 masquerade
	}
}`)
	return h
}

// plug0 makes the first uplink, main's default.
func (h *house) plug0() {
	h.lab.Join(h.host, "eth0", h.world, "n0")
	h.host.IP(`addr add 192.0.2.2/24 dev eth0
addr add 2001:db8:a::2/64 dev eth0
route add default via 192.0.2.1 dev eth0 metric 100
route add default via 2001:db8:a::1 dev eth0 metric 100`)
	h.world.IP(`addr add 192.0.2.1/24 dev n0
addr add 2001:db8:a::1/64 dev n0`)
}

// plug1 makes the second uplink.
func (h *house) plug1() {
	h.lab.Join(h.host, "eth1", h.world, "n1")
	h.host.IP(`addr add 198.51.100.2/24 dev eth1
addr add 2001:db8:b::2/64 dev eth1
route add default via 198.51.100.1 dev eth1 metric 200
route add default via 2001:db8:b::1 dev eth1 metric 200`)
	h.world.IP(`addr add 198.51.100.1/24 dev n1
addr add 2001:db8:b::1/64 dev n1`)
}

// controller makes one in the host's namespace; it runs on threads of another.
func (h *house) controller() *Controller { return controllerIn(h.t, h.host) }

func controllerIn(tb testing.TB, s *nattest.Space) *Controller {
	tb.Helper()
	var c *Controller
	s.Do(func() (err error) {
		c, err = New(Options{})
		return err
	})
	tb.Cleanup(func() { require.NoError(tb, c.Close()) })
	return c
}

// count is how many packets rules of the world with a comment have met.
func (h *house) count(comment string) (n int) {
	h.t.Helper()
	list := h.world.Run("nft", "list", "table", "inet", "isp")
	for _, m := range regexp.MustCompile(`packets (\d+) .*"`+comment+`"`).FindAllStringSubmatch(list, -1) {
		v, err := strconv.Atoi(m[1])
		require.NoError(h.t, err)
		n += v
	}
	return n
}

const (
	soon  = 300 * time.Millisecond // for what must not come
	while = 5 * time.Second        // for what must
)

// ask is Space.Ask with the longer patience.
func ask(t *testing.T, s *nattest.Space, network string, from netip.Addr, to netip.AddrPort) netip.Addr {
	t.Helper()
	seen, err := s.Ask(nattest.Dialer{Network: network, From: from, Timeout: while}, to)
	require.NoError(t, err, "%s from %s to %s", network, s.Name, to)
	return seen
}

func fails(t *testing.T, s *nattest.Space, network string, from netip.Addr, to netip.AddrPort) error {
	t.Helper()
	_, err := s.Ask(nattest.Dialer{Network: network, From: from, Timeout: soon}, to)
	require.Error(t, err, "%s from %s to %s", network, s.Name, to)
	return err
}

// until waits for what the controller does by itself.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	require.Eventually(t, ok, while, 10*time.Millisecond, what)
}

// dump is all that a Controller might touch.
func dump(s *nattest.Space) string {
	var b strings.Builder
	for _, args := range []string{
		"-4 -N rule", "-6 -N rule", "-4 -N route show table all", "-6 -N route show table all",
	} {
		lines := strings.Split(s.Run("ip", strings.Fields(args)...), "\n")
		for _, l := range lines {
			// Learned and timed things come and go by themselves.
			if strings.Contains(l, "table 255 ") || strings.HasPrefix(l, "fe80") {
				continue
			}
			fmt.Fprintln(&b, l)
		}
	}
	for _, dev := range []string{"all", "default", "eth0", "eth1"} {
		if out, err := s.Output("cat", "/proc/sys/net/ipv4/conf/"+dev+"/rp_filter"); err == nil {
			fmt.Fprintln(&b, dev, out)
		}
	}
	fmt.Fprintln(&b, s.Run("cat", "/proc/sys/net/ipv4/tcp_fwmark_accept", "/proc/sys/net/ipv6/fwmark_reflect"))
	b.WriteString(s.Run("nft", "-a", "list", "ruleset"))
	return b.String()
}
