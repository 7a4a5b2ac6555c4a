package probe

import (
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// Gateway is the way out that a probe takes.
type Gateway struct {
	Interface string     // name of the network interface
	Addr      netip.Addr // a local address of that interface
}

// Dialer returns a dialer whose sockets are bound to the gateway's interface and
// local address. It dials addresses of the same family only. Binding to an
// interface needs CAP_NET_RAW on kernels before 5.7.
func (g Gateway) Dialer() *net.Dialer {
	return &net.Dialer{
		LocalAddr: &net.TCPAddr{IP: g.Addr.AsSlice(), Zone: g.Addr.Zone()},
		Control: func(_, _ string, c syscall.RawConn) error {
			var err error
			if cerr := c.Control(func(fd uintptr) { err = unix.BindToDevice(int(fd), g.Interface) }); cerr != nil {
				return cerr
			}
			if err != nil {
				return fmt.Errorf("probe: bind to %s: %w", g.Interface, err)
			}
			return nil
		},
	}
}

// network is the name of TCP in the gateway's address family.
func (g Gateway) network() string {
	if g.Addr.Is4() {
		return "tcp4"
	}
	return "tcp6"
}
