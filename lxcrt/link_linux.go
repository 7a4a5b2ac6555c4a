package lxcrt

import (
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/jsimonetti/rtnetlink/v2"
	"github.com/jsimonetti/rtnetlink/v2/driver"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// insideLink is what a container calls its end of the link.
const insideLink = "eth0"

// linkName is the host end's name: the prefix and eight characters that follow
// from the container's name, so that CleanUp knows whose it is.
func linkName(prefix, name string) string {
	h := sha256.Sum256([]byte(name))
	return prefix + strings.ToLower(base32.StdEncoding.EncodeToString(h[:5]))
}

// linkMACs are the two ends' addresses: locally administered, and the same
// after every start.
func linkMACs(name string) (outside, inside net.HardwareAddr) {
	h := sha256.Sum256([]byte("lxcrt mac " + name))
	outside = net.HardwareAddr{0x02, h[0], h[1], h[2], h[3], h[4] &^ 1}
	inside = net.HardwareAddr{0x02, h[0], h[1], h[2], h[3], h[4] | 1}
	return outside, inside
}

// linkPlan is everything about one container's link.
type linkPlan struct {
	name         string // of the host end
	container    string
	addr4, addr6 netip.Addr
	gate4, gate6 netip.Addr
	mtu          uint32
	bridge       string // the host end is a port of it; empty: a routed link
	bits4, bits6 int    // of the networks on the bridge
}

func (p linkPlan) addrs() [][2]netip.Addr {
	var a [][2]netip.Addr
	if p.addr4.IsValid() {
		a = append(a, [2]netip.Addr{p.addr4, p.gate4})
	}
	if p.addr6.IsValid() {
		a = append(a, [2]netip.Addr{p.addr6, p.gate6})
	}
	return a
}

// connect makes the link of a container whose PID 1 is pid, both ends complete.
func (p linkPlan) connect(conn *rtnetlink.Conn, pid int) error {
	outside, inside := linkMACs(p.container)
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return err
	}
	defer ns.Close()
	peer := &rtnetlink.LinkMessage{ // not up yet: it has no peer itself at that moment
		Attributes: &rtnetlink.LinkAttributes{Name: insideLink, Address: inside, MTU: p.mtu, NetNS: rtnetlink.NetNSForFD(uint32(ns.Fd()))},
	}
	host := &rtnetlink.LinkMessage{
		Flags: unix.IFF_UP, Change: unix.IFF_UP,
		Attributes: &rtnetlink.LinkAttributes{Name: p.name, Address: outside, MTU: p.mtu,
			Info: &rtnetlink.LinkInfo{Kind: "veth", Data: &driver.Veth{PeerInfo: peer}}},
	}
	if p.bridge != "" {
		master, mtu, err := bridgeOf(conn, p.bridge)
		if err != nil {
			return err
		}
		// A bridge takes the lowest address of its ports for its own: never this.
		outside[0] = 0xfe
		host.Attributes.Master, host.Attributes.MTU, peer.Attributes.MTU = &master, mtu, mtu
	}
	if err := conn.Link.New(host); err != nil {
		return fmt.Errorf("link %s: %w", p.name, err)
	}
	if p.bridge != "" {
		return p.inside(int(ns.Fd()), nil)
	}
	index, err := linkIndex(p.name)
	if err != nil {
		return err
	}
	for _, a := range p.addrs() {
		if err := addAddress(conn, index, netip.PrefixFrom(a[1], a[1].BitLen())); err != nil {
			return fmt.Errorf("link %s: %w", p.name, err)
		}
		if err := addRoute(conn, index, netip.PrefixFrom(a[0], a[0].BitLen()), netip.Addr{}, a[1]); err != nil {
			return fmt.Errorf("link %s: %w", p.name, err)
		}
		if err := addNeighbour(conn, index, a[0], inside); err != nil {
			return fmt.Errorf("link %s: %w", p.name, err)
		}
	}
	return p.inside(int(ns.Fd()), outside)
}

func (p linkPlan) inside(ns int, gateway net.HardwareAddr) error {
	in, err := rtnetlink.Dial(&netlink.Config{NetNS: ns})
	if err != nil {
		return fmt.Errorf("container's network: %w", err)
	}
	defer in.Close()
	return p.furnish(in, gateway)
}

// bridgeOf finds a bridge by name.
func bridgeOf(conn *rtnetlink.Conn, name string) (index, mtu uint32, err error) {
	if index, err = linkIndex(name); err != nil {
		if errors.Is(err, unix.ENODEV) {
			err = fmt.Errorf("bridge %s: %w", name, ErrNotFound)
		}
		return 0, 0, err
	}
	l, err := conn.Link.Get(index)
	if err != nil {
		return 0, 0, fmt.Errorf("bridge %s: %w", name, err)
	}
	if l.Attributes.Info == nil || l.Attributes.Info.Kind != "bridge" {
		return 0, 0, fmt.Errorf("%w: link %s is no bridge", ErrInvalid, name)
	}
	return index, l.Attributes.MTU, nil
}

// furnish sets up the container's end.
func (p linkPlan) furnish(in *rtnetlink.Conn, gateway net.HardwareAddr) error {
	links, err := in.Link.List()
	if err != nil {
		return fmt.Errorf("container's links: %w", err)
	}
	var index uint32
	for _, l := range links {
		switch l.Attributes.Name {
		case insideLink:
			index = l.Index
		case "lo":
			if l.Flags&unix.IFF_UP == 0 {
				if err := in.Link.Set(&rtnetlink.LinkMessage{Index: l.Index, Flags: unix.IFF_UP, Change: unix.IFF_UP}); err != nil {
					return fmt.Errorf("container's loopback: %w", err)
				}
			}
		}
	}
	if index == 0 {
		return fmt.Errorf("container's link %s: %w", insideLink, ErrNotFound)
	}
	if err := in.Link.Set(&rtnetlink.LinkMessage{Index: index, Flags: unix.IFF_UP, Change: unix.IFF_UP}); err != nil {
		return fmt.Errorf("container's link: %w", err)
	}
	for _, a := range p.addrs() {
		bits := a[0].BitLen()
		if p.bridge != "" {
			if bits = p.bits4; a[0].Is6() {
				bits = p.bits6
			}
		}
		if err := addAddress(in, index, netip.PrefixFrom(a[0], bits)); err != nil {
			return fmt.Errorf("container's %w", err)
		}
		if p.bridge != "" {
			if a[1].IsValid() {
				if err := addRoute(in, index, everywhere(a[1]), a[1], netip.Addr{}); err != nil {
					return fmt.Errorf("container's %w", err)
				}
			}
			continue
		}
		if err := addNeighbour(in, index, a[1], gateway); err != nil {
			return fmt.Errorf("container's %w", err)
		}
		if err := addRoute(in, index, netip.PrefixFrom(a[1], a[1].BitLen()), netip.Addr{}, netip.Addr{}); err != nil {
			return fmt.Errorf("container's %w", err)
		}
		if err := addRoute(in, index, everywhere(a[1]), a[1], netip.Addr{}); err != nil {
			return fmt.Errorf("container's %w", err)
		}
	}
	return nil
}

// everywhere is the destination of a default route of the address's family.
func everywhere(a netip.Addr) netip.Prefix {
	if a.Is6() {
		return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
}

func family(a netip.Addr) uint8 {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func addAddress(conn *rtnetlink.Conn, index uint32, p netip.Prefix) error {
	a := p.Addr()
	m := &rtnetlink.AddressMessage{
		Family: family(a), PrefixLength: uint8(p.Bits()), Index: index,
		Attributes: &rtnetlink.AddressAttributes{Address: a.AsSlice(), Local: a.AsSlice(), Flags: unix.IFA_F_PERMANENT},
	}
	if a.Is6() {
		// The runtime gives the addresses: no duplicate detection.
		m.Flags, m.Attributes.Flags = unix.IFA_F_NODAD, unix.IFA_F_NODAD|unix.IFA_F_PERMANENT
	}
	if err := conn.Address.New(m); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("address %s: %w", a, err)
	}
	return nil
}

func addRoute(conn *rtnetlink.Conn, index uint32, to netip.Prefix, via, src netip.Addr) error {
	m := &rtnetlink.RouteMessage{
		Family: family(to.Addr()), DstLength: uint8(to.Bits()),
		Table: unix.RT_TABLE_MAIN, Protocol: unix.RTPROT_STATIC, Type: unix.RTN_UNICAST, Scope: unix.RT_SCOPE_LINK,
		Attributes: rtnetlink.RouteAttributes{OutIface: index},
	}
	if to.Bits() > 0 {
		m.Attributes.Dst = to.Addr().AsSlice()
	}
	if via.IsValid() {
		m.Attributes.Gateway, m.Scope = via.AsSlice(), unix.RT_SCOPE_UNIVERSE
	}
	if src.IsValid() {
		m.Attributes.Src = src.AsSlice()
	}
	if err := conn.Route.Replace(m); err != nil {
		return fmt.Errorf("route to %s: %w", to, err)
	}
	return nil
}

// addNeighbour writes down who has an address on a link, for good: there is
// nothing to ask, and no answer of the other side changes it.
func addNeighbour(conn *rtnetlink.Conn, index uint32, a netip.Addr, mac net.HardwareAddr) error {
	m := &rtnetlink.NeighMessage{
		Family: uint16(family(a)), Index: index, State: unix.NUD_PERMANENT,
		Attributes: &rtnetlink.NeighAttributes{Address: a.AsSlice(), LLAddress: mac, IfIndex: index},
	}
	if _, err := conn.Execute(m, unix.RTM_NEWNEIGH, netlink.Request|netlink.Create|netlink.Replace|netlink.Acknowledge); err != nil {
		return fmt.Errorf("neighbour %s: %w", a, err)
	}
	return nil
}

// linkIndex asks for one link, where net.InterfaceByName would list them all.
func linkIndex(name string) (uint32, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq(name)
	if err != nil {
		return 0, fmt.Errorf("link %s: %w", name, err)
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, req); err != nil {
		return 0, fmt.Errorf("link %s: %w", name, err)
	}
	return req.Uint32(), nil
}

// removeLink takes a host end down if it is there; the other end goes with it.
func removeLink(conn *rtnetlink.Conn, name string) error {
	index, err := linkIndex(name)
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := conn.Link.Delete(index); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove link %s: %w", name, err)
	}
	return nil
}
