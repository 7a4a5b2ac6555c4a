package gateway

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// protocol marks our routes and rules, so that nobody takes them for their own
// (nobody has 94 in linux/rtnetlink.h or etc/iproute2/rt_protos).
const protocol = 94

// The kernel's messages are taken apart here, attribute by attribute, and what is
// not known is passed over: a foreign rule or route of a kind that a library
// has not heard of yet must not stop us.

// attributes calls fn for each attribute after a header of n bytes.
func attributes(m netlink.Message, n int, fn func(d *netlink.AttributeDecoder)) error {
	if len(m.Data) < n {
		return fmt.Errorf("gateway: message of %d bytes", len(m.Data))
	}
	d, err := netlink.NewAttributeDecoder(m.Data[n:])
	if err != nil {
		return fmt.Errorf("gateway: message: %w", err)
	}
	for d.Next() {
		fn(d)
	}
	if err := d.Err(); err != nil {
		return fmt.Errorf("gateway: message: %w", err)
	}
	return nil
}

func address(d *netlink.AttributeDecoder) netip.Addr {
	ip, _ := netip.AddrFromSlice(d.Bytes())
	return ip
}

// parseLink reads an interface (struct ifinfomsg).
func parseLink(m netlink.Message) (g Gateway, loopback bool, err error) {
	err = attributes(m, unix.SizeofIfInfomsg, func(d *netlink.AttributeDecoder) {
		switch d.Type() {
		case unix.IFLA_IFNAME:
			g.Name = d.String()
		case unix.IFLA_LINKINFO:
			d.Nested(func(d *netlink.AttributeDecoder) error {
				for d.Next() {
					if d.Type() == unix.IFLA_INFO_KIND {
						g.Kind = d.String()
					}
				}
				return d.Err()
			})
		}
	})
	if err != nil {
		return g, false, err
	}
	g.Index = int(int32(binary.NativeEndian.Uint32(m.Data[4:])))
	flags := binary.NativeEndian.Uint32(m.Data[8:])
	g.Up = flags&unix.IFF_UP != 0 && flags&unix.IFF_LOWER_UP != 0
	g.PointToPoint = flags&unix.IFF_POINTOPOINT != 0
	return g, flags&unix.IFF_LOOPBACK != 0, nil
}

// parseAddress reads an interface's address (struct ifaddrmsg). Addresses that
// cannot be used, yet or ever, are not usable.
func parseAddress(m netlink.Message) (index int, p netip.Prefix, usable bool, err error) {
	var addr, local netip.Addr
	if len(m.Data) < unix.SizeofIfAddrmsg {
		return 0, p, false, fmt.Errorf("gateway: message of %d bytes", len(m.Data))
	}
	flags := uint32(m.Data[2])
	err = attributes(m, unix.SizeofIfAddrmsg, func(d *netlink.AttributeDecoder) {
		switch d.Type() {
		case unix.IFA_ADDRESS:
			addr = address(d)
		case unix.IFA_LOCAL:
			local = address(d)
		case unix.IFA_FLAGS:
			flags = d.Uint32()
		}
	})
	if local.IsValid() {
		addr = local // the other is the peer's
	}
	waiting := flags&unix.IFA_F_TENTATIVE != 0 && flags&unix.IFA_F_OPTIMISTIC == 0
	usable = addr.IsValid() && !waiting && flags&unix.IFA_F_DADFAILED == 0
	return int(binary.NativeEndian.Uint32(m.Data[4:])), netip.PrefixFrom(addr, int(m.Data[1])), usable, err
}

// foundRoute is a route and what else there is to know about it.
type foundRoute struct {
	route
	kind, protocol uint8
}

// parseRoute reads a route (struct rtmsg); one with several next hops becomes
// one for each.
func parseRoute(m netlink.Message) ([]foundRoute, error) {
	if len(m.Data) < unix.SizeofRtMsg {
		return nil, fmt.Errorf("gateway: message of %d bytes", len(m.Data))
	}
	r := foundRoute{protocol: m.Data[5], kind: m.Data[7]}
	r.Table = uint32(m.Data[4])
	r.Dst = any4
	if m.Data[0] == unix.AF_INET6 {
		r.Dst = any6
	}
	r.Onlink = binary.NativeEndian.Uint32(m.Data[8:])&unix.RTNH_F_ONLINK != 0
	r.Unreachable = r.kind == unix.RTN_UNREACHABLE
	var hops []byte
	err := attributes(m, unix.SizeofRtMsg, func(d *netlink.AttributeDecoder) {
		switch d.Type() {
		case unix.RTA_DST:
			r.Dst = netip.PrefixFrom(address(d), int(m.Data[1]))
		case unix.RTA_OIF:
			r.Index = d.Uint32()
		case unix.RTA_GATEWAY:
			r.Via = address(d)
		case unix.RTA_VIA:
			r.Via = via(d.Bytes())
		case unix.RTA_PREFSRC:
			r.Src = address(d)
		case unix.RTA_PRIORITY:
			r.Metric = d.Uint32()
		case unix.RTA_TABLE:
			r.Table = d.Uint32()
		case unix.RTA_MULTIPATH:
			hops = d.Bytes()
		case unix.RTA_METRICS:
			d.Nested(func(d *netlink.AttributeDecoder) error {
				for d.Next() {
					if d.Type() == unix.RTAX_MTU {
						r.MTU = d.Uint32()
					}
				}
				return d.Err()
			})
		}
	})
	if err != nil {
		return nil, err
	}
	if r.Unreachable {
		r.Index = 0 // IPv6 shows loopback
	}
	if hops == nil {
		return []foundRoute{r}, nil
	}
	var out []foundRoute
	for len(hops) >= unix.SizeofRtNexthop { // struct rtnexthop
		size := int(binary.NativeEndian.Uint16(hops))
		if size < unix.SizeofRtNexthop || size > len(hops) {
			return nil, fmt.Errorf("gateway: next hop of %d bytes", size)
		}
		one := r
		one.Onlink = hops[2]&unix.RTNH_F_ONLINK != 0
		one.Index = binary.NativeEndian.Uint32(hops[4:])
		err := attributes(netlink.Message{Data: hops[:size]}, unix.SizeofRtNexthop, func(d *netlink.AttributeDecoder) {
			switch d.Type() {
			case unix.RTA_GATEWAY:
				one.Via = address(d)
			case unix.RTA_VIA:
				one.Via = via(d.Bytes())
			}
		})
		if err != nil {
			return nil, err
		}
		out = append(out, one)
		hops = hops[min((size+3)&^3, len(hops)):]
	}
	return out, nil
}

// via reads struct rtvia: a next hop of the other family.
func via(b []byte) netip.Addr {
	if len(b) < 2 {
		return netip.Addr{}
	}
	ip, _ := netip.AddrFromSlice(b[2:])
	return ip
}

// data is r as struct rtmsg with attributes.
func (r route) data() ([]byte, error) {
	b := make([]byte, unix.SizeofRtMsg)
	b[0], b[1], b[5], b[7] = unix.AF_INET, byte(r.Dst.Bits()), protocol, unix.RTN_UNICAST
	if r.Dst.Addr().Is6() {
		b[0] = unix.AF_INET6
	}
	if b[0] == unix.AF_INET && !r.Via.IsValid() && !r.Unreachable {
		b[6] = unix.RT_SCOPE_LINK
	}
	if r.Unreachable {
		b[7] = unix.RTN_UNREACHABLE
	}
	if r.Onlink {
		binary.NativeEndian.PutUint32(b[8:], unix.RTNH_F_ONLINK)
	}
	e := netlink.NewAttributeEncoder()
	e.Uint32(unix.RTA_TABLE, r.Table)
	e.Uint32(unix.RTA_PRIORITY, r.Metric)
	if r.Dst.Bits() > 0 {
		e.Bytes(unix.RTA_DST, r.Dst.Addr().AsSlice())
	}
	if r.Index != 0 {
		e.Uint32(unix.RTA_OIF, r.Index)
	}
	switch {
	case !r.Via.IsValid():
	case r.Via.Is4() == r.Dst.Addr().Is4():
		e.Bytes(unix.RTA_GATEWAY, r.Via.AsSlice())
	default:
		other := unix.AF_INET6
		if r.Via.Is4() {
			other = unix.AF_INET
		}
		e.Bytes(unix.RTA_VIA, append(binary.NativeEndian.AppendUint16(nil, uint16(other)), r.Via.AsSlice()...))
	}
	if r.Src.IsValid() {
		e.Bytes(unix.RTA_PREFSRC, r.Src.AsSlice())
	}
	if r.MTU != 0 {
		e.Nested(unix.RTA_METRICS, func(e *netlink.AttributeEncoder) error {
			e.Uint32(unix.RTAX_MTU, r.MTU)
			return nil
		})
	}
	attrs, err := e.Encode()
	return append(b, attrs...), err
}

// parseRule reads a rule (struct fib_rule_hdr); ours says whether its protocol
// is.
func parseRule(m netlink.Message) (r rule, ours bool, err error) {
	r.Family = 4
	var from netip.Addr
	err = attributes(m, unix.SizeofRtMsg, func(d *netlink.AttributeDecoder) {
		switch d.Type() {
		case unix.FRA_SRC:
			from = address(d)
		case unix.FRA_PRIORITY:
			r.Priority = d.Uint32()
		case unix.FRA_FWMARK:
			r.Mark = d.Uint32()
		case unix.FRA_FWMASK:
			r.Mask = d.Uint32()
		case unix.FRA_OIFNAME:
			r.Device = strings.TrimRight(d.String(), "\x00")
		case unix.FRA_TABLE:
			r.Table = d.Uint32()
		case unix.FRA_SUPPRESS_PREFIXLEN:
			if v := d.Uint32(); v != 1<<32-1 {
				r.Suppress = v
			}
		case unix.FRA_PROTOCOL:
			ours = d.Uint8() == protocol
		}
	})
	if err != nil {
		return r, false, err
	}
	if m.Data[0] == unix.AF_INET6 {
		r.Family = 6
	}
	if from.IsValid() {
		r.From = netip.PrefixFrom(from, int(m.Data[2]))
	}
	r.Unreachable = m.Data[7] == unix.FR_ACT_UNREACHABLE
	return r, ours, nil
}

// data is r as struct fib_rule_hdr with attributes.
func (r rule) data() ([]byte, error) {
	b := make([]byte, unix.SizeofRtMsg)
	b[0], b[7] = unix.AF_INET, unix.FR_ACT_TO_TBL
	if r.Family == 6 {
		b[0] = unix.AF_INET6
	}
	if r.Unreachable {
		b[7] = unix.FR_ACT_UNREACHABLE
	}
	e := netlink.NewAttributeEncoder()
	e.Uint32(unix.FRA_PRIORITY, r.Priority)
	e.Uint8(unix.FRA_PROTOCOL, protocol)
	if r.Table != 0 {
		e.Uint32(unix.FRA_TABLE, r.Table)
	}
	if r.Mask != 0 {
		e.Uint32(unix.FRA_FWMARK, r.Mark)
		e.Uint32(unix.FRA_FWMASK, r.Mask)
	}
	if r.Suppress != 0 {
		e.Uint32(unix.FRA_SUPPRESS_PREFIXLEN, r.Suppress)
	}
	if r.Device != "" {
		e.String(unix.FRA_OIFNAME, r.Device)
	}
	if r.From.IsValid() {
		b[2] = byte(r.From.Bits())
		e.Bytes(unix.FRA_SRC, r.From.Addr().AsSlice())
	}
	attrs, err := e.Encode()
	return append(b, attrs...), err
}
