package nat

import (
	"encoding/binary"
	"iter"
)

// attrs builds netlink attributes: length and type in native byte order, the
// payload padded to 4 bytes. Values are big-endian, as netfilter wants them.
type attrs struct{ b []byte }

const attrNested = 0x8000

func (a *attrs) raw(typ uint16, v string) {
	a.head(typ, len(v))
	a.b = append(a.b, v...)
	a.pad()
}

func (a *attrs) head(typ uint16, n int) {
	a.b = binary.NativeEndian.AppendUint16(a.b, uint16(n+4))
	a.b = binary.NativeEndian.AppendUint16(a.b, typ)
}

func (a *attrs) pad() {
	for len(a.b)%4 != 0 {
		a.b = append(a.b, 0)
	}
}

func (a *attrs) u8(typ uint16, v uint8) {
	a.head(typ, 1)
	a.b = append(a.b, v, 0, 0, 0)
}

func (a *attrs) u32(typ uint16, v uint32) {
	a.head(typ, 4)
	a.b = binary.BigEndian.AppendUint32(a.b, v)
}

func (a *attrs) str(typ uint16, s string) { a.raw(typ, s+"\x00") }

// open starts a nested attribute; close with what it returned.
func (a *attrs) open(typ uint16) int {
	a.head(typ|attrNested, 0)
	return len(a.b) - 4
}

func (a *attrs) close(at int) {
	binary.NativeEndian.PutUint16(a.b[at:], uint16(len(a.b)-at))
}

// each walks the attributes in b; types come without the nested bit. It stops
// at the first malformed one.
func each(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= 4 {
			n := int(binary.NativeEndian.Uint16(b))
			if n < 4 || n > len(b) {
				return
			}
			if !yield(binary.NativeEndian.Uint16(b[2:])&0x3fff, b[4:n]) {
				return
			}
			b = b[min((n+3)&^3, len(b)):]
		}
	}
}

func attrString(b []byte) string {
	if n := len(b); n > 0 && b[n-1] == 0 {
		b = b[:n-1]
	}
	return string(b)
}

func attrUint32(b []byte) uint32 {
	if len(b) != 4 {
		return 0
	}
	return binary.BigEndian.Uint32(b)
}

func nativeUint32(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }
