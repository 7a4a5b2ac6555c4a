package network

import (
	"maps"
	"net/netip"
	"slices"
	"strconv"

	"github.com/selfstead/selfstead/nat"
	"github.com/selfstead/selfstead/server/state"
)

// Container is where a package's traffic goes.
type Container struct{ Addr4, Addr6 netip.Addr }

func (c Container) addr(v4 bool) netip.Addr {
	if v4 {
		return c.Addr4
	}
	return c.Addr6
}

// serves says whether a binding is served at an address of the server. One that
// the package tells nobody of (no interface) stays between this machine and its
// containers.
func (o Own) serves(told bool) bool { return told || o.inner() }

// inner reports whether other machines cannot reach the address.
func (o Own) inner() bool { return o.Gateway == BridgeName || o.Gateway == LoopbackName }

// forwards turns the hosts of every package into nat's Config. Pure; packages
// without a container have none. At the containers' side only the clients of a
// package get in; a target's own subnet, which nat lets in by itself, is not
// said there for that reason.
func forwards(hosts map[string]map[string]state.Host, containers map[string]Container, own []Own, clients map[string][]netip.Addr) nat.Config {
	var cfg nat.Config
	add := func(pkg, host string, external, internal uint16, count int, told bool) {
		c, ok := containers[pkg]
		if !ok {
			return
		}
		for _, o := range own {
			ip := o.Prefix.Addr()
			target := c.addr(ip.Is4())
			if !target.IsValid() || !o.serves(told) {
				continue
			}
			f := nat.Forward{
				Name:   name(netip.AddrPortFrom(ip, external), pkg, host),
				Source: netip.AddrPortFrom(ip, external),
				Target: nat.Target{Addr: target, Prefix: target.BitLen(), Port: internal},
				Count:  count,
			}
			if o.Gateway == BridgeName {
				f.AllowFrom = []netip.Prefix{netip.PrefixFrom(target, target.BitLen())}
				for _, a := range clients[pkg] {
					if a.Is4() == ip.Is4() {
						f.AllowFrom = append(f.AllowFrom, netip.PrefixFrom(a, a.BitLen()))
					}
				}
			}
			cfg.Forwards = append(cfg.Forwards, f)
		}
	}
	for _, pkg := range slices.Sorted(maps.Keys(hosts)) {
		for _, id := range slices.Sorted(maps.Keys(hosts[pkg])) {
			h := hosts[pkg][id]
			for _, port := range slices.Sorted(maps.Keys(h.Bindings)) {
				if b := h.Bindings[port]; b.Enabled && b.Net.AssignedPort != nil {
					add(pkg, id, *b.Net.AssignedPort, number(port), 1, len(b.Interfaces) > 0)
				}
			}
			for _, port := range slices.Sorted(maps.Keys(h.BindingRanges)) {
				if r := h.BindingRanges[port]; r.Enabled {
					add(pkg, id, r.ExternalStartPort, number(port), r.NumberOfPorts, r.Interface != nil)
				}
			}
		}
	}
	return cfg
}

// name tells a forward apart by its outside address and says whose it is; nat
// takes 120 bytes at the most.
func name(source netip.AddrPort, pkg, host string) string {
	n := source.String() + " " + pkg + "/" + host
	return n[:min(len(n), 120)]
}

func number(port string) uint16 {
	n, _ := strconv.ParseUint(port, 10, 16)
	return uint16(n)
}

// available lists the addresses of an outside port, as effects and clients of
// the document read them.
func available(own []Own, port *uint16, ssl, told bool) []state.HostnameInfo {
	out := []state.HostnameInfo{}
	if port == nil {
		return out
	}
	for _, o := range own {
		if !o.serves(told) {
			continue
		}
		ip := o.Prefix.Addr()
		info := state.HostnameInfo{
			SSL: ssl, Public: public(ip), Hostname: ip.String(), Port: port,
			Metadata: state.HostnameMetadata{Kind: "ipv4", Gateway: o.Gateway},
		}
		if ip.Is6() {
			info.Metadata.Kind = "ipv6"
			info.Metadata.ScopeID = new(int)
		}
		out = append(out, info)
	}
	return out
}

// public says whether an IPv4 address of the server is reachable from anywhere;
// documentation and shared address space (RFC 6598) count as not.
func public(ip netip.Addr) bool {
	return ip.Is4() && ip.IsGlobalUnicast() && !ip.IsPrivate() && !netip.MustParsePrefix("100.64.0.0/10").Contains(ip)
}

// refresh recomputes the addresses of hosts in place and says whether anything
// changed.
func refresh(hosts map[string]state.Host, own []Own) (changed bool) {
	for _, h := range hosts {
		for port, b := range h.Bindings {
			now := []state.HostnameInfo{}
			if b.Enabled {
				now = available(own, b.Net.AssignedPort, b.Options.Secure != nil && b.Options.Secure.SSL, len(b.Interfaces) > 0)
			}
			now = append(now, provided(b.Addresses.Available)...)
			if !sameAddresses(now, b.Addresses.Available) {
				b.Addresses.Available, changed = now, true
				h.Bindings[port] = b
			}
		}
		for port, r := range h.BindingRanges {
			now := []state.HostnameInfo{}
			if r.Enabled {
				now = available(own, &r.ExternalStartPort, false, r.Interface != nil)
			}
			if !sameAddresses(now, r.Addresses.Available) {
				r.Addresses.Available, changed = now, true
				h.BindingRanges[port] = r
			}
		}
	}
	return changed
}

// provided are the addresses that other packages provide; they are theirs to
// change.
func provided(list []state.HostnameInfo) (out []state.HostnameInfo) {
	for _, a := range list {
		if a.Metadata.Kind == state.KindPlugin {
			out = append(out, a)
		}
	}
	return out
}

func sameAddresses(a, b []state.HostnameInfo) bool {
	return slices.EqualFunc(a, b, func(x, y state.HostnameInfo) bool {
		return x.SSL == y.SSL && x.Public == y.Public && x.Hostname == y.Hostname &&
			x.Metadata.Kind == y.Metadata.Kind && x.Metadata.Gateway == y.Metadata.Gateway &&
			(x.Port == y.Port || x.Port != nil && y.Port != nil && *x.Port == *y.Port)
	})
}
