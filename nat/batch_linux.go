package nat

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

const (
	nfnlBatchBegin   = unix.NFNL_MSG_BATCH_BEGIN
	nfnlBatchEnd     = unix.NFNL_MSG_BATCH_END
	nfnlBatchGenID   = 1
	maxElementBytes  = 60000 // an attribute's length has 16 bits
	maxBatchMessages = 1 << 20
)

// nft turns an nf_tables message number into a netlink message type.
func nft(msg int) uint16 { return unix.NFNL_SUBSYS_NFTABLES<<8 | uint16(msg) }

// batch is one transaction: all of it happens, or nothing.
type batch struct {
	table string
	stage string // what the names of sets end in, beside the sets that they replace
	buf   []byte
	first uint32   // sequence number of the first message
	steps []string // what each message does, for errors
	sets  uint32   // ids of sets given out
}

func newBatch(table string, gen uint32) *batch {
	b := &batch{table: table}
	body := []byte{unix.AF_UNSPEC, 0, 0, unix.NFNL_SUBSYS_NFTABLES}
	a := attrs{body}
	if gen != 0 {
		a.u32(nfnlBatchGenID, gen)
	}
	b.first = sequence.Add(maxBatchMessages) - maxBatchMessages + 1
	b.buf = buildSeq(b.buf, nfnlBatchBegin, unix.NLM_F_REQUEST, b.first, a.b)
	b.steps = append(b.steps, "begin transaction")
	return b
}

// set is the name under which a set of ours is made.
func (b *batch) set(name string) string {
	if name == protocolSet {
		return name
	}
	return name + b.stage
}

func (b *batch) empty() bool { return len(b.steps) == 1 }

// add appends a message about an object of our table.
func (b *batch) add(msg int, flags uint16, step string, fill func(a *attrs)) {
	at := len(b.buf)
	b.buf = append(b.buf, make([]byte, 16)...)
	a := attrs{append(b.buf, nfprotoInet, 0, 0, 0)}
	a.str(1, b.table) // the table is attribute 1 of every object, and the name of a table itself
	if fill != nil {
		fill(&a)
	}
	b.buf = a.b
	head := b.buf[at:]
	binary.NativeEndian.PutUint32(head, uint32(len(head)))
	binary.NativeEndian.PutUint16(head[4:], nft(msg))
	binary.NativeEndian.PutUint16(head[6:], flags|unix.NLM_F_REQUEST)
	binary.NativeEndian.PutUint32(head[8:], b.first+uint32(len(b.steps)))
	b.steps = append(b.steps, step)
}

func (b *batch) addTable() { b.add(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, "add table", nil) }
func (b *batch) delTable() { b.add(unix.NFT_MSG_DELTABLE, 0, "delete table", nil) }

// setShape is how a set is declared.
type setShape struct {
	name              string
	flags             uint32
	keyType, keyLen   uint32
	dataType, dataLen uint32
	fields            []field // of an interval concatenation, which none of ours is
	native            bool    // keys are numbers in native byte order
}

func (d *setDef) shape() setShape {
	s := setShape{name: d.name, keyType: typeOf(d.key), keyLen: uint32(d.keyLen())}
	if d.data != nil {
		s.flags |= unix.NFT_SET_MAP
		s.dataType, s.dataLen = typeOf(d.data), uint32(d.dataLen())
	}
	return s
}

// recordShapes are the two sets that remember what we changed outside the table.
var recordShapes = []setShape{
	{name: setLocalnet, keyType: typeIfIndex, keyLen: 4, native: true},
	{name: setPorts, keyType: typeIfIndex, keyLen: 4, native: true},
}

func (b *batch) addSet(s setShape) (id uint32) {
	b.sets++
	id = b.sets
	b.add(unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE, "add set "+s.name, func(a *attrs) {
		a.str(unix.NFTA_SET_NAME, b.set(s.name))
		a.u32(unix.NFTA_SET_FLAGS, s.flags)
		a.u32(unix.NFTA_SET_KEY_TYPE, s.keyType)
		a.u32(unix.NFTA_SET_KEY_LEN, s.keyLen)
		if s.dataLen > 0 {
			a.u32(unix.NFTA_SET_DATA_TYPE, s.dataType)
			a.u32(unix.NFTA_SET_DATA_LEN, s.dataLen)
		}
		a.u32(unix.NFTA_SET_ID, id)
		if s.native {
			// The nft program wants to be told: type 0, 4 bytes, host byte order.
			a.raw(unix.NFTA_SET_USERDATA, "\x00\x04"+string(nativeUint32(1)))
		}
	})
	return id
}

func (b *batch) delSet(name string) {
	b.add(unix.NFT_MSG_DELSET, 0, "delete set "+name, func(a *attrs) { a.str(unix.NFTA_SET_NAME, name) })
}

func (b *batch) addChain(c *chainDef) {
	b.add(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE, "add chain "+c.name, func(a *attrs) {
		a.str(unix.NFTA_CHAIN_NAME, c.name)
		if c.regular {
			return
		}
		hook := a.open(unix.NFTA_CHAIN_HOOK)
		a.u32(unix.NFTA_HOOK_HOOKNUM, c.hook)
		a.u32(unix.NFTA_HOOK_PRIORITY, uint32(c.priority))
		a.close(hook)
		a.u32(unix.NFTA_CHAIN_POLICY, 1) // accept
		typ := "filter"
		if c.nat {
			typ = "nat"
		}
		a.str(unix.NFTA_CHAIN_TYPE, typ)
	})
}

func (b *batch) delChain(name string) {
	b.add(unix.NFT_MSG_DELCHAIN, 0, "delete chain "+name, func(a *attrs) { a.str(unix.NFTA_CHAIN_NAME, name) })
}

func (b *batch) flushChain(name string) {
	b.add(unix.NFT_MSG_DELRULE, 0, "flush chain "+name, func(a *attrs) { a.str(unix.NFTA_RULE_CHAIN, name) })
}

// addRule appends a rule, creating the anonymous set { tcp, udp } that it may use.
func (b *batch) addRule(chain string, r *ruleDef) error {
	id := uint32(0)
	for _, e := range r.exprs {
		if l, ok := e.(*expr.Lookup); ok && l.SetName == protocolSet {
			id = b.addSet(setShape{name: protocolSet, flags: unix.NFT_SET_ANONYMOUS | unix.NFT_SET_CONSTANT, keyType: typeProto, keyLen: 1})
			b.elements(unix.NFT_MSG_NEWSETELEM, protocolSet, id, []keyed{{key: string([]byte{protoTCP})}, {key: string([]byte{protoUDP})}})
		}
	}
	list, err := marshalExprs(r.exprs, id, b.stage)
	if err != nil {
		return err
	}
	b.add(unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND, "add rule "+r.comment+" to "+chain, func(a *attrs) {
		a.str(unix.NFTA_RULE_CHAIN, chain)
		exprs := a.open(unix.NFTA_RULE_EXPRESSIONS)
		a.b = append(a.b, list...)
		a.close(exprs)
		a.raw(unix.NFTA_RULE_USERDATA, note(r.comment, ""))
	})
	return nil
}

// marshalExprs encodes a rule's expressions as a list.
func marshalExprs(exprs []expr.Any, protocols uint32, stage string) ([]byte, error) {
	var a attrs
	for _, e := range exprs {
		if l, ok := e.(*expr.Lookup); ok {
			c := *l
			if c.SetName == protocolSet {
				c.SetID = protocols
			} else {
				c.SetName += stage
			}
			e = &c
		}
		raw, err := expr.Marshal(nfprotoInet, e)
		if err != nil {
			return nil, fmt.Errorf("nat: encode rule: %w", err)
		}
		a.raw(unix.NFTA_LIST_ELEM|attrNested, string(raw))
	}
	return a.b, nil
}

// keyed is an element on its way to the kernel.
type keyed struct {
	key string
	value
}

// elements adds or deletes elements, in lists that fit an attribute.
func (b *batch) elements(msg int, set string, id uint32, list []keyed) {
	verb, flags := "add elements to ", uint16(unix.NLM_F_CREATE)
	if msg == unix.NFT_MSG_DELSETELEM {
		verb, flags = "delete elements from ", 0
	}
	size := 0
	for i := range list {
		size += len(list[i].key) + len(list[i].data) + len(list[i].note) + 32
	}
	b.buf = slices.Grow(b.buf, size)
	for len(list) > 0 {
		b.add(msg, flags, verb+set, func(a *attrs) {
			a.str(unix.NFTA_SET_ELEM_LIST_SET, b.set(set))
			if id != 0 {
				a.u32(unix.NFTA_SET_ELEM_LIST_SET_ID, id)
			}
			elems := a.open(unix.NFTA_SET_ELEM_LIST_ELEMENTS)
			start := len(a.b)
			for len(list) > 0 && len(a.b)-start < maxElementBytes {
				list[0].append(a, msg != unix.NFT_MSG_DELSETELEM)
				list = list[1:]
			}
			a.close(elems)
		})
	}
}

func (k *keyed) append(a *attrs, whole bool) {
	e := a.open(unix.NFTA_LIST_ELEM)
	n := a.open(unix.NFTA_SET_ELEM_KEY)
	a.raw(unix.NFTA_DATA_VALUE, k.key)
	a.close(n)
	if whole && k.data != "" {
		n = a.open(unix.NFTA_SET_ELEM_DATA)
		a.raw(unix.NFTA_DATA_VALUE, k.data)
		a.close(n)
	}
	if whole && k.note != "" {
		a.raw(unix.NFTA_SET_ELEM_USERDATA, k.note)
	}
	a.close(e)
}

// commit sends the batch and returns the generation that it made. No message
// asks for an acknowledgement: errors arrive anyway, and the answer to a
// question for the generation, asked after the batch, marks their end.
func (s *socket) commit(b *batch) (gen uint32, err error) {
	b.buf, _ = build(b.buf, nfnlBatchEnd, unix.NLM_F_REQUEST, []byte{unix.AF_UNSPEC, 0, 0, unix.NFNL_SUBSYS_NFTABLES})
	if err := s.send(b.buf); err != nil {
		if errors.Is(err, unix.EMSGSIZE) {
			return 0, &KernelError{Op: "send transaction", Detail: fmt.Sprintf("%d bytes do not fit the socket's send buffer", len(b.buf)), Err: err}
		}
		return 0, &KernelError{Op: "send transaction", Err: err}
	}
	return s.generation(func(m message) {
		detail, e := m.ackError()
		i := int(m.seq - b.first)
		if e == nil || err != nil || i >= len(b.steps) {
			return // success, a consequence, or not about this batch
		}
		err = &KernelError{Op: b.steps[i], Detail: detail, Err: e}
	}, &err)
}

// generation asks for the number of the current rule set generation, handing
// errors of earlier messages to stray.
func (s *socket) generation(stray func(message), fail *error) (gen uint32, err error) {
	q, seq := build(nil, nft(unix.NFT_MSG_GETGEN), unix.NLM_F_REQUEST, make([]byte, 4))
	if err := s.send(q); err != nil {
		return 0, &KernelError{Op: "ask for the generation", Err: err}
	}
	for {
		done, err := s.receive(func(m message) bool {
			switch {
			case m.seq == seq && m.typ == unix.NLMSG_ERROR:
				if _, e := m.ackError(); e != nil && fail != nil && *fail == nil {
					*fail = &KernelError{Op: "ask for the generation", Err: e}
				}
				return true
			case m.seq == seq:
				for typ, v := range each(m.body[4:]) {
					if typ == unix.NFTA_GEN_ID {
						gen = attrUint32(v)
					}
				}
				return true
			case m.typ == unix.NLMSG_ERROR && stray != nil:
				stray(m)
			}
			return false
		})
		if err != nil {
			return 0, &KernelError{Op: "ask for the generation", Err: err}
		}
		if done {
			if fail != nil && *fail != nil {
				return gen, *fail
			}
			return gen, nil
		}
	}
}
