package wg

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/jsimonetti/rtnetlink/v2"
	"golang.org/x/sys/unix"
)

// applyLink makes addresses and MTU match and brings the interface up.
func (d *Device) applyLink(c Config) error {
	l, err := d.link()
	if err != nil {
		return fmt.Errorf("wg: %s: %w", d.name, err)
	}
	have, err := d.addresses(l.Index)
	if err != nil {
		return err
	}
	for _, a := range c.Addresses {
		if slices.Contains(have, a) {
			continue
		}
		m := addressMessage(l.Index, a)
		if err := d.rt.Address.New(&m); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("wg: %s: address %s: %w", d.name, a, err)
		}
	}
	for _, a := range have {
		if slices.Contains(c.Addresses, a) || a.Addr().IsLinkLocalUnicast() {
			continue
		}
		m := addressMessage(l.Index, a)
		if err := d.rt.Address.Delete(&m); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return fmt.Errorf("wg: %s: address %s: %w", d.name, a, err)
		}
	}
	mtu := c.MTU
	if mtu == 0 {
		mtu = defaultMTU
	}
	if l.Attributes.MTU == uint32(mtu) && l.Flags&unix.IFF_UP != 0 {
		return nil
	}
	err = d.rt.Link.Set(&rtnetlink.LinkMessage{
		Index: l.Index, Flags: unix.IFF_UP, Change: unix.IFF_UP,
		Attributes: &rtnetlink.LinkAttributes{MTU: uint32(mtu), Name: d.name},
	})
	if err != nil {
		return fmt.Errorf("wg: %s: up with MTU %d: %w", d.name, mtu, err)
	}
	return nil
}

func (d *Device) addresses(index uint32) ([]netip.Prefix, error) {
	list, err := d.rt.Address.List()
	if err != nil {
		return nil, fmt.Errorf("wg: %s: addresses: %w", d.name, err)
	}
	var out []netip.Prefix
	for _, a := range list {
		raw := a.Attributes.Local
		if raw == nil {
			raw = a.Attributes.Address
		}
		if ip, ok := netip.AddrFromSlice(raw); ok && a.Index == index {
			out = append(out, netip.PrefixFrom(ip.Unmap(), int(a.PrefixLength)))
		}
	}
	return out, nil
}

func addressMessage(index uint32, a netip.Prefix) rtnetlink.AddressMessage {
	m := rtnetlink.AddressMessage{
		Family: unix.AF_INET, PrefixLength: uint8(a.Bits()), Scope: unix.RT_SCOPE_UNIVERSE, Index: index,
		Attributes: &rtnetlink.AddressAttributes{Address: net.IP(a.Addr().AsSlice()), Local: net.IP(a.Addr().AsSlice())},
	}
	if a.Addr().Is6() {
		m.Family = unix.AF_INET6
		m.Attributes.Flags = unix.IFA_F_NODAD // nobody else is on the link
	}
	return m
}
