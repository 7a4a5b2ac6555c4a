package network

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"

	"github.com/selfstead/selfstead/nat"
	"github.com/selfstead/selfstead/patchdb"
	"github.com/selfstead/selfstead/server/state"
)

// TestMain runs the tests once more in a network namespace of their own, so
// that addresses and rules touch nothing else.
func TestMain(m *testing.M) {
	const inside = "SELFSTEAD_NETWORK_TEST_INSIDE"
	if os.Geteuid() != 0 || os.Getenv(inside) != "" {
		os.Exit(m.Run())
	}
	cmd := exec.Command(os.Args[0], os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	if e, ok := err.(*exec.ExitError); ok {
		os.Exit(e.ExitCode())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("missing: root")
	}
	t.Skip("missing: root")
}

func ip(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("ip", args...).CombinedOutput()
	require.NoError(t, err, "ip %s: %s", strings.Join(args, " "), out)
	return string(out)
}

func within(t *testing.T, what string, ok func() bool) {
	t.Helper()
	end := time.Now().Add(10 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(end) {
			t.Fatal("not in time: " + what)
		}
		<-tick.C
	}
}

// TestManager runs on the real kernel: not parallel, it owns the namespace.
func TestManager(t *testing.T) {
	needRoot(t)
	ip(t, "link", "set", "lo", "up")
	ip(t, "link", "add", "eth0", "type", "veth", "peer", "name", "far0")
	ip(t, "link", "add", "tst-c", "type", "veth", "peer", "name", "tst-d")
	for _, l := range []string{"eth0", "far0", "tst-c", "tst-d"} {
		ip(t, "link", "set", l, "up")
	}
	ip(t, "addr", "add", "192.0.2.10/24", "dev", "eth0")
	ip(t, "route", "add", "default", "via", "192.0.2.1")
	ip(t, "addr", "add", "10.59.0.1/32", "dev", "tst-c")
	ip(t, "addr", "add", "10.59.0.2/32", "dev", "lo") // stands for a container: queries come from it

	// An upstream resolver on loopback.
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	upstream := &dns.Server{PacketConn: pc, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		r := new(dns.Msg)
		r.SetReply(q)
		rr, _ := dns.NewRR(q.Question[0].Name + " 60 IN A 198.51.100.9")
		r.Answer = append(r.Answer, rr)
		w.WriteMsg(r)
	})}
	go upstream.ActivateAndServe()
	t.Cleanup(func() { upstream.Shutdown() })
	resolv := filepath.Join(t.TempDir(), "resolv.conf")
	require.NoError(t, os.WriteFile(resolv, []byte("nameserver 127.0.0.1\n"), 0o644))

	db := openDB(t, "web")
	c, err := nat.New(nat.Options{Table: "network_test"})
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	m, err := New(Options{
		DB: db, NAT: c, Gateway4: netip.MustParseAddr("10.59.0.1"), Subnet4: netip.MustParsePrefix("10.59.0.0/24"),
		Skip: "tst-", Resolv: resolv,
	})
	require.NoError(t, err)
	require.NoError(t, m.Start(t.Context()))
	t.Cleanup(func() { require.NoError(t, m.Close()) })

	network := func() state.Network {
		n, err := patchdb.Get[state.Network](db, patchdb.Join(state.ServerInfo, "network"))
		require.NoError(t, err)
		return n
	}
	require.Equal(t, "192.0.2.10", network().Outside)
	require.NotContains(t, network().Gateways, "tst-c")

	update(t, db, func(tx *patchdb.Tx) error {
		if err := Bind(tx, "web", "main", 80, http(47080)); err != nil {
			return err
		}
		return ExportInterface(tx, "web", state.ServiceInterface{ID: "ui", Type: "ui", AddressInfo: state.AddressInfo{HostID: "main", InternalPort: 80}})
	})
	require.NoError(t, m.SetContainer(t.Context(), "web", netip.MustParseAddr("10.59.0.2"), netip.Addr{}))
	sources := func() (out []string) {
		for _, f := range m.Forwards() {
			out = append(out, f.Source)
		}
		return out
	}
	require.Equal(t, []string{"192.0.2.10:47080", "10.59.0.1:47080", "127.0.0.1:47080"}, sources())
	rules, err := exec.Command("nft", "list", "ruleset").CombinedOutput()
	require.NoError(t, err, "%s", rules)
	require.Contains(t, string(rules), "10.59.0.2")

	hosts, err := m.Hosts("web")
	require.NoError(t, err)
	require.Equal(t, "tcp://192.0.2.10:47080", hosts[0].Bindings[0].Addresses[0].URL)

	// A new address of the server is published without being asked for.
	ip(t, "addr", "add", "192.0.2.77/24", "dev", "eth0")
	within(t, "the new address is published", func() bool { return len(m.Forwards()) == 4 })
	require.Contains(t, network().Gateways["eth0"].Subnets, "192.0.2.77/24")
	ip(t, "addr", "del", "192.0.2.77/24", "dev", "eth0")
	within(t, "the address is taken back", func() bool { return len(m.Forwards()) == 3 })

	askFrom := func(from, name string, kind uint16) *dns.Msg {
		t.Helper()
		q := new(dns.Msg)
		q.SetQuestion(name, kind)
		cl := dns.Client{Timeout: 5 * time.Second, Dialer: &net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(from)}}}
		ctx, cancel := context.WithTimeout(t.Context(), 6*time.Second)
		defer cancel()
		r, _, err := cl.ExchangeContext(ctx, q, "10.59.0.1:53")
		require.NoError(t, err)
		return r
	}
	address := func(r *dns.Msg) string {
		if len(r.Answer) != 1 {
			return dns.RcodeToString[r.Rcode]
		}
		return r.Answer[0].(*dns.A).A.String()
	}
	port := pc.LocalAddr().(*net.UDPAddr).Port
	m.dns.mu.Lock()
	m.dns.resolv = &dns.ClientConfig{Servers: []string{"127.0.0.1"}, Port: fmt.Sprint(port)}
	info, err := os.Stat(resolv)
	require.NoError(t, err)
	m.dns.resolvAt = info.ModTime()
	m.dns.mu.Unlock()
	require.Equal(t, "10.59.0.2", address(askFrom("10.59.0.2", "web.startos.", dns.TypeA)))
	require.Equal(t, "10.59.0.2", address(askFrom("10.59.0.2", "WEB.embassy.", dns.TypeA)))
	require.Equal(t, "10.59.0.1", address(askFrom("10.59.0.2", "startos.", dns.TypeA)))
	require.Equal(t, "NXDOMAIN", address(askFrom("10.59.0.2", "none.startos.", dns.TypeA)))
	require.Equal(t, "NOERROR", address(askFrom("10.59.0.2", "web.startos.", dns.TypeAAAA)))
	require.Equal(t, "198.51.100.9", address(askFrom("10.59.0.2", "example.org.", dns.TypeA)))
	require.Equal(t, "REFUSED", address(askFrom("192.0.2.10", "web.startos.", dns.TypeA)))

	require.NoError(t, m.SetContainer(t.Context(), "web", netip.Addr{}, netip.Addr{}))
	require.Empty(t, m.Forwards())
	require.Equal(t, "NXDOMAIN", address(askFrom("10.59.0.2", "web.startos.", dns.TypeA)))
	require.NoError(t, m.Close())
	require.NoError(t, m.Close())
}
