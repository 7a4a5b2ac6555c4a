package effect

import (
	"crypto/rand"
	"encoding/base32"
)

// NewGUID is a fresh name of a container, a subcontainer or an event: 20
// random bytes as 32 characters of base32.
func NewGUID() string {
	var b [20]byte
	rand.Read(b[:])
	return base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b[:])
}
