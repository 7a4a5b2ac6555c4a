package nat

import (
	"bytes"
	"context"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestOracle holds our table against one that the nft program loads from a
// script written by hand: both must list the same. The listing is kept as a
// golden file too.
func TestOracle(t *testing.T) {
	inNamespace(t, "nft", "ip")
	run := func(stdin, name string, args ...string) string {
		cmd := exec.Command(name, args...)
		cmd.Stdin = strings.NewReader(stdin)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		require.NoError(t, err, "%s %v: %s", name, args, stderr.String())
		return string(out)
	}
	run(`link add br0 type bridge
addr add 10.0.3.1/24 dev br0
link set br0 up
`, "ip", "-batch", "-")
	c := open(t)
	ctx := context.Background()
	require.NoError(t, c.Apply(ctx, goldenConfig()))
	ours := run("", "nft", "list", "table", "inet", "selfstead")
	golden(t, "ruleset.golden", ours)
	require.NoError(t, c.CleanUp(ctx))
	run("", "nft", "-f", "testdata/oracle.nft")
	theirs := run("", "nft", "list", "table", "inet", "selfstead")
	require.Equal(t, elementsOf(theirs), elementsOf(ours))
	require.Equal(t, chainsOf(theirs), chainsOf(ours), "the order of the rules")

	// What nft loaded differs in one point that it cannot say: it marks before
	// the lookup, also what it then does not find. Apply sees that and mends it.
	require.NoError(t, c.Apply(ctx, goldenConfig()))
	holds(t, c, goldenConfig())
	require.Equal(t, chainsOf(ours), chainsOf(run("", "nft", "list", "table", "inet", "selfstead")))
}

func chainsOf(listing string) string {
	_, chains, _ := strings.Cut(listing, "\tchain ")
	return chains
}
