package nat_test

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/selfstead/selfstead/nat"
	"github.com/selfstead/selfstead/nat/nattest"
)

// changerEnv makes the test binary a process that changes forwards until it is killed.
const changerEnv = "NAT_TEST_CHANGER"

func TestMain(m *testing.M) {
	if seed := os.Getenv(changerEnv); seed != "" {
		n, err := strconv.ParseUint(seed, 10, 64)
		if err == nil {
			err = changer(n)
		}
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// changer makes 1,000 random changes, each a whole Apply.
func changer(seed uint64) error {
	c, err := nat.New(nat.Options{})
	if err != nil {
		return err
	}
	r := rand.New(rand.NewPCG(seed, 0))
	for step := range 1000 {
		if err := c.Apply(context.Background(), changing(r, 40)); err != nil {
			return err
		}
		if step == 0 {
			fmt.Println("ready")
		}
	}
	fmt.Println("done")
	return nil
}

// changing has a forward of port 5000 that never changes, and others that do.
func changing(r *rand.Rand, n int) nat.Config {
	cfg := publish(map[string]int{"4": 24, "6": 64})
	for i := range n {
		if r.IntN(2) == 0 {
			continue
		}
		fam := families[r.IntN(2)]
		f := nat.Forward{
			Name:   fmt.Sprint("changing ", i),
			Source: netip.AddrPortFrom(wanAddr[fam], uint16(10000+100*i)),
			Target: nat.Target{Addr: addrA[fam], Prefix: subnets[fam], Port: uint16(10000 + 100*i + r.IntN(2))},
			Count:  1 + r.IntN(2)*r.IntN(20),
		}
		if r.IntN(3) == 0 {
			f.Target.Addr = addrB[fam]
		}
		if r.IntN(3) == 0 {
			f.AllowFrom = []netip.Prefix{netip.PrefixFrom(lanHost[fam], []int{24, 16, 20}[r.IntN(3)])}
		}
		cfg.Forwards = append(cfg.Forwards, f)
	}
	return cfg
}

func randomSource(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 11)) }

// changes multiplies TestNothingLeaks: 200 makes it 10,000 changes.
var changes = flag.Int("changes", 1, "multiplies the number of changes of TestNothingLeaks")

var killRounds = flag.Int("kills", 6, "rounds of TestKilled")

// TestKilled kills a process at a random moment of 1,000 changes and lets
// another one take over. A client that connects every millisecond never fails,
// neither meanwhile nor after, and nothing is left over.
func TestKilled(t *testing.T) {
	t.Parallel()
	nattest.Require(t, "nft")
	n := newSite(t, "bridge")
	n.s.BridgeRules(true)
	for _, fam := range families {
		n.a.Serve(at(addrA[fam], 8080))
	}
	first := controller(t, n.s)
	apply(t, first, publish(subnets))
	require.NoError(t, first.Close()) // one controller a table

	stop := make(chan struct{})
	var wg sync.WaitGroup
	probed := map[string]int{}
	var mu sync.Mutex
	for _, client := range []*nattest.Space{n.l, n.a} {
		for _, fam := range families {
			want := lanHost[fam]
			if client == n.a {
				want = gateway[fam]
			}
			wg.Go(func() {
				tick := time.NewTicker(time.Millisecond)
				defer tick.Stop()
				for n := 0; ; n++ {
					select {
					case <-stop:
						return
					case <-tick.C:
					}
					// A moment without rules refuses a connection, and loses a
					// datagram for good; the limit is for a busy machine.
					network := networks[n%2]
					seen, err := client.Ask(nattest.Dialer{Network: network, Timeout: 10 * time.Second}, at(wanAddr[fam], 5000))
					if err != nil || seen != want {
						t.Errorf("%s, %s, IPv%s: saw %s, %v", client.Name, network, fam, seen, err)
						return
					}
					mu.Lock()
					probed[client.Name+fam]++
					mu.Unlock()
				}
			})
		}
	}
	self, err := os.Executable()
	require.NoError(t, err)
	r := rand.New(rand.NewPCG(uint64(*killRounds), 1))
	for round := range *killRounds {
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), changerEnv+"="+strconv.Itoa(round))
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		n.s.Do(cmd.Start)
		lines := bufio.NewScanner(out)
		require.True(t, lines.Scan(), "round %d: the changer did not start", round)
		timer := time.AfterFunc(time.Duration(r.IntN(400))*time.Millisecond, func() { _ = cmd.Process.Signal(unix.SIGKILL) })
		for lines.Scan() { // until it is killed, or done
		}
		_ = cmd.Wait()
		timer.Stop()

		c := controller(t, n.s)
		last := changing(rand.New(rand.NewPCG(uint64(round), 2)), 40)
		apply(t, c, last)
		list, err := c.Forwards(context.Background())
		require.NoError(t, err)
		require.Len(t, list, len(last.Forwards))
		require.NoError(t, c.Close())
	}
	close(stop)
	wg.Wait()
	t.Logf("connections made meanwhile: %v", probed)
	c := controller(t, n.s)
	apply(t, c, publish(subnets))
	clean := n.s.Ruleset()
	require.NoError(t, c.CleanUp(context.Background()))
	require.Empty(t, n.s.Ruleset())
	require.Contains(t, n.s.Run("ip", "-d", "link", "show", "vA"), "hairpin off")
	apply(t, c, publish(subnets))
	require.Equal(t, clean, n.s.Ruleset(), "something was left over from before")
}
