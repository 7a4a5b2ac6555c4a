package network

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/selfstead/selfstead/nat/gateway"
	"github.com/selfstead/selfstead/server/api"
)

// Gateways lists the interfaces that lead out of the server, by name; those of
// containers are left out.
func (m *Manager) Gateways() ([]api.Gateway, error) {
	found, err := gateway.List()
	if err != nil {
		return nil, fmt.Errorf("network: gateways: %w", err)
	}
	out := []api.Gateway{}
	for _, g := range found {
		if m.o.Skip != "" && strings.HasPrefix(g.Name, m.o.Skip) {
			continue
		}
		v := api.Gateway{
			ID: g.Name, Kind: g.Kind, Up: g.Up, PointToPoint: g.PointToPoint, Addresses: []string{},
			NextHop4: hop(g.NextHop4), NextHop6: hop(g.NextHop6), Default4: g.Default4, Default6: g.Default6,
		}
		for _, a := range g.Addresses {
			v.Addresses = append(v.Addresses, a.String())
		}
		out = append(out, v)
	}
	return out, nil
}

func hop(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}
