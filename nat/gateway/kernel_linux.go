package gateway

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// kernel is a connection to rtnetlink. It is for one goroutine at a time.
type kernel struct {
	c   *netlink.Conn
	pid uint32 // the kernel's name for the connection, also in what it tells others of our changes
}

// dial connects in the network namespace ns; nil is the thread's.
func dial(ns *os.File) (*kernel, error) {
	var cfg netlink.Config
	if ns != nil {
		cfg.NetNS = int(ns.Fd())
	}
	c, err := netlink.Dial(unix.NETLINK_ROUTE, &cfg)
	if err != nil {
		return nil, fmt.Errorf("gateway: rtnetlink: %w", err)
	}
	_ = c.SetOption(netlink.ExtendedAcknowledge, true) // it makes errors speak; old kernels have none
	return &kernel{c: c}, nil
}

func (k *kernel) close() error { return k.c.Close() }

// dump lists objects; size is that of the header of the request. A dump that
// changes while it is read is read again.
func (k *kernel) dump(what string, kind uint16, size int) ([]netlink.Message, error) {
	for range 20 {
		list, err := k.c.Execute(netlink.Message{
			Header: netlink.Header{Type: netlink.HeaderType(kind), Flags: netlink.Request | netlink.Dump}, Data: make([]byte, size),
		})
		if err != nil {
			return nil, fmt.Errorf("gateway: %s: %w", what, err)
		}
		if len(list) > 0 {
			k.pid = list[0].Header.PID
		}
		if !slices.ContainsFunc(list, func(m netlink.Message) bool { return m.Header.Flags&netlink.DumpInterrupted != 0 }) {
			return list, nil
		}
	}
	return nil, fmt.Errorf("gateway: %s: they change faster than they can be read", what)
}

// change sends one request and waits for its answer.
func (k *kernel) change(kind uint16, flags netlink.HeaderFlags, data []byte) error {
	_, err := k.c.Execute(netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(kind), Flags: netlink.Request | netlink.Acknowledge | flags}, Data: data,
	})
	return err
}

// world is what the kernel says of links, addresses, routes and rules.
type world struct {
	gateways []Gateway // with addresses, by name
	main     []route   // default and on-link ones
	routes   []route   // of our protocol
	rules    []rule    // of our protocol
}

func (k *kernel) look() (*world, error) {
	links, err := k.dump("links", unix.RTM_GETLINK, unix.SizeofIfInfomsg)
	if err != nil {
		return nil, err
	}
	addrs, err := k.dump("addresses", unix.RTM_GETADDR, unix.SizeofIfAddrmsg)
	if err != nil {
		return nil, err
	}
	routes, err := k.dump("routes", unix.RTM_GETROUTE, unix.SizeofRtMsg)
	if err != nil {
		return nil, err
	}
	rules, err := k.dump("rules", unix.RTM_GETRULE, unix.SizeofRtMsg)
	if err != nil {
		return nil, err
	}
	var w world
	byIndex := map[int]*Gateway{}
	for _, m := range links {
		g, loopback, err := parseLink(m)
		if err != nil {
			return nil, err
		}
		if !loopback {
			byIndex[g.Index] = &g
		}
	}
	for _, m := range addrs {
		index, p, usable, err := parseAddress(m)
		if err != nil {
			return nil, err
		}
		if g := byIndex[index]; g != nil && usable {
			g.Addresses = append(g.Addresses, p)
		}
	}
	for _, m := range routes {
		if m.Data[0] != unix.AF_INET && m.Data[0] != unix.AF_INET6 {
			continue // multicast routes have families of their own
		}
		list, err := parseRoute(m)
		if err != nil {
			return nil, err
		}
		for _, r := range list {
			if r.protocol == protocol {
				w.routes = append(w.routes, r.route)
			}
			if r.Table != mainTable || r.kind != unix.RTN_UNICAST || r.Dst.Bits() > 0 && r.Via.IsValid() {
				continue
			}
			w.main = append(w.main, r.route)
			if g := byIndex[int(r.Index)]; g != nil && r.Dst.Bits() == 0 {
				g.take(r.route)
			}
		}
	}
	for _, m := range rules {
		if len(m.Data) > 0 && m.Data[0] != unix.AF_INET && m.Data[0] != unix.AF_INET6 {
			continue
		}
		r, ours, err := parseRule(m)
		if err != nil {
			return nil, err
		}
		if ours {
			w.rules = append(w.rules, r)
		}
	}
	for _, g := range byIndex {
		if len(g.Addresses) > 0 {
			w.gateways = append(w.gateways, *g)
		}
	}
	slices.SortFunc(w.gateways, func(a, b Gateway) int { return strings.Compare(a.Name, b.Name) })
	return &w, nil
}

// take notes a default route by g, if it is better than the one known.
func (g *Gateway) take(r route) {
	known, via, metric := &g.Default4, &g.NextHop4, &g.Metric4
	if r.Dst == any6 {
		known, via, metric = &g.Default6, &g.NextHop6, &g.Metric6
	}
	if !*known || r.Metric < *metric {
		*known, *via, *metric = true, r.Via, r.Metric
		if via.Is6() && via.IsLinkLocalUnicast() {
			*via = via.WithZone(g.Name)
		}
	}
}

// vanished says that what a route needs, or the route, is gone meanwhile: the
// change that took it away brings us back.
func vanished(err error) bool {
	for _, e := range []error{unix.ESRCH, unix.ENODEV, unix.ENETDOWN} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// noFamily says that the kernel runs without the address family: nothing of it
// can leak.
func noFamily(err error) bool {
	return errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP)
}

// addRoutes adds what is wanted and not there. It goes on after an error, so
// that one gateway's trouble is not another's.
func (k *kernel) addRoutes(have, wanted []route) error {
	var errs []error
	there := setOf(have)
	for _, r := range wanted {
		if there[r] {
			continue
		}
		data, err := r.data()
		if err == nil {
			// Replacing leaves no moment without a route.
			err = k.change(unix.RTM_NEWROUTE, netlink.Create|netlink.Replace, data)
		}
		if err != nil && !vanished(err) && !(family(r.Dst) == 6 && noFamily(err)) {
			errs = append(errs, fmt.Errorf("gateway: route %s: %w", r, err))
		}
	}
	return errors.Join(errs...)
}

// dropRoutes removes ours that are not wanted from the tables of base.
func (k *kernel) dropRoutes(have []route, base uint32, wanted []route) error {
	var errs []error
	keep := setOf(wanted)
	for _, r := range have {
		if keep[r] || r.Table <= base || r.Table > base+slots {
			continue
		}
		data, err := r.data()
		if err == nil {
			err = k.change(unix.RTM_DELROUTE, 0, data)
		}
		if err != nil && !vanished(err) {
			errs = append(errs, fmt.Errorf("gateway: remove route %s: %w", r, err))
		}
	}
	return errors.Join(errs...)
}

// syncRules adds what is wanted and then removes the rest of ours.
func (k *kernel) syncRules(have []rule, first uint32, wanted []rule) error {
	var errs []error
	there, keep := setOf(have), setOf(wanted)
	for _, r := range wanted {
		if there[r] {
			continue
		}
		data, err := r.data()
		if err == nil {
			err = k.change(unix.RTM_NEWRULE, netlink.Create|netlink.Excl, data)
		}
		if err != nil && !errors.Is(err, unix.EEXIST) && !(r.Family == 6 && noFamily(err)) {
			errs = append(errs, fmt.Errorf("gateway: rule %s: %w", r, err))
		}
	}
	for _, r := range have {
		if keep[r] || r.Priority < first || r.Priority > first+priorityDefault {
			continue
		}
		data, err := r.data()
		if err == nil {
			err = k.change(unix.RTM_DELRULE, 0, data)
		}
		if err != nil && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("gateway: remove rule %s: %w", r, err))
		}
	}
	return errors.Join(errs...)
}

func setOf[T comparable](list []T) map[T]bool {
	set := make(map[T]bool, len(list))
	for _, v := range list {
		set[v] = true
	}
	return set
}

// sameGateways compares what Watch reports.
func sameGateways(a, b []Gateway) bool {
	return slices.EqualFunc(a, b, func(a, b Gateway) bool {
		addresses := slices.Equal(a.Addresses, b.Addresses)
		a.Addresses, b.Addresses = nil, nil
		return addresses && equalBare(a, b)
	})
}

func equalBare(a, b Gateway) bool {
	return a.Name == b.Name && a.Index == b.Index && a.Kind == b.Kind && a.Up == b.Up && a.PointToPoint == b.PointToPoint &&
		a.NextHop4 == b.NextHop4 && a.NextHop6 == b.NextHop6 && a.Default4 == b.Default4 && a.Default6 == b.Default6 &&
		a.Metric4 == b.Metric4 && a.Metric6 == b.Metric6
}
