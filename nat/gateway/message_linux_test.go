package gateway

import (
	"net/netip"
	"testing"

	"github.com/mdlayher/netlink"
	"github.com/stretchr/testify/require"
)

// TestMessages: what is written is read back the same.
func TestMessages(t *testing.T) {
	t.Parallel()
	o, err := Options{}.withDefaults()
	require.NoError(t, err)
	cfg, have, main := planCase()
	p := makePlan(cfg, o, have, main, nil)
	p.Routes = append(p.Routes,
		route{Table: 300, Dst: any4, Via: netip.MustParseAddr("fe80::1"), Index: 3, Metric: 1},
		route{Table: 300, Dst: prefix("2001:db8::/32"), Via: netip.MustParseAddr("2001:db8::1"), Index: 3, Metric: 9, Onlink: true})
	for _, r := range p.Routes {
		data, err := r.data()
		require.NoError(t, err)
		got, err := parseRoute(netlink.Message{Data: data})
		require.NoError(t, err)
		require.Len(t, got, 1)
		require.Equal(t, r, got[0].route)
		require.EqualValues(t, protocol, got[0].protocol)
	}
	for _, r := range p.Rules {
		data, err := r.data()
		require.NoError(t, err)
		got, ours, err := parseRule(netlink.Message{Data: data})
		require.NoError(t, err)
		require.True(t, ours)
		require.Equal(t, r, got)
	}
}

// FuzzMessages: nothing that the kernel could say makes us fall over.
func FuzzMessages(f *testing.F) {
	for _, r := range []route{
		{Table: 300, Dst: any4, Via: netip.MustParseAddr("192.0.2.1"), Index: 3, Metric: 1, MTU: 1400, Onlink: true},
		{Table: 300, Dst: any6, Unreachable: true, Metric: 7},
	} {
		data, err := r.data()
		require.NoError(f, err)
		f.Add(data)
	}
	data, err := rule{Priority: 7, Family: 6, From: prefix("fd00::/8"), Mark: 1, Mask: 3, Device: "eth0", Table: 9, Suppress: 4}.data()
	require.NoError(f, err)
	f.Add(data)
	// Two next hops, the second cut short.
	f.Add([]byte("\x02\x00\x00\x00\xfe\x04\x00\x01\x00\x00\x00\x00\x1c\x00\x09\x00\x10\x00\x00\x00\x03\x00\x00\x00\x08\x00\x05\x00\xc0\x00\x02\x01\x10\x00\x00\x00\x04\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		m := netlink.Message{Data: data}
		_, _, _ = parseLink(m)
		_, _, _, _ = parseAddress(m)
		_, _, _ = parseRule(m)
		list, err := parseRoute(m)
		if err != nil {
			return
		}
		for _, r := range list {
			_ = r.String()
			_, _ = r.data()
		}
	})
}
