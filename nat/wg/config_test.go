package wg

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	keyA = "wGDjXzFjmTQfA1QwcGgOQ/7nKyTZJf0OZmRa0VpB0VE="
	keyB = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="
	keyC = "gN65BkIKy1eCE9pP1wdc8ROUtkHLF2PfAqYdyYBz6EA="
)

const full = `
# a tunnel
[INTERFACE]
privatekey = ` + keyA + `
Address = 10.59.0.2/24, fd00:59::2/64
address = 10.60.0.2      ; a single one
ListenPort = 51820
FwMark = 0xca6c
MTU = 1380
DNS = 10.59.0.1, home.example, fd00:59::1
Table = off
PostUp = rm -rf /

[Peer]
PublicKey=` + keyB + `
PresharedKey = ` + keyC + `
Endpoint = vpn.example.org:51820
AllowedIPs = 0.0.0.0/0
AllowedIPs = ::/0
PersistentKeepalive = 25

[peer]
PublicKey = ` + keyC + `
AllowedIPs = 10.59.0.3/32
PersistentKeepalive = off
`

func TestParse(t *testing.T) {
	t.Parallel()
	c, err := Parse(strings.NewReader(full))
	require.NoError(t, err)
	require.Equal(t, keyA, c.PrivateKey.String())
	require.Equal(t, "10.59.0.2/24, fd00:59::2/64, 10.60.0.2/32", join(c.Addresses))
	require.Equal(t, "10.59.0.1, fd00:59::1", join(c.DNS), "search domains are dropped")
	require.Equal(t, uint32(0xca6c), c.FwMark)
	require.Len(t, c.Peers, 2)
	require.Equal(t, 25*time.Second, c.Peers[0].Keepalive)
	require.Equal(t, "0.0.0.0/0, ::/0", join(c.Peers[0].AllowedIPs))
	require.Equal(t, "vpn.example.org:51820", c.Peers[0].Endpoint)
	key, err := ParseKey(keyC)
	require.NoError(t, err)
	require.Equal(t, &c.Peers[1], c.Peer(key))
	require.Nil(t, c.Peer(Key{}))

	again, err := Parse(strings.NewReader(c.String()))
	require.NoError(t, err)
	require.Equal(t, c, again, "what is written is read back")

	c.Peers[1].AllowedIPs[0] = netip.MustParsePrefix("10.59.0.3/24")
	require.Contains(t, c.String(), "AllowedIPs = 10.59.0.0/24\n", "without the bits of a host")
	require.Contains(t, c.String(), "Address = 10.59.0.2/24,", "with them, and the length of the subnet")
	c, err = Parse(strings.NewReader(strings.ReplaceAll(full, "10.59.0.3/32", "10.59.0.3/24")))
	require.NoError(t, err)
	require.Equal(t, "10.59.0.0/24", join(c.Peers[1].AllowedIPs))

	again = c.Clone()
	d := c.Clone()
	d.Peers[0].AllowedIPs[0] = d.Peers[0].AllowedIPs[1]
	require.Equal(t, c, again)
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	head := "[Interface]\nPrivateKey = " + keyA + "\n"
	peer := "[Peer]\nPublicKey = " + keyB + "\n"
	key, err := ParseKey(keyA)
	require.NoError(t, err)
	for text, want := range map[string]string{
		"":                                      "no private key",
		"[Interface]\nPrivateKey = abc\n":       "line 2: privatekey",
		"PrivateKey = x\n":                      "line 1",
		head + "Adress = 10.0.0.1/24\n":         "line 3: adress: unknown name",
		head + "Address = 10.0.0.1/33\n":        "line 3: address",
		head + "ListenPort = 65536\n":           "line 3: listenport",
		head + "MTU = 100\n":                    "MTU 100",
		head + "[Wire]\n":                       "line 3: section [Wire]",
		head + "[Peer]\nAllowedIPs = ::/0\n":    "without public key",
		head + peer + peer:                      "twice",
		head + peer + "Endpoint = host\n":       "endpoint",
		head + peer + "Endpoint = host:0\n":     "endpoint",
		head + peer + "AllowedIPs = 10.0.0.0/x": "line 5: allowedips",
		head + peer + "AllowedIPs = 10.0.0.1/24\n[Peer]\nPublicKey = " + keyC + "\nAllowedIPs = 10.0.0.9/24\n": "both allowed 10.0.0.0/24",
		head + "[Peer]\nPublicKey = " + key.PublicKey().String() + "\n":                                        "is this device",
		head + peer + "PersistentKeepalive = 65536\n":                                                          "line 5",
	} {
		_, err := Parse(strings.NewReader(text))
		require.ErrorIs(t, err, ErrInvalid, text)
		require.ErrorContains(t, err, want)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(full)
	f.Fuzz(func(t *testing.T, text string) {
		c, err := Parse(strings.NewReader(text))
		if err != nil {
			return
		}
		again, err := Parse(strings.NewReader(c.String()))
		if err != nil {
			t.Fatalf("%v\n%s", err, c)
		}
		if again.String() != c.String() {
			t.Fatalf("read back as\n%s\nnot\n%s", again, c)
		}
	})
}
