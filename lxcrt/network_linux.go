package lxcrt

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/jsimonetti/rtnetlink/v2"
	"golang.org/x/sys/unix"
)

// network is what the runtime does outside of the containers.
type network struct {
	conn         *rtnetlink.Conn
	wall         *firewall
	prefix       string
	gate4, gate6 netip.Addr
	mtu          uint32
}

// newNetwork makes the gateway's addresses, the sysctls and the table. The
// addresses stand on the loopback link as well, so that a server can listen on
// them before there is a container.
func newNetwork(o Options, known []Spec) (*network, error) {
	conn, err := rtnetlink.Dial(nil)
	if err != nil {
		return nil, fmt.Errorf("rtnetlink: %w", err)
	}
	n := &network{conn: conn, prefix: o.LinkPrefix, gate4: gateway(o.Subnet4), gate6: gateway(o.Subnet6), mtu: uint32(o.MTU)}
	n.wall = &firewall{name: o.Table, prefix: o.LinkPrefix, sub4: o.Subnet4, sub6: o.Subnet6,
		gate4: n.gate4, gate6: n.gate6, links: map[string]linkPlan{}}
	err = n.setUp(o, known)
	if err != nil {
		conn.Close()
		return nil, err
	}
	return n, nil
}

func (n *network) setUp(o Options, known []Spec) error {
	for _, s := range known {
		n.wall.links[s.Name] = n.plan(s)
	}
	if !o.Subnet4.IsValid() && !o.Subnet6.IsValid() {
		return n.wall.install()
	}
	if n.mtu == 0 {
		n.mtu = n.uplinkMTU()
	}
	lo, err := linkIndex("lo")
	if err != nil {
		return err
	}
	if err := n.conn.Link.Set(&rtnetlink.LinkMessage{Index: lo, Flags: unix.IFF_UP, Change: unix.IFF_UP}); err != nil {
		return fmt.Errorf("loopback: %w", err)
	}
	for _, a := range []netip.Addr{n.gate4, n.gate6} {
		if a.IsValid() {
			if err := addAddress(n.conn, lo, netip.PrefixFrom(a, a.BitLen())); err != nil {
				return fmt.Errorf("gateway %w", err)
			}
		}
	}
	if err := forwarding(o.LinkPrefix, o.Subnet4.IsValid(), o.Subnet6.IsValid()); err != nil {
		return err
	}
	for name, p := range n.wall.links {
		if p.bridge == "" {
			p.mtu = n.mtu
			n.wall.links[name] = p
		}
	}
	return n.wall.install()
}

func (n *network) plan(s Spec) linkPlan {
	p := linkPlan{name: linkName(n.prefix, s.Name), container: s.Name, mtu: n.mtu,
		addr4: s.Addr4, addr6: s.Addr6, gate4: n.gate4, gate6: n.gate6}
	if b := s.Bridge; b != nil {
		p.bridge, p.bits4, p.bits6 = b.Name, b.Net4.Bits(), b.Net6.Bits()
		p.gate4, p.gate6 = b.Gateway4, b.Gateway6
	}
	return p
}

// connect makes the link of a container. Where this host is the gateway of a
// bridge's network, it has to route.
func (n *network) connect(s Spec, pid int) error {
	p := n.plan(s)
	if p.bridge != "" {
		own, err := net.InterfaceAddrs()
		if err != nil {
			return err
		}
		var v4, v6 bool
		for _, a := range own {
			prefix, err := netip.ParsePrefix(a.String())
			if err != nil {
				continue
			}
			v4 = v4 || prefix.Addr() == p.gate4
			v6 = v6 || prefix.Addr() == p.gate6
		}
		if err := forwarding(n.prefix, v4, v6); err != nil {
			return err
		}
	}
	return p.connect(n.conn, pid)
}

// uplinkMTU is the smallest MTU of the links that have a default route.
func (n *network) uplinkMTU() uint32 {
	routes, err := n.conn.Route.List()
	if err != nil {
		return 1500
	}
	mtu := uint32(0)
	for _, r := range routes {
		if r.DstLength != 0 || r.Attributes.OutIface == 0 || r.Table != unix.RT_TABLE_MAIN {
			continue
		}
		l, err := n.conn.Link.Get(r.Attributes.OutIface)
		if err != nil || l.Attributes == nil || l.Attributes.MTU < 1280 || l.Flags&unix.IFF_LOOPBACK != 0 {
			continue
		}
		if mtu == 0 || l.Attributes.MTU < mtu {
			mtu = l.Attributes.MTU
		}
	}
	if mtu == 0 {
		return 1500
	}
	return mtu
}

// forwarding turns routing on. A link that takes its addresses from router
// advertisements stops doing so when forwarding is on, unless it is told to go on.
func forwarding(prefix string, v4, v6 bool) error {
	if on, _ := os.ReadFile("/proc/sys/net/ipv6/conf/all/forwarding"); v6 && strings.TrimSpace(string(on)) != "1" {
		confs, err := filepath.Glob("/proc/sys/net/ipv6/conf/*/accept_ra")
		if err != nil {
			return err
		}
		for _, c := range confs {
			if strings.HasPrefix(filepath.Base(filepath.Dir(c)), prefix) {
				continue
			}
			if b, err := os.ReadFile(c); err == nil && strings.TrimSpace(string(b)) == "1" {
				if err := os.WriteFile(c, []byte("2"), 0); err != nil {
					return fmt.Errorf("router advertisements: %w", err)
				}
			}
		}
		if err := sysctl("net/ipv6/conf/all/forwarding"); err != nil {
			return err
		}
	}
	if v4 {
		return sysctl("net/ipv4/ip_forward")
	}
	return nil
}

func sysctl(name string) error {
	file := filepath.Join("/proc/sys", name)
	if b, err := os.ReadFile(file); err == nil && strings.TrimSpace(string(b)) == "1" {
		return nil
	}
	if err := os.WriteFile(file, []byte("1"), 0); err != nil {
		return fmt.Errorf("sysctl %s: %w", name, err)
	}
	return nil
}

// strays removes every link with our prefix whose container is not kept.
func (n *network) strays(kept map[string]bool, log *slog.Logger) error {
	links, err := n.conn.Link.List()
	if err != nil {
		return fmt.Errorf("links: %w", err)
	}
	var errs []error
	for _, l := range links {
		name := l.Attributes.Name
		if strings.HasPrefix(name, n.prefix) && len(name) == len(n.prefix)+8 && !kept[name] {
			log.Warn("removing a stray link", "link", name)
			if err := n.conn.Link.Delete(l.Index); err != nil && !errors.Is(err, unix.ENODEV) {
				errs = append(errs, fmt.Errorf("remove link %s: %w", name, err))
			}
		}
	}
	return errors.Join(errs...)
}

// close lets go of the connection and, unless containers still run, takes table
// and gateway addresses away.
func (n *network) close(busy bool) error {
	defer n.conn.Close()
	if busy {
		return nil
	}
	errs := []error{n.wall.remove()}
	lo, err := linkIndex("lo")
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	for _, a := range []netip.Addr{n.gate4, n.gate6} {
		if !a.IsValid() {
			continue
		}
		err := n.conn.Address.Delete(&rtnetlink.AddressMessage{Family: family(a), PrefixLength: uint8(a.BitLen()), Index: lo,
			Attributes: &rtnetlink.AddressAttributes{Address: a.AsSlice(), Local: a.AsSlice()}})
		if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			errs = append(errs, fmt.Errorf("gateway address %s: %w", a, err))
		}
	}
	return errors.Join(errs...)
}
