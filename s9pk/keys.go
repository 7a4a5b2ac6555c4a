package s9pk

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
)

// The DER around Ed25519 values (RFC 8410): everything but the key bytes is fixed.
var (
	pkcs8v2Head   = []byte{0x30, 0x51, 2, 1, 1, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20}
	pkcs8v2Public = []byte{0x81, 0x21, 0}
	spkiHead      = []byte{0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0}
	signatureHead = []byte{0x30, 0x49, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x40}
)

// GenerateKey makes a new signing key.
func GenerateKey() (ed25519.PrivateKey, error) {
	_, key, err := ed25519.GenerateKey(nil)
	return key, err
}

func decodePEM(text []byte, label string) ([]byte, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("s9pk: no PEM block %q found", label)
	}
	if block.Type != label {
		return nil, fmt.Errorf("s9pk: PEM block is %.40q, need %q", block.Type, label)
	}
	return block.Bytes, nil
}

// ParsePrivateKey reads a PKCS#8 PEM key, version 1 (RFC 5208) or 2 with the
// public key in it (RFC 5958), which then must be the right one.
func ParsePrivateKey(text []byte) (ed25519.PrivateKey, error) {
	der, err := decodePEM(text, "PRIVATE KEY")
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("s9pk: private key: %w", err)
	}
	key, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("s9pk: private key is %T, need Ed25519", parsed)
	}
	var v2 struct {
		Version    int
		Algorithm  asn1.RawValue
		PrivateKey []byte
		Attributes asn1.RawValue  `asn1:"optional,tag:0"`
		PublicKey  asn1.BitString `asn1:"optional,tag:1"`
	}
	if _, err := asn1.Unmarshal(der, &v2); err != nil {
		return nil, fmt.Errorf("s9pk: private key: %w", err)
	}
	if pub := v2.PublicKey.Bytes; len(pub) > 0 && !bytes.Equal(pub, key.Public().(ed25519.PublicKey)) {
		return nil, errors.New("s9pk: private key file holds the public key of another")
	}
	return key, nil
}

// MarshalPrivateKey writes PKCS#8 version 2 with the public key, as StartOS
// tools do. OpenSSL before 3.2 reads version 1 only.
func MarshalPrivateKey(key ed25519.PrivateKey) []byte {
	der := append(bytes.Clone(pkcs8v2Head), key.Seed()...)
	der = append(der, pkcs8v2Public...)
	der = append(der, key.Public().(ed25519.PublicKey)...)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// ParsePublicKey reads a PEM SubjectPublicKeyInfo.
func ParsePublicKey(text []byte) (ed25519.PublicKey, error) {
	der, err := decodePEM(text, "PUBLIC KEY")
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, fmt.Errorf("s9pk: public key: %w", err)
	}
	pub, ok := parsed.(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("s9pk: public key is %T, need Ed25519", parsed)
	}
	return pub, nil
}

// MarshalPublicKey writes a PEM SubjectPublicKeyInfo, the form in which keys
// stand in JSON and in signature maps.
func MarshalPublicKey(pub ed25519.PublicKey) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: append(bytes.Clone(spkiHead), pub...)})
}

// MarshalSignature writes the PEM form in which registries keep a signature.
func MarshalSignature(sig []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "SIGNATURE", Bytes: append(bytes.Clone(signatureHead), sig...)})
}

// ParseSignature reads what MarshalSignature writes.
func ParseSignature(text []byte) ([]byte, error) {
	der, err := decodePEM(text, "SIGNATURE")
	if err != nil {
		return nil, err
	}
	sig, ok := bytes.CutPrefix(der, signatureHead)
	if !ok || len(sig) != ed25519.SignatureSize {
		return nil, errors.New("s9pk: signature is not an Ed25519 signature in DER")
	}
	return sig, nil
}
