package portmap

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// serverPort is where PCP and NAT-PMP servers listen.
const serverPort = 5351

// patience is how long a silent router is asked over UDP: requests are repeated
// after 250 ms, then with doubled pauses (RFC 6886 section 3.1), for as long.
const patience = 2 * time.Second

// bind makes a socket leave by one interface.
func bind(name string) func(string, string, syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) error {
		if name == "" {
			return nil
		}
		var err error
		if cerr := c.Control(func(fd uintptr) { err = unix.BindToDevice(int(fd), name) }); cerr != nil {
			return cerr
		}
		return err
	}
}

// exchange sends a request to the router until an answer comes that accept
// takes. The socket is connected, so only the router's own packets are seen.
func (c *Client) exchange(ctx context.Context, request []byte, accept func([]byte) (bool, error)) error {
	d := net.Dialer{LocalAddr: &net.UDPAddr{IP: c.o.Local.AsSlice(), Zone: c.o.Local.Zone()}, Control: bind(c.o.Interface)}
	conn, err := d.DialContext(ctx, "udp", netip.AddrPortFrom(c.o.Router, serverPort).String())
	if err != nil {
		return fmt.Errorf("portmap: %w", err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	buf := make([]byte, 1100) // RFC 6887 section 7
	end := time.Now().Add(patience)
	for pause := 250 * time.Millisecond; time.Now().Before(end); pause *= 2 {
		if _, err := conn.Write(request); err != nil && !errors.Is(err, syscall.ECONNREFUSED) {
			return fmt.Errorf("portmap: %w", err)
		}
		if err := conn.SetReadDeadline(time.Now().Add(pause)); err != nil {
			return fmt.Errorf("portmap: %w", err)
		}
		for {
			n, err := conn.Read(buf)
			switch {
			case ctx.Err() != nil:
				return ctx.Err()
			case errors.Is(err, os.ErrDeadlineExceeded):
			case errors.Is(err, syscall.ECONNREFUSED):
				return fmt.Errorf("%w: %w", ErrUnavailable, err)
			case err != nil:
				return fmt.Errorf("portmap: %w", err)
			default:
				if ok, err := accept(buf[:n]); ok || err != nil {
					return err
				}
				continue
			}
			break
		}
	}
	return ErrUnavailable
}
