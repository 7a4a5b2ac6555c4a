package portmap

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/selfstead/selfstead/nat/nattest"
)

const insideEnv = "SELFSTEAD_PORTMAP_INSIDE"

// order is what TestInside is told to do in a namespace of the lab.
type order struct {
	Options  Options
	Requests []Request
	Renew    bool
	Release  bool
}

// TestInside is no test of its own: the lab runs it on the inner host.
func TestInside(t *testing.T) {
	text := os.Getenv(insideEnv)
	if text == "" {
		return
	}
	var o order
	require.NoError(t, json.Unmarshal([]byte(text), &o))
	c, err := NewClient(o.Options)
	require.NoError(t, err)
	for _, r := range o.Requests {
		m, err := c.Map(t.Context(), r, nil)
		if err == nil && o.Renew {
			again, rerr := c.Map(t.Context(), r, &m)
			require.NoError(t, rerr)
			require.Equal(t, m.Outside, again.Outside, "a renewal keeps the port")
		}
		if err == nil && o.Release {
			err = c.Unmap(t.Context(), m)
		}
		fmt.Printf("answer %s %s %s\n", m.Via, m.Outside, strings.ReplaceAll(fmt.Sprint(err), "\n", "; "))
	}
}

func run(t *testing.T, s *nattest.Space, o order) []string {
	t.Helper()
	raw, err := json.Marshal(o)
	require.NoError(t, err)
	out, err := s.Output("env", insideEnv+"="+string(raw), os.Args[0], "-test.run=^TestInside$", "-test.v")
	require.NoError(t, err, out)
	var answers []string
	for line := range strings.Lines(out) {
		if _, a, ok := strings.Cut(line, "answer "); ok {
			answers = append(answers, strings.TrimSpace(a))
		}
	}
	return answers
}

// router starts a real miniupnpd in a namespace of its own.
func router(t *testing.T, s *nattest.Space, extra string) {
	t.Helper()
	s.Nft(`table inet filter {
chain forward { type filter hook forward priority 0; policy accept; jump miniupnpd; }
chain miniupnpd { }
chain prerouting { type nat hook prerouting priority -100; policy accept; jump prerouting_miniupnpd; }
chain postrouting { type nat hook postrouting priority 100; policy accept; jump postrouting_miniupnpd; oifname wan0 masquerade; }
chain prerouting_miniupnpd { }
chain postrouting_miniupnpd { }
}
`)
	dir := t.TempDir()
	conf := filepath.Join(dir, "miniupnpd.conf")
	require.NoError(t, os.WriteFile(conf, []byte(`ext_ifname=wan0
listening_ip=lan0
http_port=0
enable_natpmp=yes
enable_upnp=yes
secure_mode=yes
min_lifetime=2
max_lifetime=86400
upnp_forward_chain=miniupnpd
upnp_nat_chain=prerouting_miniupnpd
upnp_nat_postrouting_chain=postrouting_miniupnpd
uuid=7f9c1f9a-0000-4000-8000-000000000001
allow 1024-65535 192.168.1.0/24 1024-65535
deny 0-65535 0.0.0.0/0 0-65535
`+extra), 0o644))
	var cmd *exec.Cmd
	s.Do(func() error {
		cmd = exec.Command("miniupnpd", "-d", "-f", conf, "-P", filepath.Join(dir, "pid"))
		log, err := os.Create(filepath.Join(dir, "log"))
		if err != nil {
			return err
		}
		cmd.Stdout, cmd.Stderr = log, log
		return cmd.Start()
	})
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(dir, "log"))
			t.Logf("miniupnpd:\n%s", log[max(0, len(log)-4000):])
		}
	})
	end := time.Now().Add(20 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !strings.Contains(s.Run("ss", "-lun"), ":5351") {
		require.True(t, time.Now().Before(end), "miniupnpd listens")
		<-tick.C
	}
}

// TestAgainstMiniupnpd maps by each protocol and reaches the mapped ports from
// outside.
func TestAgainstMiniupnpd(t *testing.T) {
	nattest.Require(t, "ip", "nft", "miniupnpd", "ss")
	lab := nattest.NewLab(t)
	host, r, outside := lab.Space("host"), lab.Router("router"), lab.Space("outside")
	lab.Join(host, "eth0", r, "lan0")
	lab.Join(r, "wan0", outside, "eth0")
	host.IP("addr add 192.168.1.10/24 dev eth0\nroute add default via 192.168.1.1")
	r.IP("addr add 192.168.1.1/24 dev lan0\naddr add 8.8.4.2/24 dev wan0\nroute add 239.0.0.0/8 dev lan0")
	outside.IP("addr add 8.8.4.9/24 dev eth0")
	router(t, r, "")
	host.Serve(netip.MustParseAddrPort("192.168.1.10:5000"))

	o := Options{Interface: "eth0", Local: netip.MustParseAddr("192.168.1.10"), Router: netip.MustParseAddr("192.168.1.1")}
	for i, via := range []string{"pcp", "nat-pmp", "upnp"} {
		o.Protocols = []string{via}
		req := Request{Protocol: TCP, Internal: 5000, External: uint16(6000 + i)}
		want := fmt.Sprintf("%s 8.8.4.2:%d <nil>", via, req.External)
		require.Equal(t, []string{want}, run(t, host, order{Options: o, Requests: []Request{req}, Renew: true}))
		at := netip.AddrPortFrom(netip.MustParseAddr("8.8.4.2"), req.External)
		seen, err := outside.Ask(nattest.Dialer{Network: "tcp", Timeout: 5 * time.Second}, at)
		require.NoError(t, err, via)
		require.Equal(t, "8.8.4.9", seen.String())
	}
	o.Protocols = nil
	require.Equal(t, []string{"pcp 8.8.4.2:7000 <nil>"}, run(t, host, order{Options: o, Requests: []Request{{Protocol: UDP, Internal: 7000}}}))
	for _, via := range []string{"pcp", "nat-pmp", "upnp"} {
		o.Protocols = []string{via}
		req := Request{Protocol: TCP, Internal: 5001, External: 6100}
		got := run(t, host, order{Options: o, Requests: []Request{req}, Release: true})
		require.Equal(t, []string{via + " 8.8.4.2:6100 <nil>"}, got, "released")
		_, err := outside.Ask(nattest.Dialer{Network: "tcp", Timeout: 300 * time.Millisecond}, netip.MustParseAddrPort("8.8.4.2:6100"))
		require.Error(t, err, via)
	}
	o.Protocols = []string{"upnp"}
	denied := run(t, host, order{Options: o, Requests: []Request{{Protocol: TCP, Internal: 80, External: 80}}})
	require.Contains(t, strings.Join(denied, ""), ErrRefused.Error())
	o.Protocols, o.Router = nil, netip.MustParseAddr("192.168.1.99")
	got := run(t, host, order{Options: o, Requests: []Request{{Protocol: TCP, Internal: 5000}}})
	require.Contains(t, strings.Join(got, ""), ErrUnavailable.Error())
}

// TestAnswersOfAnyKind sets a server of our own in the router's place.
func TestAnswersOfAnyKind(t *testing.T) {
	nattest.Require(t, "ip")
	lab := nattest.NewLab(t)
	host, r := lab.Space("host"), lab.Space("router")
	lab.Join(host, "eth0", r, "lan0")
	host.IP("addr add 192.168.1.10/24 dev eth0")
	r.IP("addr add 192.168.1.1/24 dev lan0")
	var pc net.PacketConn
	r.Do(func() (err error) { pc, err = net.ListenPacket("udp4", "192.168.1.1:5351"); return err })
	t.Cleanup(func() { pc.Close() })
	go func() {
		buf := make([]byte, 100)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			q := bytes.Clone(buf[:n])
			answers := [][]byte{{}, {2}, bytes.Repeat([]byte{0xff}, 1100)} // none of them is to the point
			q[1] |= 0x80
			other := bytes.Clone(q)
			if q[0] == 2 { // PCP
				other[30] ^= 1 // another mapping's nonce
				q[3] = 8
			} else {
				other[1] ^= 3 // the other transport
				q[2], q[3] = 0, 2
			}
			for _, a := range append(answers, other, q) {
				pc.WriteTo(a, from)
			}
		}
	}()
	o := Options{Local: netip.MustParseAddr("192.168.1.10"), Router: netip.MustParseAddr("192.168.1.1")}
	for via, want := range map[string]string{"pcp": "pcp: no resources (8)", "nat-pmp": "nat-pmp: not authorized (2)"} {
		o.Protocols = []string{via}
		got := run(t, host, order{Options: o, Requests: []Request{{Protocol: TCP, Internal: 80}}})
		require.Contains(t, strings.Join(got, ""), want)
	}
}

// TestLinkLocalRouter asks a router that is known by its link-local address, as
// IPv6 default routes tell it.
func TestLinkLocalRouter(t *testing.T) {
	nattest.Require(t, "ip")
	lab := nattest.NewLab(t)
	host, r := lab.Space("host"), lab.Space("router")
	lab.Join(host, "eth0", r, "lan0")
	host.IP("addr add 2001:db8:1::10/64 dev eth0 nodad")
	r.IP("addr add 2001:db8:1::1/64 dev lan0 nodad\naddr add fe80::1/64 dev lan0 nodad")
	var pc net.PacketConn
	r.Do(func() (err error) { pc, err = net.ListenPacket("udp6", "[fe80::1%lan0]:5351"); return err })
	t.Cleanup(func() { pc.Close() })
	go func() {
		buf := make([]byte, 100)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			buf[1] |= 0x80
			buf[3] = 8
			pc.WriteTo(buf[:n], from)
		}
	}()
	o := Options{Interface: "eth0", Local: netip.MustParseAddr("2001:db8:1::10"), Router: netip.MustParseAddr("fe80::1%eth0"), Protocols: []string{"pcp"}}
	got := strings.Join(run(t, host, order{Options: o, Requests: []Request{{Protocol: TCP, Internal: 80}}}), "")
	require.Contains(t, got, "pcp: no resources (8)", "it was asked, and answered")
}

func TestRequests(t *testing.T) {
	t.Parallel()
	r, err := Request{Protocol: UDP, Internal: 9}.normal()
	require.NoError(t, err)
	require.Equal(t, Request{Protocol: UDP, Internal: 9, External: 9, Lifetime: 2 * time.Hour}, r)
	for _, bad := range []Request{{Internal: 1}, {Protocol: TCP}, {Protocol: TCP, Internal: 1, Lifetime: time.Millisecond}, {Protocol: TCP, Internal: 1, Lifetime: 25 * time.Hour}} {
		_, err := bad.normal()
		require.ErrorIs(t, err, ErrInvalid)
	}
	local, other := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	for _, bad := range []Options{{}, {Local: local}, {Local: local, Router: other}, {Local: local, Router: local, Protocols: []string{"x"}}} {
		_, err := NewClient(bad)
		require.ErrorIs(t, err, ErrInvalid)
	}
}

// fakeRouter is a Mapper that grants and counts.
type fakeRouter struct {
	calls chan string
	fail  chan error
	epoch chan uint32
}

func (f *fakeRouter) Map(_ context.Context, r Request, before *Mapping) (Mapping, error) {
	select {
	case err := <-f.fail:
		f.calls <- fmt.Sprintf("fail %d", r.Internal)
		return Mapping{}, err
	default:
	}
	m := Mapping{Request: r, Via: "pcp", Outside: netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), r.External), Granted: r.Lifetime, Since: time.Now(), hasEpoch: true, epoch: 1000}
	select {
	case m.epoch = <-f.epoch:
	default:
	}
	f.calls <- fmt.Sprintf("map %d %t", r.Internal, before != nil)
	return m, nil
}

func (f *fakeRouter) Unmap(_ context.Context, m Mapping) error {
	f.calls <- fmt.Sprintf("unmap %d", m.Internal)
	return nil
}

func TestKeeper(t *testing.T) {
	t.Parallel()
	f := &fakeRouter{calls: make(chan string, 100), fail: make(chan error, 1), epoch: make(chan uint32, 1)}
	changes := make(chan []State, 100)
	k := NewKeeper(f, nil, func(s []State) { changes <- s })
	a, b := Request{Protocol: TCP, Internal: 1}, Request{Protocol: UDP, Internal: 2, Lifetime: 2 * time.Second}
	require.NoError(t, k.Apply([]Request{a, a}))
	require.Equal(t, "map 1 false", <-f.calls)
	require.True(t, (<-changes)[0].Granted())
	require.NoError(t, k.Apply([]Request{a, b}))
	require.Equal(t, "map 2 false", <-f.calls, "only what is new is asked for")
	require.Equal(t, "map 2 true", <-f.calls, "renewed at half its life")
	require.Len(t, <-changes, 2)

	f.epoch <- 1 // the router restarted: all are asked for again
	require.Equal(t, "map 2 true", <-f.calls)
	require.Equal(t, "map 1 true", <-f.calls)

	require.NoError(t, k.Apply([]Request{b}))
	for got := range f.calls {
		if got == "unmap 1" {
			break
		}
		require.Equal(t, "map 2 true", got)
	}
	require.ErrorIs(t, k.Apply([]Request{{}}), ErrInvalid)
	require.NoError(t, k.Close(t.Context()))
	close(f.calls)
	var last string
	for last = range f.calls {
	}
	require.Equal(t, "unmap 2", last, "given back at the end")
	require.Empty(t, k.States())
}

func TestKeeperTriesAgain(t *testing.T) {
	t.Parallel()
	f := &fakeRouter{calls: make(chan string, 10), fail: make(chan error, 1), epoch: make(chan uint32, 1)}
	f.fail <- errors.New("no")
	k := NewKeeper(f, nil, nil)
	require.NoError(t, k.Apply([]Request{{Protocol: TCP, Internal: 1}}))
	require.Equal(t, "fail 1", <-f.calls)
	k.Refresh()
	require.Equal(t, "map 1 false", <-f.calls)
	require.NoError(t, k.Close(t.Context()))
	require.Equal(t, "unmap 1", <-f.calls)
}

func TestRestarted(t *testing.T) {
	t.Parallel()
	at := time.Now()
	m := func(seconds int, epoch uint32) Mapping {
		return Mapping{Since: at.Add(time.Duration(seconds) * time.Second), epoch: epoch, hasEpoch: true}
	}
	before := m(0, 5000)
	for _, c := range []struct {
		now  Mapping
		want bool
	}{{m(100, 5100), false}, {m(100, 5099), false}, {m(100, 5090), false}, {m(100, 5080), true}, {m(100, 3), true}, {m(1, 4998), true}, {Mapping{}, false}} {
		require.Equal(t, c.want, restarted(&before, c.now), "%d", c.now.epoch)
	}
	require.False(t, restarted(nil, before))
}
