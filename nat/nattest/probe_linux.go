package nattest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// Server answers each connection and each datagram with a line that holds the
// address it came from, then echoes what a connection sends.
type Server struct {
	tcp net.Listener
	udp net.PacketConn
	wg  sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]bool
}

// Serve starts a server for TCP and UDP at addr inside the namespace; it ends
// with the test.
func (s *Space) Serve(addr netip.AddrPort) *Server {
	s.tb.Helper()
	srv := &Server{conns: map[net.Conn]bool{}}
	s.Do(func() (err error) {
		if srv.tcp, err = net.Listen("tcp", addr.String()); err != nil {
			return err
		}
		srv.udp, err = net.ListenPacket("udp", addr.String())
		return err
	})
	srv.wg.Add(2)
	go srv.serveTCP()
	go srv.serveUDP()
	s.tb.Cleanup(srv.Close)
	return srv
}

// Close ends the server and its connections.
func (srv *Server) Close() {
	srv.tcp.Close()
	srv.udp.Close()
	srv.mu.Lock()
	for c := range srv.conns {
		c.Close()
	}
	srv.mu.Unlock()
	srv.wg.Wait()
}

func (srv *Server) serveTCP() {
	defer srv.wg.Done()
	for {
		c, err := srv.tcp.Accept()
		if err != nil {
			return
		}
		srv.mu.Lock()
		srv.conns[c] = true
		srv.mu.Unlock()
		srv.wg.Add(1)
		go func() {
			defer srv.wg.Done()
			defer func() {
				srv.mu.Lock()
				delete(srv.conns, c)
				srv.mu.Unlock()
				c.Close()
			}()
			if _, err := fmt.Fprintln(c, c.RemoteAddr()); err != nil {
				return
			}
			for r := bufio.NewScanner(c); r.Scan(); {
				if _, err := fmt.Fprintln(c, r.Text()); err != nil {
					return
				}
			}
		}()
	}
}

func (srv *Server) serveUDP() {
	defer srv.wg.Done()
	buf := make([]byte, 2048)
	for {
		_, from, err := srv.udp.ReadFrom(buf)
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue // an ICMP error of an earlier answer
		}
		_, _ = srv.udp.WriteTo([]byte(from.String()+"\n"), from)
	}
}

// Flow is an open connection or connected UDP socket to a Server.
type Flow struct {
	conn net.Conn
	r    *bufio.Reader
	tcp  bool
}

// defaultTimeout is for probes that should be answered, on a busy machine.
const defaultTimeout = 10 * time.Second

// Dialer says how to reach a server.
type Dialer struct {
	Network string        // "tcp" or "udp"
	From    netip.Addr    // source address; the zero value leaves it to the kernel
	Port    uint16        // source port; 0 leaves it to the kernel
	Timeout time.Duration // 0 means 10 seconds
}

// Open opens a flow from inside the namespace.
func (s *Space) Open(d Dialer, to netip.AddrPort) (*Flow, error) {
	if d.Timeout == 0 {
		d.Timeout = defaultTimeout
	}
	ctx, cancel := context.WithTimeout(context.Background(), d.Timeout)
	defer cancel()
	nd := net.Dialer{}
	if d.From.IsValid() || d.Port != 0 {
		from := netip.AddrPortFrom(d.From, d.Port)
		if !d.From.IsValid() {
			from = netip.AddrPortFrom(netip.IPv6Unspecified(), d.Port)
			if to.Addr().Is4() {
				from = netip.AddrPortFrom(netip.IPv4Unspecified(), d.Port)
			}
		}
		nd.LocalAddr = net.TCPAddrFromAddrPort(from)
		if d.Network == "udp" {
			nd.LocalAddr = net.UDPAddrFromAddrPort(from)
		}
	}
	var f *Flow
	err := s.Try(func() error {
		c, err := nd.DialContext(ctx, d.Network, to.String())
		if err != nil {
			return err
		}
		f = &Flow{conn: c, r: bufio.NewReader(c), tcp: d.Network == "tcp"}
		return nil
	})
	return f, err
}

// Seen returns the source address that the server saw, asking once more for
// UDP, where each answer takes one question.
func (f *Flow) Seen(timeout time.Duration) (netip.AddrPort, error) {
	if err := f.conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return netip.AddrPort{}, err
	}
	if !f.tcp {
		if _, err := f.conn.Write([]byte("?\n")); err != nil {
			return netip.AddrPort{}, err
		}
	}
	line, err := f.r.ReadString('\n')
	if err != nil {
		return netip.AddrPort{}, err
	}
	return netip.ParseAddrPort(strings.TrimSpace(line))
}

// Echo proves that a TCP flow whose Seen was read is alive.
func (f *Flow) Echo(text string, timeout time.Duration) error {
	if err := f.conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(f.conn, text); err != nil {
		return err
	}
	line, err := f.r.ReadString('\n')
	if err == nil && strings.TrimSpace(line) != text {
		err = fmt.Errorf("echo of %q is %q", text, line)
	}
	return err
}

// Local is the flow's own address.
func (f *Flow) Local() netip.AddrPort {
	a, _ := netip.ParseAddrPort(f.conn.LocalAddr().String())
	return a
}

// Close ends the flow.
func (f *Flow) Close() { f.conn.Close() }

// Ask opens a flow, returns the source address that the server saw, and closes it.
func (s *Space) Ask(d Dialer, to netip.AddrPort) (netip.Addr, error) {
	if d.Timeout == 0 {
		d.Timeout = defaultTimeout
	}
	f, err := s.Open(d, to)
	if err != nil {
		return netip.Addr{}, err
	}
	defer f.Close()
	seen, err := f.Seen(d.Timeout)
	return seen.Addr(), err
}
