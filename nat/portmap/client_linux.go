package portmap

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
)

// Options says which router to ask, and from where.
type Options struct {
	Interface string     // leave by this network interface; "" leaves it to the routes
	Local     netip.Addr // this host's address towards the router; mappings lead to it
	Router    netip.Addr // the next hop
	// Protocols restricts and orders what is tried: "pcp", "nat-pmp", "upnp";
	// nil means these three.
	Protocols []string
}

// Client asks one router. It is safe for concurrent use; requests go one after
// another. It remembers which protocol the router speaks.
type Client struct {
	o Options

	mu    sync.Mutex
	works string // the protocol that answered last
	upnp  igd
}

type method struct {
	add func(*Client, context.Context, Request, *Mapping) (Mapping, error)
	del func(*Client, context.Context, Mapping) error
}

var methods = map[string]method{
	"pcp":     {(*Client).pcpMap, (*Client).pcpUnmap},
	"nat-pmp": {(*Client).pmpMap, (*Client).pmpUnmap},
	"upnp":    {(*Client).upnpMap, (*Client).upnpUnmap},
}

// NewClient makes a Client; nothing is sent yet.
func NewClient(o Options) (*Client, error) {
	if !o.Local.IsValid() || !o.Router.IsValid() || o.Local.Is4() != o.Router.Is4() {
		return nil, fmt.Errorf("%w: local address %s, router %s", ErrInvalid, o.Local, o.Router)
	}
	if o.Protocols == nil {
		o.Protocols = []string{"pcp", "nat-pmp", "upnp"}
	}
	for _, p := range o.Protocols {
		if _, ok := methods[p]; !ok {
			return nil, fmt.Errorf("%w: protocol %q", ErrInvalid, p)
		}
	}
	return &Client{o: o}, nil
}

// Map asks for a mapping. before, where not nil, is the mapping that this one
// renews: the router is asked for the same port again. Errors: ErrInvalid, also
// when the router is not a neighbour on the link of the local address; ErrRefused with the reason of the last protocol that answered; ErrUnavailable
// when none did, after some seconds.
func (c *Client) Map(ctx context.Context, r Request, before *Mapping) (Mapping, error) {
	r, err := r.normal()
	if err != nil {
		return Mapping{}, err
	}
	if before != nil && before.Outside.Port() != 0 {
		r.External = before.Outside.Port()
	}
	if err := c.checkLink(); err != nil {
		return Mapping{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	order := c.o.Protocols
	if c.works != "" {
		order = append([]string{c.works}, order...)
	}
	tried := map[string]bool{}
	var refused error
	var silent []error
	for _, name := range order {
		if tried[name] {
			continue
		}
		tried[name] = true
		m, err := methods[name].add(c, ctx, r, before)
		switch {
		case err == nil:
			c.works = name
			return m, nil
		case ctx.Err() != nil:
			return Mapping{}, ctx.Err()
		case errors.Is(err, ErrRefused):
			refused = err
		default:
			silent = append(silent, err)
		}
	}
	c.works = ""
	if refused != nil {
		return Mapping{}, refused
	}
	return Mapping{}, errors.Join(append([]error{ErrUnavailable}, silent...)...)
}

// Unmap gives a mapping back. Of one that it no longer has some routers say so
// with an error, others succeed.
func (c *Client) Unmap(ctx context.Context, m Mapping) error {
	how, ok := methods[m.Via]
	if !ok {
		return fmt.Errorf("%w: a mapping by %q", ErrInvalid, m.Via)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return how.del(c, ctx, m)
}
