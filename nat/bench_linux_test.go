package nat_test

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/selfstead/selfstead/nat"
	"github.com/selfstead/selfstead/nat/nattest"
)

// many returns n forwards, each for TCP and UDP, of the given kind, with a
// target address of its own for each.
func many(n int, kind string) nat.Config {
	cfg := nat.Config{Forwards: make([]nat.Forward, n)}
	for i := range cfg.Forwards {
		cfg.Forwards[i] = nth(i, kind)
	}
	return cfg
}

// kinds are what nth can make; one is more than one of them where it says so.
var kinds = []string{"open", "restricted", "gateway", "range", "restricted range", "gateway range", "subnets", "offset range"}

// nth returns the forward number i of a kind; those of kind "subnets" have a
// subnet of their own each, at both ends.
func nth(i int, kind string) nat.Forward {
	f := nat.Forward{
		Name:   fmt.Sprintf("forward %d", i),
		Source: netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, byte(i / 5000), 7}), uint16(1024+i%5000*10)),
		Target: nat.Target{Addr: netip.AddrFrom4([4]byte{10, 1, byte(i / 250), byte(1 + i%250)}), Prefix: 16, Port: 8080},
	}
	lan := []netip.Prefix{netip.MustParsePrefix("192.168.1.0/24")}
	switch kind {
	case "restricted", "restricted range":
		f.AllowFrom = lan
	case "gateway", "gateway range":
		f.AllowVia = []string{"wg0"}
	case "subnets":
		f.Target.Addr, f.Target.Prefix = netip.AddrFrom4([4]byte{10, byte(i / 250), byte(1 + i%250), 5}), 24
		f.AllowFrom = []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{172, byte(i / 250), byte(1 + i%250), 0}), 24)}
	case "offset range":
		f.Count = 10
	}
	if strings.HasSuffix(kind, "range") && kind != "offset range" {
		f.Count, f.Target.Port = 10, f.Source.Port()
	}
	return f
}

// cpuTime is what this process has used so far: on a busy machine it says more
// than the clock.
func cpuTime(tb testing.TB) time.Duration {
	var u unix.Rusage
	require.NoError(tb, unix.Getrusage(unix.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// Bars, by the clock.
const (
	barThousand = 30 * time.Millisecond // for each 1,000 forwards applied to an empty table
	barOne      = 2 * time.Millisecond  // for one forward more, or less
)

// BenchmarkApply measures a Config on an empty table, and one forward more and
// less on top of it. The best of all rounds counts, by the clock and in
// processor time, which a busy machine distorts less; each also as a part of
// its bar.
func BenchmarkApply(b *testing.B) {
	for _, n := range []int{1, 1000, 10000} {
		for _, kind := range kinds {
			b.Run(fmt.Sprintf("%s/%d", kind, n), func(b *testing.B) {
				lab := nattest.NewLab(b)
				s := lab.Router("S")
				cfg := many(n, kind)
				c := controller(b, s)
				ctx := context.Background()
				best := map[string]time.Duration{}
				step := func(name string, fn func() error) {
					clock, cpu := time.Now(), cpuTime(b)
					require.NoError(b, fn())
					for k, v := range map[string]time.Duration{"ms/" + name: time.Since(clock), "cpu-ms/" + name: cpuTime(b) - cpu} {
						if was, ok := best[k]; !ok || v < was {
							best[k] = v
						}
					}
				}
				plus := many(n+1, kind)
				for b.Loop() {
					step("empty", func() error { return c.Apply(ctx, cfg) })
					step("one-more", func() error { return c.Apply(ctx, plus) })
					step("one-less", func() error { return c.Apply(ctx, cfg) })
					step("same", func() error { return c.Apply(ctx, cfg) })
					require.NoError(b, c.CleanUp(ctx))
				}
				for k, v := range best {
					b.ReportMetric(ms(v), k)
					_, step, _ := strings.Cut(k, "/")
					bar := barOne
					if step == "empty" {
						bar = barThousand * time.Duration(max(n, 1000)) / 1000
					}
					if step != "same" {
						b.ReportMetric(float64(v)/float64(bar), strings.Replace(k, "ms/", "bar/", 1))
					}
				}
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

// BenchmarkRareChanges measures, on top of 10,000 forwards, the first forward of
// a length and the first restriction of a prefix length, which need sets and
// rules of their own, and a forward that becomes restricted, which takes two
// transactions with some milliseconds of waiting between them. The best counts.
func BenchmarkRareChanges(b *testing.B) {
	s := nattest.NewLab(b).Router("S")
	c := controller(b, s)
	base := many(10000, "open")
	first := nat.Forward{Name: "first", Source: at(netip.MustParseAddr("198.51.100.7"), 3001), Count: 300,
		Target: nat.Target{Addr: netip.MustParseAddr("10.1.2.3"), Prefix: 16, Port: 3001}, AllowFrom: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/13")}}
	plus, restricted := base.Clone(), base.Clone()
	plus.Forwards = append(plus.Forwards, first)
	restricted.Forwards[5000].AllowFrom = first.AllowFrom
	apply(b, c, base)
	best := map[string]time.Duration{}
	step := func(name string, cfg nat.Config) {
		clock, cpu := time.Now(), cpuTime(b)
		apply(b, c, cfg)
		for k, v := range map[string]time.Duration{"ms/" + name: time.Since(clock), "cpu-ms/" + name: cpuTime(b) - cpu} {
			if was, ok := best[k]; !ok || v < was {
				best[k] = v
			}
		}
	}
	for b.Loop() {
		step("first", plus)
		step("last", base)
		step("restricted", restricted)
		step("open", base)
	}
	for k, v := range best {
		b.ReportMetric(ms(v), k)
	}
	b.ReportMetric(0, "ns/op")
}

// BenchmarkScript compares one forward more on top of 300 with what scripts
// do: the nft program reads the rule set to find the rules of that forward,
// then loads new ones.
func BenchmarkScript(b *testing.B) {
	nattest.Require(b, "nft")
	lab := nattest.NewLab(b)
	s := lab.Router("S")
	c := controller(b, s)
	ctx := context.Background()
	base, plus := many(300, "open"), many(301, "open")
	require.NoError(b, c.Apply(ctx, base))
	var script strings.Builder
	script.WriteString("table ip linear {\nchain p {\ntype nat hook prerouting priority -100\n")
	for _, f := range base.Forwards {
		for range 6 { // DNAT twice, forward, masquerade twice and once more for UDP
			fmt.Fprintf(&script, "ip daddr %s meta l4proto { tcp, udp } th dport %d dnat to %s:%d comment \"F%s\"\n", f.Source.Addr(), f.Source.Port(), f.Target.Addr, f.Target.Port, f.Name)
		}
	}
	s.Nft(script.String() + "}\n}\n")
	var ours, theirs time.Duration
	for b.Loop() {
		start := time.Now()
		require.NoError(b, c.Apply(ctx, plus))
		ours += time.Since(start)
		require.NoError(b, c.Apply(ctx, base))
		start = time.Now()
		for range 2 { // once to find, once for each chain changed
			s.Run("nft", "-a", "list", "table", "ip", "linear")
		}
		s.Nft("add rule ip linear p ip daddr 203.0.113.9 tcp dport 1 dnat to 10.0.0.1:1\n")
		theirs += time.Since(start)
	}
	b.ReportMetric(ms(ours)/float64(b.N), "ms/one-more")
	b.ReportMetric(ms(theirs)/float64(b.N), "ms/script")
	b.ReportMetric(float64(theirs)/float64(ours), "script/one-more")
	b.ReportMetric(0, "ns/op")
}
