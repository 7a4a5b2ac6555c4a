package portmap

import (
	"context"
	"encoding/binary"
	"net/netip"
	"time"
)

// pmpReasons are the result codes of RFC 6886 section 3.5.
var pmpReasons = map[uint16]string{
	1: "version not supported", 2: "not authorized", 3: "network failure", 4: "no resources", 5: "opcode not supported",
}

// pmpSend sends a NAT-PMP request and returns the whole answer of the length.
func (c *Client) pmpSend(ctx context.Context, request []byte, length int) (answer []byte, err error) {
	err = c.exchange(ctx, request, func(a []byte) (bool, error) {
		if len(a) < 4 || a[0] != 0 || a[1] != request[1]|0x80 {
			return false, nil
		}
		if code := binary.BigEndian.Uint16(a[2:]); code != 0 {
			text, ok := pmpReasons[code]
			if !ok {
				text = "unknown reason"
			}
			return false, &RefusedError{Via: "nat-pmp", Code: int(code), Text: text}
		}
		if len(a) < length {
			return false, nil
		}
		answer = append([]byte(nil), a[:length]...)
		return true, nil
	})
	return answer, err
}

func (c *Client) pmpMapSend(ctx context.Context, r Request, external uint16, lifetime time.Duration) ([]byte, error) {
	op := byte(1) // UDP
	if r.Protocol == TCP {
		op = 2
	}
	b := make([]byte, 12)
	b[1] = op
	binary.BigEndian.PutUint16(b[4:], r.Internal)
	binary.BigEndian.PutUint16(b[6:], external)
	binary.BigEndian.PutUint32(b[8:], uint32(lifetime/time.Second))
	return c.pmpSend(ctx, b, 16)
}

func (c *Client) pmpMap(ctx context.Context, r Request, _ *Mapping) (Mapping, error) {
	if !c.o.Local.Is4() {
		return Mapping{}, ErrUnavailable // NAT-PMP is for IPv4
	}
	a, err := c.pmpMapSend(ctx, r, r.External, r.Lifetime)
	if err != nil {
		return Mapping{}, err
	}
	m := Mapping{
		Request: r, Via: "nat-pmp", Since: time.Now(), epoch: binary.BigEndian.Uint32(a[4:]), hasEpoch: true,
		Granted: time.Duration(binary.BigEndian.Uint32(a[12:])) * time.Second,
	}
	var ip netip.Addr
	if own, err := c.pmpSend(ctx, []byte{0, 0}, 12); err == nil {
		ip = netip.AddrFrom4([4]byte(own[8:12]))
	}
	m.Outside = netip.AddrPortFrom(ip, binary.BigEndian.Uint16(a[10:]))
	return m, nil
}

func (c *Client) pmpUnmap(ctx context.Context, m Mapping) error {
	_, err := c.pmpMapSend(ctx, m.Request, 0, 0)
	return err
}
