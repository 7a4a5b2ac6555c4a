package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// Limit is how long one attempt to connect or to ask may take.
const Limit = 5 * time.Second

// Answer is what a probe found out.
type Answer uint8

// The answers. Unknown means that nobody could try.
const (
	Unknown Answer = iota
	No
	Yes
)

// String returns "unknown", "no" or "yes".
func (a Answer) String() string { return [...]string{"unknown", "no", "yes"}[a] }

// MarshalText makes an Answer its word in JSON.
func (a Answer) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

func answer(ok bool) Answer {
	if ok {
		return Yes
	}
	return No
}

// Report is what Check found out about one TCP port of one gateway.
type Report struct {
	Outside  netip.AddrPort `json:"outside"`  // where the port should be reached; unset when no service said
	Inside   Answer         `json:"inside"`   // the gateway's local address accepts connections
	Observed Answer         `json:"observed"` // the echo service reached Outside
	Probed   Answer         `json:"probed"`   // Outside leads back from here
	Trouble  error          `json:"-"`        // why an answer is Unknown
}

// Hairpin says whether to leads back: it connects from the gateway's interface
// and local address. A refused, unreachable or silent address is No; the error
// is about this host only (no such interface, no such address, ctx ended).
func Hairpin(ctx context.Context, g Gateway, to netip.AddrPort) (Answer, error) {
	if g.Addr.Is4() != to.Addr().Unmap().Is4() {
		return Unknown, fmt.Errorf("probe: %s cannot reach %s: other address family", g.Addr, to)
	}
	c, err := connect(ctx, g.Dialer(), g.network(), to)
	if err == nil {
		c.Close()
		return Yes, nil
	}
	if ctx.Err() != nil {
		return Unknown, ctx.Err()
	}
	if local(err) {
		return Unknown, fmt.Errorf("probe: hairpin to %s: %w", to, err)
	}
	return No, nil
}

// connect dials within Limit.
func connect(ctx context.Context, d *net.Dialer, network string, to netip.AddrPort) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, Limit)
	defer cancel()
	return d.DialContext(ctx, network, to.String())
}

// Check asks the echo services in order about port, until one answers, and then
// probes the address that it named. Inside is tried without binding. The report
// is as complete as could be; its error is that of ctx.
func Check(ctx context.Context, g Gateway, port uint16, services []string) (Report, error) {
	var r Report
	c, err := connect(ctx, &net.Dialer{}, g.network(), netip.AddrPortFrom(g.Addr, port))
	if err == nil {
		c.Close()
	}
	r.Inside = answer(err == nil)
	if len(services) == 0 {
		r.Trouble = errors.New("probe: no echo service is configured")
	}
	for _, base := range services {
		seen, err := (&Echo{Base: base, Gateway: g}).Port(ctx, port)
		if ctx.Err() != nil {
			return r, ctx.Err()
		}
		if err != nil {
			r.Trouble = errors.Join(r.Trouble, err)
			continue
		}
		r.Trouble, r.Outside, r.Observed = nil, netip.AddrPortFrom(seen.Addr, port), answer(seen.Reachable)
		break
	}
	if !r.Outside.IsValid() {
		return r, ctx.Err()
	}
	if r.Probed, err = Hairpin(ctx, g, r.Outside); err != nil {
		r.Trouble = err
	}
	return r, ctx.Err()
}
