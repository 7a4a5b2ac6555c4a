package nat

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var rounds = flag.Int("rounds", 1, "multiplies the length of random tests")

var update = flag.Bool("update", false, "rewrite golden files")

// randomForward draws from a small world, so that forwards collide often.
func randomForward(r *rand.Rand) Forward {
	pick := func(list ...string) string { return list[r.IntN(len(list))] }
	f := Forward{Name: fmt.Sprintf("f%d", r.IntN(12)), Count: 1 + r.IntN(2)*r.IntN(6), Protocols: Protocols(r.IntN(4))}
	port := uint16(1000 + r.IntN(16))
	tport := port
	if r.IntN(2) == 0 {
		tport += uint16(r.IntN(3))
	}
	if r.IntN(3) == 0 {
		f.Source = netip.AddrPortFrom(ad(pick("2001:db8::1", "2001:db8::2")), port)
		f.Target = Target{ad(pick("fd00::5", "fd00::6", "fd00:1::5")), []int{64, 128, 48}[r.IntN(3)], tport}
		if r.IntN(3) == 0 {
			f.AllowFrom = []netip.Prefix{px(pick("2001:db8:7::/48", "fd00::/16"))}
		}
	} else {
		f.Source = netip.AddrPortFrom(ad(pick("203.0.113.7", "192.168.1.10", "127.0.0.1")), port)
		f.Target = Target{ad(pick("10.0.3.5", "10.0.3.6", "10.0.4.5", "10.9.0.2")), []int{24, 32, 16, 24}[r.IntN(4)], tport}
		if r.IntN(3) == 0 {
			f.AllowFrom = []netip.Prefix{px(pick("192.168.1.0/24", "10.0.0.0/8", "10.0.3.0/24")), px(pick("192.168.0.0/16", "172.16.0.0/12"))}
		}
	}
	if r.IntN(6) == 0 {
		f.AllowVia = []string{pick("eth0", "wg0")}
	}
	return f
}

// randomConfig is valid: forwards that do not fit are left out.
func randomConfig(r *rand.Rand, n int) Config {
	var cfg Config
	for range n {
		cfg.Forwards = append(cfg.Forwards, randomForward(r))
		if cfg.Validate() != nil {
			cfg.Forwards = cfg.Forwards[:len(cfg.Forwards)-1]
		}
	}
	return cfg
}

func randomEnvironment(r *rand.Rand) Environment {
	env := Environment{Links: map[int]Link{
		2: {Name: "br0", Kind: "bridge", Subnets: []netip.Prefix{px("10.0.3.0/24"), px("fd00::/64")}},
		3: {Name: "wg0", Kind: "tun", PointToPoint: true, Subnets: []netip.Prefix{px("10.0.3.0/24")}},
		4: {Name: "eth0", Kind: "veth"},
	}, Addrs: map[netip.Addr]int{ad("192.168.1.10"): 4}}
	for _, dst := range []string{"10.0.3.0/24", "10.0.3.5/32", "10.0.4.0/24", "fd00::/64", "0.0.0.0/0"} {
		if route := (Route{Dst: px(dst), Link: 2 + r.IntN(3), Main: true}); r.IntN(2) == 0 {
			if r.IntN(4) == 0 {
				route.Via = ad("10.9.0.1")
			}
			env.Routes = append(env.Routes, route)
		}
	}
	return env
}

func (p *plan) dump() string {
	var out strings.Builder
	for s := range p.elements {
		if len(p.elements[s]) == 0 {
			continue
		}
		def := &setDefs[s]
		fmt.Fprintln(&out, def.name)
		lines := []string{}
		for key, e := range p.elements[s] {
			line := "  " + showKey(def, key)
			if e.data != "" {
				line += " : " + showFields(e.data, def.data)
			}
			if name, rec, _ := readNote(e.note); e.note != "" {
				line += fmt.Sprintf("  # %s %x", name, rec)
			}
			lines = append(lines, line)
		}
		slices.Sort(lines)
		fmt.Fprintln(&out, strings.Join(lines, "\n"))
	}
	return out.String()
}

// showKey spells out blocks and subnets.
func showKey(def *setDef, key string) string {
	parts := strings.Split(showFields(key, def.key), " . ")
	if def.ports > 0 {
		first, i := int(def.port(key)), 1
		if def.one {
			i = 2
		}
		parts[i] = fmt.Sprintf("%d-%d", first, first+1<<def.ports-1)
	}
	if def.wide {
		parts[len(parts)-1] = middlePrefix(key[def.tail:]).String()
	}
	return strings.Join(parts, " . ")
}

func showFields(b string, fs []field) string {
	var parts []string
	for _, f := range fs {
		v := []byte(b[:f.size])
		switch f.typ {
		case typeAddr4, typeAddr6:
			a, _ := netip.AddrFromSlice(v)
			parts = append(parts, a.String())
		case typeService:
			parts = append(parts, fmt.Sprint(int(v[0])<<8|int(v[1])))
		case typeProto:
			parts = append(parts, fmt.Sprint(v[0]))
		default:
			parts = append(parts, strings.TrimRight(string(v), "\x00"))
		}
		b = b[f.padded():]
	}
	return strings.Join(parts, " . ")
}

// TestPlanFollowsChanges holds a plan that is changed step by step against one
// made at once, and its record of changes against what really changed.
func TestPlanFollowsChanges(t *testing.T) {
	t.Parallel()
	for seed := range uint64(15 * *rounds) {
		r := rand.New(rand.NewPCG(seed, 4))
		old, env := randomConfig(r, 20), randomEnvironment(r)
		p, err := newPlan(old, env)
		require.NoError(t, err)
		for step := range 30 {
			was, _ := newPlan(old, p.env)
			next := old.Clone()
			switch r.IntN(4) {
			case 0:
				next = randomConfig(r, r.IntN(25))
			case 1:
				if n := len(next.Forwards); n > 0 {
					i := r.IntN(n)
					next.Forwards = slices.Delete(next.Forwards, i, i+1)
				}
			case 2:
				next.Forwards = slices.Insert(next.Forwards, r.IntN(len(next.Forwards)+1), randomForward(r))
			case 3:
				env = randomEnvironment(r)
				r.Shuffle(len(next.Forwards), func(i, j int) {
					next.Forwards[i], next.Forwards[j] = next.Forwards[j], next.Forwards[i]
				})
			}
			want, wantErr := newPlan(next, env)
			err := p.change(editOf(old, next))
			if wantErr != nil {
				require.Error(t, err, "seed %d step %d", seed, step)
				require.Equal(t, was.dump(), p.dump(), "seed %d step %d: a refused change left traces", seed, step)
				p.setEnvironment(env)
				p.settle()
				continue
			}
			require.NoError(t, err, "seed %d step %d", seed, step)
			p.setEnvironment(env)
			require.Equal(t, want.dump(), p.dump(), "seed %d step %d", seed, step)
			w := p.delta(1)
			for s := range was.elements {
				for _, k := range w.del[s] {
					require.Equal(t, k.value, was.elements[s][k.key].value)
					delete(was.elements[s], k.key)
				}
				for _, k := range w.add[s] {
					require.NotContains(t, was.elements[s], k.key)
					was.elements[s][k.key] = &element{value: k.value, refs: 1}
				}
			}
			require.Equal(t, want.dump(), was.dump(), "seed %d step %d: deltas", seed, step)
			p.settle()
			old = next
		}
	}
}

// TestBlocks cuts ranges into blocks: each port is in exactly one, and no
// range takes more than 30.
func TestBlocks(t *testing.T) {
	t.Parallel()
	check := func(lo, hi uint16) int {
		n, at := 0, int(lo)
		blocks(lo, hi, func(first uint16, size uint8) {
			require.Equal(t, at, int(first), "%d-%d", lo, hi)
			require.Zero(t, at%(1<<size), "%d-%d", lo, hi)
			at += 1 << size
			n++
		})
		require.Equal(t, int(hi)+1, at, "%d-%d", lo, hi)
		return n
	}
	require.LessOrEqual(t, check(1, 65535), 16)
	require.LessOrEqual(t, check(1, 65534), 30)
	require.Equal(t, 1, check(80, 80))
	require.Equal(t, 1, check(65535, 65535))
	require.Equal(t, 1, check(32768, 65535))
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 * *rounds {
		lo := 1 + r.IntN(65535)
		require.LessOrEqual(t, check(uint16(lo), uint16(lo+r.IntN(65536-lo))), 30)
	}
}

// TestMiddles writes prefixes as their middles and reads them back; no two of
// them have the same.
func TestMiddles(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(3, 4))
	seen := map[netip.Addr]netip.Prefix{}
	for range 5000 * *rounds {
		a := netip.AddrFrom4([4]byte{10, byte(r.IntN(4)), byte(r.IntN(256)), byte(r.IntN(256))})
		if r.IntN(2) == 0 {
			a = netip.AddrFrom16([16]byte{0xfd, byte(r.IntN(3)), 15: byte(r.IntN(256))})
		}
		p := netip.PrefixFrom(a, r.IntN(a.BitLen())).Masked()
		m := middleAddr(p)
		require.Equal(t, p, middlePrefix(string(m.AsSlice())))
		require.True(t, p.Contains(m))
		if was, ok := seen[m]; ok {
			require.Equal(t, was, p)
		}
		seen[m] = p
	}
}

// TestKeysMeanOneThing looks every port and source up as the rules do, in
// random plans, and compares with what the forwards say.
func TestKeysMeanOneThing(t *testing.T) {
	t.Parallel()
	for seed := range uint64(40 * *rounds) {
		r := rand.New(rand.NewPCG(seed, 9))
		cfg := randomConfig(r, 25)
		p, err := newPlan(cfg, randomEnvironment(r))
		require.NoError(t, err)
		for _, addr := range []string{"203.0.113.7", "192.168.1.10", "127.0.0.1", "2001:db8::1", "2001:db8::2"} {
			for port := uint16(995); port < 1030; port++ {
				for _, proto := range protoNumbers {
					at := netip.AddrPortFrom(ad(addr), port)
					var want *Forward
					for i := range cfg.Forwards {
						f := &cfg.Forwards[i]
						if f.Source.Addr() == at.Addr() && slices.Contains(f.Protocols.numbers(), proto) && f.Source.Port() <= port && port < f.Source.Port()+uint16(f.ports()) {
							want = f
						}
					}
					got, to := p.lookup(at, proto)
					if want == nil {
						require.Nil(t, got, "seed %d: %s", seed, at)
						continue
					}
					require.Equal(t, want.Name, got.Name, "seed %d: %s", seed, at)
					require.Equal(t, netip.AddrPortFrom(want.Target.Addr, want.Target.Port+port-want.Source.Port()), to)
					for _, from := range []string{"192.168.1.7", "192.168.9.9", "10.0.3.9", "10.0.4.9", "172.16.0.1", "8.8.8.8", "10.9.0.2", "2001:db8:7::9", "fd00::9", "fd00:1::5", "2001:db8:9::1"} {
						if src := ad(from); src.Is6() == at.Addr().Is6() && want.limited() {
							admitted := slices.ContainsFunc(want.admitted(), func(p netip.Prefix) bool { return p.Contains(src) })
							require.Equal(t, admitted, p.allows(at, proto, src), "seed %d: %s from %s", seed, at, from)
						}
					}
				}
			}
		}
	}
}

// allows asks the sets as the rules for restricted forwards do.
func (p *plan) allows(at netip.AddrPort, proto uint8, src netip.Addr) bool {
	for s := range setDefs {
		def := &setDefs[s]
		if def.role < roleAllowed || def.role > roleAllowedHost || familySet(0, at.Addr()) != setID(s)/setsPerFamily*setsPerFamily {
			continue
		}
		for _, length := range p.lengthsOf(setID(s)) {
			port, tail := at.Port()>>def.ports<<def.ports, src
			if def.wide {
				tail = middleAddr(netip.PrefixFrom(src, int(length)).Masked())
			}
			if _, ok := p.elements[s][def.portKey(at.Addr(), proto, port, tail.AsSlice())]; ok {
				return true
			}
		}
	}
	return false
}

func TestShortcut(t *testing.T) {
	t.Parallel()
	env := Environment{Links: map[int]Link{
		1: {Name: "br0", Kind: "bridge", Subnets: []netip.Prefix{px("10.0.3.0/24")}},
		2: {Name: "wg0", Kind: "wireguard", PointToPoint: true, Subnets: []netip.Prefix{px("10.59.0.0/24")}},
		3: {Name: "veth1", Kind: "veth", Subnets: []netip.Prefix{px("10.7.0.1/32")}},
		4: {Name: "eth0", Subnets: []netip.Prefix{px("192.168.1.0/24")}},
	}, Routes: []Route{
		{Dst: px("10.0.3.0/24"), Link: 1, Main: true},
		{Dst: px("10.0.3.99/32"), Link: 1, Main: true},
		{Dst: px("10.59.0.0/24"), Link: 2, Main: true},
		{Dst: px("172.20.0.0/16"), Link: 2, Main: true},
		{Dst: px("172.21.0.9/32"), Link: 2, Main: true},
		{Dst: px("10.7.0.5/32"), Link: 3, Main: true},
		{Dst: px("192.168.1.0/24"), Link: 4, Main: true},
		{Dst: px("192.168.9.0/24"), Link: 4, Via: ad("192.168.1.1"), Main: true},
		{Dst: px("10.8.0.5/32"), Link: 3},
	}}
	for _, tc := range []struct {
		target, why string
		prefix      int
		want        string
	}{
		{"10.0.3.5", "a bridge", 24, "10.0.3.0/24"},
		{"10.0.3.99", "a host route to a bridge does not change what the target sees", 24, "10.0.3.0/24"},
		{"10.0.3.5", "no subnet given", 32, "10.0.3.5/32"},
		{"10.59.0.2", "a peer of the hub", 24, "10.59.0.2/32"},
		{"172.20.0.5", "a subnet behind a peer", 16, "172.20.0.0/16"},
		{"172.21.0.9", "one address behind a peer", 24, "172.21.0.9/32"},
		{"10.7.0.5", "a veth pair of its own", 24, "10.7.0.5/32"},
		{"192.168.1.20", "a shared segment", 24, "192.168.1.0/24"},
		{"192.168.9.5", "behind a router", 24, "192.168.9.0/24"},
		{"10.8.0.5", "routed by another table", 24, "10.8.0.5/32"},
		{"10.200.0.5", "no route", 24, "10.200.0.0/24"},
	} {
		require.Equal(t, px(tc.want), env.shortcut(ad(tc.target), tc.prefix), "%s: %s", tc.target, tc.why)
	}
}

// TestPlanGolden compares a plan that has everything with its written form.
func TestPlanGolden(t *testing.T) {
	t.Parallel()
	p, err := newPlan(goldenConfig(), Environment{
		Links:  map[int]Link{1: {Name: "br0", Kind: "bridge"}, 2: {Name: "veth1", Kind: "veth"}},
		Routes: []Route{{Dst: px("10.0.3.0/24"), Link: 1, Main: true}, {Dst: px("10.0.4.5/32"), Link: 2, Main: true}},
	})
	require.NoError(t, err)
	golden(t, "plan.golden", p.dump())
}

func goldenConfig() Config {
	a, b, six := Target{ad("10.0.3.5"), 24, 8080}, Target{ad("10.0.4.5"), 24, 2000}, Target{ad("fd00:3::5"), 64, 8080}
	return Config{Forwards: []Forward{
		{Name: "web", Source: ap("203.0.113.7:443"), Target: a},
		{Name: "udp only", Source: ap("203.0.113.7:53"), Target: a, Protocols: UDP},
		{Name: "range", Source: ap("203.0.113.7:2000"), Target: b, Count: 101},
		{Name: "offset", Source: ap("203.0.113.7:3000"), Target: b, Count: 3, Protocols: TCP},
		{Name: "lan", Source: ap("192.168.1.10:443"), Target: a, AllowFrom: []netip.Prefix{px("192.168.1.0/24"), px("192.168.1.7/32")}},
		{Name: "lan range", Source: ap("192.168.1.10:2000"), Target: b, Count: 101, AllowFrom: []netip.Prefix{px("192.168.1.0/24")}, AllowVia: []string{"wg0"}},
		{Name: "six", Source: ap("[2001:db8::7]:443"), Target: six},
		{Name: "six lan", Source: ap("[2001:db8::7]:80"), Target: six, Protocols: TCP, AllowFrom: []netip.Prefix{px("2001:db8::/64")}},
		{Name: "loop", Source: ap("127.0.0.1:80"), Target: a, Protocols: TCP},
	}}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(path, []byte(got), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), got, "run with -update to accept")
}

// kindOf makes forward number i of a kind, each with a target of its own.
func kindOf(i int, kind string) Forward {
	f := Forward{
		Name:   fmt.Sprint(kind, i),
		Source: netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, byte(i / 2000), 7}), uint16(1024+i%2000*32)),
		Target: Target{netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 24, 8080},
	}
	if strings.Contains(kind, "restricted") {
		f.AllowFrom = []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 16, byte(i), 0}), 24)}
	}
	if strings.Contains(kind, "gateway") {
		f.AllowVia = []string{"wg0"}
	}
	if strings.Contains(kind, "range") {
		f.Count, f.Target.Port = 27, f.Source.Port()
	}
	return f
}

// TestCostDoesNotGrow counts what a packet may have to walk, and what one
// change writes, with 10 forwards and with 10,000: rules and elements. All sets
// are hash sets, so that neither a lookup nor a change costs more with more.
func TestCostDoesNotGrow(t *testing.T) {
	t.Parallel()
	for s := range setDefs {
		require.Zero(t, setDefs[s].shape().flags&^8, setDefs[s].name) // a map at most
	}
	for _, kind := range []string{"open", "restricted", "gateway", "range", "restricted range", "gateway range"} {
		type cost struct{ rules, added, deleted, chains int }
		costs := map[cost]bool{}
		for _, n := range []int{10, 10000} {
			var cfg Config
			for i := range n + 1 {
				cfg.Forwards = append(cfg.Forwards, kindOf(i, kind))
			}
			less := Config{Forwards: cfg.Forwards[:n]}
			p, err := newPlan(less, Environment{})
			require.NoError(t, err)
			p.settle()
			c := &Controller{plan: p, chains: layout(1, p.lengthsOf, false)}
			for s := range c.have {
				c.have[s] = len(p.elements[s]) > 0
			}
			var is cost
			for _, chain := range c.chains {
				is.rules += len(chain.rules)
			}
			for i, next := range []Config{cfg, less} {
				require.NoError(t, p.change(editOf([]Config{less, cfg}[i], next)))
				w := p.delta(1)
				c.restructure(w)
				for s := range w.add {
					is.added += len(w.add[s])
					is.deleted += len(w.del[s])
				}
				is.chains += len(w.rules) + len(w.addSets) + len(w.delSets)
				p.settle()
			}
			require.Equal(t, is.added, is.deleted, kind)
			require.Zero(t, is.chains, kind)
			require.Less(t, is.rules, 60, kind)
			costs[is] = true
		}
		require.Len(t, costs, 1, "%s: it is different with 10,000: %v", kind, costs)
	}
}
