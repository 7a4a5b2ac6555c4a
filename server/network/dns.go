package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// Zones in which every package has its name; the bare name is the server.
var zones = []string{"startos.", "embassy."}

const (
	answerTTL     = 5 // seconds: an address changes when a container is rebuilt
	upstreamWait  = 4 * time.Second
	upstreamLimit = 64 // queries under way at once
)

// nameServer answers the containers: names of packages itself, all else through
// the server's own resolvers.
type nameServer struct {
	m       *Manager
	slots   chan struct{}
	servers []*dns.Server

	mu       sync.Mutex
	resolv   *dns.ClientConfig
	resolvAt time.Time // modification time of the file that was read
}

func newNameServer(m *Manager) *nameServer {
	return &nameServer{m: m, slots: make(chan struct{}, upstreamLimit)}
}

// start listens on the gateway addresses, which need not exist yet.
func (n *nameServer) start() error {
	lc := net.ListenConfig{Control: func(network, _ string, c syscall.RawConn) (err error) {
		cerr := c.Control(func(fd uintptr) {
			if strings.HasSuffix(network, "6") {
				err = unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_FREEBIND, 1)
			} else {
				err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1)
			}
		})
		return errors.Join(cerr, err)
	}}
	for _, ip := range []netip.Addr{n.m.o.Gateway4, n.m.o.Gateway6} {
		if !ip.IsValid() {
			continue
		}
		addr, family := netip.AddrPortFrom(ip, 53).String(), "4"
		if ip.Is6() {
			family = "6"
		}
		pc, err := lc.ListenPacket(context.Background(), "udp"+family, addr)
		if err != nil {
			n.stop()
			return fmt.Errorf("network: dns on %s: %w", addr, err)
		}
		n.serve(&dns.Server{PacketConn: pc})
		l, err := lc.Listen(context.Background(), "tcp"+family, addr)
		if err != nil {
			n.stop()
			return fmt.Errorf("network: dns on %s: %w", addr, err)
		}
		n.serve(&dns.Server{Listener: l})
	}
	return nil
}

func (n *nameServer) serve(s *dns.Server) {
	s.Handler = n
	started := make(chan struct{})
	s.NotifyStartedFunc = func() { close(started) }
	n.servers = append(n.servers, s)
	n.m.done.Go(func() {
		if err := s.ActivateAndServe(); err != nil && !errors.Is(err, net.ErrClosed) {
			n.m.log.Error("dns ended", "err", err)
		}
	})
	<-started
}

func (n *nameServer) stop() {
	for _, s := range n.servers {
		s.Shutdown()
	}
	n.servers = nil
}

// ServeDNS answers one query; from anyone but the containers it is refused.
func (n *nameServer) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	from, _ := netip.ParseAddrPort(w.RemoteAddr().String())
	ip := from.Addr().Unmap()
	r := new(dns.Msg)
	switch {
	case !n.m.o.Subnet4.Contains(ip) && !n.m.o.Subnet6.Contains(ip):
		r.SetRcode(q, dns.RcodeRefused)
	case len(q.Question) != 1:
		r.SetRcode(q, dns.RcodeFormatError)
	default:
		if own := n.local(q); own != nil {
			r = own
		} else {
			r = n.upstream(q, w.LocalAddr().Network())
		}
	}
	if err := w.WriteMsg(r); err != nil {
		n.m.log.Debug("dns answer", "err", err)
	}
}

// local answers names of our zones; nil when the name is not in one.
func (n *nameServer) local(q *dns.Msg) *dns.Msg {
	name := strings.ToLower(q.Question[0].Name)
	zone := ""
	for _, z := range zones {
		if name == z || strings.HasSuffix(name, "."+z) {
			zone = z
		}
	}
	if zone == "" {
		return nil
	}
	r := new(dns.Msg)
	r.SetReply(q)
	r.Authoritative = true
	c := Container{n.m.o.Gateway4, n.m.o.Gateway6}
	if name != zone {
		labels := strings.Split(strings.TrimSuffix(name, "."+zone), ".")
		pkg, ok := n.m.names()[labels[len(labels)-1]]
		if !ok {
			r.Rcode = dns.RcodeNameError
			return r
		}
		c = pkg
	}
	head := dns.RR_Header{Name: q.Question[0].Name, Class: dns.ClassINET, Ttl: answerTTL}
	switch t := q.Question[0].Qtype; {
	case t == dns.TypeA && c.Addr4.IsValid():
		head.Rrtype = dns.TypeA
		r.Answer = []dns.RR{&dns.A{Hdr: head, A: c.Addr4.AsSlice()}}
	case t == dns.TypeAAAA && c.Addr6.IsValid():
		head.Rrtype = dns.TypeAAAA
		r.Answer = []dns.RR{&dns.AAAA{Hdr: head, AAAA: c.Addr6.AsSlice()}}
	}
	return r
}

// upstream asks the server's own resolvers in order, over the transport that
// the client used.
func (n *nameServer) upstream(q *dns.Msg, transport string) *dns.Msg {
	fail := new(dns.Msg)
	fail.SetRcode(q, dns.RcodeServerFailure)
	select {
	case n.slots <- struct{}{}:
		defer func() { <-n.slots }()
	default:
		return fail
	}
	conf := n.config()
	if conf == nil {
		return fail
	}
	c := dns.Client{Net: transport, Timeout: upstreamWait / 2, UDPSize: dns.DefaultMsgSize}
	for _, s := range conf.Servers {
		if r, _, err := c.Exchange(q, net.JoinHostPort(s, conf.Port)); err == nil {
			r.Id = q.Id
			return r
		}
	}
	return fail
}

// config reads the resolvers again when the file has changed.
func (n *nameServer) config() *dns.ClientConfig {
	path := n.m.o.Resolv
	if path == "" {
		path = "/etc/resolv.conf"
	}
	info, err := os.Stat(path)
	n.mu.Lock()
	defer n.mu.Unlock()
	if err == nil && (n.resolv == nil || !info.ModTime().Equal(n.resolvAt)) {
		if c, err := dns.ClientConfigFromFile(path); err == nil {
			n.resolv, n.resolvAt = c, info.ModTime()
		}
	}
	return n.resolv
}
