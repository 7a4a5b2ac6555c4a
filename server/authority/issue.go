package authority

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// The key algorithms of Issue.
const (
	ECDSA   = "ecdsa" // P-256
	Ed25519 = "ed25519"
)

// How long what Issue makes lasts: the intermediate is replaced with the first
// leaf that would outlive it.
const intermediateLife = 5 * 365 * 24 * time.Hour

// Issued is a certificate with its key.
type Issued struct {
	Chain []string // PEM: leaf, intermediate, root
	Key   string   // PEM, PKCS #8
	Renew time.Time
}

// Issue returns the certificate for a set of names and addresses, whatever
// their order. It is stored, so that every call returns the same key pair until
// the certificate is due for renewal; the key then stays. It does not judge who
// may have which name.
func (a *Authority) Issue(names []string, algorithm string) (*Issued, error) {
	set := map[string]bool{}
	for _, n := range names {
		n = strings.ToLower(n)
		if ip := net.ParseIP(n); ip != nil {
			n = ip.String()
		} else if !validName(strings.TrimPrefix(n, "*.")) {
			return nil, fmt.Errorf("authority: %q is neither a host name nor an address", n)
		}
		set[n] = true
	}
	if len(set) == 0 || len(set) > maxNames {
		return nil, fmt.Errorf("authority: %d names, want 1 to %d", len(set), maxNames)
	}
	if algorithm != ECDSA && algorithm != Ed25519 {
		return nil, fmt.Errorf("authority: algorithm %q is unknown", algorithm)
	}
	sum := sha256.Sum256([]byte(algorithm + "\n" + strings.Join(sorted(set), "\n")))
	file := filepath.Join(a.dir, "services", hex.EncodeToString(sum[:16])+".pem")
	a.issuing.Lock()
	defer a.issuing.Unlock()
	inter, err := a.intermediate()
	if err != nil {
		return nil, err
	}
	leaf, key, err := readPair(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	due := leaf == nil || leaf.NotAfter.Sub(a.now()) <= leafLife/3 || leaf.CheckSignatureFrom(inter.cert) != nil
	if due {
		if key == nil {
			if key, err = newKey(algorithm); err != nil {
				return nil, err
			}
		}
		template := a.template(pkix.Name{CommonName: sorted(set)[0], Organization: []string{"selfstead"}}, leafLife)
		template.KeyUsage = x509.KeyUsageDigitalSignature
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
		for _, n := range sorted(set) {
			if ip := net.ParseIP(n); ip != nil {
				template.IPAddresses = append(template.IPAddresses, ip)
			} else {
				template.DNSNames = append(template.DNSNames, n)
			}
		}
		if leaf, err = sign(template, inter.cert, key, inter.key); err != nil {
			return nil, err
		}
		if err := writePair(file, leaf, key); err != nil {
			return nil, err
		}
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return nil, err
	}
	out := &Issued{Key: string(keyPEM), Renew: leaf.NotAfter.Add(-leafLife / 3)}
	for _, c := range []*x509.Certificate{leaf, inter.cert, a.root} {
		out.Chain = append(out.Chain, string(encodeCert(c)))
	}
	return out, nil
}

type pair struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// intermediate is the key that signs services' certificates: the root's own is
// only used to sign it and the server's leaf.
func (a *Authority) intermediate() (pair, error) {
	if a.inter.cert != nil && a.inter.cert.NotAfter.Sub(a.now()) > 2*leafLife {
		return a.inter, nil
	}
	file := filepath.Join(a.dir, "intermediate.pem")
	cert, key, err := readPair(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return pair{}, err
	}
	if cert == nil || cert.NotAfter.Sub(a.now()) <= 2*leafLife || cert.CheckSignatureFrom(a.root) != nil {
		if key, err = newKey(ECDSA); err != nil {
			return pair{}, err
		}
		template := a.template(pkix.Name{CommonName: "selfstead services", Organization: []string{"selfstead"}}, intermediateLife)
		template.IsCA, template.MaxPathLenZero = true, true
		template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
		if cert, err = sign(template, a.root, key, a.key); err != nil {
			return pair{}, err
		}
		if err := writePair(file, cert, key); err != nil {
			return pair{}, err
		}
	}
	a.inter = pair{cert, key}
	return a.inter, nil
}

func (a *Authority) template(subject pkix.Name, life time.Duration) *x509.Certificate {
	now := a.now()
	return &x509.Certificate{
		SerialNumber: serial(), Subject: subject, NotBefore: now.Add(-backdate), NotAfter: now.Add(life), BasicConstraintsValid: true,
	}
}

func sign(template, parent *x509.Certificate, key, by crypto.Signer) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), by)
	if err != nil {
		return nil, fmt.Errorf("authority: issue: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("authority: issue: %w", err)
	}
	return cert, nil
}

func newKey(algorithm string) (crypto.Signer, error) {
	if algorithm == Ed25519 {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("authority: %w", err)
	}
	return key, nil
}

func encodeCert(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

func encodeKey(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("authority: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

func readPair(file string) (*x509.Certificate, crypto.Signer, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, nil, fmt.Errorf("authority: %w", err)
	}
	both, err := tls.X509KeyPair(text, text)
	if err != nil {
		return nil, nil, fmt.Errorf("authority: %s: %w", file, err)
	}
	key, ok := both.PrivateKey.(crypto.Signer)
	if !ok {
		return nil, nil, fmt.Errorf("authority: %s: the key cannot sign", file)
	}
	return both.Leaf, key, nil
}

func writePair(file string, cert *x509.Certificate, key crypto.Signer) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return fmt.Errorf("authority: %w", err)
	}
	text, err := encodeKey(key)
	if err != nil {
		return err
	}
	if err := writeFile(file, slices.Concat(text, encodeCert(cert))); err != nil {
		return fmt.Errorf("authority: %w", err)
	}
	return nil
}
