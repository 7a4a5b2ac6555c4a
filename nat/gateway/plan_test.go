package gateway

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write golden files anew")

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// planCase is a host with an uplink, a radio in the same network, a tunnel, a
// link without IPv6 and one that is down.
func planCase() (Config, []Gateway, []route) {
	ip := netip.MustParseAddr
	cfg := Config{
		Gateways: []string{"eth0", "wlan0", "down0", "absent"},
		NextHops: map[string][]netip.Addr{"wlan0": {ip("192.0.2.9")}},
		Default:  "wg0",
		Sources: []Source{
			{prefix("10.0.3.0/24"), "eth0"}, {prefix("10.0.3.5/32"), "lte0"}, {prefix("fd00:3::5/128"), "lte0"}, {prefix("fd00::/8"), "eth0"},
		},
		TunnelMarks: []uint32{0xca6c},
	}
	have := []Gateway{
		{Name: "br0", Index: 2, Kind: "bridge", Up: true, Addresses: []netip.Prefix{prefix("10.0.3.1/24"), prefix("fd00:3::1/64")}},
		{Name: "down0", Index: 7, Addresses: []netip.Prefix{prefix("203.0.113.2/24")}},
		{Name: "eth0", Index: 3, Up: true, Addresses: []netip.Prefix{prefix("192.0.2.2/24"), prefix("2001:db8::2/64"), prefix("fe80::2/64")}},
		{Name: "lte0", Index: 6, Up: true, PointToPoint: true, Addresses: []netip.Prefix{prefix("100.64.7.7/32"), prefix("fe80::7/64")}},
		{Name: "wg0", Index: 5, Kind: "wireguard", Up: true, PointToPoint: true, Addresses: []netip.Prefix{prefix("10.59.0.2/24"), prefix("fd59::2/64")}},
		{Name: "wlan0", Index: 4, Up: true, Addresses: []netip.Prefix{prefix("192.0.2.3/24")}},
	}
	main := []route{
		{Table: 254, Dst: any4, Via: ip("192.0.2.1"), Src: ip("192.0.2.2"), Index: 3, Metric: 100, MTU: 1400},
		{Table: 254, Dst: any4, Via: ip("192.0.2.8"), Index: 3, Metric: 90000},
		{Table: 254, Dst: any4, Via: ip("192.0.2.1"), Index: 4, Metric: 600},
		{Table: 254, Dst: any6, Via: ip("fe80::1"), Index: 3, Metric: 1024},
		{Table: 254, Dst: any4, Via: ip("203.0.113.1"), Index: 7, Metric: 700},
		{Table: 254, Dst: prefix("10.0.3.0/24"), Src: ip("10.0.3.1"), Index: 2},
		{Table: 254, Dst: prefix("192.0.2.0/24"), Src: ip("192.0.2.2"), Index: 3, Metric: 100},
		{Table: 254, Dst: prefix("192.0.2.0/24"), Src: ip("192.0.2.3"), Index: 4, Metric: 600},
		{Table: 254, Dst: prefix("2001:db8::/64"), Index: 3, Metric: 256},
		{Table: 254, Dst: prefix("fe80::/64"), Index: 3, Metric: 256},
		{Table: 254, Dst: prefix("10.59.0.0/24"), Src: ip("10.59.0.2"), Index: 5},
		{Table: 254, Dst: prefix("0.0.0.0/1"), Index: 5},
		{Table: 254, Dst: prefix("2000::/3"), Index: 5},
	}
	return cfg, have, main
}

func TestPlanGolden(t *testing.T) {
	t.Parallel()
	o, err := Options{}.withDefaults()
	require.NoError(t, err)
	cfg, have, main := planCase()
	require.NoError(t, cfg.Validate())
	got := makePlan(cfg, o, have, main, nil).String()
	const name = "testdata/plan.golden"
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(name, []byte(got), 0o644))
	}
	want, err := os.ReadFile(name)
	require.NoError(t, err)
	require.Equal(t, string(want), got)
	require.Empty(t, makePlan(Config{}, o, have, main, nil).String(), "the zero Config wants nothing")
}

// TestSlots: a gateway keeps its slot whoever else comes and goes.
func TestSlots(t *testing.T) {
	t.Parallel()
	var names []string
	for i := range maxGateways {
		names = append(names, fmt.Sprintf("if%d", i))
	}
	all := assign(names, nil)
	seen := map[uint32]bool{}
	for _, s := range all {
		require.False(t, seen[s])
		require.True(t, s >= 1 && s <= slots)
		seen[s] = true
	}
	for i := range names {
		rest := slices.Delete(slices.Clone(names), i, i+1)
		for n, s := range assign(rest, all) {
			require.Equal(t, all[n], s)
		}
	}
	require.Equal(t, map[string]uint32{"a": 9, "b": 8}, assign([]string{"b", "a"}, map[string]uint32{"a": 9, "b": 8, "c": 7}))
}

func TestValidate(t *testing.T) {
	t.Parallel()
	ip := netip.MustParseAddr
	for name, c := range map[string]Config{
		"no name":               {Gateways: []string{""}},
		"long name":             {Default: "a-name-of-16-char"},
		"path":                  {Gateways: []string{"../all"}},
		"parent":                {Gateways: []string{".."}},
		"conf/all":              {Gateways: []string{"all"}},
		"conf/default":          {Default: "default"},
		"blank":                 {Sources: []Source{{prefix("10.0.0.1/32"), "a b"}}},
		"colon":                 {Gateways: []string{"eth0:1"}},
		"host bits":             {Sources: []Source{{prefix("10.0.0.1/24"), "eth0"}}},
		"zero source":           {Sources: []Source{{netip.Prefix{}, "eth0"}}},
		"everything":            {Sources: []Source{{prefix("0.0.0.0/0"), "eth0"}}},
		"mapped":                {Sources: []Source{{netip.PrefixFrom(ip("::ffff:10.0.0.1"), 128), "eth0"}}},
		"source twice":          {Sources: []Source{{prefix("10.0.0.1/32"), "eth0"}, {prefix("10.0.0.1/32"), "eth1"}}},
		"next hop":              {NextHops: map[string][]netip.Addr{"eth0": {netip.IPv4Unspecified()}}},
		"next hop is multicast": {NextHops: map[string][]netip.Addr{"eth0": {ip("224.0.0.1")}}},
		"two next hops":         {NextHops: map[string][]netip.Addr{"eth0": {ip("10.0.0.1"), ip("10.0.0.2")}}},
		"next hop of nobody":    {NextHops: map[string][]netip.Addr{"": {ip("10.0.0.1")}}},
		"mark 0":                {TunnelMarks: []uint32{0}},
	} {
		require.ErrorIs(t, c.Validate(), ErrInvalid, name)
	}
	for _, o := range []Options{{Mask: 0xff}, {Mask: 0x0ff0ff00}, {TableBase: 1}, {TableBase: 1<<32 - 1}, {Priority: 32600}} {
		_, err := o.withDefaults()
		require.ErrorIs(t, err, ErrInvalid, "%+v", o)
	}
	cfg, _, _ := planCase()
	clone := cfg.Clone()
	clone.NextHops["wlan0"][0] = ip("192.0.2.77")
	clone.Sources[0].Gateway, clone.TunnelMarks[0], clone.Gateways[0] = "x", 1, "y"
	again, _, _ := planCase()
	require.Equal(t, again, cfg, "a clone shares nothing")
}

// decide is what the kernel does with the plan's rules: the route for a packet,
// by its family, source, mark, the device its socket is bound to, and target.
func decide(p plan, main []route, family int, from netip.Addr, mark uint32, device string, to netip.Addr) (route, bool) {
	rules := append(slices.Clone(p.Rules), rule{Priority: mainPriority, Family: 4, Table: mainTable}, rule{Priority: mainPriority, Family: 6, Table: mainTable})
	for _, r := range rules {
		if r.Family != family || r.From.IsValid() && !r.From.Contains(from) || mark&r.Mask != r.Mark || r.Device != "" && r.Device != device {
			continue
		}
		if r.Unreachable {
			return route{}, false
		}
		var best *route
		for _, list := range [][]route{p.Routes, main} {
			for _, x := range list {
				if x.Table != r.Table || !x.Dst.Contains(to) {
					continue
				}
				if best == nil || x.Dst.Bits() > best.Dst.Bits() || x.Dst.Bits() == best.Dst.Bits() && x.Metric < best.Metric {
					best = &x
				}
			}
		}
		if best == nil || !best.Unreachable && r.Suppress != 0 && best.Dst.Bits() <= int(r.Suppress) {
			continue
		}
		return *best, !best.Unreachable
	}
	return route{}, false
}

// FuzzPlan makes hosts and Configs at random and checks what must hold of every
// plan.
func FuzzPlan(f *testing.F) {
	for seed := range uint64(50) {
		f.Add(seed)
	}
	o, _ := Options{}.withDefaults()
	f.Fuzz(func(t *testing.T, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 1))
		cfg, have, main := randomHost(r)
		require.NoError(t, cfg.Validate())
		p := makePlan(cfg, o, have, main, nil)

		shuffled := slices.Clone(have)
		r.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		require.Equal(t, p.Rules, makePlan(cfg, o, shuffled, main, nil).Rules, "the order of the interfaces does not count")
		require.Equal(t, p, makePlan(cfg, o, have, main, p.Slots))

		seen := map[any]bool{}
		for _, x := range p.Rules {
			require.False(t, seen[x], "%s twice", x)
			seen[x] = true
			require.True(t, x.Priority >= o.Priority && x.Priority <= o.Priority+priorityDefault)
			require.True(t, x.Unreachable || x.Table == mainTable || x.Table > o.TableBase && x.Table <= o.TableBase+slots)
		}
		for _, x := range p.Routes {
			require.False(t, seen[x], "%s twice", x)
			seen[x] = true
			require.True(t, x.Table > o.TableBase && x.Table <= o.TableBase+slots)
		}

		// An internet address that main has only default routes to.
		for family, to := range map[int]netip.Addr{4: netip.MustParseAddr("198.18.0.1"), 6: netip.MustParseAddr("2a00::1")} {
			leaves := func(name string, from netip.Addr, mark uint32, device string) {
				t.Helper()
				got, ok := decide(p, main, family, from, mark, device, to)
				g := find(have, name)
				if ok {
					require.NotNil(t, g)
					require.Equal(t, uint32(g.Index), got.Index, "traffic of %s leaves by another", name)
					require.True(t, g.Up)
				} else if g != nil && g.Up && g.PointToPoint {
					require.False(t, slices.ContainsFunc(g.Addresses, func(a netip.Prefix) bool { return a.Addr().Is4() == (family == 4) }), "%s could have led there", name)
				}
			}
			stranger := map[int]netip.Addr{4: netip.MustParseAddr("172.31.0.1"), 6: netip.MustParseAddr("fdff::1")}[family]
			for name, slot := range p.Slots {
				leaves(name, stranger, slot<<trailingZeros(o.Mask)|0x51, "")
				if !slices.Contains(cfg.TunnelMarks, 0x77) {
					leaves(name, stranger, 0, name)
				}
			}
			if cfg.Default != "" {
				leaves(cfg.Default, stranger, 0x77, "")
			}
			var longest *Source
			for _, s := range cfg.Sources {
				if s.Prefix.Contains(stranger) && (longest == nil || s.Prefix.Bits() > longest.Prefix.Bits()) {
					longest = &s
				}
			}
			require.Nil(t, longest)
			for _, s := range cfg.Sources {
				if (s.Prefix.Addr().Is4()) == (family == 4) && s.Prefix.IsSingleIP() {
					leaves(s.Gateway, s.Prefix.Addr(), 0, "")
				}
			}
			for _, m := range cfg.TunnelMarks {
				got, ok := decide(p, main, family, stranger, m, "", to)
				require.True(t, !ok || got.Table == mainTable, "a tunnel's packet enters a policy")
			}
		}
	})
}

func randomHost(r *rand.Rand) (Config, []Gateway, []route) {
	var cfg Config
	var have []Gateway
	var main []route
	for i := range 1 + r.IntN(6) {
		name := fmt.Sprintf("if%d", i)
		g := Gateway{Name: name, Index: i + 2, Up: r.IntN(4) > 0, PointToPoint: r.IntN(3) == 0}
		a4, a6 := netip.AddrFrom4([4]byte{10, 1, byte(r.IntN(4)), byte(2 + i)}), netip.MustParseAddr(fmt.Sprintf("fd01:%d::%d", r.IntN(3), 2+i))
		if r.IntN(3) > 0 {
			g.Addresses = append(g.Addresses, netip.PrefixFrom(a4, 24))
			main = append(main, route{Table: mainTable, Dst: netip.PrefixFrom(a4, 24).Masked(), Src: a4, Index: uint32(g.Index)})
		}
		if r.IntN(3) > 0 {
			g.Addresses = append(g.Addresses, netip.PrefixFrom(a6, 64))
			main = append(main, route{Table: mainTable, Dst: netip.PrefixFrom(a6, 64).Masked(), Index: uint32(g.Index), Metric: 256})
		}
		for range r.IntN(3) {
			any, via := any4, netip.AddrFrom4([4]byte{10, 1, 0, byte(200 + r.IntN(9))})
			if r.IntN(2) == 0 {
				any, via = any6, netip.MustParseAddr("fe80::1")
			}
			main = append(main, route{Table: mainTable, Dst: any, Via: via, Index: uint32(g.Index), Metric: uint32(r.IntN(5))})
		}
		if r.IntN(8) == 0 {
			main = append(main, route{Table: mainTable, Dst: prefix("128.0.0.0/1"), Index: uint32(g.Index)})
		}
		if len(g.Addresses) > 0 {
			have = append(have, g)
		}
		if r.IntN(2) == 0 {
			cfg.Gateways = append(cfg.Gateways, name)
		}
		if r.IntN(3) == 0 {
			cfg.Default = name
		}
		if r.IntN(2) == 0 {
			cfg.Sources = append(cfg.Sources, Source{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 3, byte(i)}), 32), name})
			cfg.Sources = append(cfg.Sources, Source{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i), 0}), 24), name})
		}
		if r.IntN(3) == 0 {
			cfg.Sources = append(cfg.Sources, Source{netip.PrefixFrom(netip.MustParseAddr(fmt.Sprintf("fd00:3::%d", i)), 128), name})
		}
	}
	if r.IntN(2) == 0 {
		cfg.TunnelMarks = []uint32{0xca6c, uint32(r.Uint64())&0xffffff | 1<<9}
	}
	return cfg, have, main
}
