package gateway

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"unicode"
)

// Errors that callers branch on.
var (
	ErrInvalid      = errors.New("gateway: invalid configuration")
	ErrClosed       = errors.New("gateway: closed")
	ErrNotSupported = errors.New("gateway: not supported here")
)

// Gateway is an interface with addresses, and the next hops behind it.
type Gateway struct {
	Name         string // of the interface
	Index        int
	Kind         string // "wireguard", "bridge", …; "" for a plain device
	Up           bool   // it is up and has carrier
	PointToPoint bool   // it leads to one peer, so that no next hop is needed
	Addresses    []netip.Prefix
	NextHop4     netip.Addr // of main's default route by this interface; unset when there is none or it is on-link
	NextHop6     netip.Addr
	Default4     bool // main has a default route by this interface
	Default6     bool
	Metric4      uint32 // of that route; the lowest is in force
	Metric6      uint32
}

// Config is the whole wanted policy. The zero value wants none.
type Config struct {
	// Gateways are the interfaces on which connections come in from outside: their
	// replies leave by the same. Default and the sources' gateways are added.
	Gateways []string
	// NextHops says where to send what leaves by an interface, one a family. It is
	// needed where main has no default route by the interface and the link is not
	// point-to-point; where given, main is not asked.
	NextHops map[string][]netip.Addr
	// Default is the gateway of everything that nothing else decides; "" leaves it
	// to main.
	Default string
	// Sources choose a gateway for traffic from a prefix, a service's address for
	// instance. The longest prefix decides.
	Sources []Source
	// TunnelMarks are the marks that tunnels put on their own packets (fwmark of
	// a WireGuard device). A tunnel that is a Default needs one, unless main has
	// routes to its endpoints.
	TunnelMarks []uint32
}

// Source sends traffic from Prefix by Gateway.
type Source struct {
	Prefix  netip.Prefix
	Gateway string
}

// Options tunes New. The zero value suits production.
type Options struct {
	Table     string       // of nftables, family inet; "" means "selfstead-gateways"
	Priority  uint32       // of the first routing rule; the last is 270 later; 0 means 6000
	TableBase uint32       // routing tables are numbered from the one after it; 0 means 0x5e1f0000
	Mask      uint32       // bits of packet and connection marks that are ours, 12 in a row; 0 means 0xfff00000
	Logger    *slog.Logger // nil means silent
}

// withDefaults fills in what o leaves out.
func (o Options) withDefaults() (Options, error) {
	if o.Table == "" {
		o.Table = "selfstead-gateways"
	}
	if o.Priority == 0 {
		o.Priority = 6000
	}
	if o.TableBase == 0 {
		o.TableBase = 0x5e1f0000
	}
	if o.Mask == 0 {
		o.Mask = 0xfff00000
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Mask>>trailingZeros(o.Mask) != 0xfff {
		return o, fmt.Errorf("%w: mask %#x is not 12 bits in a row", ErrInvalid, o.Mask)
	}
	if o.TableBase < 256 || o.TableBase > 1<<32-1-slots {
		return o, fmt.Errorf("%w: tables from %d", ErrInvalid, o.TableBase)
	}
	if o.Priority+priorityDefault >= mainPriority {
		return o, fmt.Errorf("%w: priority %d leaves no room before main's rule", ErrInvalid, o.Priority)
	}
	return o, nil
}

// checkName refuses what the kernel refuses as an interface name, and the two
// that mean something else among its settings.
func checkName(name string) error {
	if name == "" || len(name) > 15 || name == "." || name == ".." || name == "all" || name == "default" ||
		strings.ContainsFunc(name, func(r rune) bool { return r == '/' || r == ':' || r == 0 || unicode.IsSpace(r) }) {
		return fmt.Errorf("%w: interface name %q", ErrInvalid, name)
	}
	return nil
}

// Validate says what is wrong with c.
func (c *Config) Validate() error {
	for _, g := range c.names() {
		if err := checkName(g); err != nil {
			return err
		}
	}
	if n := len(c.names()); n > maxGateways {
		return fmt.Errorf("%w: %d gateways, at most %d", ErrInvalid, n, maxGateways)
	}
	seen := map[netip.Prefix]bool{}
	for _, s := range c.Sources {
		if !s.Prefix.IsValid() || s.Prefix != s.Prefix.Masked() || s.Prefix.Addr().Is4In6() {
			return fmt.Errorf("%w: source %s is not a network", ErrInvalid, s.Prefix)
		}
		if s.Prefix.Bits() == 0 {
			return fmt.Errorf("%w: source %s is everything: that is the default gateway", ErrInvalid, s.Prefix)
		}
		if seen[s.Prefix] {
			return fmt.Errorf("%w: source %s twice", ErrInvalid, s.Prefix)
		}
		seen[s.Prefix] = true
	}
	for _, name := range slices.Sorted(maps.Keys(c.NextHops)) {
		if err := checkName(name); err != nil {
			return err
		}
		families := map[bool]bool{}
		for _, h := range c.NextHops[name] {
			if !h.IsValid() || h.IsUnspecified() || h.IsMulticast() || h.IsLoopback() || h.Is4In6() {
				return fmt.Errorf("%w: next hop %s of %s", ErrInvalid, h, name)
			}
			if families[h.Is4()] {
				return fmt.Errorf("%w: second next hop %s of %s", ErrInvalid, h, name)
			}
			families[h.Is4()] = true
		}
	}
	if slices.Contains(c.TunnelMarks, 0) {
		return fmt.Errorf("%w: tunnel mark 0", ErrInvalid)
	}
	return nil
}

// Clone returns a copy that shares nothing with c.
func (c *Config) Clone() Config {
	out := *c
	out.Gateways = slices.Clone(c.Gateways)
	out.Sources = slices.Clone(c.Sources)
	out.TunnelMarks = slices.Clone(c.TunnelMarks)
	out.NextHops = maps.Clone(c.NextHops)
	for name, hops := range out.NextHops {
		out.NextHops[name] = slices.Clone(hops)
	}
	return out
}

// names lists every gateway of c once, in order.
func (c *Config) names() []string {
	list := slices.Clone(c.Gateways)
	if c.Default != "" {
		list = append(list, c.Default)
	}
	for _, s := range c.Sources {
		list = append(list, s.Gateway)
	}
	slices.Sort(list)
	return slices.Compact(list)
}
