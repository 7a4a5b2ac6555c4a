package portmap

import (
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// Errors that callers branch on.
var (
	ErrInvalid     = errors.New("portmap: invalid request")
	ErrUnavailable = errors.New("portmap: no answer from the router") // none of the protocols
	ErrRefused     = errors.New("portmap: refused by the router")
)

// Protocol is the transport that is mapped, by its IP protocol number.
type Protocol uint8

// The transports.
const (
	TCP Protocol = 6
	UDP Protocol = 17
)

// String returns "tcp" or "udp".
func (p Protocol) String() string {
	if p == TCP {
		return "tcp"
	}
	return "udp"
}

// Request asks for one outside port.
type Request struct {
	Protocol Protocol
	Internal uint16        // port of this host
	External uint16        // wished for; the router may give another one; 0 means the same as Internal
	Lifetime time.Duration // 0 means two hours; the router may shorten it
}

// defaultLifetime is what RFC 6886 section 3.3 recommends.
const defaultLifetime = 2 * time.Hour

func (r Request) normal() (Request, error) {
	if r.Protocol != TCP && r.Protocol != UDP {
		return r, fmt.Errorf("%w: protocol %d", ErrInvalid, r.Protocol)
	}
	if r.Internal == 0 {
		return r, fmt.Errorf("%w: port 0", ErrInvalid)
	}
	if r.External == 0 {
		r.External = r.Internal
	}
	if r.Lifetime == 0 {
		r.Lifetime = defaultLifetime
	}
	if r.Lifetime < time.Second || r.Lifetime > 24*time.Hour {
		return r, fmt.Errorf("%w: lifetime %s is not in 1 s to 24 h", ErrInvalid, r.Lifetime)
	}
	return r, nil
}

// Mapping is what a router granted.
type Mapping struct {
	Request
	Via      string         // "pcp", "nat-pmp" or "upnp"
	Outside  netip.AddrPort // where clients come in; the address is unset when the router does not say
	Granted  time.Duration  // from Since on; 0 means until the router restarts
	Since    time.Time
	epoch    uint32 // seconds since the router's state began; PCP and NAT-PMP only
	hasEpoch bool
	nonce    [12]byte // PCP: names the mapping for renewal and release
}

// RefusedError is a router's own reason. It wraps ErrRefused.
type RefusedError struct {
	Via  string
	Code int    // of the protocol
	Text string // what the code means
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("%s: %s: %s (%d)", ErrRefused, e.Via, e.Text, e.Code)
}

// Unwrap returns ErrRefused.
func (e *RefusedError) Unwrap() error { return ErrRefused }
