package nat

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestLabelsDoNotCollide has two tables whose names stand for the same label,
// and a program that uses the next one.
func TestLabelsDoNotCollide(t *testing.T) {
	inNamespace(t, "nft", "ip", "conntrack")
	for _, args := range []string{"link set lo up", "addr add 10.0.3.5/32 dev lo", "route add 203.0.113.0/24 dev lo"} {
		out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput()
		require.NoError(t, err, "%s: %s", args, out)
	}
	twin := ""
	for i := 0; twin == ""; i++ {
		if name := fmt.Sprint("twin", i); labelBit(name) == labelBit("selfstead") {
			twin = name
		}
	}
	want := labelBit("selfstead")
	require.NoError(t, exec.Command("nft", fmt.Sprintf("add table ip other; add chain ip other c { type filter hook input priority 0; }; add rule ip other c ct label set %d", want+1)).Run())
	with := func(table string) *Controller {
		c, err := New(Options{Table: table})
		require.NoError(t, err)
		t.Cleanup(func() { c.Close() })
		return c
	}
	web := func(port uint16) Config {
		return Config{Forwards: []Forward{{Name: "web", Source: ap(fmt.Sprintf("203.0.113.7:%d", port)), Target: Target{ad("10.0.3.5"), 32, 8080}}}}
	}
	ctx := context.Background()
	a, b := with(""), with(twin)
	require.NoError(t, a.Apply(ctx, web(5000)))
	require.NoError(t, b.Apply(ctx, web(6000)))
	require.Equal(t, want, a.bit)
	require.Equal(t, want+2, b.bit)
	for _, port := range []string{"5000", "6000"} {
		conn, err := net.Dial("udp4", "203.0.113.7:"+port)
		require.NoError(t, err)
		defer conn.Close()
		_, err = conn.Write([]byte("?"))
		require.NoError(t, err)
	}

	// Another process finds each as it was.
	for table, bit := range map[string]int{"": want, twin: want + 2} {
		c := with(table)
		gen := c.kernelGeneration(t)
		cfg := web(5000)
		if table == twin {
			require.NoError(t, b.Close())
			cfg = web(6000)
		} else {
			require.NoError(t, a.Close())
		}
		require.NoError(t, c.Apply(ctx, cfg))
		require.Equal(t, bit, c.bit)
		require.Equal(t, gen, c.kernelGeneration(t), "something was written")
		require.NoError(t, c.Close())
	}
	// Cleaning up one leaves the other's flows alone.
	c := with(twin)
	require.NoError(t, c.CleanUp(ctx))
	out, err := exec.Command("conntrack", "-L", "-p", "udp").Output()
	require.NoError(t, err)
	require.Contains(t, string(out), "dport=5000")
	require.NotContains(t, string(out), "dport=6000")
	require.NoError(t, c.CleanUp(ctx), "without a table")
	out, err = exec.Command("conntrack", "-L", "-p", "udp").Output()
	require.NoError(t, err)
	require.Contains(t, string(out), "dport=5000")

	// No label is left.
	var script strings.Builder
	for i := range labelCount {
		fmt.Fprintf(&script, "add rule ip other c ct label set %d\n", i)
	}
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(script.String())
	require.NoError(t, cmd.Run())
	require.ErrorIs(t, with("third").Apply(ctx, web(7000)), ErrNoLabel)
	list, err := exec.Command("nft", "list", "tables").Output()
	require.NoError(t, err)
	require.NotContains(t, string(list), "third")
}
