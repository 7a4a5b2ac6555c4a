package wg

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// ErrInvalid is wrapped by every error about a Config or its text.
var ErrInvalid = errors.New("wg: invalid configuration")

// Key is a private, public or preshared key of Curve25519.
type Key = wgtypes.Key

// GenerateKey makes a private key.
func GenerateKey() (Key, error) { return wgtypes.GeneratePrivateKey() }

// ParseKey reads a key in base64.
func ParseKey(s string) (Key, error) {
	k, err := wgtypes.ParseKey(s)
	if err != nil {
		return Key{}, fmt.Errorf("%w: key: %w", ErrInvalid, err)
	}
	return k, nil
}

// Config is the whole wanted state of a device.
type Config struct {
	PrivateKey Key
	Addresses  []netip.Prefix // of the interface
	ListenPort uint16         // UDP; 0 lets the kernel choose
	FwMark     uint32         // of the encrypted packets; 0 is none
	MTU        int            // 0 means 1420
	DNS        []netip.Addr   // for whoever sets up name resolution; not applied here
	Peers      []Peer
}

// Peer is the other end of a tunnel.
type Peer struct {
	PublicKey    Key
	PresharedKey Key            // zero is none
	Endpoint     string         // host:port; a name is looked up when it is applied; "" waits for the peer
	AllowedIPs   []netip.Prefix // what the peer may send, and what goes to it
	Keepalive    time.Duration  // whole seconds; 0 is off
}

// Validate says what is wrong with c, naming the peer.
func (c *Config) Validate() error {
	if c.PrivateKey == (Key{}) {
		return fmt.Errorf("%w: no private key", ErrInvalid)
	}
	if c.MTU != 0 && (c.MTU < 576 || c.MTU > 65535) {
		return fmt.Errorf("%w: MTU %d is not in 576 to 65535", ErrInvalid, c.MTU)
	}
	for _, a := range c.Addresses {
		if !a.IsValid() {
			return fmt.Errorf("%w: address %s", ErrInvalid, a)
		}
	}
	owner := map[netip.Prefix]Key{}
	seen := map[Key]bool{}
	for _, p := range c.Peers {
		name := p.PublicKey.String()
		switch {
		case p.PublicKey == (Key{}):
			return fmt.Errorf("%w: a peer without public key", ErrInvalid)
		case seen[p.PublicKey]:
			return fmt.Errorf("%w: peer %s twice", ErrInvalid, name)
		case p.PublicKey == c.PrivateKey.PublicKey():
			return fmt.Errorf("%w: peer %s is this device", ErrInvalid, name)
		case p.Keepalive < 0 || p.Keepalive > 65535*time.Second || p.Keepalive%time.Second != 0:
			return fmt.Errorf("%w: peer %s: keepalive %s is not 0 to 65535 whole seconds", ErrInvalid, name, p.Keepalive)
		}
		seen[p.PublicKey] = true
		if p.Endpoint != "" {
			host, port, err := net.SplitHostPort(p.Endpoint)
			if n, perr := strconv.ParseUint(port, 10, 16); err != nil || perr != nil || n == 0 || host == "" {
				return fmt.Errorf("%w: peer %s: endpoint %q is not host:port", ErrInvalid, name, p.Endpoint)
			}
		}
		for _, a := range p.AllowedIPs {
			if !a.IsValid() {
				return fmt.Errorf("%w: peer %s: allowed IP %s", ErrInvalid, name, a)
			}
			if other, taken := owner[a.Masked()]; taken && other != p.PublicKey {
				return fmt.Errorf("%w: peers %s and %s are both allowed %s", ErrInvalid, other, name, a.Masked())
			}
			owner[a.Masked()] = p.PublicKey
		}
	}
	return nil
}

// Peer finds a peer by its public key, nil when there is none.
func (c *Config) Peer(key Key) *Peer {
	i := slices.IndexFunc(c.Peers, func(p Peer) bool { return p.PublicKey == key })
	if i < 0 {
		return nil
	}
	return &c.Peers[i]
}

// Clone returns a copy that shares nothing with c.
func (c Config) Clone() Config {
	c.Addresses, c.DNS, c.Peers = slices.Clone(c.Addresses), slices.Clone(c.DNS), slices.Clone(c.Peers)
	for i := range c.Peers {
		c.Peers[i].AllowedIPs = slices.Clone(c.Peers[i].AllowedIPs)
	}
	return c
}

// String is c as a .conf file; Parse reads it back.
func (c Config) String() string {
	var b strings.Builder
	line := func(name string, value any) { fmt.Fprintf(&b, "%s = %v\n", name, value) }
	b.WriteString("[Interface]\n")
	line("PrivateKey", c.PrivateKey)
	if len(c.Addresses) > 0 {
		line("Address", join(c.Addresses))
	}
	if c.ListenPort != 0 {
		line("ListenPort", c.ListenPort)
	}
	if c.FwMark != 0 {
		line("FwMark", fmt.Sprintf("0x%x", c.FwMark))
	}
	if c.MTU != 0 {
		line("MTU", c.MTU)
	}
	if len(c.DNS) > 0 {
		line("DNS", join(c.DNS))
	}
	for _, p := range c.Peers {
		b.WriteString("\n[Peer]\n")
		line("PublicKey", p.PublicKey)
		if p.PresharedKey != (Key{}) {
			line("PresharedKey", p.PresharedKey)
		}
		if p.Endpoint != "" {
			line("Endpoint", p.Endpoint)
		}
		if len(p.AllowedIPs) > 0 {
			line("AllowedIPs", join(masked(p.AllowedIPs)))
		}
		if p.Keepalive != 0 {
			line("PersistentKeepalive", int(p.Keepalive/time.Second))
		}
	}
	return b.String()
}

// masked clears the bits of hosts: some programs refuse what has them.
func masked(list []netip.Prefix) []netip.Prefix {
	out := slices.Clone(list)
	for i := range out {
		out[i] = out[i].Masked()
	}
	return out
}

func join[T fmt.Stringer](list []T) string {
	words := make([]string, len(list))
	for i, v := range list {
		words[i] = v.String()
	}
	return strings.Join(words, ", ")
}
