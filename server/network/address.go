package network

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/jsimonetti/rtnetlink/v2"
	"golang.org/x/sys/unix"

	"github.com/selfstead/selfstead/server/state"
)

// Own is one address of the server.
type Own struct {
	Gateway string       // interface name; BridgeName for the containers' side
	Prefix  netip.Prefix // the address with its subnet length
	Default bool         // the interface has a default route of this family
}

// BridgeName is what effects call the containers' side of the server, whatever
// its links are named: packages look for it.
const BridgeName = "lxcbr0"

// LoopbackName is the same for the address that only the server itself uses.
const LoopbackName = "lo"

// ownAddresses lists the addresses of every interface that is up, is not
// loopback and whose name does not begin with skip: global ones, v4 before v6,
// the default route's interface first.
func ownAddresses(skip string) ([]Own, error) {
	c, err := rtnetlink.Dial(nil)
	if err != nil {
		return nil, fmt.Errorf("network: rtnetlink: %w", err)
	}
	defer c.Close()
	links, err := c.Link.List()
	if err != nil {
		return nil, fmt.Errorf("network: links: %w", err)
	}
	addrs, err := c.Address.List()
	if err != nil {
		return nil, fmt.Errorf("network: addresses: %w", err)
	}
	routes, err := c.Route.List()
	if err != nil {
		return nil, fmt.Errorf("network: routes: %w", err)
	}
	names := map[uint32]string{}
	for _, l := range links {
		if l.Flags&unix.IFF_LOOPBACK == 0 && l.Flags&unix.IFF_UP != 0 && !(skip != "" && strings.HasPrefix(l.Attributes.Name, skip)) {
			names[l.Index] = l.Attributes.Name
		}
	}
	defaults := map[[2]uint32]uint32{} // family, interface -> lowest metric + 1
	for _, r := range routes {
		if r.DstLength != 0 || r.Type != unix.RTN_UNICAST || r.Attributes.Table != unix.RT_TABLE_MAIN || r.Attributes.OutIface == 0 {
			continue
		}
		k := [2]uint32{uint32(r.Family), r.Attributes.OutIface}
		if m := r.Attributes.Priority + 1; defaults[k] == 0 || m < defaults[k] {
			defaults[k] = m
		}
	}
	type ranked struct {
		Own
		rank uint64
	}
	var list []ranked
	for _, a := range addrs {
		name, ok := names[a.Index]
		raw := a.Attributes.Local
		if raw == nil {
			raw = a.Attributes.Address
		}
		ip, valid := netip.AddrFromSlice(raw)
		ip = ip.Unmap()
		if !ok || !valid || !ip.IsGlobalUnicast() || a.Attributes.Flags&unix.IFA_F_TENTATIVE != 0 {
			continue
		}
		metric := defaults[[2]uint32{uint32(a.Family), a.Index}]
		rank := uint64(metric) - 1 // no default route sorts last
		list = append(list, ranked{Own{Gateway: name, Prefix: netip.PrefixFrom(ip, int(a.PrefixLength)), Default: metric != 0}, rank})
	}
	slices.SortStableFunc(list, func(a, b ranked) int {
		switch x, y := a.Prefix.Addr(), b.Prefix.Addr(); {
		case x.Is4() != y.Is4():
			if x.Is4() {
				return -1
			}
			return 1
		case a.rank != b.rank:
			if a.rank < b.rank {
				return -1
			}
			return 1
		default:
			return 0
		}
	})
	out := make([]Own, len(list))
	for i, r := range list {
		out[i] = r.Own
	}
	return out, nil
}

// describe is the public view of own addresses.
func describe(own []Own) state.Network {
	n := state.Network{Gateways: map[string]state.Gateway{}}
	for _, o := range own {
		g, ok := n.Gateways[o.Gateway]
		if !ok {
			g = state.Gateway{Name: o.Gateway, Subnets: []string{}}
		}
		g.Subnets = append(g.Subnets, o.Prefix.String())
		g.IsDefault = g.IsDefault || o.Default
		n.Gateways[o.Gateway] = g
		if n.Outside == "" && o.Default {
			n.Outside = o.Prefix.Addr().String()
		}
	}
	return n
}
