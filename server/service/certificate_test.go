package service

import (
	"path/filepath"
	"testing"

	"github.com/selfstead/selfstead/patchdb"
	"github.com/selfstead/selfstead/server/authority"
	"github.com/selfstead/selfstead/server/network"
	"github.com/selfstead/selfstead/server/service/rpc"
	"github.com/selfstead/selfstead/server/state"
	"github.com/stretchr/testify/require"
)

// Anyone may hold the certificate of a name that is somebody's here; its key
// goes to its owner alone.
func TestWhoGetsWhichCertificate(t *testing.T) {
	db, err := patchdb.Open(filepath.Join(t.TempDir(), "db"), patchdb.Options{})
	require.NoError(t, err)
	defer db.Close()
	root, err := authority.Open(authority.Options{Dir: t.TempDir()})
	require.NoError(t, err)
	doc := state.New()
	doc.Private.Subnet4 = "10.9.0.0/24"
	doc.Public.ServerInfo.Network.Gateways = map[string]state.Gateway{"eth0": {Subnets: []string{"192.0.2.10/24"}}}
	host := state.NewHost()
	host.PublicDomains["own.example.com"] = map[string]any{}
	host.Bindings["80"] = state.Binding{Addresses: state.Addresses{Available: []state.HostnameInfo{
		{Hostname: "127.0.0.1", Metadata: state.HostnameMetadata{Kind: "ipv4", Gateway: network.LoopbackName}},
		{Hostname: "192.0.2.12", Metadata: state.HostnameMetadata{Kind: "ipv4", Gateway: "eth0"}},
	}}}
	doc.Public.PackageData = map[string]state.Package{"own": {Hosts: map[string]state.Host{"ui": host}}, "other": {}}
	doc.Private.Services = map[string]state.ServiceKeep{"own": {Addr4: "10.9.0.2"}, "other": {Addr4: "10.9.0.3"}}
	_, err = db.Put(t.Context(), "", doc)
	require.NoError(t, err)
	m := &Manager{db: db, issuer: root}
	for name, want := range map[string]named{
		"own.startos": {true, true}, "OWN.embassy": {true, true}, "db.own.startos": {true, true}, "own.example.com": {true, true}, "10.9.0.2": {true, true},
		"other.startos": {true, false}, "10.9.0.3": {true, false}, "10.9.0.1": {true, false}, "192.0.2.10": {true, false}, "192.0.2.12": {true, false},
		"nix.startos": {}, "example.com": {}, "192.0.2.11": {}, "startos": {}, "127.0.0.1": {},
	} {
		_, err := m.issue("own", []string{name}, authority.ECDSA, false)
		require.Equal(t, want.known, err == nil, "certificate %s: %v", name, err)
		_, err = m.issue("own", []string{name}, authority.ECDSA, true)
		require.Equal(t, want.own, err == nil, "key %s: %v", name, err)
		if err != nil {
			var e *rpc.Error
			require.ErrorAs(t, err, &e)
			require.Equal(t, 6, e.Code)
		}
	}
	_, err = m.issue("own", []string{"own.startos", "other.startos"}, authority.ECDSA, true)
	require.Error(t, err)
	_, err = (&Manager{db: db}).issue("own", []string{"own.startos"}, authority.ECDSA, false)
	require.ErrorContains(t, err, "does not issue")
}
