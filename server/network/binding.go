package network

import (
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/selfstead/selfstead/patchdb"
	"github.com/selfstead/selfstead/server/state"
)

// BindingID names a binding, or a range by its internal start, of a package.
type BindingID struct {
	ID           string `json:"id"`
	InternalPort uint16 `json:"internalPort"`
}

func hostsPointer(pkg string) patchdb.Pointer { return state.PackagePointer(pkg, "hosts") }

// changeHosts loads the hosts of pkg, lets fn change them and stores them when
// it did. The package must be in the document.
func changeHosts(tx *patchdb.Tx, pkg string, fn func(map[string]state.Host) error) error {
	hosts := map[string]state.Host{}
	if err := tx.Get(hostsPointer(pkg), &hosts); err != nil {
		return fmt.Errorf("network: hosts of %s: %w", pkg, err)
	}
	if err := fn(hosts); err != nil {
		return err
	}
	return tx.Put(hostsPointer(pkg), hosts)
}

func hostOf(hosts map[string]state.Host, id string) state.Host {
	if h, ok := hosts[id]; ok {
		return h
	}
	return state.NewHost()
}

func key(port uint16) string { return strconv.Itoa(int(port)) }

// Bind creates or refreshes the binding internalPort of host hostID and enables
// it. Ports that it has are kept. Errors: ErrInvalid, ErrNoFreePort.
func Bind(tx *patchdb.Tx, pkg, hostID string, internalPort uint16, o state.BindOptions) error {
	if internalPort == 0 {
		return fmt.Errorf("%w: internal port 0", ErrInvalid)
	}
	ports, err := openLedger(tx)
	if err != nil {
		return err
	}
	err = changeHosts(tx, pkg, func(hosts map[string]state.Host) error {
		h := hostOf(hosts, hostID)
		b, ok := h.Bindings[key(internalPort)]
		if !ok {
			b = state.Binding{Addresses: state.NewAddresses(), Interfaces: map[string]state.ServiceInterface{}}
		}
		b.Enabled, b.Options = true, o
		if err := ports.fit(&b, state.PortOwner{Package: pkg, Host: hostID, Port: internalPort}); err != nil {
			return fmt.Errorf("%w: %s/%s port %d", err, pkg, hostID, internalPort)
		}
		h.Bindings[key(internalPort)] = b
		hosts[hostID] = h
		return nil
	})
	if err != nil {
		return err
	}
	return ports.save(tx)
}

// fit gives b the outside ports that its options call for, keeps those that it
// has, and frees those that it no longer needs.
func (l *ledger) fit(b *state.Binding, owner state.PortOwner) error {
	o := b.Options
	plain := !(o.Secure != nil && o.Secure.SSL && o.AddSSL != nil)
	set := func(p **uint16, want bool, preferred uint16, owner state.PortOwner) error {
		switch {
		case want && *p == nil:
			port, err := l.assign(preferred, owner)
			if err != nil {
				return err
			}
			*p = &port
		case !want && *p != nil:
			l.drop(func(o state.PortOwner) bool { return o == owner })
			*p = nil
		}
		return nil
	}
	if err := set(&b.Net.AssignedPort, plain, o.PreferredExternalPort, owner); err != nil {
		return err
	}
	owner.SSL = true
	var preferred uint16
	if o.AddSSL != nil {
		preferred = o.AddSSL.PreferredExternalPort
	}
	return set(&b.Net.AssignedSSLPort, o.AddSSL != nil, preferred, owner)
}

// BindRange creates or refreshes a range of n ports, 2 to 500, all or nothing.
// Errors: ErrInvalid, ErrPortTaken.
func BindRange(tx *patchdb.Tx, pkg, hostID string, internalStart, externalStart uint16, n int) error {
	switch {
	case n < 2 || n > 500:
		return fmt.Errorf("%w: a range has 2 to 500 ports, not %d", ErrInvalid, n)
	case internalStart == 0 || int(internalStart)+n > 65536:
		return fmt.Errorf("%w: internal range from %d ends past 65535", ErrInvalid, internalStart)
	case externalStart <= 1024 || int(externalStart)+n > 65536:
		return fmt.Errorf("%w: external range must lie in 1025 to 65535", ErrInvalid)
	}
	ports, err := openLedger(tx)
	if err != nil {
		return err
	}
	err = changeHosts(tx, pkg, func(hosts map[string]state.Host) error {
		h := hostOf(hosts, hostID)
		r, ok := h.BindingRanges[key(internalStart)]
		if !ok || r.ExternalStartPort != externalStart || r.NumberOfPorts != n {
			owner := state.PortOwner{Package: pkg, Host: hostID, Port: internalStart}
			ports.drop(func(o state.PortOwner) bool { return o == owner })
			if err := ports.assignRange(externalStart, n, owner); err != nil {
				return err
			}
			r = state.BindingRange{ExternalStartPort: externalStart, NumberOfPorts: n, Addresses: state.NewAddresses(), Interface: r.Interface}
		}
		r.Enabled = true
		h.BindingRanges[key(internalStart)] = r
		hosts[hostID] = h
		return nil
	})
	if err != nil {
		return err
	}
	return ports.save(tx)
}

// ClearBindings disables every binding and range of pkg that except does not
// name; their ports stay theirs.
func ClearBindings(tx *patchdb.Tx, pkg string, except []BindingID) error {
	return changeHosts(tx, pkg, func(hosts map[string]state.Host) error {
		for id, h := range hosts {
			kept := func(port string) bool {
				return slices.ContainsFunc(except, func(b BindingID) bool { return b.ID == id && key(b.InternalPort) == port })
			}
			for port, b := range h.Bindings {
				b.Enabled = b.Enabled && kept(port)
				h.Bindings[port] = b
			}
			for port, r := range h.BindingRanges {
				r.Enabled = r.Enabled && kept(port)
				h.BindingRanges[port] = r
			}
		}
		return nil
	})
}

// ExportInterface adds or replaces an interface on its binding. ErrNotFound
// when the package has no such binding.
func ExportInterface(tx *patchdb.Tx, pkg string, i state.ServiceInterface) error {
	return changeHosts(tx, pkg, func(hosts map[string]state.Host) error {
		b, ok := hosts[i.AddressInfo.HostID].Bindings[key(i.AddressInfo.InternalPort)]
		if !ok {
			return fmt.Errorf("%w: %s/%s port %d", ErrNotFound, pkg, i.AddressInfo.HostID, i.AddressInfo.InternalPort)
		}
		b.Interfaces[i.ID] = i
		return nil
	})
}

// ExportRangeInterface sets the one interface of a range.
func ExportRangeInterface(tx *patchdb.Tx, pkg, hostID string, internalStart uint16, i state.RangeInterface) error {
	return changeHosts(tx, pkg, func(hosts map[string]state.Host) error {
		r, ok := hosts[hostID].BindingRanges[key(internalStart)]
		if !ok {
			return fmt.Errorf("%w: %s/%s range from %d", ErrNotFound, pkg, hostID, internalStart)
		}
		r.Interface = &i
		hosts[hostID].BindingRanges[key(internalStart)] = r
		return nil
	})
}

// ClearInterfaces removes every interface of pkg whose id except does not hold.
func ClearInterfaces(tx *patchdb.Tx, pkg string, except []string) error {
	return changeHosts(tx, pkg, func(hosts map[string]state.Host) error {
		for _, h := range hosts {
			for _, b := range h.Bindings {
				for id := range b.Interfaces {
					if !slices.Contains(except, id) {
						delete(b.Interfaces, id)
					}
				}
			}
			for port, r := range h.BindingRanges {
				if r.Interface != nil && !slices.Contains(except, r.Interface.ID) {
					r.Interface = nil
					h.BindingRanges[port] = r
				}
			}
		}
		return nil
	})
}

// Release frees every outside port of pkg; its hosts are left to the caller,
// who removes the package's entry.
func Release(tx *patchdb.Tx, pkg string) error {
	ports, err := openLedger(tx)
	if err != nil {
		return err
	}
	ports.drop(func(o state.PortOwner) bool { return o.Package == pkg })
	return ports.save(tx)
}

// hostsOf reads the hosts of every package.
func hostsOf(tx *patchdb.Tx) (map[string]map[string]state.Host, error) {
	ids, err := tx.Keys(state.PackageData)
	if errors.Is(err, patchdb.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	out := make(map[string]map[string]state.Host, len(ids))
	for _, id := range ids {
		hosts := map[string]state.Host{}
		if err := tx.Get(hostsPointer(id), &hosts); err != nil {
			return nil, err
		}
		out[id] = hosts
	}
	return out, nil
}
