package nat

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// labels is which bits of the conntrack label the rules of a namespace mention.
type labels struct {
	gen    uint32
	own    int // the one of our table, -1 when it has none
	others map[int]bool
}

// readLabels looks through the rules of all tables: another table of this
// package, or another program, may use the bit that we would take.
func (c *Controller) readLabels(loose bool) (*labels, error) {
	gen, err := c.nft.generation(nil, nil)
	if err != nil {
		return nil, err
	}
	l := &labels{gen: gen, own: -1, others: map[int]bool{}}
	moved := false
	err = c.nft.request("dump rules", "", nft(unix.NFT_MSG_GETRULE), unix.NLM_F_DUMP, make([]byte, 4), func(m message) {
		if len(m.body) < 4 {
			return
		}
		moved = moved || binary.BigEndian.Uint16(m.body[2:]) != uint16(gen)
		var table string
		var bits []int
		for typ, v := range each(m.body[4:]) {
			switch typ {
			case unix.NFTA_RULE_TABLE:
				table = attrString(v)
			case unix.NFTA_RULE_EXPRESSIONS:
				bits = labelBits(v)
			}
		}
		ours := m.body[0] == nfprotoInet && table == c.table
		for _, bit := range bits {
			if ours {
				l.own = bit
			} else {
				l.others[bit] = true
			}
		}
	})
	if err == nil && moved && !loose || errors.Is(err, errInterrupted) {
		err = errMoved
	}
	return l, err
}

// labelBits lists the bits that a rule sets or asks for: those of the value
// loaded right before a label is set, and of the mask right after one is read.
func labelBits(exprs []byte) (bits []int) {
	var loaded []byte
	read := false
	for _, e := range each(exprs) {
		name, data := exprParts(e)
		attr := map[uint16][]byte{}
		for typ, v := range each(data) {
			attr[typ] = v
		}
		label := name == "ct" && attrUint32(attr[unix.NFTA_CT_KEY]) == uint32(expr.CtKeyLABELS)
		switch {
		case label && attr[unix.NFTA_CT_SREG] != nil:
			bits = append(bits, bitsOf(loaded)...)
		case read && name == "bitwise":
			bits = append(bits, bitsOf(dataValue(attr[unix.NFTA_BITWISE_MASK]))...)
		}
		read, loaded = label && attr[unix.NFTA_CT_DREG] != nil, nil
		if name == "immediate" {
			loaded = dataValue(attr[unix.NFTA_IMMEDIATE_DATA])
		}
	}
	return bits
}

func bitsOf(mask []byte) (bits []int) {
	for i := range min(8*len(mask), labelCount) {
		if mask[i/8]&(1<<(i%8)) != 0 {
			bits = append(bits, i)
		}
	}
	return bits
}

// chooseBit settles which label marks our connections: the one that our table
// has already, else the one that its name stands for, unless somebody else's
// rules mention it, then the next one.
func (c *Controller) chooseBit(loose bool) (gen uint32, err error) {
	l, err := c.readLabels(loose)
	if err != nil {
		return 0, err
	}
	from := labelBit(c.table)
	switch {
	case l.own >= 0:
		from = l.own
	case c.chosen: // the table is gone, its connections are not
		from = c.bit
	}
	for i := range labelCount {
		if bit := (from + i) % labelCount; !l.others[bit] {
			c.bit, c.chosen = bit, true
			return l.gen, nil
		}
	}
	return 0, fmt.Errorf("%w: other rules use all %d", ErrNoLabel, labelCount)
}
