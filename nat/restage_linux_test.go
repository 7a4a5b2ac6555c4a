package nat_test

import (
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/selfstead/selfstead/nat/nattest"
)

// probing connects from each client to port 5000 of S's WAN address once a
// millisecond, by TCP and UDP in turn, until stop is called, which returns how
// often. Any failure fails the test.
func probing(t *testing.T, n *site, clients ...*nattest.Space) (stop func() int64) {
	t.Helper()
	var done atomic.Bool
	var probed atomic.Int64
	var wg sync.WaitGroup
	for _, client := range clients {
		want := lanHost["4"]
		if client == n.a {
			want = gateway["4"]
		}
		wg.Go(func() {
			tick := time.NewTicker(time.Millisecond)
			defer tick.Stop()
			for i := 0; !done.Load(); i++ {
				<-tick.C
				seen, err := client.Ask(nattest.Dialer{Network: networks[i%2], Timeout: 10 * time.Second}, at(wanAddr["4"], 5000))
				if err != nil || seen != want {
					t.Errorf("%s, %s: saw %s, %v", client.Name, networks[i%2], seen, err)
					return
				}
				probed.Add(1)
			}
		})
	}
	return func() int64 {
		done.Store(true)
		wg.Wait()
		return probed.Load()
	}
}

// TestOtherShape takes over tables whose sets have another shape: that of an
// older version of this package, and one with a foreign chain and a foreign set
// in it. A client that connects every millisecond never fails.
func TestOtherShape(t *testing.T) {
	t.Parallel()
	nattest.Require(t, "nft")
	n := newSite(t, "bridge")
	n.s.BridgeRules(true)
	n.s.Run("ip", "link", "set", "vA", "type", "bridge_slave", "hairpin", "on")
	n.a.Serve(at(addrA["4"], 8080))
	older, err := os.ReadFile("testdata/older.nft")
	require.NoError(t, err)
	n.s.Nft(string(older))
	stop := probing(t, n, n.l, n.a)
	for range 5 * *changes {
		cfg := changing(randomSource(uint64(*changes)), 40)
		c := controller(t, n.s)
		apply(t, c, cfg)
		require.NoError(t, c.Close())
		rules := n.s.Ruleset()
		require.NotContains(t, rules, "interval")
		require.NotContains(t, rules, ".a {", "nothing is left of the change")
		require.NotContains(t, rules, "foreign")

		// Back to the old table, as far as nft can do that without a gap: it
		// stands beside ours, which then goes.
		n.s.Nft(strings.ReplaceAll(string(older), "inet selfstead", "inet other"))
		n.s.Nft("delete table inet selfstead")
		n.s.Nft(string(older))
		n.s.Nft("delete table inet other")
	}
	t.Logf("%d connections made meanwhile", stop())
}
