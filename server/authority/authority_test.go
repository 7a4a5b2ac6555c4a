package authority_test

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/selfstead/selfstead/server/authority"
)

// serve answers TLS handshakes on address until the test ends.
func serve(t *testing.T, a *authority.Authority, address string) string {
	t.Helper()
	l, err := tls.Listen("tcp", address, a.TLS())
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.(*tls.Conn).Handshake() //nolint:errcheck // the client judges
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return l.Addr().String()
}

func pool(t *testing.T, a *authority.Authority) *x509.CertPool {
	t.Helper()
	p := x509.NewCertPool()
	require.True(t, p.AppendCertsFromPEM(a.RootPEM()))
	return p
}

func TestClientsThatTrustTheRootConnect(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "tls")
	a, err := authority.Open(authority.Options{Dir: dir, Hostname: "stead"})
	require.NoError(t, err)
	again, err := authority.Open(authority.Options{Dir: dir, Hostname: "stead"})
	require.NoError(t, err)
	assert.Equal(t, a.Fingerprint(), again.Fingerprint(), "the root is made once")
	assert.Regexp(t, `^([0-9A-F]{2}:){31}[0-9A-F]{2}$`, a.Fingerprint())
	for _, name := range []string{"root.key", "root.pem"} {
		info, err := os.Stat(filepath.Join(dir, name))
		require.NoError(t, err)
		assert.Equal(t, os.FileMode(0o600), info.Mode())
	}

	roots := pool(t, again)
	for _, host := range []string{"127.0.0.1", "127.0.0.9", "localhost", "stead", "stead.local"} {
		listen := "127.0.0.1:0"
		if host == "127.0.0.9" { // an address that no certificate was made for beforehand
			listen = "127.0.0.9:0"
		}
		address := serve(t, a, listen)
		c, err := tls.Dial("tcp", address, &tls.Config{RootCAs: roots, ServerName: host})
		require.NoError(t, err, host)
		assert.GreaterOrEqual(t, c.ConnectionState().Version, uint16(tls.VersionTLS12))
		c.Close()
	}
	_, err = tls.Dial("tcp", serve(t, a, "127.0.0.1:0"), &tls.Config{RootCAs: roots, ServerName: "other.example"})
	assert.Error(t, err)
	_, err = tls.Dial("tcp", serve(t, a, "127.0.0.1:0"), &tls.Config{ServerName: "localhost"})
	assert.Error(t, err, "nobody else vouches for it")
}

func TestLeafIsRenewedInTime(t *testing.T) {
	t.Parallel()
	now := time.Now()
	a, err := authority.Open(authority.Options{Dir: t.TempDir(), Now: func() time.Time { return now }})
	require.NoError(t, err)
	get := func() *x509.Certificate {
		c, err := a.TLS().GetCertificate(&tls.ClientHelloInfo{Conn: &net.TCPConn{}})
		require.NoError(t, err)
		return c.Leaf
	}
	first := get()
	assert.Equal(t, first.SerialNumber, get().SerialNumber)
	now = now.Add(61 * 24 * time.Hour)
	renewed := get()
	assert.NotEqual(t, first.SerialNumber, renewed.SerialNumber)
	assert.Less(t, renewed.NotAfter.Sub(renewed.NotBefore), 398*24*time.Hour)
}

func TestOpenRefusesWhatIsNotARoot(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	_, err := authority.Open(authority.Options{Dir: dir})
	require.NoError(t, err)
	other := t.TempDir()
	_, err = authority.Open(authority.Options{Dir: other})
	require.NoError(t, err)
	key, err := os.ReadFile(filepath.Join(other, "root.key"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "root.key"), key, 0o600))
	_, err = authority.Open(authority.Options{Dir: dir})
	assert.ErrorIs(t, err, authority.ErrInvalid)
	require.NoError(t, os.Remove(filepath.Join(dir, "root.key")))
	_, err = authority.Open(authority.Options{Dir: dir})
	assert.ErrorIs(t, err, os.ErrNotExist)
}
