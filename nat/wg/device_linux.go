package wg

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/jsimonetti/rtnetlink/v2"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// defaultMTU leaves room for the outer headers on a 1500-byte path.
const defaultMTU = 1420

// ErrNotSupported is returned where the kernel has no WireGuard and user space
// was ruled out.
var ErrNotSupported = errors.New("wg: not supported here")

// Mode says which WireGuard to use.
type Mode uint8

// Auto takes the kernel's and falls back to user space.
const (
	Auto Mode = iota
	Kernel
	Userspace
)

// Device is one WireGuard interface of the network namespace in which it was
// opened. It is safe for concurrent use. A kernel device outlives the process;
// one in user space ends with Close or with the process.
type Device struct {
	name string
	mode Mode // Kernel or Userspace

	mu   sync.Mutex
	wg   *wgctrl.Client
	rt   *rtnetlink.Conn
	user *userspace // nil for a kernel device
}

// Open makes the interface name, or takes over one that is there. It has no
// configuration before the first Apply. Errors: ErrNotSupported, or what the
// kernel said.
func Open(name string, mode Mode) (*Device, error) {
	if name == "" || len(name) > 15 {
		return nil, fmt.Errorf("%w: interface name %q", ErrInvalid, name)
	}
	rt, err := rtnetlink.Dial(nil)
	if err != nil {
		return nil, fmt.Errorf("wg: rtnetlink: %w", err)
	}
	d := &Device{name: name, mode: Kernel, rt: rt}
	err = unix.EOPNOTSUPP
	if mode != Userspace {
		err = d.makeLink()
	}
	if errors.Is(err, unix.EOPNOTSUPP) && mode != Kernel {
		d.mode = Userspace
		d.user, err = openUserspace(name)
	}
	if err != nil {
		rt.Close()
		if errors.Is(err, unix.EOPNOTSUPP) {
			return nil, fmt.Errorf("%w: the kernel has no WireGuard", ErrNotSupported)
		}
		return nil, fmt.Errorf("wg: %s: %w", name, err)
	}
	if d.wg, err = wgctrl.New(); err != nil {
		err = errors.Join(fmt.Errorf("wg: %w", err), d.Remove())
		return nil, err
	}
	return d, nil
}

// makeLink adds the kernel's interface; one of the right kind may be there.
func (d *Device) makeLink() error {
	err := d.rt.Link.New(&rtnetlink.LinkMessage{
		Attributes: &rtnetlink.LinkAttributes{Name: d.name, Info: &rtnetlink.LinkInfo{Kind: "wireguard"}},
	})
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	l, err := d.link()
	if err == nil && (l.Attributes.Info == nil || l.Attributes.Info.Kind != "wireguard") {
		err = fmt.Errorf("there is an interface of another kind: %w", unix.EEXIST)
	}
	return err
}

func (d *Device) link() (rtnetlink.LinkMessage, error) {
	i, err := net.InterfaceByName(d.name)
	if err != nil {
		return rtnetlink.LinkMessage{}, err
	}
	return d.rt.Link.Get(uint32(i.Index))
}

// Mode is Kernel or Userspace.
func (d *Device) Mode() Mode { return d.mode }

// Name is the interface's name.
func (d *Device) Name() string { return d.name }

// Apply makes the device match c: keys and peers in one step, then addresses
// and MTU, then it is up. A peer that stays the same keeps its session; applying
// the same again changes nothing. Names in endpoints are looked up now. On a
// refused Config or a name that is not found nothing has changed.
func (d *Device) Apply(ctx context.Context, c Config) error {
	if err := c.Validate(); err != nil {
		return err
	}
	endpoints, err := resolve(ctx, c.Peers)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	now, err := d.wg.Device(d.name)
	if err != nil {
		return fmt.Errorf("wg: %s: read: %w", d.name, err)
	}
	if cfg := change(now, c, endpoints); cfg != nil {
		if err := d.wg.ConfigureDevice(d.name, *cfg); err != nil {
			return fmt.Errorf("wg: %s: keys and peers: %w", d.name, err)
		}
	}
	return d.applyLink(c)
}

// Remove deletes the interface and closes d.
func (d *Device) Remove() error {
	d.mu.Lock()
	var err error
	if d.user == nil {
		var l rtnetlink.LinkMessage
		if l, err = d.link(); err == nil {
			err = d.rt.Link.Delete(l.Index)
		}
	}
	d.mu.Unlock()
	return errors.Join(err, d.Close())
}

// Close lets go of the device: a kernel one stays as it is, one in user space
// ends. It may be called twice.
func (d *Device) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var errs []error
	if d.wg != nil {
		errs = append(errs, d.wg.Close())
		d.wg = nil
	}
	if d.user != nil {
		d.user.close()
		d.user = nil
	}
	if d.rt != nil {
		errs = append(errs, d.rt.Close())
		d.rt = nil
	}
	return errors.Join(errs...)
}

// resolve looks up the endpoints, in the order of peers; nil where there is none.
func resolve(ctx context.Context, peers []Peer) ([]*net.UDPAddr, error) {
	out := make([]*net.UDPAddr, len(peers))
	for i, p := range peers {
		if p.Endpoint == "" {
			continue
		}
		host, port, err := net.SplitHostPort(p.Endpoint)
		if err != nil {
			return nil, fmt.Errorf("%w: endpoint %q", ErrInvalid, p.Endpoint)
		}
		ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		if err != nil {
			return nil, fmt.Errorf("wg: peer %s: %w", p.PublicKey, err)
		}
		n, _ := net.LookupPort("udp", port)
		out[i] = net.UDPAddrFromAddrPort(netip.AddrPortFrom(ips[0].Unmap(), uint16(n)))
	}
	return out, nil
}

// change is what turns now into c, nil when nothing does.
func change(now *wgtypes.Device, c Config, endpoints []*net.UDPAddr) *wgtypes.Config {
	var out wgtypes.Config
	changed := false
	if now.PrivateKey != c.PrivateKey {
		out.PrivateKey, changed = &c.PrivateKey, true
	}
	if port := int(c.ListenPort); port != 0 && port != now.ListenPort {
		out.ListenPort, changed = &port, true
	}
	if mark := int(c.FwMark); mark != now.FirewallMark {
		out.FirewallMark, changed = &mark, true
	}
	for _, p := range now.Peers {
		if c.Peer(p.PublicKey) == nil {
			out.Peers = append(out.Peers, wgtypes.PeerConfig{PublicKey: p.PublicKey, Remove: true})
		}
	}
	for i, p := range c.Peers {
		at := slices.IndexFunc(now.Peers, func(q wgtypes.Peer) bool { return q.PublicKey == p.PublicKey })
		if at >= 0 && same(now.Peers[at], p, endpoints[i]) {
			continue
		}
		keepalive := p.Keepalive
		pc := wgtypes.PeerConfig{
			PublicKey: p.PublicKey, PresharedKey: &p.PresharedKey, Endpoint: endpoints[i],
			PersistentKeepaliveInterval: &keepalive, ReplaceAllowedIPs: true,
		}
		for _, a := range p.AllowedIPs {
			a = a.Masked()
			pc.AllowedIPs = append(pc.AllowedIPs, net.IPNet{IP: a.Addr().AsSlice(), Mask: net.CIDRMask(a.Bits(), a.Addr().BitLen())})
		}
		out.Peers = append(out.Peers, pc)
	}
	if !changed && len(out.Peers) == 0 {
		return nil
	}
	return &out
}

// same says whether a peer of the device already is as wanted. A peer without
// an endpoint of its own may have roamed to any.
func same(q wgtypes.Peer, p Peer, endpoint *net.UDPAddr) bool {
	if q.PresharedKey != p.PresharedKey || q.PersistentKeepaliveInterval.Round(time.Second) != p.Keepalive {
		return false
	}
	if endpoint != nil && (q.Endpoint == nil || !q.Endpoint.IP.Equal(endpoint.IP) || q.Endpoint.Port != endpoint.Port) {
		return false
	}
	return slices.Equal(sorted(prefixes(q.AllowedIPs)), sorted(masked(p.AllowedIPs)))
}

func prefixes(list []net.IPNet) []netip.Prefix {
	var out []netip.Prefix
	for _, n := range list {
		ip, _ := netip.AddrFromSlice(n.IP)
		ones, _ := n.Mask.Size()
		out = append(out, netip.PrefixFrom(ip.Unmap(), ones))
	}
	return out
}

func sorted(list []netip.Prefix) []netip.Prefix {
	slices.SortFunc(list, func(a, b netip.Prefix) int { return a.Compare(b) })
	return slices.Compact(list)
}
