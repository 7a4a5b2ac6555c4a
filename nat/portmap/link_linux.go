package portmap

import (
	"fmt"
	"net"
	"net/netip"
)

// checkLink says whether the router is a neighbour: a next hop that is on none
// of the subnets of the link which holds the local address belongs to another
// link (reports of routes mix them), and whoever answers there is not this
// host's router. On a point-to-point link the other end is the only neighbour,
// whatever its address.
func (c *Client) checkLink() error {
	links, err := net.Interfaces()
	if err != nil {
		return fmt.Errorf("portmap: %w", err)
	}
	local, router := c.o.Local.WithZone(""), c.o.Router.WithZone("")
	for _, l := range links {
		if c.o.Interface != "" && l.Name != c.o.Interface {
			continue
		}
		addrs, err := l.Addrs()
		if err != nil {
			continue // it has just gone
		}
		var here, neighbour bool
		for _, a := range addrs {
			p, err := netip.ParsePrefix(a.String())
			if err != nil {
				continue
			}
			here = here || p.Addr() == local
			neighbour = neighbour || p.Contains(router)
		}
		if here && (neighbour || l.Flags&net.FlagPointToPoint != 0 || router.IsLinkLocalUnicast()) {
			return nil
		}
	}
	return fmt.Errorf("%w: %s is on no subnet of the link that has %s", ErrInvalid, c.o.Router, c.o.Local)
}
