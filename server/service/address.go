package service

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/selfstead/selfstead/patchdb"
	"github.com/selfstead/selfstead/server/state"
)

// idCount is how many host ids each package has for itself.
const idCount = 1 << 16

// idFirst is the first host id of the first package; what is below belongs to
// the machine and to containers of others.
const idFirst = 1 << 20

// allot gives a new package what it keeps until it is removed: a range of host
// ids and two addresses, each the lowest that is free.
func allot(tx *patchdb.Tx) (state.ServiceKeep, error) {
	var keep state.ServiceKeep
	services := map[string]state.ServiceKeep{}
	if err := tx.Get(state.PrivatePointer("services"), &services); err != nil && !errors.Is(err, patchdb.ErrNotFound) {
		return keep, err
	}
	bases, addrs := map[uint32]bool{}, map[string]bool{}
	for _, s := range services {
		bases[s.IDBase], addrs[s.Addr4], addrs[s.Addr6] = true, true, true
	}
	for base := uint64(idFirst); base+idCount < 1<<32-1; base += idCount {
		if !bases[uint32(base)] {
			keep.IDBase = uint32(base)
			break
		}
	}
	if keep.IDBase == 0 {
		return keep, errors.New("service: no id range is left")
	}
	for i, into := range []*string{&keep.Addr4, &keep.Addr6} {
		name := [...]string{"subnet4", "subnet6"}[i]
		text, err := patchdb.TxGet[string](tx, state.PrivatePointer(name))
		if err != nil || text == "" {
			if i == 1 {
				continue // a server without IPv6
			}
			return keep, fmt.Errorf("service: the document has no %s", name)
		}
		subnet, err := netip.ParsePrefix(text)
		if err != nil {
			return keep, fmt.Errorf("service: %s: %w", name, err)
		}
		addr, err := freeAddr(subnet, addrs)
		if err != nil {
			return keep, err
		}
		*into = addr.String()
	}
	return keep, nil
}

// freeAddr is the lowest address of the subnet that is neither its own, the
// gateway's, the broadcast's, nor taken.
func freeAddr(subnet netip.Prefix, taken map[string]bool) (netip.Addr, error) {
	a := subnet.Masked().Addr().Next().Next() // after the network and the gateway
	for ; subnet.Contains(a); a = a.Next() {
		if a.Is4() && !subnet.Contains(a.Next()) {
			break // broadcast
		}
		if !taken[a.String()] {
			return a, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("service: no address is left in %s", subnet)
}

func parseAddr(text string) netip.Addr {
	a, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Addr{}
	}
	return a
}
