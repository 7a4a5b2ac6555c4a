package nat

import (
	"context"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// logHook calls a function for each log record.
type logHook struct{ call func(msg string) }

func (h logHook) Enabled(context.Context, slog.Level) bool { return true }
func (h logHook) WithAttrs([]slog.Attr) slog.Handler       { return h }
func (h logHook) WithGroup(string) slog.Handler            { return h }
func (h logHook) Handle(_ context.Context, r slog.Record) error {
	h.call(r.Message)
	return nil
}

// TestFlowsNotDeleted takes the connection tracking socket away between the
// switch of the rules and the deletion of flows, and before both: the rules
// from before are in force afterwards, and the next Apply, also of another
// process, deletes what was left.
func TestFlowsNotDeleted(t *testing.T) {
	for name, another := range map[string]bool{"the same process": false, "another process": true} {
		t.Run(name, func(t *testing.T) {
			inNamespace(t, "ip", "conntrack")
			for _, args := range []string{"link set lo up", "addr add 10.0.3.5/32 dev lo", "addr add 10.0.3.6/32 dev lo", "route add 203.0.113.0/24 dev lo"} {
				out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput()
				require.NoError(t, err, "%s: %s", args, out)
			}
			to := func(target string) Config {
				return Config{Forwards: []Forward{{Name: "web", Source: ap("203.0.113.7:5000"), Target: Target{ad(target), 32, 8080}}}}
			}
			flows := func() string {
				out, err := exec.Command("conntrack", "-L", "-p", "udp").Output()
				require.NoError(t, err)
				return string(out)
			}
			var c *Controller
			broken := 0
			fault := false
			take := func() {
				null, err := os.Open(os.DevNull)
				require.NoError(t, err)
				require.NoError(t, unix.Dup2(int(null.Fd()), c.flows.fd))
				require.NoError(t, null.Close())
				broken++
			}
			c, err := New(Options{Logger: slog.New(logHook{func(msg string) {
				if fault && msg == "nat: deleting flows" && broken == 0 {
					take()
				}
			}})})
			require.NoError(t, err)
			defer c.Close()
			spare, err := unix.Dup(c.flows.fd)
			require.NoError(t, err)
			defer unix.Close(spare)
			ctx := context.Background()
			require.NoError(t, c.Apply(ctx, to("10.0.3.5")))
			conn, err := net.Dial("udp4", "203.0.113.7:5000")
			require.NoError(t, err)
			defer conn.Close()
			_, err = conn.Write([]byte("?"))
			require.NoError(t, err)
			require.Contains(t, flows(), "src=10.0.3.5")

			fault = true
			err = c.Apply(ctx, to("10.0.3.6"))
			var failed *FlowError
			require.ErrorAs(t, err, &failed)
			require.ErrorIs(t, err, unix.ENOTSOCK)
			require.True(t, failed.Restored)
			require.ErrorContains(t, err, "the rules from before are in force again")
			require.Equal(t, 1, broken)
			holds(t, c, to("10.0.3.5"))
			require.Contains(t, flows(), "src=10.0.3.5", "the flow of the forward that is in force again")

			// Now it fails before anything is switched.
			gen := c.knownGeneration()
			require.ErrorIs(t, c.Apply(ctx, to("10.0.3.6")), unix.ENOTSOCK)
			require.Equal(t, gen, c.kernelGeneration(t), "something was written")

			require.NoError(t, unix.Dup2(spare, c.flows.fd))
			if another {
				require.NoError(t, c.Close())
				c = open(t)
			}
			require.NoError(t, c.Apply(ctx, to("10.0.3.6")))
			holds(t, c, to("10.0.3.6"))
			require.NotContains(t, flows(), "src=10.0.3.5")
		})
	}
}
