package daemon

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"

	"github.com/selfstead/selfstead/server/authority"
)

// listenSocket listens on the root-only socket. A socket that is there was left
// by a process that is gone: the caller has the folder's lock.
func listenSocket(path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("daemon: %w", err)
	}
	l, err := net.Listen("unix", path) // the folder is 0700, nobody else gets in before Chmod
	if err != nil {
		return nil, fmt.Errorf("daemon: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("daemon: %w", err)
	}
	return l, nil
}

// listenTCP listens where clients come in: in plain on loopback or when asked
// to, else with TLS.
func listenTCP(address string, plain bool, a *authority.Authority) (l net.Listener, scheme string, err error) {
	l, err = net.Listen("tcp", address)
	if err != nil {
		return nil, "", fmt.Errorf("daemon: %w", err)
	}
	bound, err := netip.ParseAddrPort(l.Addr().String())
	if plain || err == nil && bound.Addr().Unmap().IsLoopback() {
		return l, "http", nil
	}
	return tls.NewListener(l, a.TLS()), "https", nil
}

// display is the address that people are told: an unspecified one is replaced
// by the server's outside address, or by localhost.
func display(bound net.Addr, outside string) string {
	ap, err := netip.ParseAddrPort(bound.String())
	if err != nil {
		return bound.String()
	}
	if ap.Addr().IsUnspecified() {
		host := "localhost"
		if a, err := netip.ParseAddr(outside); err == nil {
			host = a.String()
		}
		return net.JoinHostPort(host, fmt.Sprint(ap.Port()))
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()).String()
}
