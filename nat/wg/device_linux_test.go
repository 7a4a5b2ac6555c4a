package wg

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/selfstead/selfstead/nat/nattest"
)

const insideEnv = "SELFSTEAD_WG_INSIDE"

// TestInside is no test of its own: the lab runs it in a namespace. It opens a
// device and applies each .conf text (JSON, one a line) that comes in.
func TestInside(t *testing.T) {
	name := os.Getenv(insideEnv)
	if name == "" {
		return
	}
	d, err := Open(name, Auto)
	fmt.Printf("answer %v\n", err)
	if err != nil {
		return
	}
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		var text string
		require.NoError(t, json.Unmarshal(in.Bytes(), &text))
		c, err := Parse(strings.NewReader(text))
		if err == nil {
			err = d.Apply(t.Context(), c)
		}
		fmt.Printf("answer %v\n", err)
	}
	require.NoError(t, d.Remove())
	require.NoError(t, d.Close())
}

// end is one device in its own namespace and process.
type end struct {
	t    *testing.T
	name string
	in   io.WriteCloser
	r    *bufio.Reader
}

func open(t *testing.T, s *nattest.Space) *end {
	t.Helper()
	// User space devices have sockets whose names all namespaces share.
	e := &end{t: t, name: fmt.Sprintf("wg%d%s", os.Getpid(), s.Name[len(s.Name)-1:])}
	cmd := exec.Command(os.Args[0], "-test.run=^TestInside$", "-test.v")
	cmd.Env = append(os.Environ(), insideEnv+"="+e.name)
	cmd.Stderr = os.Stderr
	s.Do(func() (err error) {
		if e.in, err = cmd.StdinPipe(); err != nil {
			return err
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			return err
		}
		e.r = bufio.NewReader(out)
		return cmd.Start()
	})
	t.Cleanup(func() {
		e.in.Close()
		io.Copy(io.Discard, e.r)
		require.NoError(t, cmd.Wait())
		require.NotContains(t, s.Run("ip", "-o", "link"), e.name, "removed with its owner")
	})
	require.Equal(t, "<nil>", e.answer())
	return e
}

func (e *end) answer() string {
	e.t.Helper()
	for {
		line, err := e.r.ReadString('\n')
		require.NoError(e.t, err)
		if _, a, ok := strings.Cut(line, "answer "); ok {
			return strings.TrimSpace(a)
		}
	}
}

func (e *end) apply(c Config) string {
	e.t.Helper()
	raw, err := json.Marshal(c.String())
	require.NoError(e.t, err)
	_, err = e.in.Write(append(raw, '\n'))
	require.NoError(e.t, err)
	return e.answer()
}

func key(t *testing.T) Key {
	t.Helper()
	k, err := GenerateKey()
	require.NoError(t, err)
	return k
}

// TestTunnel joins two hosts, changes one peer while a flow of the other is
// open, and takes addresses back.
func TestTunnel(t *testing.T) {
	nattest.Require(t, "ip")
	lab := nattest.NewLab(t)
	a, b := lab.Space("a"), lab.Space("b")
	lab.Join(a, "eth0", b, "eth0")
	a.IP("addr add 192.0.2.1/24 dev eth0")
	b.IP("addr add 192.0.2.2/24 dev eth0")
	ka, kb, psk := key(t), key(t), key(t)
	left := Config{
		PrivateKey: ka, ListenPort: 51820, Addresses: []netip.Prefix{netip.MustParsePrefix("10.59.0.1/24"), netip.MustParsePrefix("fd00:59::1/64")},
		Peers: []Peer{{PublicKey: kb.PublicKey(), PresharedKey: psk, AllowedIPs: []netip.Prefix{netip.MustParsePrefix("10.59.0.2/32"), netip.MustParsePrefix("fd00:59::2/128")}}},
	}
	right := Config{
		PrivateKey: kb, Addresses: []netip.Prefix{netip.MustParsePrefix("10.59.0.2/24"), netip.MustParsePrefix("fd00:59::2/64")},
		Peers: []Peer{{
			PublicKey: ka.PublicKey(), PresharedKey: psk, Endpoint: "192.0.2.1:51820", Keepalive: 5 * time.Second,
			AllowedIPs: []netip.Prefix{netip.MustParsePrefix("10.59.0.0/24"), netip.MustParsePrefix("fd00:59::/64")},
		}},
	}
	ea, eb := open(t, a), open(t, b)
	require.Equal(t, "<nil>", ea.apply(left))
	require.Equal(t, "<nil>", eb.apply(right))
	for _, ip := range []string{"10.59.0.1", "fd00:59::1"} {
		to := netip.AddrPortFrom(netip.MustParseAddr(ip), 5000)
		a.Serve(to)
		seen, err := b.Ask(nattest.Dialer{Network: "tcp", Timeout: 10 * time.Second}, to)
		require.NoError(t, err)
		require.Equal(t, strings.ReplaceAll(ip, "::1", "::2"), strings.ReplaceAll(seen.String(), "0.2", "0.1"))
	}
	flow, err := b.Open(nattest.Dialer{Network: "tcp", Timeout: 5 * time.Second}, netip.MustParseAddrPort("10.59.0.1:5000"))
	require.NoError(t, err)
	defer flow.Close()
	_, err = flow.Seen(5 * time.Second)
	require.NoError(t, err)

	more := left.Clone()
	more.Peers = append(more.Peers, Peer{PublicKey: key(t).PublicKey(), AllowedIPs: []netip.Prefix{netip.MustParsePrefix("10.59.0.3/32")}})
	more.Addresses = append(more.Addresses, netip.MustParsePrefix("10.61.0.1/24"))
	for _, c := range []Config{more, more, left} {
		require.Equal(t, "<nil>", ea.apply(c))
		require.NoError(t, flow.Echo("still here", 5*time.Second), "a peer that stays keeps its session")
		require.Equal(t, len(c.Addresses) == 3, strings.Contains(a.Run("ip", "-o", "addr", "show", "dev", ea.name), "10.61.0.1/24"))
	}

	bad := left.Clone()
	bad.Peers[0].Endpoint = "nowhere.invalid:1"
	require.Contains(t, ea.apply(bad), "wg: peer")
	require.NoError(t, flow.Echo("unharmed", 5*time.Second))

	alone := left.Clone()
	alone.Peers = nil
	require.Equal(t, "<nil>", ea.apply(alone))
	_, err = b.Ask(nattest.Dialer{Network: "tcp", Timeout: 500 * time.Millisecond}, netip.MustParseAddrPort("10.59.0.1:5000"))
	require.Error(t, err, "a peer that was taken out is out")
	a.IP("link set " + ea.name + " down") // it is removed all the same
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"", "a-name-of-16-char"} {
		_, err := Open(name, Auto)
		require.ErrorIs(t, err, ErrInvalid)
	}
}
