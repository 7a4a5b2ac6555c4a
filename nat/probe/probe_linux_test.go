package probe

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/selfstead/selfstead/nat/nattest"
)

const insideEnv = "SELFSTEAD_PROBE_INSIDE"

// question is what TestInside is asked in a namespace of the lab.
type question struct {
	Gateway  Gateway
	Port     uint16
	Services []string
	Hairpin  netip.AddrPort
	IP       bool
}

// TestInside is no test of its own: the lab runs it in the server's namespace.
func TestInside(t *testing.T) {
	text := os.Getenv(insideEnv)
	if text == "" {
		return
	}
	var q question
	require.NoError(t, json.Unmarshal([]byte(text), &q))
	var out any
	var err error
	switch {
	case q.IP:
		out, err = (&Echo{Base: q.Services[0], Gateway: q.Gateway}).IP(t.Context())
	case q.Hairpin.IsValid():
		out, err = Hairpin(t.Context(), q.Gateway, q.Hairpin)
	default:
		out, err = Check(t.Context(), q.Gateway, q.Port, q.Services)
	}
	if err != nil {
		out = map[string]string{"error": err.Error()}
	}
	raw, err := json.Marshal(out)
	require.NoError(t, err)
	fmt.Printf("answer %s\n", raw)
}

func ask(t *testing.T, s *nattest.Space, q question, into any) {
	t.Helper()
	raw, err := json.Marshal(q)
	require.NoError(t, err)
	out, err := s.Output("env", insideEnv+"="+string(raw), os.Args[0], "-test.run=^TestInside$", "-test.v")
	require.NoError(t, err, out)
	_, answer, ok := strings.Cut(out, "answer ")
	require.True(t, ok, out)
	line, _, _ := strings.Cut(answer, "\n")
	require.NoError(t, json.Unmarshal([]byte(line), into), line)
}

// TestThroughARouter: the server has two uplinks, and the default route goes by
// the wrong one. The router forwards port 5000 and learns to hairpin later.
func TestThroughARouter(t *testing.T) {
	nattest.Require(t, "ip", "nft")
	lab := nattest.NewLab(t)
	s, r, wrong, e := lab.Space("server"), lab.Router("router"), lab.Router("wrong"), lab.Space("echo")
	lab.Join(s, "eth0", r, "lan0")
	lab.Join(s, "eth1", wrong, "lan0")
	lab.Join(r, "wan0", e, "eth0")
	s.IP("addr add 192.168.1.10/24 dev eth0\naddr add 192.168.2.10/24 dev eth1\nroute add default via 192.168.2.1\n" +
		"route add default via 192.168.1.1 dev eth0 metric 500\n" +
		"route add default via 192.168.1.1 table 100\nrule add from 192.168.1.10 ipproto tcp sport 5000 table 100") // replies go back
	wrong.IP("addr add 192.168.2.1/24 dev lan0")
	r.IP("addr add 192.168.1.1/24 dev lan0\naddr add 198.51.100.2/24 dev wan0")
	e.IP("addr add 198.51.100.9/24 dev eth0")
	rules := func(hairpin string) {
		r.Nft("flush ruleset\ntable ip nat { chain pre { type nat hook prerouting priority -100; " +
			"ip daddr 198.51.100.2 tcp dport 5000 dnat to 192.168.1.10;\n}\n" +
			"chain post { type nat hook postrouting priority 100; oifname wan0 masquerade;\n" + hairpin + "\n}\n}\n")
	}
	rules("")
	s.Serve(netip.MustParseAddrPort("192.168.1.10:5000"))

	var l net.Listener
	e.Do(func() (err error) { l, err = net.Listen("tcp4", "198.51.100.9:8080"); return err })
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		from := netip.MustParseAddrPort(q.RemoteAddr).Addr()
		n, isPort := strings.CutPrefix(q.URL.Path, "/some/path/port/")
		if !isPort {
			fmt.Fprintln(w, from)
			return
		}
		port, _ := strconv.Atoi(n)
		_, err := e.Ask(nattest.Dialer{Network: "tcp", Timeout: 2 * time.Second}, netip.AddrPortFrom(from, uint16(port)))
		json.NewEncoder(w).Encode(map[string]any{"ip": from, "port": port, "reachable": err == nil, "extra": 1})
	})}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })

	g := Gateway{Interface: "eth0", Addr: netip.MustParseAddr("192.168.1.10")}
	const service = "http://198.51.100.9:8080/some/path/"
	var ip string
	ask(t, s, question{Gateway: g, Services: []string{service}, IP: true}, &ip)
	require.Equal(t, "198.51.100.2", ip, "asked by the gateway, not by the default route")

	type report struct{ Outside, Inside, Observed, Probed string }
	var got report
	ask(t, s, question{Gateway: g, Port: 5000, Services: []string{"http://198.51.100.9:1/", service}}, &got)
	require.Equal(t, report{"198.51.100.2:5000", "yes", "yes", "no"}, got, "reached from outside, but the router does not hairpin")
	rules("ip saddr 192.168.1.0/24 ip daddr 192.168.1.10 masquerade;")
	ask(t, s, question{Gateway: g, Port: 5000, Services: []string{service}}, &got)
	require.Equal(t, report{"198.51.100.2:5000", "yes", "yes", "yes"}, got)
	ask(t, s, question{Gateway: g, Port: 5001, Services: []string{service}}, &got)
	require.Equal(t, report{"198.51.100.2:5001", "no", "no", "no"}, got)
	ask(t, s, question{Gateway: g, Port: 5000}, &got)
	require.Equal(t, report{"", "yes", "unknown", "unknown"}, got)

	var word string
	ask(t, s, question{Gateway: g, Hairpin: netip.MustParseAddrPort("198.51.100.2:5000")}, &word)
	require.Equal(t, "yes", word)
	var trouble struct{ Error string }
	ask(t, s, question{Gateway: Gateway{"none0", g.Addr}, Hairpin: netip.MustParseAddrPort("198.51.100.2:5000")}, &trouble)
	require.Contains(t, trouble.Error, "none0", "no such interface is no answer about the port")
	ask(t, s, question{Gateway: Gateway{"eth0", netip.MustParseAddr("192.168.9.9")}, Hairpin: netip.MustParseAddrPort("198.51.100.2:5000")}, &trouble)
	require.Contains(t, trouble.Error, "cannot assign requested address")
	ask(t, s, question{Gateway: g, Hairpin: netip.MustParseAddrPort("[2001:db8::1]:5000")}, &trouble)
	require.Contains(t, trouble.Error, "address family")
}

func TestEchoAnswersThatAreWrong(t *testing.T) {
	t.Parallel()
	var answer string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if answer == "redirect" {
			http.Redirect(w, r, "/ip", http.StatusFound)
			return
		}
		io.WriteString(w, answer)
	}))
	t.Cleanup(srv.Close)
	e := &Echo{Base: srv.URL, Gateway: Gateway{"lo", netip.MustParseAddr("127.0.0.1")}}
	for _, answer = range []string{"", "no address", strings.Repeat("1", maxAnswer+1), "redirect"} {
		_, err := e.IP(t.Context())
		require.ErrorContains(t, err, "probe: ", "%.20q", answer)
	}
	for _, answer = range []string{"{}", "[]", `{"ip":"198.51.100.2","port":5001,"reachable":true}`, `{"ip":"198.51.100.2","port":5000}`, `{"ip":"x","port":5000,"reachable":true}`} {
		_, err := e.Port(t.Context(), 5000)
		require.ErrorContains(t, err, "probe: ", "%q", answer)
	}
	answer = "127.0.0.1\n"
	ip, err := e.IP(t.Context())
	require.NoError(t, err)
	require.Equal(t, "127.0.0.1", ip.String())
	for _, base := range []string{"ftp://127.0.0.1", "127.0.0.1", "http://127.0.0.1:1"} {
		_, err := (&Echo{Base: base, Gateway: e.Gateway}).IP(t.Context())
		require.ErrorContains(t, err, "probe: ")
	}
}
