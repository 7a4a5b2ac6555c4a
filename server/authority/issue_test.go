package authority_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"strings"
	"testing"
	"time"

	"github.com/selfstead/selfstead/server/authority"
	"github.com/stretchr/testify/require"
)

func certs(t *testing.T, chain []string) []*x509.Certificate {
	t.Helper()
	var out []*x509.Certificate
	for _, text := range chain {
		block, rest := pem.Decode([]byte(text))
		require.Empty(t, rest)
		c, err := x509.ParseCertificate(block.Bytes)
		require.NoError(t, err)
		out = append(out, c)
	}
	return out
}

func TestIssuedCertificatesVerify(t *testing.T) {
	dir := t.TempDir()
	now := time.Now()
	a, err := authority.Open(authority.Options{Dir: dir, Now: func() time.Time { return now }})
	require.NoError(t, err)
	for _, algorithm := range []string{authority.ECDSA, authority.Ed25519} {
		got, err := a.Issue([]string{"Alpha.startos", "10.0.0.7", "fd00::1"}, algorithm)
		require.NoError(t, err)
		c := certs(t, got.Chain)
		require.Len(t, c, 3)
		roots, between := x509.NewCertPool(), x509.NewCertPool()
		require.True(t, roots.AppendCertsFromPEM(a.RootPEM()))
		between.AddCert(c[1])
		for _, name := range []string{"alpha.startos", "10.0.0.7", "fd00::1"} {
			_, err = c[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, DNSName: name, CurrentTime: now})
			require.NoError(t, err, name)
		}
		_, err = c[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, DNSName: "beta.startos", CurrentTime: now})
		require.Error(t, err)
		p, err := tls.X509KeyPair([]byte(strings.Join(got.Chain, "")), []byte(got.Key))
		require.NoError(t, err)
		if algorithm == authority.Ed25519 {
			require.IsType(t, ed25519.PrivateKey{}, p.PrivateKey)
		} else {
			require.IsType(t, &ecdsa.PrivateKey{}, p.PrivateKey)
		}

		// The same set gives the same pair, from another process too; a renewal
		// keeps the key.
		b, err := authority.Open(authority.Options{Dir: dir, Now: func() time.Time { return now }})
		require.NoError(t, err)
		again, err := b.Issue([]string{"fd00:0::1", "alpha.startos", "10.0.0.7"}, algorithm)
		require.NoError(t, err)
		require.Equal(t, got, again)
		late, err := authority.Open(authority.Options{Dir: dir, Now: func() time.Time { return got.Renew.Add(time.Minute) }})
		require.NoError(t, err)
		renewed, err := late.Issue([]string{"alpha.startos", "10.0.0.7", "fd00::1"}, algorithm)
		require.NoError(t, err)
		require.Equal(t, got.Key, renewed.Key)
		require.NotEqual(t, got.Chain[0], renewed.Chain[0])
		require.True(t, renewed.Renew.After(got.Renew))
	}
}

func TestIssueRefusesNonsense(t *testing.T) {
	a, err := authority.Open(authority.Options{Dir: t.TempDir()})
	require.NoError(t, err)
	for _, names := range [][]string{nil, {""}, {"a b"}, {"../x"}, make([]string, 200)} {
		_, err := a.Issue(names, authority.ECDSA)
		require.Error(t, err, "%q", names)
	}
	_, err = a.Issue([]string{"a"}, "rsa")
	require.Error(t, err)
}
