package network

import (
	"net/netip"
	"testing"

	"github.com/selfstead/selfstead/server/state"
	"github.com/stretchr/testify/require"
)

// Addresses that another package provides stay when the server's own change.
func TestProvidedAddressesStay(t *testing.T) {
	port := uint16(49152)
	b := state.Binding{Enabled: true, Net: state.NetInfo{AssignedPort: &port}, Addresses: state.NewAddresses(), Interfaces: map[string]state.ServiceInterface{"ui": {}}}
	onion := state.HostnameInfo{Hostname: "x.onion", Public: true, Metadata: state.HostnameMetadata{Kind: state.KindPlugin, PackageID: "tor"}}
	b.Addresses.Available = []state.HostnameInfo{onion}
	h := state.NewHost()
	h.Bindings["80"] = b
	hosts := map[string]state.Host{"ui": h}
	own := []Own{{Gateway: "eth0", Prefix: netip.MustParsePrefix("192.0.2.10/24")}}
	require.True(t, refresh(hosts, own))
	require.False(t, refresh(hosts, own))
	got := hosts["ui"].Bindings["80"].Addresses.Available
	require.Len(t, got, 2)
	require.Equal(t, onion, got[1])
}
