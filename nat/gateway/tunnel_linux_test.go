package gateway

import (
	"bufio"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/selfstead/selfstead/nat/nattest"
	"github.com/selfstead/selfstead/nat/wg"
)

const insideEnv = "SELFSTEAD_GATEWAY_INSIDE"

// TestInside is no test of its own: the lab runs it in a namespace, because all
// sockets of a tunnel in user space must be there. It applies the .conf text
// that comes in, and ends with its input.
func TestInside(t *testing.T) {
	name := os.Getenv(insideEnv)
	if name == "" {
		return
	}
	in := bufio.NewReader(os.Stdin)
	if name == killed {
		applyForever(t)
		return
	}
	d, err := wg.Open(name, wg.Auto)
	require.NoError(t, err)
	text, err := strconv.Unquote(readLine(t, in))
	require.NoError(t, err)
	c, err := wg.Parse(strings.NewReader(text))
	require.NoError(t, err)
	require.NoError(t, d.Apply(t.Context(), c))
	fmt.Println("answer ready")
	_, err = io.Copy(io.Discard, in)
	require.NoError(t, err)
	require.NoError(t, d.Remove())
	require.NoError(t, d.Close())
}

func readLine(t *testing.T, r *bufio.Reader) string {
	t.Helper()
	line, err := r.ReadString('\n')
	require.NoError(t, err)
	return strings.TrimSpace(line)
}

// inside starts this program in a namespace.
func startInside(t *testing.T, s *nattest.Space, name string) (cmd *exec.Cmd, in io.WriteCloser, out *bufio.Reader) {
	t.Helper()
	cmd = exec.Command(os.Args[0], "-test.run=^TestInside$", "-test.v")
	cmd.Env = append(os.Environ(), insideEnv+"="+name)
	cmd.Stderr = os.Stderr
	s.Do(func() (err error) {
		if in, err = cmd.StdinPipe(); err != nil {
			return err
		}
		o, err := cmd.StdoutPipe()
		if err != nil {
			return err
		}
		out = bufio.NewReader(o)
		return cmd.Start()
	})
	return cmd, in, out
}

func answer(t *testing.T, out *bufio.Reader) string {
	t.Helper()
	for {
		if _, a, ok := strings.Cut(readLine(t, out), "answer "); ok {
			return a
		}
	}
}

// tunnel runs a WireGuard device until the test ends or stop is called.
func tunnel(t *testing.T, s *nattest.Space, name string, c wg.Config) (stop func()) {
	t.Helper()
	cmd, in, out := startInside(t, s, name)
	_, err := fmt.Fprintln(in, strconv.Quote(c.String()))
	require.NoError(t, err)
	require.Equal(t, "ready", answer(t, out))
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		in.Close()
		_, _ = io.Copy(io.Discard, out)
		require.NoError(t, cmd.Wait())
	}
	t.Cleanup(stop)
	return stop
}

// TestTunnel: a WireGuard tunnel is the default gateway. What it encrypts leaves
// by main and never enters it; when it ends, nothing leaves.
func TestTunnel(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	c := h.controller()
	hostKey, err := wg.GenerateKey()
	require.NoError(t, err)
	worldKey, err := wg.GenerateKey()
	require.NoError(t, err)
	const mark = 0xca6c
	// The sockets of devices in user space have names that all namespaces share.
	near, far := fmt.Sprintf("gw%dh", os.Getpid()), fmt.Sprintf("gw%dw", os.Getpid())
	tunnel(t, h.world, far, wg.Config{
		PrivateKey: worldKey, ListenPort: 51820, Addresses: []netip.Prefix{pfx("10.59.0.1/24"), pfx("fd59::1/64")},
		Peers: []wg.Peer{{PublicKey: hostKey.PublicKey(), AllowedIPs: []netip.Prefix{pfx("10.59.0.2/32"), pfx("fd59::2/128")}}},
	})
	h.host.IP("route del default via 198.51.100.1\nroute del default via 192.0.2.1") // IPv6 has one by each
	h.host.IP("route add default via 192.0.2.1 dev eth0 metric 100")
	start := func() func() {
		return tunnel(t, h.host, near, wg.Config{
			PrivateKey: hostKey, FwMark: mark, Addresses: []netip.Prefix{pfx("10.59.0.2/24"), pfx("fd59::2/64")},
			Peers: []wg.Peer{{
				PublicKey: worldKey.PublicKey(), Endpoint: "203.0.113.60:51820", Keepalive: time.Second,
				AllowedIPs: []netip.Prefix{pfx("0.0.0.0/0"), pfx("::/0")},
			}},
		})
	}
	h.host.Nft(fmt.Sprintf(`table inet egress {
	chain postrouting { type nat hook postrouting priority srcnat
		oifname %q ip saddr 10.0.3.0/24 masquerade
		oifname %q ip6 saddr fd00:3::/64 masquerade
	}
	chain loop { type filter hook postrouting priority 300
		oifname %q udp dport 51820 counter comment "loop"
	}
}`, near, near, near))
	stop := start()
	inside := map[string]netip.Addr{"IPv4": addr("10.59.0.2"), "IPv6": addr("fd59::2")}
	for _, k := range kins {
		h.world.Serve(at(k.inet, 80))
		h.host.Serve(at(k.eth0, 81))
		h.host.Serve(at(inside[k.name], 82))
		h.service.Serve(at(k.target, 8080))
	}

	encrypted := func() string {
		out, err := h.host.Output("ip", "route", "get", "203.0.113.60", "mark", fmt.Sprint(mark))
		if err != nil {
			return "refused"
		}
		_, dev, _ := strings.Cut(out, " dev ")
		return strings.Fields(dev)[0]
	}
	require.NoError(t, c.Apply(t.Context(), Config{Default: near}))
	require.Equal(t, near, encrypted(), "without its mark it would loop")

	cfg := Config{
		Gateways: []string{"eth0"}, Default: near, TunnelMarks: []uint32{mark},
		Sources: []Source{{pfx("10.0.3.5/32"), "eth0"}, {pfx("fd00:3::5/128"), "eth0"}},
	}
	require.NoError(t, c.Apply(t.Context(), cfg))
	require.Equal(t, "eth0", encrypted())
	loops := func() int {
		t.Helper()
		_, rest, _ := strings.Cut(h.host.Ruleset(), "udp dport 51820 counter packets ")
		n, err := strconv.Atoi(strings.Fields(rest)[0])
		require.NoError(t, err)
		return n
	}
	before := loops()
	for _, k := range kins {
		until(t, "the tunnel leads out: "+k.name, func() bool {
			seen, err := h.host.Ask(nattest.Dialer{Network: "tcp", Timeout: soon}, at(k.inet, 80))
			return err == nil && seen == inside[k.name]
		})
		for _, network := range []string{"tcp", "udp"} {
			require.Equal(t, inside[k.name], ask(t, h.host, network, none, at(k.inet, 80)))
			require.Equal(t, k.eth0, ask(t, h.service, network, none, at(k.inet, 80)), "a source's choice wins")
			require.Equal(t, k.inet, ask(t, h.world, network, k.inet, at(k.eth0, 81)), "in by the uplink, out by the uplink")
			require.Equal(t, k.inet, ask(t, h.world, network, k.inet, at(k.eth0, 5000)))
		}
		ask(t, h.world, "tcp", none, at(inside[k.name], 82))
	}
	cfg.Sources = nil
	require.NoError(t, c.Apply(t.Context(), cfg))
	h.host.Run("conntrack", "-F")
	for _, k := range kins {
		require.Equal(t, inside[k.name], ask(t, h.service, "tcp", none, at(k.inet, 80)))
	}

	// Main knows no way for the tunnel's packets: they still do not enter it.
	h.host.IP("route del default via 192.0.2.1")
	require.Equal(t, "refused", encrypted())
	h.host.IP("route add default via 192.0.2.1 dev eth0 metric 100")
	until(t, "the tunnel is back", func() bool {
		seen, err := h.host.Ask(nattest.Dialer{Network: "tcp", Timeout: soon}, at(kins[0].inet, 80))
		return err == nil && seen == inside["IPv4"]
	})
	require.Equal(t, before, loops(), "no packet of the tunnel entered it")

	stop()
	seen := h.count("asked0")
	for _, k := range kins {
		for _, network := range []string{"tcp", "udp"} {
			fails(t, h.host, network, none, at(k.inet, 80))
			fails(t, h.service, network, none, at(k.inet, 80))
		}
	}
	require.Equal(t, seen, h.count("asked0"), "nothing left without the tunnel")
	start()
	for _, k := range kins {
		until(t, "the tunnel leads out again: "+k.name, func() bool {
			seen, err := h.host.Ask(nattest.Dialer{Network: "tcp", Timeout: soon}, at(k.inet, 80))
			return err == nil && seen == inside[k.name]
		})
	}
}
