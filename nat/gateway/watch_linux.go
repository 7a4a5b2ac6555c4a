package gateway

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// List returns every interface that has an address, but loopback, by name.
func List() ([]Gateway, error) {
	k, err := dial(nil)
	if err != nil {
		return nil, err
	}
	defer k.close()
	w, err := k.look()
	if err != nil {
		return nil, err
	}
	return w.gateways, nil
}

// Watch calls fn with the gateways of the current network namespace, first as
// they are, then whenever they differ, until ctx ends or fn fails. A burst of
// changes comes as one call; what happens during a call is seen by the next. It
// returns the error of ctx, of fn, or of the kernel.
func Watch(ctx context.Context, fn func([]Gateway) error) error {
	m, err := listen(nil)
	if err != nil {
		return err
	}
	defer m.close()
	k, err := dial(nil)
	if err != nil {
		return err
	}
	defer k.close()
	var last []Gateway
	for first := true; ; first = false {
		w, err := k.look()
		if err != nil {
			return err
		}
		if first || !sameGateways(last, w.gateways) {
			last = w.gateways
			// The callee may keep or change what it gets.
			if err := fn(cloneGateways(last)); err != nil {
				return err
			}
		}
		if err := m.wait(ctx, 0, 0); err != nil {
			return err
		}
	}
}

func cloneGateways(list []Gateway) []Gateway {
	out := make([]Gateway, len(list))
	for i, g := range list {
		out[i] = g
		out[i].Addresses = append(out[i].Addresses[:0:0], g.Addresses...)
	}
	return out
}

// How long after a change others that belong to it are waited for: until none
// has come for settle, but no longer than patience.
const (
	settle   = 20 * time.Millisecond
	patience = 250 * time.Millisecond
)

// monitor hears of changes of links, addresses, routes and rules from the moment
// it is made.
type monitor struct{ c *netlink.Conn }

func listen(ns *os.File) (*monitor, error) {
	cfg := netlink.Config{Groups: unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR |
		unix.RTMGRP_IPV4_ROUTE | unix.RTMGRP_IPV6_ROUTE | unix.RTMGRP_IPV4_RULE | 1<<(unix.RTNLGRP_IPV6_RULE-1)}
	if ns != nil {
		cfg.NetNS = int(ns.Fd())
	}
	c, err := netlink.Dial(unix.NETLINK_ROUTE, &cfg)
	if err != nil {
		return nil, fmt.Errorf("gateway: watch: %w", err)
	}
	return &monitor{c}, nil
}

func (m *monitor) close() error { return m.c.Close() }

// wait returns after something changed by others than the connection self, or
// after limit, if it is not 0. A burst that overflows the socket counts as a
// change.
func (m *monitor) wait(ctx context.Context, self uint32, limit time.Duration) error {
	var deadline time.Time
	if limit > 0 {
		deadline = time.Now().Add(limit)
	}
	if err := m.c.SetReadDeadline(deadline); err != nil {
		return fmt.Errorf("gateway: watch: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { m.c.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	var end time.Time // of the burst; zero before it began
	for {
		list, err := m.c.Receive()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, os.ErrDeadlineExceeded) && (limit > 0 || !end.IsZero()):
			return nil
		case err != nil && !errors.Is(err, unix.ENOBUFS):
			return fmt.Errorf("gateway: watch: %w", err)
		}
		others := err != nil
		for _, msg := range list {
			others = others || self == 0 || msg.Header.PID != self
		}
		now := time.Now()
		if others && end.IsZero() {
			end = now.Add(patience)
		}
		if end.IsZero() {
			continue
		}
		until := now.Add(settle)
		if until.After(end) {
			until = end
		}
		if err := m.c.SetReadDeadline(until); err != nil {
			return fmt.Errorf("gateway: watch: %w", err)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}
