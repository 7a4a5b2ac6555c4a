package nat

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxName bounds a forward's name, so that it fits the comment of a kernel element.
const maxName = 120

// Config is the whole wanted state. The order of the forwards has no meaning.
type Config struct {
	Forwards []Forward
}

// Forward publishes Count ports of Target at Source, for clients anywhere:
// outside, on the LAN, on the host itself, next to the target and the target
// itself.
type Forward struct {
	// Name identifies the forward: unique, printable, at most 120 bytes.
	Name string
	// Source is the address and port that clients use. The address need not
	// be one of this host's (an upstream gateway may hold it).
	Source netip.AddrPort
	// Target is where the service listens, of the same address family.
	Target Target
	// Count is the number of consecutive ports, from Source.Port and
	// Target.Port upwards; 0 means 1. A range with equal bases costs a kernel
	// element for each power of two that it is made of, at most 30; others cost
	// one a port.
	Count int
	// Protocols says which transports are forwarded; 0 means both.
	Protocols Protocols
	// AllowFrom and AllowVia restrict who may use the forward: sources inside
	// one of the prefixes, and whoever comes in on one of the named interfaces
	// (gateways). Both empty means anyone. The host itself and the target's
	// own subnet always may: they reach the target without the forward too.
	AllowFrom []netip.Prefix
	AllowVia  []string
}

// Target is the inside end of a Forward.
type Target struct {
	Addr netip.Addr
	// Prefix is the length of the target's own subnet, as the target sees it;
	// 32 or 128 means that it sees none. Connections from inside that subnet
	// to the target are not judged, and hairpin connections from it are
	// masqueraded where replies could otherwise take a short cut.
	Prefix int
	Port   uint16
}

// Protocols is a set of transport protocols.
type Protocols uint8

// The transports that can be forwarded.
const (
	TCP Protocols = 1 << iota
	UDP
)

const (
	protoTCP = 6
	protoUDP = 17
)

var protoNumbers = []uint8{protoTCP, protoUDP}

// numbers returns the IP protocol numbers of the set, ascending; the slice is
// shared.
func (p Protocols) numbers() []uint8 {
	switch p {
	case TCP:
		return protoNumbers[:1]
	case UDP:
		return protoNumbers[1:]
	}
	return protoNumbers
}

// bits spells out the default.
func (p Protocols) bits() Protocols {
	if p == 0 {
		return TCP | UDP
	}
	return p
}

// String returns "tcp", "udp" or "tcp,udp".
func (p Protocols) String() string {
	switch p {
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	}
	return "tcp,udp"
}

// ports returns Count with its default.
func (f *Forward) ports() int { return max(f.Count, 1) }

// limited reports whether not everyone may use the forward.
func (f *Forward) limited() bool { return len(f.AllowFrom) > 0 || len(f.AllowVia) > 0 }

// ranged reports whether the forward is a range with equal bases.
func (f *Forward) ranged() bool { return f.ports() > 1 && f.Source.Port() == f.Target.Port }

// Equal reports whether both say the same in the same words.
func (f *Forward) Equal(g *Forward) bool {
	return f.Source == g.Source && f.Target == g.Target && f.Name == g.Name && f.ports() == g.ports() &&
		f.Protocols.bits() == g.Protocols.bits() && slices.Equal(f.AllowFrom, g.AllowFrom) && slices.Equal(f.AllowVia, g.AllowVia)
}

// Clone returns a copy that shares nothing with f.
func (f Forward) Clone() Forward {
	f.AllowFrom, f.AllowVia = slices.Clone(f.AllowFrom), slices.Clone(f.AllowVia)
	return f
}

// Equal reports whether both hold the same forwards in the same order.
func (c Config) Equal(d Config) bool {
	return slices.EqualFunc(c.Forwards, d.Forwards, func(a, b Forward) bool { return a.Equal(&b) })
}

// Clone returns a copy that shares nothing with c.
func (c Config) Clone() Config {
	out := Config{Forwards: slices.Clone(c.Forwards)}
	for i := range out.Forwards {
		out.Forwards[i] = out.Forwards[i].Clone()
	}
	return out
}

// Validate reports the first forward that cannot be applied, as a *ConfigError.
func (c Config) Validate() error {
	_, err := newPlan(c, Environment{})
	return err
}

// check judges a forward by itself.
func (f *Forward) check() *ConfigError {
	bad := func(field, format string, args ...any) *ConfigError {
		return &ConfigError{Forward: f.Name, Index: -1, Field: field, Reason: fmt.Sprintf(format, args...)}
	}
	if f.Name == "" {
		return bad("name", "is empty")
	}
	if len(f.Name) > maxName {
		return bad("name", "is longer than %d bytes", maxName)
	}
	if !printable(f.Name) {
		return bad("name", "has characters that cannot be printed, or a quotation mark")
	}
	if err := f.checkEnds(bad); err != nil {
		return err
	}
	if f.Count < 0 {
		return bad("count", "%d is negative", f.Count)
	}
	n := f.ports()
	if n > 65535 { // before it is added to anything
		return bad("count", "%d ports reach past 65535", n)
	}
	if last := int(f.Source.Port()) + n - 1; last > 65535 {
		return bad("count", "%d ports from source port %d reach %d, past 65535", n, f.Source.Port(), last)
	}
	if last := int(f.Target.Port) + n - 1; last > 65535 {
		return bad("count", "%d ports from target port %d reach %d, past 65535", n, f.Target.Port, last)
	}
	if f.Protocols > TCP|UDP {
		return bad("protocols", "unknown bits %#x", uint8(f.Protocols))
	}
	for _, p := range f.AllowFrom {
		switch {
		case !p.IsValid():
			return bad("allowFrom", "not a valid prefix")
		case p.Addr().Is4() != f.Source.Addr().Is4() || p.Addr().Is4In6():
			return bad("allowFrom", "%s is of another address family than source %s", p, f.Source.Addr())
		}
	}
	for _, via := range f.AllowVia {
		if via == "" || len(via) > 15 || strings.ContainsAny(via, "/ \t\n\"") {
			return bad("allowVia", "%q is no interface name", via)
		}
	}
	return nil
}

func (f *Forward) checkEnds(bad func(field, format string, args ...any) *ConfigError) *ConfigError {
	src, dst := f.Source.Addr(), f.Target.Addr
	for _, end := range []struct {
		field string
		addr  netip.Addr
	}{{"source.addr", src}, {"target.addr", dst}} {
		a := end.addr
		switch {
		case !a.IsValid():
			return bad(end.field, "is missing")
		case a.Zone() != "":
			return bad(end.field, "%s has a zone", a)
		case a.Is4In6():
			return bad(end.field, "%s is an IPv4 address in IPv6 form", a)
		case a.IsUnspecified():
			return bad(end.field, "%s stands for no address", a)
		case a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
			return bad(end.field, "%s is not a unicast address", a)
		case a.Is6() && a.IsLinkLocalUnicast():
			return bad(end.field, "%s is link-local, which names no interface", a)
		}
	}
	switch {
	case src.Is4() != dst.Is4():
		return bad("target.addr", "%s is of another address family than source %s", dst, src)
	case src.Is6() && src.IsLoopback():
		return bad("source.addr", "%s cannot be forwarded: IPv6 has no route_localnet, its loopback never leaves the host", src)
	case dst.IsLoopback():
		return bad("target.addr", "%s is the host's own loopback: listen on the source address instead", dst)
	case f.Source.Port() == 0:
		return bad("source.port", "is 0")
	case f.Target.Port == 0:
		return bad("target.port", "is 0")
	case f.Target.Prefix < 1 || f.Target.Prefix > dst.BitLen():
		return bad("target.prefix", "%d is not within 1 to %d", f.Target.Prefix, dst.BitLen())
	case src == dst && f.Source.Port() == f.Target.Port:
		return bad("target", "is the source itself")
	}
	return nil
}

func printable(s string) bool {
	if !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if r == '"' || !unicode.IsPrint(r) {
			return false
		}
	}
	return true
}

// sources returns AllowFrom masked, without duplicates and without prefixes
// that lie inside another one, which say nothing.
func sources(allow []netip.Prefix) []netip.Prefix {
	out := make([]netip.Prefix, 0, len(allow))
	for _, p := range allow {
		out = append(out, p.Masked())
	}
	slices.SortFunc(out, func(a, b netip.Prefix) int {
		if c := a.Addr().Compare(b.Addr()); c != 0 {
			return c
		}
		return a.Bits() - b.Bits()
	})
	kept := out[:0]
	for _, p := range out {
		if n := len(kept); n > 0 && kept[n-1].Contains(p.Addr()) {
			continue
		}
		kept = append(kept, p)
	}
	return kept
}
