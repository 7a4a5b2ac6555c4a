package nat

import (
	"encoding/binary"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

const (
	ndmSize      = 12 // struct ndmsg
	resolveTries = 20
	resolvePause = 2 * time.Millisecond
)

// wantedPorts lists the bridge ports that need hairpin mode: with bridge
// netfilter on, a packet that a target sends to itself by the outside address
// is translated while it is still a frame, and a bridge does not send a frame
// back where it came from unless the port says so.
//
// The port is found by the target's hardware address. A target that was never
// heard of is asked for; when it answers later, the monitor comes back here.
func (c *Controller) wantedPorts() (map[uint32]bool, error) {
	hops := c.nextHops(c.plan)
	out := map[uint32]bool{}
	c.watchNeighbours.Store(len(hops) > 0)
	if len(hops) == 0 {
		c.asked = nil
		return out, nil
	}
	for try := range resolveTries {
		ports, err := c.portsOf(c.plan.env.Links)
		if err != nil {
			return nil, err
		}
		waiting := false
		for bridge, addrs := range hops {
			for _, addr := range addrs {
				if port := ports(bridge, addr); port != 0 {
					out[uint32(port)] = true
					delete(c.asked, addr)
					continue
				}
				if try == 0 && !c.asked[addr] {
					if c.asked == nil {
						c.asked = map[netip.Addr]bool{}
					}
					c.asked[addr] = true
					c.resolve(bridge, addr)
					waiting = true
				} else if try > 0 && c.asked[addr] {
					waiting = true
				}
			}
		}
		if !waiting {
			break
		}
		time.Sleep(resolvePause) // for the answer of a neighbour that is there
	}
	return out, nil
}

// portsOf returns a function that finds the port of a bridge behind which a
// neighbour is, 0 when that is not known.
func (c *Controller) portsOf(links map[int]Link) (func(bridge int, addr netip.Addr) int, error) {
	neighbours, err := c.neighbours()
	if err != nil {
		return nil, err
	}
	ports, err := c.forwardingTable(links)
	return func(bridge int, addr netip.Addr) int {
		mac, ok := neighbours[neighbour{bridge, addr}]
		if !ok {
			return 0
		}
		return ports[bridgePort{bridge, mac}]
	}, err
}

type neighbour struct {
	link int
	addr netip.Addr
}

type bridgePort struct {
	bridge int
	mac    string
}

// neighbours returns the hardware addresses that are known.
func (c *Controller) neighbours() (map[neighbour]string, error) {
	out := map[neighbour]string{}
	err := c.route.request("dump neighbours", "", unix.RTM_GETNEIGH, unix.NLM_F_DUMP, make([]byte, ndmSize), func(m message) {
		if len(m.body) < ndmSize || binary.NativeEndian.Uint16(m.body[8:])&(unix.NUD_FAILED|unix.NUD_INCOMPLETE) != 0 {
			return
		}
		var addr netip.Addr
		var mac string
		for typ, v := range each(m.body[ndmSize:]) {
			switch typ {
			case unix.NDA_DST:
				addr, _ = netip.AddrFromSlice(v)
			case unix.NDA_LLADDR:
				mac = string(v)
			}
		}
		if addr.IsValid() && mac != "" {
			out[neighbour{int(int32(binary.NativeEndian.Uint32(m.body[4:]))), addr}] = mac
		}
	})
	if err == errInterrupted {
		err = nil // what is missing is asked for again
	}
	return out, err
}

// forwardingTable returns behind which port of which bridge a hardware address is.
func (c *Controller) forwardingTable(links map[int]Link) (map[bridgePort]int, error) {
	out := map[bridgePort]int{}
	body := make([]byte, ndmSize)
	body[0] = unix.AF_BRIDGE
	err := c.route.request("dump bridge forwarding table", "", unix.RTM_GETNEIGH, unix.NLM_F_DUMP, body, func(m message) {
		if len(m.body) < ndmSize || m.body[0] != unix.AF_BRIDGE {
			return
		}
		var mac string
		master := 0
		for typ, v := range each(m.body[ndmSize:]) {
			switch typ {
			case unix.NDA_LLADDR:
				mac = string(v)
			case unix.NDA_MASTER:
				master = int(binary.NativeEndian.Uint32(v))
			}
		}
		port := int(int32(binary.NativeEndian.Uint32(m.body[4:])))
		if master != 0 && port != master && links[port].Master == master {
			out[bridgePort{master, mac}] = port
		}
	})
	if err == errInterrupted {
		err = nil
	}
	return out, err
}

// resolve makes the kernel ask for a neighbour; no answer is no error.
func (c *Controller) resolve(link int, addr netip.Addr) {
	body := make([]byte, ndmSize)
	body[0] = unix.AF_INET
	if addr.Is6() {
		body[0] = unix.AF_INET6
	}
	binary.NativeEndian.PutUint32(body[4:], uint32(link))
	body[10] = unix.NTF_USE
	a := attrs{body}
	a.raw(unix.NDA_DST, string(addr.AsSlice()))
	if err := c.route.request("resolve", addr.String(), unix.RTM_NEWNEIGH, unix.NLM_F_CREATE, a.b, nil); err != nil {
		c.log.Debug("nat: cannot ask for a neighbour", "addr", addr, "err", err)
	}
}

// setHairpin switches a bridge port's hairpin mode; its other flags stay.
func (c *Controller) setHairpin(port uint32, name string, on bool) error {
	a := attrs{make([]byte, unix.SizeofIfInfomsg)}
	binary.NativeEndian.PutUint32(a.b[4:], port)
	info := a.open(unix.IFLA_LINKINFO)
	a.str(unix.IFLA_INFO_SLAVE_KIND, "bridge")
	data := a.open(unix.IFLA_INFO_SLAVE_DATA)
	v := uint8(0)
	if on {
		v = 1
	}
	a.u8(iflaBrPortMode, v)
	a.close(data)
	a.close(info)
	err := c.route.request("set hairpin mode of", name, unix.RTM_NEWLINK, 0, a.b, nil)
	if err == nil {
		c.log.Debug("nat: bridge port hairpin mode", "link", name, "on", on)
	}
	return err
}
