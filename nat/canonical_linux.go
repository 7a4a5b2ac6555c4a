package nat

import (
	"bytes"
	"encoding/binary"
	"sort"

	"golang.org/x/sys/unix"
)

// registerAttrs names the attributes that hold register numbers.
var registerAttrs = map[string][]uint16{
	"payload": {1, 5}, "meta": {1, 3}, "cmp": {1}, "lookup": {2, 3}, "bitwise": {1, 2},
	"ct": {1, 4}, "nat": {3, 4, 5, 6}, "fib": {1}, "immediate": {1},
	"rt": {1}, "byteorder": {1, 2}, "exthdr": {1, 7},
}

// canonicalExprs brings a rule's expressions into one form, whether they were
// built here or came from the kernel, which names registers differently, spells
// out defaults, numbers anonymous sets and orders attributes in its own way.
func canonicalExprs(list []byte) string {
	var out bytes.Buffer
	for _, e := range each(list) {
		name, data := exprParts(e)
		out.WriteString(name)
		out.WriteByte('(')
		writeCanonical(&out, name, data)
		out.WriteByte(')')
	}
	return out.String()
}

// exprParts are the name of an expression and its attributes.
func exprParts(e []byte) (name string, data []byte) {
	for typ, v := range each(e) {
		switch typ {
		case unix.NFTA_EXPR_NAME:
			name = attrString(v)
		case unix.NFTA_EXPR_DATA:
			data = v
		}
	}
	return name, data
}

func writeCanonical(out *bytes.Buffer, name string, data []byte) {
	vals := map[uint16][]byte{}
	for typ, v := range each(data) {
		vals[typ] = bytes.Clone(v)
	}
	for _, typ := range registerAttrs[name] {
		if v := vals[typ]; len(v) == 4 {
			if r := attrUint32(v); r >= 8 && r%4 == 0 && r < 24 {
				binary.BigEndian.PutUint32(v, r/4-1)
			}
		}
	}
	zero := func(typ uint16) {
		if v, ok := vals[typ]; ok && attrUint32(v) == 0 {
			delete(vals, typ)
		}
	}
	switch name {
	case "lookup":
		zero(unix.NFTA_LOOKUP_FLAGS)
		delete(vals, unix.NFTA_LOOKUP_SET_ID)
		if bytes.HasPrefix(vals[unix.NFTA_LOOKUP_SET], []byte("__set")) {
			vals[unix.NFTA_LOOKUP_SET] = []byte(protocolSet + "\x00")
		}
	case "bitwise":
		zero(6) // NFTA_BITWISE_OP: mask and xor
	case "nat":
		if bytes.Equal(vals[unix.NFTA_NAT_REG_ADDR_MAX], vals[unix.NFTA_NAT_REG_ADDR_MIN]) {
			delete(vals, unix.NFTA_NAT_REG_ADDR_MAX)
		}
		if bytes.Equal(vals[unix.NFTA_NAT_REG_PROTO_MAX], vals[unix.NFTA_NAT_REG_PROTO_MIN]) {
			delete(vals, unix.NFTA_NAT_REG_PROTO_MAX)
		}
		if f := attrUint32(vals[unix.NFTA_NAT_FLAGS]); vals[unix.NFTA_NAT_REG_PROTO_MIN] == nil || f&^uint32(3) == 0 {
			delete(vals, unix.NFTA_NAT_FLAGS) // map ips, proto specified: follow from the registers
		}
	case "masq":
		zero(1)
	case "exthdr":
		zero(unix.NFTA_EXTHDR_FLAGS)
	case "payload":
		zero(6)
		zero(7)
		zero(8)
	}
	types := make([]int, 0, len(vals))
	for typ := range vals {
		types = append(types, int(typ))
	}
	sort.Ints(types)
	for _, typ := range types {
		out.WriteByte(byte(typ))
		out.WriteByte('=')
		writeValue(out, vals[uint16(typ)])
		out.WriteByte(';')
	}
}

const hexDigits = "0123456789abcdef"

// writeValue writes an attribute's value without the nested bit of inner ones.
func writeValue(out *bytes.Buffer, v []byte) {
	for i, c := range v {
		if i%4 == 3 && len(v) > 4 && nestedHead(v, i) {
			c &^= 0x80
		}
		out.WriteByte(hexDigits[c>>4])
		out.WriteByte(hexDigits[c&15])
	}
}

// nestedHead reports whether byte i ends an attribute head with the nested bit.
func nestedHead(v []byte, i int) bool {
	n := int(binary.NativeEndian.Uint16(v[i-3:]))
	return n >= 4 && i-3+n <= len(v) && v[i]&0x80 != 0
}

// ruleForm is the canonical form of a rule of ours.
func ruleForm(r *ruleDef) (string, error) {
	list, err := marshalExprs(r.exprs, 0, "")
	if err != nil {
		return "", err
	}
	return canonicalExprs(list), nil
}
