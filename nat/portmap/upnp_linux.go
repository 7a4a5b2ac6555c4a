package portmap

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/huin/goupnp/dcps/internetgateway2"
	"github.com/huin/goupnp/httpu"
	"github.com/huin/goupnp/soap"
	"github.com/huin/goupnp/ssdp"
)

// igd is the part of a UPnP gateway's connection service that is used.
type igd interface {
	AddPortMappingCtx(ctx context.Context, remote string, external uint16, protocol string, internal uint16, client string, enabled bool, description string, lease uint32) error
	DeletePortMappingCtx(ctx context.Context, remote string, external uint16, protocol string) error
	GetExternalIPAddressCtx(ctx context.Context) (string, error)
}

// description is what the router's own pages show.
const description = "selfstead"

// onlyPermanent is the error of gateways that know no leases (WANIPConnection:1,
// section 2.4.16).
const onlyPermanent = 725

const (
	upnpSearch = 2 * time.Second // for a gateway to answer the search
	upnpTries  = 8               // outside ports to try when one is taken
)

// findIGD searches on the client's own address. Only the router itself is
// believed: any other host could claim to be a gateway.
func (c *Client) findIGD(ctx context.Context) (igd, error) {
	if !c.o.Local.Is4() {
		return nil, ErrUnavailable
	}
	search, err := httpu.NewHTTPUClientAddr(c.o.Local.String())
	if err != nil {
		return nil, fmt.Errorf("portmap: upnp: %w", err)
	}
	defer search.Close()
	sctx, cancel := context.WithTimeout(ctx, upnpSearch)
	defer cancel()
	answers, err := ssdp.RawSearch(sctx, search, "ssdp:all", 2)
	if err != nil && len(answers) == 0 {
		return nil, fmt.Errorf("%w: upnp: %w", ErrUnavailable, err)
	}
	control := c.controlClient()
	for _, a := range answers {
		loc, err := a.Location()
		if err != nil || loc.Hostname() != c.o.Router.String() || !strings.Contains(a.Header.Get("ST"), "InternetGatewayDevice") {
			continue
		}
		root, err := describe(ctx, &control, loc)
		if err != nil {
			return nil, fmt.Errorf("portmap: upnp: %w", err)
		}
		if list, err := internetgateway2.NewWANIPConnection2ClientsFromRootDevice(root, loc); err == nil && len(list) > 0 {
			list[0].SOAPClient.HTTPClient = control
			return list[0], nil
		}
		if list, err := internetgateway2.NewWANIPConnection1ClientsFromRootDevice(root, loc); err == nil && len(list) > 0 {
			list[0].SOAPClient.HTTPClient = control
			return list[0], nil
		}
		if list, err := internetgateway2.NewWANPPPConnection1ClientsFromRootDevice(root, loc); err == nil && len(list) > 0 {
			list[0].SOAPClient.HTTPClient = control
			return list[0], nil
		}
	}
	return nil, fmt.Errorf("%w: no UPnP gateway", ErrUnavailable)
}

func (c *Client) gateway(ctx context.Context) (igd, error) {
	if c.upnp == nil {
		g, err := c.findIGD(ctx)
		if err != nil {
			return nil, err
		}
		c.upnp = g
	}
	return c.upnp, nil
}

func (c *Client) upnpMap(ctx context.Context, r Request, before *Mapping) (Mapping, error) {
	g, err := c.gateway(ctx)
	if err != nil {
		return Mapping{}, err
	}
	ports := []uint16{r.External}
	if before != nil && before.Via == "upnp" {
		ports = []uint16{before.Outside.Port()}
	}
	for i := 1; len(ports) < upnpTries; i++ {
		ports = append(ports, 49152+(r.External+uint16(i)*2039)%16384)
	}
	m := Mapping{Request: r, Via: "upnp", Granted: r.Lifetime}
	for _, port := range ports {
		add := func(lease time.Duration) error {
			return g.AddPortMappingCtx(ctx, "", port, strings.ToUpper(r.Protocol.String()), r.Internal, c.o.Local.String(), true, description, uint32(lease/time.Second))
		}
		err = add(r.Lifetime)
		if upnpCode(err) == onlyPermanent {
			m.Granted = 0
			err = add(0)
		}
		if err == nil {
			m.Since = time.Now()
			var ip netip.Addr
			if text, err := g.GetExternalIPAddressCtx(ctx); err == nil {
				ip, _ = netip.ParseAddr(text)
			}
			m.Outside = netip.AddrPortFrom(ip, port)
			return m, nil
		}
		if code := upnpCode(err); code != 718 && code != 501 { // taken by another host
			break
		}
	}
	c.upnp = nil // found anew next time
	if code := upnpCode(err); code != 0 {
		return Mapping{}, &RefusedError{Via: "upnp", Code: code, Text: err.Error()}
	}
	return Mapping{}, fmt.Errorf("portmap: upnp: %w", err)
}

func (c *Client) upnpUnmap(ctx context.Context, m Mapping) error {
	g, err := c.gateway(ctx)
	if err != nil {
		return err
	}
	err = g.DeletePortMappingCtx(ctx, "", m.Outside.Port(), strings.ToUpper(m.Protocol.String()))
	if upnpCode(err) == 714 { // no such entry: gone already
		return nil
	}
	if err != nil {
		return fmt.Errorf("portmap: upnp: %w", err)
	}
	return nil
}

// upnpCode is the error code of a SOAP fault, 0 for other errors.
func upnpCode(err error) int {
	var f *soap.SOAPFaultError
	if errors.As(err, &f) {
		return f.Detail.UPnPError.Errorcode
	}
	return 0
}
