package wg

import (
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/selfstead/selfstead/nat/nattest"
)

// TestKernelDevice makes the kernel's device, which outlives its owner and is
// taken over. A kernel without WireGuard has to be told apart; where VM_EXPECT
// says wireguard, there is no such excuse.
func TestKernelDevice(t *testing.T) {
	nattest.Require(t, "ip")
	s := nattest.NewLab(t).Space("k")
	c := Config{
		PrivateKey: key(t), ListenPort: 51820, Addresses: []netip.Prefix{netip.MustParsePrefix("10.59.0.1/24"), netip.MustParsePrefix("fd00:59::1/64")},
		Peers: []Peer{{PublicKey: key(t).PublicKey(), AllowedIPs: []netip.Prefix{netip.MustParsePrefix("10.59.0.2/32")}}},
	}
	has := true
	s.Do(func() error {
		d, err := Open("wgk", Kernel)
		if err != nil && !strings.Contains(os.Getenv("VM_EXPECT"), "wireguard") {
			require.ErrorIs(t, err, ErrNotSupported)
			require.NoDirExists(t, "/sys/module/wireguard")
			has = false
			return nil
		}
		require.NoError(t, err)
		require.Equal(t, Kernel, d.Mode())
		require.NoError(t, d.Apply(t.Context(), c))
		require.NoError(t, d.Close())

		d, err = Open("wgk", Auto)
		require.NoError(t, err)
		require.Equal(t, Kernel, d.Mode(), "it was left there")
		require.NoError(t, d.Apply(t.Context(), c))
		require.NoError(t, d.Close())
		return nil
	})
	if !has {
		require.NotContains(t, s.Run("ip", "-o", "link"), "wgk")
		return
	}
	require.Contains(t, s.Run("ip", "-d", "link", "show", "wgk"), "wireguard")
	addresses := s.Run("ip", "-o", "addr", "show", "dev", "wgk")
	require.Contains(t, addresses, "10.59.0.1/24")
	require.Contains(t, addresses, "fd00:59::1/64")
	s.IP("link add other type dummy")
	s.Do(func() error {
		_, err := Open("other", Auto)
		require.ErrorContains(t, err, "another kind")
		d, err := Open("wgk", Kernel)
		require.NoError(t, err)
		require.NoError(t, d.Remove())
		return nil
	})
	require.NotContains(t, s.Run("ip", "-o", "link"), "wgk")
}
