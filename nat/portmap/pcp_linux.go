package portmap

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"net/netip"
	"time"
)

// PCP: RFC 6887. One request, MAP.
const (
	pcpVersion    = 2
	pcpMap        = 1
	pcpResponse   = 0x80
	pcpMapLen     = 60 // header of 24 bytes and MAP of 36
	pcpBadVersion = 1
)

// pcpReasons are the result codes of RFC 6887 section 7.4.
var pcpReasons = map[uint8]string{
	1: "version not supported", 2: "not authorized", 3: "malformed request", 4: "opcode not supported", 5: "option not supported",
	6: "malformed option", 7: "network failure", 8: "no resources", 9: "protocol not supported", 10: "quota exceeded",
	11: "outside address or port cannot be provided", 12: "source address does not match", 13: "too many remote peers",
}

// pcpSend asks for a mapping, or gives one back with lifetime 0.
func (c *Client) pcpSend(ctx context.Context, r Request, nonce [12]byte, lifetime time.Duration) (Mapping, error) {
	b := make([]byte, pcpMapLen)
	b[0], b[1] = pcpVersion, pcpMap
	binary.BigEndian.PutUint32(b[4:], uint32(lifetime/time.Second))
	local := c.o.Local.As16()
	copy(b[8:], local[:])
	copy(b[24:], nonce[:])
	b[36] = uint8(r.Protocol)
	binary.BigEndian.PutUint16(b[40:], r.Internal)
	if lifetime > 0 {
		binary.BigEndian.PutUint16(b[42:], r.External)
	}
	if c.o.Local.Is4() { // "any" of the family
		any4 := netip.IPv4Unspecified().As16()
		copy(b[44:], any4[:])
	}
	var m Mapping
	err := c.exchange(ctx, b, func(a []byte) (bool, error) {
		if len(a) < 4 || a[0] > pcpVersion || a[1]&pcpResponse == 0 {
			return false, nil
		}
		if a[0] < pcpVersion { // a NAT-PMP server says so in its own words
			return false, &RefusedError{Via: "pcp", Code: pcpBadVersion, Text: pcpReasons[pcpBadVersion]}
		}
		if len(a) < 24 || a[1] != pcpResponse|pcpMap {
			return false, nil
		}
		if code := a[3]; code != 0 {
			text, ok := pcpReasons[code]
			if !ok {
				text = "unknown reason"
			}
			return false, &RefusedError{Via: "pcp", Code: int(code), Text: text}
		}
		if len(a) < pcpMapLen || [12]byte(a[24:36]) != nonce || a[36] != uint8(r.Protocol) || binary.BigEndian.Uint16(a[40:]) != r.Internal {
			return false, nil // the answer to something else
		}
		m = Mapping{
			Request: r, Via: "pcp", Since: time.Now(), nonce: nonce,
			Outside: netip.AddrPortFrom(netip.AddrFrom16([16]byte(a[44:60])).Unmap(), binary.BigEndian.Uint16(a[42:])),
			Granted: time.Duration(binary.BigEndian.Uint32(a[4:])) * time.Second,
			epoch:   binary.BigEndian.Uint32(a[8:]), hasEpoch: true,
		}
		return true, nil
	})
	return m, err
}

func (c *Client) pcpMap(ctx context.Context, r Request, before *Mapping) (Mapping, error) {
	var nonce [12]byte
	if before != nil && before.Via == "pcp" {
		nonce = before.nonce
	} else {
		rand.Read(nonce[:])
	}
	return c.pcpSend(ctx, r, nonce, r.Lifetime)
}

func (c *Client) pcpUnmap(ctx context.Context, m Mapping) error {
	_, err := c.pcpSend(ctx, m.Request, m.nonce, 0)
	return err
}
