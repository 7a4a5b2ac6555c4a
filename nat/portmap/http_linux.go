package portmap

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"github.com/huin/goupnp"
)

const (
	controlPatience = 5 * time.Second // for one answer of the gateway's web server
	controlSize     = 256 << 10       // bytes of such an answer; descriptions take some 5 KiB
)

// controlClient speaks HTTP with the router and nobody else, from the client's
// own address and interface. A router that stalls or talks without end costs
// controlPatience and controlSize for each request.
func (c *Client) controlClient() http.Client {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: c.o.Local.AsSlice(), Zone: c.o.Local.Zone()}, Control: bind(c.o.Interface)}
	return http.Client{
		Timeout: controlPatience,
		Transport: &http.Transport{
			DisableKeepAlives:      true,
			MaxResponseHeaderBytes: 16 << 10,
			DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
				to, err := netip.ParseAddrPort(addr)
				if err != nil || to.Addr() != c.o.Router {
					return nil, fmt.Errorf("portmap: upnp: %s is not the router %s", addr, c.o.Router)
				}
				conn, err := d.DialContext(ctx, network, addr)
				if err != nil {
					return nil, err
				}
				return &limitedConn{Conn: conn, left: controlSize}, nil
			},
		},
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return errors.New("portmap: upnp: the router answers with a redirection")
		},
	}
}

// limitedConn ends after so many bytes have come in.
type limitedConn struct {
	net.Conn
	left int
}

func (l *limitedConn) Read(b []byte) (int, error) {
	if l.left == 0 {
		return 0, fmt.Errorf("portmap: upnp: an answer of over %d bytes", controlSize)
	}
	n, err := l.Conn.Read(b[:min(len(b), l.left)])
	l.left -= n
	return n, err
}

// describe reads a device description (UPnP Device Architecture 1.1, section 2.3).
func describe(ctx context.Context, hc *http.Client, loc *url.URL) (*goupnp.RootDevice, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, loc.String(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := hc.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %s", loc, resp.Status)
	}
	dec := xml.NewDecoder(io.LimitReader(resp.Body, controlSize))
	dec.DefaultSpace = goupnp.DeviceXMLNamespace
	root := new(goupnp.RootDevice)
	if err := dec.Decode(root); err != nil {
		return nil, fmt.Errorf("%s: %w", loc, err)
	}
	base := loc
	if root.URLBaseStr != "" {
		if base, err = url.Parse(root.URLBaseStr); err != nil {
			return nil, fmt.Errorf("%s: %w", loc, err)
		}
	}
	root.SetURLBase(base)
	return root, nil
}
