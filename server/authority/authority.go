package authority

import (
	"crypto/ecdsa"
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
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// How long certificates last. Clients of Apple refuse leafs of more than 825
// days; short ones need no revocation. A leaf is renewed when a third is left.
const (
	rootLife = 20 * 365 * 24 * time.Hour
	leafLife = 90 * 24 * time.Hour
	backdate = 24 * time.Hour // clocks of clients differ
)

// maxNames bounds the names of one leaf.
const maxNames = 100

// ErrInvalid is returned when the folder holds something that is not a root.
var ErrInvalid = errors.New("authority: the stored root certificate and key do not belong together")

// Options tunes Open.
type Options struct {
	Dir      string           // holds root.pem and root.key
	Hostname string           // of the machine; also served as <hostname>.local
	Now      func() time.Time // nil means time.Now
}

// Authority issues the server's certificates. It is safe to share.
type Authority struct {
	now  func() time.Time
	root *x509.Certificate
	key  *ecdsa.PrivateKey
	host string
	dir  string

	issuing sync.Mutex // held through a whole Issue
	inter   pair       // guarded by issuing

	mu    sync.Mutex
	names map[string]bool // names and addresses in the leaf
	leaf  *tls.Certificate
}

// Open reads the root from the folder, or makes it there. The key is stored
// before the certificate, both whole or not at all.
func Open(o Options) (*Authority, error) {
	a := &Authority{now: o.Now, host: o.Hostname, dir: o.Dir, names: map[string]bool{"localhost": true, "127.0.0.1": true, "::1": true}}
	if a.now == nil {
		a.now = time.Now
	}
	if validName(o.Hostname) {
		a.names[o.Hostname] = true
		if !strings.Contains(o.Hostname, ".") {
			a.names[o.Hostname+".local"] = true
		}
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("authority: %w", err)
	}
	certFile, keyFile := filepath.Join(o.Dir, "root.pem"), filepath.Join(o.Dir, "root.key")
	certPEM, err := os.ReadFile(certFile)
	if errors.Is(err, fs.ErrNotExist) {
		return a, a.create(certFile, keyFile)
	}
	if err != nil {
		return nil, fmt.Errorf("authority: %w", err)
	}
	keyPEM, err := os.ReadFile(keyFile)
	if err != nil {
		return nil, fmt.Errorf("authority: %w", err)
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	var ok bool
	if a.key, ok = pair.PrivateKey.(*ecdsa.PrivateKey); !ok || !pair.Leaf.IsCA {
		return nil, ErrInvalid
	}
	a.root = pair.Leaf
	return a, nil
}

func (a *Authority) create(certFile, keyFile string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("authority: %w", err)
	}
	now := a.now()
	name := "selfstead root"
	if a.host != "" {
		name = a.host + " selfstead root"
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: name, Organization: []string{"selfstead"}},
		NotBefore: now.Add(-backdate), NotAfter: now.Add(rootLife),
		IsCA: true, BasicConstraintsValid: true, MaxPathLen: 1, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}, &x509.Certificate{Subject: pkix.Name{CommonName: name, Organization: []string{"selfstead"}}}, &key.PublicKey, key)
	if err != nil {
		return fmt.Errorf("authority: %w", err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("authority: %w", err)
	}
	if a.root, err = x509.ParseCertificate(der); err != nil {
		return fmt.Errorf("authority: %w", err)
	}
	a.key = key
	if err := writeFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})); err != nil {
		return fmt.Errorf("authority: %w", err)
	}
	if err := writeFile(certFile, a.RootPEM()); err != nil {
		return fmt.Errorf("authority: %w", err)
	}
	return nil
}

// RootPEM is the root certificate, for clients to trust.
func (a *Authority) RootPEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.root.Raw})
}

// Fingerprint is SHA-256 of the root certificate, for people to compare:
// upper-case hex, pairs joined by colons.
func (a *Authority) Fingerprint() string {
	sum := sha256.Sum256(a.root.Raw)
	text := strings.ToUpper(hex.EncodeToString(sum[:]))
	pairs := make([]string, 0, len(sum))
	for i := 0; i < len(text); i += 2 {
		pairs = append(pairs, text[i:i+2])
	}
	return strings.Join(pairs, ":")
}

// TLS is a server configuration that answers with a certificate of this
// authority for whatever address the client connected to.
func (a *Authority) TLS() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"h2", "http/1.1"},
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			var local netip.Addr
			if hello.Conn != nil {
				if tcp, ok := hello.Conn.LocalAddr().(*net.TCPAddr); ok {
					local = tcp.AddrPort().Addr().Unmap().WithZone("")
				}
			}
			return a.certificate(local)
		},
	}
}

// certificate returns the leaf, renewed if it is old or lacks the address.
func (a *Authority) certificate(local netip.Addr) (*tls.Certificate, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	fresh := a.leaf != nil && a.leaf.Leaf.NotAfter.Sub(a.now()) > leafLife/3
	if local.IsValid() && !a.names[local.String()] && len(a.names) < maxNames {
		a.names[local.String()] = true
		fresh = false
	}
	if fresh {
		return a.leaf, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("authority: %w", err)
	}
	now := a.now()
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "selfstead"},
		NotBefore: now.Add(-backdate), NotAfter: now.Add(leafLife),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	for _, name := range sorted(a.names) {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.root, &key.PublicKey, a.key)
	if err != nil {
		return nil, fmt.Errorf("authority: issue: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("authority: issue: %w", err)
	}
	a.leaf = &tls.Certificate{Certificate: [][]byte{der, a.root.Raw}, PrivateKey: key, Leaf: leaf}
	return a.leaf, nil
}

func serial() *big.Int {
	b := make([]byte, 16)
	rand.Read(b) //nolint:errcheck // never fails
	b[0] &= 0x7f
	return new(big.Int).SetBytes(b)
}

func sorted(names map[string]bool) []string {
	out := make([]string, 0, len(names))
	for n := range names {
		out = append(out, n)
	}
	slices.Sort(out)
	return out
}

// validName reports whether a host name may stand in a certificate.
func validName(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	for _, r := range s {
		if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '.' {
			return false
		}
	}
	return true
}

// writeFile replaces a file as a whole, mode 0600.
func writeFile(file string, data []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+"-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(data)
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), file)
}
