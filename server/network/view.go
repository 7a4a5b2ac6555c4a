package network

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/selfstead/selfstead/patchdb"
	"github.com/selfstead/selfstead/server/api"
	"github.com/selfstead/selfstead/server/state"
)

// Hosts lists the hosts of pkg, with the addresses that other machines can use
// (and this one, and the containers). An error wrapping patchdb.ErrNotFound when the
// package is not there.
func (m *Manager) Hosts(pkg string) ([]api.Host, error) {
	hosts, err := patchdb.Get[map[string]state.Host](m.o.DB, hostsPointer(pkg))
	if err != nil {
		return nil, err
	}
	out := []api.Host{}
	for _, id := range slices.Sorted(maps.Keys(hosts)) {
		v := api.Host{HostID: id, Bindings: []api.Binding{}}
		for _, port := range slices.SortedFunc(maps.Keys(hosts[id].Bindings), byNumber) {
			v.Bindings = append(v.Bindings, bindingView(number(port), hosts[id].Bindings[port]))
		}
		for _, port := range slices.SortedFunc(maps.Keys(hosts[id].BindingRanges), byNumber) {
			r, scheme := hosts[id].BindingRanges[port], "tcp"
			if r.Interface != nil && r.Interface.Scheme != nil {
				scheme = *r.Interface.Scheme
			}
			v.Bindings = append(v.Bindings, api.Binding{
				InternalPort: number(port), Enabled: r.Enabled, Count: r.NumberOfPorts, Interfaces: []api.Interface{},
				Addresses: addressViews(r.Addresses.Available, scheme, "", ""),
			})
		}
		out = append(out, v)
	}
	return out, nil
}

func byNumber(a, b string) int { return int(number(a)) - int(number(b)) }

func bindingView(port uint16, b state.Binding) api.Binding {
	v := api.Binding{
		InternalPort: port, Enabled: b.Enabled, Count: 1, SSL: b.Options.Secure != nil && b.Options.Secure.SSL,
		Interfaces: []api.Interface{},
	}
	scheme, user, suffix := "tcp", "", ""
	for n, id := range slices.Sorted(maps.Keys(b.Interfaces)) {
		i := b.Interfaces[id]
		v.Interfaces = append(v.Interfaces, api.Interface{ID: i.ID, Name: i.Name, Description: i.Description, Type: i.Type, Masked: i.Masked})
		if n > 0 { // the first one names the URL
			continue
		}
		a := i.AddressInfo
		switch {
		case v.SSL && a.SSLScheme != nil:
			scheme = *a.SSLScheme
		case a.Scheme != nil:
			scheme = *a.Scheme
		}
		if a.Username != nil && *a.Username != "" {
			user = *a.Username + "@"
		}
		suffix = a.Suffix
	}
	v.Addresses = addressViews(b.Addresses.Available, scheme, user, suffix)
	return v
}

func addressViews(list []state.HostnameInfo, scheme, user, suffix string) []api.Address {
	out := []api.Address{}
	for _, a := range list {
		ip, err := netip.ParseAddr(a.Hostname)
		if err != nil || a.Port == nil || a.Metadata.Gateway == BridgeName || a.Metadata.Gateway == LoopbackName {
			continue // what is inside this machine is found in the document
		}
		out = append(out, api.Address{
			IP: a.Hostname, Port: *a.Port,
			URL: scheme + "://" + user + netip.AddrPortFrom(ip, *a.Port).String() + suffix,
		})
	}
	return out
}

// Forwards lists what the last Sync applied.
func (m *Manager) Forwards() []api.Forward {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := []api.Forward{}
	for _, f := range m.applied.Forwards {
		out = append(out, api.Forward{
			Name: f.Name, Source: f.Source.String(), Target: netip.AddrPortFrom(f.Target.Addr, f.Target.Port).String(),
			Count: f.Count, Protocols: "tcp+udp",
		})
	}
	return out
}
