package s9pk

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha512"
	"fmt"
	"strconv"

	"filippo.io/edwards25519"

	"github.com/selfstead/selfstead/s9pk/merkle"
)

// Context is the Ed25519ph context of package signatures (RFC 8032 section 5.1).
const Context = "s9pk"

// Signer signs packages: an ed25519.PrivateKey, or what stands for one.
type Signer = crypto.Signer

func quote(s string) string { return strconv.Quote(s) }

// PublicKey returns the Ed25519 key of a signer.
func PublicKey(key Signer) (ed25519.PublicKey, error) {
	pub, ok := key.Public().(ed25519.PublicKey)
	if !ok || len(pub) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("s9pk: signer has a %T, need an Ed25519 key", key.Public())
	}
	return pub, nil
}

// Sign signs a commitment in the given context and checks the result, so that a
// faulty signer cannot produce a package nobody can open.
func Sign(key Signer, c merkle.Commitment, context string) ([]byte, error) {
	pub, err := PublicKey(key)
	if err != nil {
		return nil, err
	}
	digest := sha512.Sum512(c.Message())
	sig, err := key.Sign(rand.Reader, digest[:], &ed25519.Options{Hash: crypto.SHA512, Context: context})
	if err != nil {
		return nil, fmt.Errorf("s9pk: sign: %w", err)
	}
	if err := Verify(pub, c, sig, context); err != nil {
		return nil, err
	}
	return sig, nil
}

// Verify checks a signature over a commitment strictly: besides what
// crypto/ed25519 checks (a reduced S, the equation without cofactor), keys and
// R points of small order are refused, for which one signature fits many
// messages. The error wraps ErrSignature.
func Verify(pub ed25519.PublicKey, c merkle.Commitment, sig []byte, context string) error {
	if len(pub) != ed25519.PublicKeySize || len(sig) != ed25519.SignatureSize {
		return fmt.Errorf("%w: key of %d and signature of %d bytes", ErrSignature, len(pub), len(sig))
	}
	if err := checkPoint(pub, "public key"); err != nil {
		return err
	}
	if err := checkPoint(sig[:32], "R"); err != nil {
		return err
	}
	digest := sha512.Sum512(c.Message())
	if err := ed25519.VerifyWithOptions(pub, digest[:], sig, &ed25519.Options{Hash: crypto.SHA512, Context: context}); err != nil {
		return fmt.Errorf("%w: it was not made by this key for this root", ErrSignature)
	}
	return nil
}

// checkPoint refuses what is no point of the curve or lies in the group of
// order eight.
func checkPoint(b []byte, what string) error {
	p, err := new(edwards25519.Point).SetBytes(b)
	if err != nil {
		return fmt.Errorf("%w: %s is not a point of the curve", ErrSignature, what)
	}
	if new(edwards25519.Point).MultByCofactor(p).Equal(edwards25519.NewIdentityPoint()) == 1 {
		return fmt.Errorf("%w: %s is of small order", ErrSignature, what)
	}
	return nil
}
