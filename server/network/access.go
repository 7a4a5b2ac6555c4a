package network

import (
	"errors"
	"net/netip"
	"slices"

	"github.com/selfstead/selfstead/patchdb"
	"github.com/selfstead/selfstead/server/state"
)

// inside are the server's addresses that no other machine reaches, always
// served: the containers' gateway, whose clients are judged one by one, and
// loopback. There is no IPv6 at the containers' side: packages look for IPv4
// there, and a forward that only some may use would keep the others' direct
// connections, which the container runtime judges, from the same port.
func inside(gateway4 netip.Addr) []Own {
	return []Own{
		{Gateway: BridgeName, Prefix: netip.PrefixFrom(gateway4, 32)},
		{Gateway: LoopbackName, Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 32)},
	}
}

// Access says of each package which others may open connections to it at the
// containers' side, sorted: those whose signed manifest declares it as a
// dependency, and those that the server's owner has granted it. What a package
// says of itself while it runs (currentDependencies) opens nothing.
func Access(tx *patchdb.Tx) (map[string][]string, error) {
	ids, err := tx.Keys(state.PackageData)
	if errors.Is(err, patchdb.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	out := make(map[string][]string, len(ids))
	for _, id := range ids {
		needs, err := keys(tx, state.PackagePointer(id, "stateInfo", "manifest", "dependencies"))
		if err != nil {
			return nil, err
		}
		for _, other := range needs {
			out[other] = append(out[other], id)
		}
		granted, err := keys(tx, state.PackagePointer(id, "grants"))
		if err != nil {
			return nil, err
		}
		out[id] = append(out[id], granted...)
	}
	for id, list := range out {
		if !slices.Contains(ids, id) {
			delete(out, id)
			continue
		}
		list = slices.DeleteFunc(list, func(c string) bool { return c == id || !slices.Contains(ids, c) })
		slices.Sort(list)
		out[id] = slices.Compact(list)
	}
	return out, nil
}

// keys are the members of an object; there are none where there is none.
func keys(tx *patchdb.Tx, at patchdb.Pointer) ([]string, error) {
	list, err := tx.Keys(at)
	if errors.Is(err, patchdb.ErrNotFound) || errors.Is(err, patchdb.ErrInvalid) {
		return nil, nil
	}
	return list, err
}

// clientAddresses is Access with the addresses of the clients' containers. They
// are the packages' own for as long as these are installed, so that nobody gets
// in by an address that was another's before.
func clientAddresses(tx *patchdb.Tx) (map[string][]netip.Addr, error) {
	access, err := Access(tx)
	if err != nil {
		return nil, err
	}
	services := map[string]state.ServiceKeep{}
	if err := tx.Get(state.PrivatePointer("services"), &services); err != nil && !errors.Is(err, patchdb.ErrNotFound) {
		return nil, err
	}
	out := make(map[string][]netip.Addr, len(access))
	for id, clients := range access {
		for _, c := range clients {
			for _, text := range []string{services[c].Addr4, services[c].Addr6} {
				if a, err := netip.ParseAddr(text); err == nil {
					out[id] = append(out[id], a)
				}
			}
		}
	}
	return out, nil
}
