package portmap

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/selfstead/selfstead/nat/nattest"
)

const descriptionXML = `<?xml version="1.0"?><root xmlns="urn:schemas-upnp-org:device-1-0"><device>
<deviceType>urn:schemas-upnp-org:device:InternetGatewayDevice:1</deviceType><serviceList><service>
<serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType><controlURL>%s</controlURL>
</service></serviceList></device></root>`

// badGateway answers the search in the router's place, and describes itself with
// the given control address.
func badGateway(t *testing.T, r *nattest.Space, control string, serve http.HandlerFunc) {
	t.Helper()
	var search *net.UDPConn
	var web net.Listener
	r.Do(func() (err error) {
		lan, err := net.InterfaceByName("lan0")
		if err != nil {
			return err
		}
		if search, err = net.ListenMulticastUDP("udp4", lan, &net.UDPAddr{IP: net.IPv4(239, 255, 255, 250), Port: 1900}); err != nil {
			return err
		}
		web, err = net.Listen("tcp4", "192.168.1.1:5000")
		return err
	})
	mux := http.NewServeMux()
	mux.HandleFunc("GET /desc.xml", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintf(w, descriptionXML, control) })
	mux.HandleFunc("POST /", serve)
	srv := &http.Server{Handler: mux}
	go srv.Serve(web)
	t.Cleanup(func() { srv.Close(); search.Close() })
	go func() {
		buf := make([]byte, 2000)
		for {
			_, from, err := search.ReadFrom(buf)
			if err != nil {
				return
			}
			io.WriteString(writerTo{search, from}, "HTTP/1.1 200 OK\r\nST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\n"+
				"USN: uuid:x\r\nLOCATION: http://192.168.1.1:5000/desc.xml\r\n\r\n")
		}
	}()
}

type writerTo struct {
	c  *net.UDPConn
	to net.Addr
}

func (w writerTo) Write(b []byte) (int, error) { return w.c.WriteTo(b, w.to) }

// TestBadGateways holds what a gateway's web server may cost, and whom it may
// make this host talk to.
func TestBadGateways(t *testing.T) {
	nattest.Require(t, "ip")
	for name, c := range map[string]struct {
		control string
		serve   http.HandlerFunc
		want    string
	}{
		"stalls": {"/c", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, "Client.Timeout"},
		"never ends": {"/c", func(w http.ResponseWriter, _ *http.Request) {
			for err := error(nil); err == nil; _, err = io.WriteString(w, strings.Repeat(" ", 1000)) {
			}
		}, "over 262144 bytes"},
		"names another host": {"http://192.168.1.10:5000/c", http.NotFound, "192.168.1.10:5000 is not the router 192.168.1.1"},
		"redirects": {"/c", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://192.168.1.10/", http.StatusFound)
		}, "redirection"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			lab := nattest.NewLab(t)
			host, r := lab.Space("host"), lab.Space("router")
			lab.Join(host, "eth0", r, "lan0")
			host.IP("addr add 192.168.1.10/24 dev eth0\nroute add default via 192.168.1.1")
			r.IP("addr add 192.168.1.1/24 dev lan0\nroute add 239.0.0.0/8 dev lan0")
			badGateway(t, r, c.control, c.serve)
			o := Options{Interface: "eth0", Local: netip.MustParseAddr("192.168.1.10"), Router: netip.MustParseAddr("192.168.1.1"), Protocols: []string{"upnp"}}
			start := time.Now()
			got := strings.Join(run(t, host, order{Options: o, Requests: []Request{{Protocol: TCP, Internal: 80}}}), "")
			require.Contains(t, got, c.want, "after %s", time.Since(start))
		})
	}
}

// TestRouterIsNeighbour: next hops that are reported for another link are not
// asked.
func TestRouterIsNeighbour(t *testing.T) {
	nattest.Require(t, "ip")
	lab := nattest.NewLab(t)
	host, r := lab.Space("host"), lab.Space("router")
	lab.Join(host, "eth0", r, "lan0")
	lab.Join(host, "eth1", r, "lan1")
	host.IP("addr add 192.168.1.10/24 dev eth0\naddr add 10.9.0.2/24 dev eth1\naddr add fd00:9::2/64 dev eth1 nodad\n" +
		"route add default via 192.168.1.1\ntuntap add dev tun0 mode tun\naddr add 10.60.0.2/32 dev tun0\nlink set tun0 up")
	ask := func(link, local, router string) string {
		o := Options{Interface: link, Local: netip.MustParseAddr(local), Router: netip.MustParseAddr(router), Protocols: []string{"nat-pmp"}}
		return strings.Join(run(t, host, order{Options: o, Requests: []Request{{Protocol: TCP, Internal: 80}}}), "")
	}
	const stranger = "is on no subnet of the link that has"
	require.Contains(t, ask("eth0", "192.168.1.10", "10.9.0.1"), stranger)
	require.Contains(t, ask("", "192.168.1.10", "10.9.0.1"), stranger)
	require.Contains(t, ask("eth0", "10.9.0.2", "192.168.1.1"), stranger, "the local address is another link's")
	require.Contains(t, ask("eth1", "fd00:9::2", "fd00:8::1"), stranger)
	require.NotContains(t, ask("", "10.9.0.2", "10.9.0.1"), stranger)
	require.NotContains(t, ask("tun0", "10.60.0.2", "10.60.0.1"), stranger, "a tunnel has one neighbour")
	require.NotContains(t, ask("eth1", "fd00:9::2", "fe80::1%eth1"), stranger)
}
