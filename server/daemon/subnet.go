package daemon

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
)

// pickSubnets chooses where the containers live: a /20 of 10.0.0.0/8 and a /64
// of the unique local addresses (RFC 4193), both random and clear of what the
// machine knows: its addresses and its routes, except the default route.
func pickSubnets() (v4, v6 netip.Prefix, err error) {
	taken, err := known()
	if err != nil {
		return v4, v6, fmt.Errorf("daemon: choose the containers' subnet: %w", err)
	}
	v6Bytes := [16]byte{0xfd}
	rand.Read(v6Bytes[1:6]) //nolint:errcheck // never fails
	v6 = netip.PrefixFrom(netip.AddrFrom16(v6Bytes), 64)
	for range 1000 {
		var b [4]byte
		rand.Read(b[:]) //nolint:errcheck // never fails
		b[0] = 10
		v4 = netip.PrefixFrom(netip.AddrFrom4(b), 20).Masked()
		// 10.0.0.0/16 and 10.0.3.0/24 are what routers and lxc-net like best.
		if b[1] != 0 && clear(v4, taken) {
			return v4, v6, nil
		}
	}
	return v4, v6, errors.New("daemon: no subnet of 10.0.0.0/8 is free for containers")
}

func clear(p netip.Prefix, taken []netip.Prefix) bool {
	for _, t := range taken {
		if t.Overlaps(p) {
			return false
		}
	}
	return true
}

// known lists the machine's IPv4 addresses and routes.
func known() ([]netip.Prefix, error) {
	var out []netip.Prefix
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() {
			out = append(out, p.Masked())
		}
	}
	text, err := os.ReadFile("/proc/net/route")
	if err != nil {
		return nil, err
	}
	return append(out, parseRoutes(string(text))...), nil
}

// parseRoutes reads /proc/net/route: destination and mask are the second and
// the eighth field, in hexadecimal of the machine's byte order.
func parseRoutes(text string) []netip.Prefix {
	var out []netip.Prefix
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 8 {
			continue
		}
		var dst, mask uint32
		if _, err := fmt.Sscanf(f[1]+" "+f[7], "%x %x", &dst, &mask); err != nil || mask == 0 {
			continue
		}
		var d, m [4]byte
		binary.NativeEndian.PutUint32(d[:], dst)
		binary.NativeEndian.PutUint32(m[:], mask)
		bits, _ := net.IPMask(m[:]).Size()
		out = append(out, netip.PrefixFrom(netip.AddrFrom4(d), bits).Masked())
	}
	return out
}
