package network

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// settle is how long after a change others that belong to it are waited for.
const settle = 50 * time.Millisecond

// addressWatch hears of changes to links, addresses and routes of the network
// namespace in which it was made.
type addressWatch struct{ c *netlink.Conn }

func watchAddresses() (*addressWatch, error) {
	c, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{
		Groups: unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR | unix.RTMGRP_IPV4_ROUTE | unix.RTMGRP_IPV6_ROUTE,
	})
	if err != nil {
		return nil, fmt.Errorf("network: watch addresses: %w", err)
	}
	return &addressWatch{c}, nil
}

func (w *addressWatch) close() { w.c.Close() }

// next waits for a change and then until none came for a moment. It is false
// once ctx has ended. A burst that overflows the socket counts as a change.
func (w *addressWatch) next(ctx context.Context) bool {
	stop := context.AfterFunc(ctx, func() { w.c.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	if w.c.SetReadDeadline(time.Time{}) != nil || ctx.Err() != nil {
		return false
	}
	for first := true; ; first = false {
		_, err := w.c.Receive()
		switch {
		case ctx.Err() != nil:
			return false
		case errors.Is(err, os.ErrDeadlineExceeded):
			return !first
		case err != nil && !errors.Is(err, unix.ENOBUFS):
			return false
		}
		if w.c.SetReadDeadline(time.Now().Add(settle)) != nil {
			return false
		}
	}
}
