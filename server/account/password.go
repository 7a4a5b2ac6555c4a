package account

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"

	"github.com/selfstead/selfstead/server/problem"
)

// MinPassword is the fewest characters of a password.
const MinPassword = 8

// maxPassword is the most bytes of a password: hashing it costs in proportion.
const maxPassword = 1024

// Argon2id with 19 MiB, two passes, one lane: the first of the equally strong
// choices in OWASP's password storage sheet that keeps the server small. The
// RFC 9106 low-memory profile takes 64 MiB, more than the whole server.
const (
	argonMemory = 19 * 1024 // KiB
	argonTime   = 2
	argonLanes  = 1
	argonTag    = 32
	argonSalt   = 16
)

var errHash = errors.New("account: stored password hash is not an argon2id PHC string")

// checkPassword refuses a password that may not be set.
func checkPassword(location, password string) error {
	switch {
	case utf8.RuneCountInString(password) < MinPassword:
		return problem.New(422, problem.CodeInvalid, "the password is too short").
			WithField(location, fmt.Sprintf("expected at least %d characters", MinPassword), nil)
	case len(password) > maxPassword:
		return problem.New(422, problem.CodeInvalid, "the password is too long").
			WithField(location, fmt.Sprintf("expected at most %d bytes", maxPassword), nil)
	}
	return nil
}

// hashPassword returns a PHC string. It takes argonMemory while it runs.
func hashPassword(password string) string {
	salt := make([]byte, argonSalt)
	rand.Read(salt) //nolint:errcheck // never fails, see crypto/rand
	tag := argon2.IDKey([]byte(password), salt, argonTime, argonMemory, argonLanes, argonTag)
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, argonMemory, argonTime, argonLanes, b64.EncodeToString(salt), b64.EncodeToString(tag))
}

// verifyPassword reports whether password gives the stored hash, in time that
// does not depend on where they differ. Parameters are read from the hash
// within bounds, so that they can be raised later.
func verifyPassword(hash, password string) (bool, error) {
	part := strings.Split(hash, "$")
	if len(part) != 6 || part[0] != "" || part[1] != "argon2id" {
		return false, errHash
	}
	var version int
	var memory, passes uint32
	var lanes uint8
	if _, err := fmt.Sscanf(part[2], "v=%d", &version); err != nil || version != argon2.Version {
		return false, errHash
	}
	if _, err := fmt.Sscanf(part[3], "m=%d,t=%d,p=%d", &memory, &passes, &lanes); err != nil || memory > 1<<20 || passes == 0 || passes > 64 || lanes == 0 {
		return false, errHash
	}
	salt, err := base64.RawStdEncoding.DecodeString(part[4])
	if err != nil {
		return false, errHash
	}
	tag, err := base64.RawStdEncoding.DecodeString(part[5])
	if err != nil || len(tag) < 16 || len(tag) > 64 {
		return false, errHash
	}
	got := argon2.IDKey([]byte(password), salt, passes, memory, lanes, uint32(len(tag)))
	return subtle.ConstantTimeCompare(got, tag) == 1, nil
}
