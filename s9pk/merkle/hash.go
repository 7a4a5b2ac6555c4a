package merkle

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/zeebo/blake3"
)

// Hash is a BLAKE3-256 digest.
type Hash [32]byte

// Sum hashes b.
func Sum(b []byte) Hash { return blake3.Sum256(b) }

// EmptyHash is the hash of no bytes.
var EmptyHash = Sum(nil)

// String is the lower-case hexadecimal form.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// MarshalText writes the form that package metadata uses in JSON: standard
// base64 without padding.
func (h Hash) MarshalText() ([]byte, error) {
	return base64.RawStdEncoding.AppendEncode(nil, h[:]), nil
}

// UnmarshalText reads standard base64, padded or not.
func (h *Hash) UnmarshalText(text []byte) error {
	b, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(string(text), "="))
	if err != nil || len(b) != len(h) {
		return fmt.Errorf("merkle: hash %.60q is not base64 of 32 bytes", text)
	}
	copy(h[:], b)
	return nil
}

// ParseHash reads the hexadecimal or the base64 form.
func ParseHash(s string) (Hash, error) {
	var h Hash
	if len(s) == 2*len(h) {
		if _, err := hex.Decode(h[:], []byte(s)); err == nil {
			return h, nil
		}
	}
	err := h.UnmarshalText([]byte(s))
	return h, err
}

// Hasher computes the hash of what is written to it. The zero value is not
// usable; see NewHasher.
type Hasher struct {
	h *blake3.Hasher
	n int64
}

// NewHasher returns an empty Hasher.
func NewHasher() *Hasher { return &Hasher{h: blake3.New()} }

// Write adds p; it never fails.
func (h *Hasher) Write(p []byte) (int, error) {
	h.n += int64(len(p))
	return h.h.Write(p)
}

// Len is the number of bytes written so far.
func (h *Hasher) Len() int64 { return h.n }

// Sum is the hash of everything written so far.
func (h *Hasher) Sum() Hash {
	var out Hash
	h.h.Sum(out[:0])
	return out
}

// Reset makes the Hasher empty again.
func (h *Hasher) Reset() { h.h.Reset(); h.n = 0 }
