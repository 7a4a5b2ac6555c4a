package nat

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"
)

const (
	iflaBrPortMode  = 4
	iflaBrCallIP    = 36 // IFLA_BR_NF_CALL_IPTABLES
	iflaBrCallIP6   = 37
	extSkipStats    = 8 // RTEXT_FILTER_SKIP_STATS
	routeTableLocal = 255
)

// readEnvironment reads links, addresses and routes.
func readEnvironment(s *socket) (Environment, error) {
	for range 20 {
		env := Environment{Links: map[int]Link{}, Addrs: map[netip.Addr]int{}}
		err := env.read(s)
		if !errors.Is(err, errInterrupted) {
			return env, err
		}
	}
	return Environment{}, &KernelError{Op: "read links and routes", Err: errInterrupted}
}

func (e *Environment) read(s *socket) error {
	a := attrs{make([]byte, unix.SizeofIfInfomsg)}
	a.raw(unix.IFLA_EXT_MASK, string(nativeUint32(extSkipStats)))
	if err := s.request("dump links", "", unix.RTM_GETLINK, unix.NLM_F_DUMP, a.b, func(m message) {
		if index, l, ok := parseLink(m.body); ok {
			e.Links[index] = l
		}
	}); err != nil {
		return err
	}
	if err := s.request("dump addresses", "", unix.RTM_GETADDR, unix.NLM_F_DUMP, make([]byte, unix.SizeofIfAddrmsg), func(m message) {
		e.addAddress(m.body)
	}); err != nil {
		return err
	}
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		body := make([]byte, unix.SizeofRtMsg)
		body[0] = family
		if err := s.request("dump routes", "", unix.RTM_GETROUTE, unix.NLM_F_DUMP, body, func(m message) {
			e.addRoute(m.body)
		}); err != nil {
			return err
		}
	}
	return nil
}

func parseLink(b []byte) (index int, l Link, ok bool) {
	if len(b) < unix.SizeofIfInfomsg {
		return 0, l, false
	}
	index = int(int32(binary.NativeEndian.Uint32(b[4:])))
	flags := binary.NativeEndian.Uint32(b[8:])
	l.PointToPoint = flags&unix.IFF_POINTOPOINT != 0 || flags&unix.IFF_NOARP != 0 && flags&unix.IFF_LOOPBACK == 0
	for typ, v := range each(b[unix.SizeofIfInfomsg:]) {
		switch typ {
		case unix.IFLA_IFNAME:
			l.Name = attrString(v)
		case unix.IFLA_MASTER:
			if len(v) == 4 {
				l.Master = int(binary.NativeEndian.Uint32(v))
			}
		case unix.IFLA_LINKINFO:
			var slave string
			for typ, v := range each(v) {
				switch typ {
				case unix.IFLA_INFO_KIND:
					l.Kind = attrString(v)
				case unix.IFLA_INFO_SLAVE_KIND:
					slave = attrString(v)
				case unix.IFLA_INFO_DATA:
					if l.Kind == "bridge" {
						l.CallRules = parseBridge(v)
					}
				case unix.IFLA_INFO_SLAVE_DATA:
					if slave == "bridge" {
						l.Hairpin = parsePort(v)
					}
				}
			}
			if slave != "bridge" {
				l.Master = 0
			}
		}
	}
	return index, l, true
}

func parseBridge(b []byte) (call [2]bool) {
	for typ, v := range each(b) {
		switch typ {
		case iflaBrCallIP:
			call[0] = len(v) > 0 && v[0] != 0
		case iflaBrCallIP6:
			call[1] = len(v) > 0 && v[0] != 0
		}
	}
	return call
}

func parsePort(b []byte) bool {
	for typ, v := range each(b) {
		if typ == iflaBrPortMode {
			return len(v) > 0 && v[0] != 0
		}
	}
	return false
}

func (e *Environment) addAddress(b []byte) {
	if len(b) < unix.SizeofIfAddrmsg {
		return
	}
	index := int(int32(binary.NativeEndian.Uint32(b[4:])))
	var local, address netip.Addr
	for typ, v := range each(b[unix.SizeofIfAddrmsg:]) {
		switch typ {
		case unix.IFA_LOCAL:
			local, _ = netip.AddrFromSlice(v)
		case unix.IFA_ADDRESS:
			address, _ = netip.AddrFromSlice(v)
		}
	}
	if !local.IsValid() {
		local = address
	}
	if !local.IsValid() {
		return
	}
	e.Addrs[local] = index
	l := e.Links[index]
	// On a link with a peer address the prefix belongs to the peer.
	l.Subnets = append(l.Subnets, netip.PrefixFrom(address, int(b[1])).Masked())
	e.Links[index] = l
}

// nextHop reads a router's address; RTA_VIA puts a family in front.
func nextHop(typ uint16, b []byte) netip.Addr {
	if typ == unix.RTA_VIA && len(b) > 2 {
		b = b[2:]
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

func (e *Environment) addRoute(b []byte) {
	if len(b) < unix.SizeofRtMsg || b[7] != unix.RTN_UNICAST {
		return
	}
	bits, table := int(b[1]), uint32(b[4])
	dst := netip.IPv4Unspecified()
	if b[0] == unix.AF_INET6 {
		dst = netip.IPv6Unspecified()
	}
	r := Route{}
	for typ, v := range each(b[unix.SizeofRtMsg:]) {
		switch typ {
		case unix.RTA_DST:
			dst, _ = netip.AddrFromSlice(v)
		case unix.RTA_OIF:
			r.Link = int(binary.NativeEndian.Uint32(v))
		case unix.RTA_GATEWAY, unix.RTA_VIA:
			r.Via = nextHop(typ, v)
		case unix.RTA_TABLE:
			table = binary.NativeEndian.Uint32(v)
		case unix.RTA_PRIORITY:
			r.Metric = binary.NativeEndian.Uint32(v)
		case unix.RTA_MULTIPATH:
			if len(v) >= unix.SizeofRtNexthop {
				r.Link = int(binary.NativeEndian.Uint32(v[4:]))
				n := min(int(binary.NativeEndian.Uint16(v)), len(v))
				for typ, v := range each(v[unix.SizeofRtNexthop:max(n, unix.SizeofRtNexthop)]) {
					if typ == unix.RTA_GATEWAY || typ == unix.RTA_VIA {
						r.Via = nextHop(typ, v)
					}
				}
			}
		}
	}
	if table == routeTableLocal || !dst.IsValid() {
		return
	}
	r.Main = table == unix.RT_TABLE_MAIN
	r.Dst = netip.PrefixFrom(dst, bits)
	if r.Dst.IsValid() {
		e.Routes = append(e.Routes, r)
	}
}
