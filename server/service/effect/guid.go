package effect

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
)

// NewGUID is a fresh name of a container, a subcontainer or an event: 20
// random bytes as 32 characters of base32.
func NewGUID() string {
	var b [20]byte
	rand.Read(b[:])
	return guid(b)
}

// GUIDFor is the name that belongs to a call: the same when the call comes
// again. A call without a name gets a fresh one.
func GUIDFor(owner, callID string) string {
	if callID == "" {
		return NewGUID()
	}
	sum := sha256.Sum256([]byte(owner + " " + callID))
	return guid([20]byte(sum[:20]))
}

func guid(b [20]byte) string {
	return base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b[:])
}
