package nat_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/selfstead/selfstead/nat"
	"github.com/selfstead/selfstead/nat/nattest"
)

// soon is how long the monitor may take; it needs some milliseconds.
const soon = 10 * time.Second

func hairpinMode(n *nattest.Space, port string) bool {
	return strings.Contains(n.Run("ip", "-d", "link", "show", port), "hairpin on")
}

// TestBridgePortFollowed lets the target's port come, move and go under bridge
// netfilter: the port that it hangs on has hairpin mode, the others are as they
// were.
func TestBridgePortFollowed(t *testing.T) {
	t.Parallel()
	n := newSite(t, "bridge")
	n.s.BridgeRules(true)
	n.s.Run("ip", "link", "set", "vB", "type", "bridge_slave", "isolated", "on", "guard", "on")
	n.a.IP("link set eth0 down") // the target is not there yet
	c := controller(t, n.s)
	apply(t, c, publish(subnets))
	require.False(t, hairpinMode(n.s, "vA"))
	n.a.IP("link set eth0 up\naddr add fd00:3::5/64 dev eth0\nroute replace default via 10.0.3.1 dev eth0 onlink\nroute replace default via fd00:3::1 dev eth0 onlink")
	for _, fam := range families {
		n.a.Serve(at(addrA[fam], 8080))
	}
	_, _ = n.a.Ask(nattest.Dialer{Network: "udp", Timeout: refused}, at(gateway["4"], 9)) // it speaks
	require.Eventually(t, func() bool { return hairpinMode(n.s, "vA") }, soon, 5*time.Millisecond)
	sees(t, n.a, "tcp", at(wanAddr["4"], 5000), gateway["4"])
	sees(t, n.a, "udp", at(wanAddr["6"], 5000), gateway["6"])

	// The port leaves and comes back: the kernel switches hairpin mode off.
	n.s.IP("link set vA nomaster\nlink set vA master br0")
	_, _ = n.a.Ask(nattest.Dialer{Network: "udp", Timeout: refused}, at(gateway["4"], 9))
	require.Eventually(t, func() bool { return hairpinMode(n.s, "vA") }, soon, 5*time.Millisecond)
	sees(t, n.a, "tcp", at(lanAddr["4"], 5000), gateway["4"])

	// Another forward to the sibling; its port has flags of its own.
	cfg := publish(subnets)
	cfg.Forwards = append(cfg.Forwards, nat.Forward{Name: "b", Source: at(wanAddr["4"], 6000), Target: nat.Target{Addr: addrB["4"], Prefix: 24, Port: 8080}})
	apply(t, c, cfg)
	require.Eventually(t, func() bool { return hairpinMode(n.s, "vB") }, soon, 5*time.Millisecond)
	flags := n.s.Run("ip", "-d", "link", "show", "vB")
	require.Contains(t, flags, "isolated on")
	require.Contains(t, flags, "guard on")
	apply(t, c, publish(subnets))
	require.False(t, hairpinMode(n.s, "vB"), "put back")
	require.True(t, hairpinMode(n.s, "vA"))
	apply(t, c, nat.Config{})
	require.False(t, hairpinMode(n.s, "vA"), "put back")

	// What an administrator had switched on stays on.
	n.s.Run("ip", "link", "set", "vA", "type", "bridge_slave", "hairpin", "on")
	apply(t, c, publish(subnets))
	require.NoError(t, c.CleanUp(context.Background()))
	require.True(t, hairpinMode(n.s, "vA"))
	n.s.Run("ip", "link", "set", "vA", "type", "bridge_slave", "hairpin", "off")

	// A bridge's own option is enough, without the sysctl.
	n.s.BridgeRules(false)
	apply(t, c, publish(subnets))
	require.False(t, hairpinMode(n.s, "vA"))
	n.s.Run("ip", "link", "set", "br0", "type", "bridge", "nf_call_iptables", "1")
	require.Eventually(t, func() bool { return hairpinMode(n.s, "vA") }, soon, 5*time.Millisecond)
	sees(t, n.a, "tcp", at(wanAddr["4"], 5000), gateway["4"])
}

// TestBridgeRulesSwitchedOn switches the sysctl without any link event.
func TestBridgeRulesSwitchedOn(t *testing.T) {
	t.Parallel()
	n := newSite(t, "bridge")
	n.s.BridgeRules(false)
	n.a.Serve(at(addrA["4"], 8080))
	c := controller(t, n.s)
	apply(t, c, publish(subnets))
	require.False(t, hairpinMode(n.s, "vA"))
	n.s.BridgeRules(true)
	require.Eventually(t, func() bool { return hairpinMode(n.s, "vA") }, soon, 20*time.Millisecond)
	sees(t, n.a, "tcp", at(wanAddr["4"], 5000), gateway["4"])
	require.NoError(t, c.Close())
	require.True(t, hairpinMode(n.s, "vA"), "Close leaves everything in force")
	require.NoError(t, controller(t, n.s).CleanUp(context.Background()))
	require.False(t, hairpinMode(n.s, "vA"), "another process puts it back")
}

// TestRouteFollowed moves the target from a bridge to a link of its own.
func TestRouteFollowed(t *testing.T) {
	t.Parallel()
	n := newSite(t, "bridge")
	n.s.BridgeRules(false)
	for _, fam := range families {
		n.a.Serve(at(addrA[fam], 8080))
	}
	c := controller(t, n.s)
	apply(t, c, publish(subnets))
	sees(t, n.b, "tcp", at(wanAddr["4"], 5000), gateway["4"])
	n.s.IP(`link set vA nomaster
addr add 10.0.3.1/32 dev vA
addr add fd00:3::1/128 dev vA
route add 10.0.3.5 dev vA
route add fd00:3::5 dev vA`)
	n.a.IP(`addr del 10.0.3.5/24 dev eth0
addr add 10.0.3.5/32 dev eth0
route replace default via 10.0.3.1 dev eth0 onlink
neigh flush all`)
	// The sibling's address is kept as soon as no short cut is left.
	require.Eventually(t, func() bool {
		seen, err := n.b.Ask(nattest.Dialer{Network: "tcp"}, at(wanAddr["4"], 5000))
		return err == nil && seen == addrB["4"]
	}, soon, 20*time.Millisecond)
	sees(t, n.a, "tcp", at(wanAddr["4"], 5000), gateway["4"])
}
