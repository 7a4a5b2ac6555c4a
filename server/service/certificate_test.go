package service

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

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
		_, err := m.issue(t.Context(), "own", []string{name}, authority.ECDSA, false)
		require.Equal(t, want.known, err == nil, "certificate %s: %v", name, err)
		_, err = m.issue(t.Context(), "own", []string{name}, authority.ECDSA, true)
		require.Equal(t, want.own, err == nil, "key %s: %v", name, err)
		if err != nil {
			var e *rpc.Error
			require.ErrorAs(t, err, &e)
			require.Equal(t, 6, e.Code)
		}
	}
	_, err = m.issue(t.Context(), "own", []string{"own.startos", "other.startos"}, authority.ECDSA, true)
	require.Error(t, err)
	_, err = (&Manager{db: db}).issue(t.Context(), "own", []string{"own.startos"}, authority.ECDSA, false)
	require.ErrorContains(t, err, "does not issue")
}

// A package has certificates for so many sets of names and no more: it can make
// up names without end.
func TestCertificatesAreBounded(t *testing.T) {
	db, err := patchdb.Open(filepath.Join(t.TempDir(), "db"), patchdb.Options{})
	require.NoError(t, err)
	defer db.Close()
	root, err := authority.Open(authority.Options{Dir: t.TempDir()})
	require.NoError(t, err)
	doc := state.New()
	doc.Public.PackageData = map[string]state.Package{"own": {}, "other": {}}
	_, err = db.Put(t.Context(), "", doc)
	require.NoError(t, err)
	m := &Manager{db: db, issuer: root}
	for i := range maxCertificates {
		_, err = m.issue(t.Context(), "own", []string{fmt.Sprintf("n%d.own.startos", i)}, authority.Ed25519, false)
		require.NoError(t, err)
	}
	_, err = m.issue(t.Context(), "own", []string{"more.own.startos"}, authority.Ed25519, false)
	require.ErrorContains(t, err, "no more are given")
	_, err = m.issue(t.Context(), "own", []string{"N7.own.startos"}, authority.Ed25519, true)
	require.NoError(t, err, "what it has it can ask for again")
	_, err = m.issue(t.Context(), "other", []string{"other.startos"}, authority.Ed25519, false)
	require.NoError(t, err, "others have room of their own")
}

// The callback of a certificate fires once it is due and not before, whatever
// timers do meanwhile: the machine may sleep and its clock may be set.
func TestRenewalFollowsTheClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var set atomic.Int64 // what the clock was set forward by, nanoseconds
		m := &Manager{
			now:   func() time.Time { return time.Now().Add(time.Duration(set.Load())) },
			watch: newWatchers[*instance](), renewals: map[patchdb.Pointer]*time.Timer{},
		}
		run := &instance{note: make(chan struct{}, 1), log: slog.New(slog.DiscardHandler)}
		fired := func() (ids []int64) {
			synctest.Wait()
			run.mu.Lock()
			defer run.mu.Unlock()
			ids, run.notes = run.notes, nil
			return ids
		}
		m.watch.add(run, 7, "/certificates/a")
		m.watch.add(run, 8, "/certificates/b")
		m.renewAt("/certificates/a", m.now().Add(60*24*time.Hour))
		m.renewAt("/certificates/b", m.now().Add(90*24*time.Hour))
		<-time.After(60*24*time.Hour - time.Minute)
		require.Empty(t, fired())
		<-time.After(2 * time.Minute)
		require.Equal(t, []int64{7}, fired())
		set.Store(int64(31 * 24 * time.Hour))
		<-time.After(renewLook + time.Second)
		require.Equal(t, []int64{8}, fired(), "the clock was set")
		m.mu.Lock()
		require.Empty(t, m.renewals)
		m.mu.Unlock()
		m.renewAt("/certificates/a", m.now()) // due already
		m.watch.add(run, 9, "/certificates/a")
		<-time.After(2 * time.Second)
		require.Equal(t, []int64{9}, fired())
	})
}
