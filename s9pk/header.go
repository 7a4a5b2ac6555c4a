package s9pk

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"fmt"

	"github.com/selfstead/selfstead/s9pk/merkle"
)

// HeaderSize is the length of the fixed header of a v2 package.
const HeaderSize = 155

// signedSize is how much of the header tells whether the signature holds.
const signedSize = 139

var magic = []byte{0x3b, 0x3b, 2}

// Header is the fixed beginning of a package. Signer, Signature and Commitment
// hang together; where the root table lies is not signed.
type Header struct {
	Signer        ed25519.PublicKey
	Signature     []byte
	Commitment    merkle.Commitment
	TablePosition uint64
	TableSize     uint64
}

// append adds the stored form.
func (h *Header) append(b []byte) []byte {
	b = append(b, magic...)
	b = append(b, h.Signer...)
	b = append(b, h.Signature...)
	b = append(b, h.Commitment.Message()...)
	b = binary.BigEndian.AppendUint64(b, h.TablePosition)
	return binary.BigEndian.AppendUint64(b, h.TableSize)
}

func headerError(offset int64, err error) error {
	return &EntryError{Op: "open", Offset: offset, Err: err}
}

// checkHeader judges as much of a header as b holds, so that a stream can be
// refused at the first wrong byte. It returns nil until b has all 155 bytes.
func checkHeader(b []byte, want *merkle.Commitment) (*Header, error) {
	h, err := checkSigned(b, want)
	if err != nil || h == nil {
		return nil, err
	}
	return h.place(b)
}

// checkSigned judges the first 139 bytes; it returns nil until they are there.
func checkSigned(b []byte, want *merkle.Commitment) (*Header, error) {
	for i := 0; i < len(b) && i < len(magic); i++ {
		if b[i] != magic[i] {
			if i == 2 && b[i] == 1 {
				return nil, headerError(2, ErrVersion1)
			}
			return nil, headerError(int64(i), fmt.Errorf("%w: magic or version is wrong (% x)", ErrFormat, b[:min(len(b), 3)]))
		}
	}
	if len(b) < 35 {
		return nil, nil
	}
	h := &Header{Signer: bytes.Clone(b[3:35])}
	if len(b) < signedSize {
		if err := checkPoint(h.Signer, "public key"); err != nil {
			return nil, headerError(3, err)
		}
		return nil, nil
	}
	h.Signature = bytes.Clone(b[35:99])
	copy(h.Commitment.RootSighash[:], b[99:131])
	h.Commitment.RootMaxsize = binary.BigEndian.Uint64(b[131:signedSize])
	if err := Verify(h.Signer, h.Commitment, h.Signature, Context); err != nil {
		return nil, headerError(3, err)
	}
	if want != nil {
		if err := want.Accepts(h.Commitment); err != nil {
			return nil, headerError(99, err)
		}
	} else if h.Commitment.RootMaxsize > merkle.MaxUncommittedRoot {
		return nil, headerError(131, fmt.Errorf("%w: root table may take %d bytes, above 1 MiB only with a commitment", ErrLimit, h.Commitment.RootMaxsize))
	}
	return h, nil
}

// place adds where the root table lies; it returns nil until b has all 155 bytes.
func (h *Header) place(b []byte) (*Header, error) {
	if len(b) < HeaderSize {
		return nil, nil
	}
	h.TablePosition = binary.BigEndian.Uint64(b[139:147])
	h.TableSize = binary.BigEndian.Uint64(b[147:155])
	if h.TableSize > h.Commitment.RootMaxsize {
		return nil, headerError(147, fmt.Errorf("%w: root table of %d bytes, signed are at most %d", ErrSize, h.TableSize, h.Commitment.RootMaxsize))
	}
	return h, nil
}
