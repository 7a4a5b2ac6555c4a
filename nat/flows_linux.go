package nat

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// Attributes of ctnetlink that the dump and the deletion need.
const (
	ctaTupleOrig  = 1
	ctaTupleReply = 2
	ctaStatus     = 3
	ctaID         = 12
	ctaZone       = 18
	ctaLabels     = 22
	ctaStatusMask = 26

	ctMsgGet    = 1
	ctMsgDelete = 2
	ctMsgStats  = 5

	ctaStatsEntries = 1 // CTA_STATS_GLOBAL_ENTRIES

	statusSeenReply = 1 << 1 // IPS_SEEN_REPLY
	statusDstNAT    = 1 << 5 // IPS_DST_NAT

	deleteBatch = 1000
)

func ctnetlink(msg int) uint16 { return unix.NFNL_SUBSYS_CTNETLINK<<8 | uint16(msg) }

// flow is one conntrack entry that we translated.
type flow struct {
	family   byte
	tuple    []byte // the original tuple as the kernel wrote it
	id, zone []byte
	status   uint32
	proto    uint8
	src, dst netip.AddrPort // original direction
	target   netip.AddrPort // where its replies come from
}

// sweep deletes the flows that carry our label but would not come about under
// the plan: their forward is gone, leads elsewhere, or is closed to their
// source. Without a plan that is all of them. A flow kept would stay pinned to
// its old target for as long as it sends.
func (c *Controller) sweep() error {
	flows, err := dumpFlows(c.flows, translated, c.bit)
	if err != nil {
		return err
	}
	return c.deleteFlows(c.flows, c.stale(flows))
}

// stale picks the flows that the plan would not make.
func (c *Controller) stale(flows []flow) []flow {
	return slices.DeleteFunc(flows, func(f flow) bool { return c.plan != nil && c.plan.makes(&f) })
}

// What dumpFlows looks for.
type flowKind bool

const (
	translated flowKind = true  // flows that carry our label
	unanswered flowKind = false // flows that nobody translated and nobody answered
)

// dumpFlows lists the flows of a kind. The kernel sorts out the others by
// their status.
func dumpFlows(s *socket, kind flowKind, bit int) ([]flow, error) {
	a := attrs{make([]byte, 4)}
	if kind == translated {
		a.u32(ctaStatus, statusDstNAT)
		a.u32(ctaStatusMask, statusDstNAT)
	} else {
		a.u32(ctaStatus, 0)
		a.u32(ctaStatusMask, statusDstNAT|statusSeenReply)
	}
	if n, err := countFlows(s); err != nil || n == 0 {
		return nil, err
	}
	for range maxTries {
		var out []flow
		err := s.request("dump flows", "", ctnetlink(ctMsgGet), unix.NLM_F_DUMP, a.b, func(m message) {
			if f, ours := readFlow(m.body, bit); ours || kind == unanswered && f.status&(statusDstNAT|statusSeenReply) == 0 {
				out = append(out, f)
			}
		})
		if !errors.Is(err, errInterrupted) {
			return out, err
		}
	}
	return nil, &KernelError{Op: "dump flows", Err: errInterrupted}
}

// countFlows returns how many flows the namespace has: a dump walks the whole
// table of the host, whoever the flows belong to.
func countFlows(s *socket) (n uint32, err error) {
	err = s.request("count flows", "", ctnetlink(ctMsgStats), 0, make([]byte, 4), func(m message) {
		if len(m.body) < 4 {
			return
		}
		for typ, v := range each(m.body[4:]) {
			if typ == ctaStatsEntries {
				n = attrUint32(v)
			}
		}
	})
	return n, err
}

func readFlow(b []byte, bit int) (f flow, ours bool) {
	if len(b) < 4 {
		return f, false
	}
	f.family = b[0]
	for typ, v := range each(b[4:]) {
		switch typ {
		case ctaTupleOrig:
			f.tuple = append([]byte(nil), v...)
			f.src, f.dst, f.proto = readTuple(v)
		case ctaTupleReply:
			f.target, _, _ = readTuple(v)
		case ctaStatus:
			f.status = attrUint32(v)
		case ctaID:
			f.id = append([]byte(nil), v...)
		case ctaZone:
			f.zone = append([]byte(nil), v...)
		case ctaLabels:
			ours = bit/8 < len(v) && v[bit/8]&(1<<(bit%8)) != 0
		}
	}
	return f, ours
}

func readTuple(b []byte) (src, dst netip.AddrPort, proto uint8) {
	var from, to netip.Addr
	var sport, dport uint16
	for typ, v := range each(b) {
		for inner, v := range each(v) {
			switch {
			case typ == 1 && (inner == 1 || inner == 3): // CTA_IP_V4_SRC, CTA_IP_V6_SRC
				from, _ = netip.AddrFromSlice(v)
			case typ == 1 && (inner == 2 || inner == 4):
				to, _ = netip.AddrFromSlice(v)
			case typ == 2 && inner == 1 && len(v) == 1: // CTA_PROTO_NUM
				proto = v[0]
			case typ == 2 && inner == 2 && len(v) == 2:
				sport = binary.BigEndian.Uint16(v)
			case typ == 2 && inner == 3 && len(v) == 2:
				dport = binary.BigEndian.Uint16(v)
			}
		}
	}
	return netip.AddrPortFrom(from, sport), netip.AddrPortFrom(to, dport), proto
}

// makes reports whether the plan would make the flow as it is.
func (p *plan) makes(f *flow) bool {
	fw, target := p.lookup(f.dst, f.proto)
	return fw != nil && target == f.target && (p.env.Addrs[f.src.Addr()] != 0 || fw.admits(f.src.Addr()))
}

// admits reports whether a client may use the forward. Flows do not say by
// which interface they came, so a forward open to a gateway admits them all.
func (f *Forward) admits(client netip.Addr) bool {
	if !f.limited() || len(f.AllowVia) > 0 {
		return true
	}
	for _, a := range f.admitted() {
		if a.Contains(client) {
			return true
		}
	}
	return false
}

// deleteFlows deletes flows, each by its tuple and identity, so that a new flow
// with the same tuple is spared. Flows that ended meanwhile are no error.
func (c *Controller) deleteFlows(s *socket, list []flow) error {
	if len(list) > 0 {
		c.log.Debug("nat: deleting flows", "flows", len(list))
	}
	for len(list) > 0 {
		n := min(len(list), deleteBatch)
		if err := deleteSome(s, list[:n]); err != nil {
			return err
		}
		list = list[n:]
	}
	return nil
}

func deleteSome(s *socket, list []flow) error {
	var buf []byte
	last := uint32(0)
	for i, f := range list {
		a := attrs{[]byte{f.family, 0, 0, 0}}
		a.raw(ctaTupleOrig|attrNested, string(f.tuple))
		if f.id != nil {
			a.raw(ctaID, string(f.id))
		}
		if f.zone != nil {
			a.raw(ctaZone, string(f.zone))
		}
		flags := uint16(unix.NLM_F_REQUEST)
		if i == len(list)-1 {
			flags |= unix.NLM_F_ACK
		}
		buf, last = build(buf, ctnetlink(ctMsgDelete), flags, a.b)
	}
	if err := s.send(buf); err != nil {
		return &KernelError{Op: "delete flows", Err: err}
	}
	var fail error
	for {
		done, err := s.receive(func(m message) bool {
			if m.typ != unix.NLMSG_ERROR {
				return false
			}
			if detail, err := m.ackError(); err != nil && fail == nil && !errors.Is(err, unix.ENOENT) {
				fail = &KernelError{Op: "delete flows", Detail: detail, Err: err}
			}
			return m.seq == last
		})
		if err != nil {
			return &KernelError{Op: "delete flows", Err: err}
		}
		if done {
			return fail
		}
	}
}
