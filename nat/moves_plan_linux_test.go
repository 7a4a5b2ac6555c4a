package nat

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestWhatMoves tells changes that take two transactions from those that take one.
func TestWhatMoves(t *testing.T) {
	t.Parallel()
	it := func(change func(f *Forward)) Config {
		f := Forward{Name: "it", Source: ap("203.0.113.7:5000"), Target: Target{Addr: ad("10.0.3.5"), Prefix: 24, Port: 5000}}
		change(&f)
		other := Forward{Name: "other", Source: ap("203.0.113.7:443"), Target: Target{Addr: ad("10.0.3.6"), Prefix: 24, Port: 8443}}
		return Config{Forwards: []Forward{other, f}}
	}
	from := func(prefixes ...string) func(f *Forward) {
		return func(f *Forward) {
			for _, p := range prefixes {
				f.AllowFrom = append(f.AllowFrom, netip.MustParsePrefix(p))
			}
		}
	}
	long := func(n int) func(f *Forward) { return func(f *Forward) { f.Count = n } }
	open := from()
	none := Config{Forwards: it(open).Forwards[:1]}
	for name, step := range map[string]struct {
		was, is Config
		moves   bool
	}{
		"one more":              {none, it(open), false},
		"one less":              {it(open), none, false},
		"elsewhere":             {it(open), it(func(f *Forward) { f.Target.Addr = ad("10.0.3.7") }), false},
		"another name":          {it(open), it(func(f *Forward) { f.Name = "renamed" }), false},
		"another port":          {it(open), it(func(f *Forward) { f.Source = ap("203.0.113.7:6000") }), false},
		"one for another":       {it(from("192.168.1.0/24")), it(func(f *Forward) { f.Name, f.Source, f.Target.Port = "new", ap("203.0.113.7:6000"), 6000 }), false},
		"restricted":            {it(open), it(from("192.168.1.0/24")), true},
		"open":                  {it(from("192.168.1.0/24")), it(open), true},
		"to more":               {it(from("192.168.1.0/24")), it(from("192.168.1.0/24", "192.168.7.0/24")), false},
		"to fewer":              {it(from("192.168.1.0/24", "192.168.7.0/24")), it(from("192.168.1.0/24")), false},
		"to others":             {it(from("192.168.1.0/24")), it(from("192.168.0.0/16")), true},
		"restricted, elsewhere": {it(from("192.168.1.0/24")), it(func(f *Forward) { f.Target.Addr = ad("10.0.3.7"); from("192.168.1.0/24")(f) }), false},
		"one protocol":          {it(open), it(func(f *Forward) { f.Protocols = TCP }), true},
		"another protocol":      {it(func(f *Forward) { f.Protocols = UDP }), it(func(f *Forward) { f.Protocols = TCP }), false},
		"longer, other blocks":  {it(long(3)), it(long(4)), true},
		"longer, one more":      {it(long(4)), it(long(5)), false},
		"shorter":               {it(long(8)), it(long(7)), true},
	} {
		p, err := newPlan(step.was, Environment{})
		require.NoError(t, err, name)
		p.settle()
		require.NoError(t, p.change(editOf(step.was, step.is)), name)
		require.Equal(t, step.moves, p.delta(1).moves(), name)
	}
}
