package nat_test

import (
	"context"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/selfstead/selfstead/nat"
	"github.com/selfstead/selfstead/nat/nattest"
)

// TestDiagnose judges foreign chains, and checks each verdict with traffic.
func TestDiagnose(t *testing.T) {
	t.Parallel()
	nattest.Require(t, "nft")
	n := newSite(t, "point-to-point")
	n.a.Serve(at(addrA["4"], 8080))
	c := controller(t, n.s)
	apply(t, c, nat.Config{Forwards: []nat.Forward{{Name: "web", Source: at(wanAddr["4"], 5000), Target: nat.Target{Addr: addrA["4"], Prefix: 32, Port: 8080}, Protocols: nat.TCP}}})
	for _, tc := range []struct {
		name, script string
		subject      string // "": nothing found
		certain      bool
		works        bool // whether the LAN client gets through
	}{
		{"no foreign table", "", "", false, true},
		{"policy accept", "type filter hook forward priority 0; policy accept; counter", "", false, true},
		{"policy drop", "type filter hook forward priority 0; policy drop;", "table inet f, chain c", true, false},
		{"established only", "type filter hook forward priority 0; policy drop; ct state established,related accept", "table inet f, chain c", true, false},
		{"accepts what was translated", "type filter hook forward priority 0; policy drop; ct state established,related accept\n ct status dnat accept", "", false, true},
		{"accepts everything", "type filter hook forward priority 10; policy drop; counter accept", "", false, true},
		{"drops everything", "type filter hook forward priority -10; policy accept; counter drop", "table inet f, chain c", true, false},
		{"rejects everything", "type filter hook forward priority -10; policy accept; reject", "table inet f, chain c", true, false},
		{"accepts by interface", "type filter hook forward priority 0; policy drop; iifname \"lan0\" accept\n oifname \"lan0\" accept", "table inet f, chain c", false, true},
		{"accepts by another interface", "type filter hook forward priority 0; policy drop; iifname \"wan0\" accept", "table inet f, chain c", false, false},
		{"in a chain it jumps to", "type filter hook forward priority 0; policy drop; jump d", "", false, true},
		{"drops early", "type filter hook prerouting priority -200; policy drop; ct state established accept", "table inet f, chain c", true, false},
		{"drops on the way out", "type filter hook postrouting priority 0; policy drop;", "table inet f, chain c", true, false},
		{"input does not matter", "type filter hook input priority 0; policy drop;", "", false, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.script != "" {
				n.s.Nft("table inet f {\nchain d {\nct state new ct status dnat accept\nct state established accept\n}\nchain c {\n" + tc.script + "\n}\n}\n")
			}
			found, err := c.Diagnose(context.Background())
			require.NoError(t, err)
			if tc.subject == "" {
				require.Empty(t, found)
			} else {
				require.Len(t, found, 1)
				require.Equal(t, tc.subject, found[0].Subject)
				require.Equal(t, tc.certain, found[0].Certain)
			}
			if tc.works {
				sees(t, n.l, "tcp", at(wanAddr["4"], 5000), lanHost["4"])
			} else {
				fails(t, n.l, "tcp", at(wanAddr["4"], 5000))
			}
			if tc.script != "" {
				n.s.Nft("delete table inet f\n")
			}
		})
	}
	n.s.Sysctl("net.ipv4.ip_forward", "0")
	found, err := c.Diagnose(context.Background())
	require.NoError(t, err)
	require.Len(t, found, 1)
	require.Equal(t, "sysctl net.ipv4.ip_forward", found[0].Subject)
	n.s.Sysctl("net.ipv4.ip_forward", "1")
	n.s.IP("route del default")
	apply(t, c, nat.Config{Forwards: []nat.Forward{{Name: "lost", Source: at(wanAddr["4"], 5000), Target: nat.Target{Addr: netip.MustParseAddr("172.31.0.9"), Prefix: 24, Port: 1}}}})
	found, err = c.Diagnose(context.Background())
	require.NoError(t, err)
	require.Len(t, found, 1)
	require.Equal(t, "target 172.31.0.9", found[0].Subject)
}

// TestDiagnoseSettings takes away what forwards need outside the table after
// the process that had applied them ended: check names it, Apply mends it.
func TestDiagnoseSettings(t *testing.T) {
	t.Parallel()
	n := newSite(t, "bridge")
	n.s.BridgeRules(true)
	n.a.Serve(at(addrA["4"], 8080))
	cfg := nat.Config{Forwards: []nat.Forward{
		{Name: "web", Source: at(wanAddr["4"], 5000), Target: nat.Target{Addr: addrA["4"], Prefix: 24, Port: 8080}},
		{Name: "loop", Source: netip.MustParseAddrPort("127.0.0.1:5000"), Target: nat.Target{Addr: addrA["4"], Prefix: 24, Port: 8080}},
	}}
	first := controller(t, n.s)
	apply(t, first, cfg)
	require.NoError(t, first.Close())
	c := controller(t, n.s)
	found, err := c.Diagnose(context.Background())
	require.NoError(t, err)
	require.Empty(t, found)
	n.s.Run("ip", "link", "set", "vA", "type", "bridge_slave", "hairpin", "off")
	n.s.Sysctl("net.ipv4.conf.br0.route_localnet", "0")
	fails(t, n.a, "tcp", at(wanAddr["4"], 5000))
	found, err = c.Diagnose(context.Background())
	require.NoError(t, err)
	require.Len(t, found, 2)
	require.Equal(t, "bridge port vA", found[0].Subject)
	require.Equal(t, "link br0", found[1].Subject)
	apply(t, c, cfg)
	found, err = c.Diagnose(context.Background())
	require.NoError(t, err)
	require.Empty(t, found)
	sees(t, n.a, "tcp", at(wanAddr["4"], 5000), gateway["4"])
	sees(t, n.s, "tcp", netip.MustParseAddrPort("127.0.0.1:5000"), gateway["4"])
}
