package network

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/selfstead/selfstead/nat"
	"github.com/selfstead/selfstead/patchdb"
	"github.com/selfstead/selfstead/server/state"
)

func openDB(t *testing.T, packages ...string) *patchdb.DB {
	t.Helper()
	db, err := patchdb.Open(filepath.Join(t.TempDir(), "state.db"), patchdb.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	doc := state.New()
	for _, p := range packages {
		doc.Public.PackageData[p] = state.Package{Hosts: map[string]state.Host{}}
	}
	_, err = db.Put(t.Context(), "", doc)
	require.NoError(t, err)
	return db
}

func update(t *testing.T, db *patchdb.DB, fn func(*patchdb.Tx) error) {
	t.Helper()
	_, err := db.Update(t.Context(), fn)
	require.NoError(t, err)
}

func hosts(t *testing.T, db *patchdb.DB, pkg string) map[string]state.Host {
	t.Helper()
	h, err := patchdb.Get[map[string]state.Host](db, hostsPointer(pkg))
	require.NoError(t, err)
	return h
}

func http(preferred uint16) state.BindOptions {
	return state.BindOptions{PreferredExternalPort: preferred, AddSSL: &state.AddSSL{PreferredExternalPort: 443}}
}

func TestBindKeepsItsPorts(t *testing.T) {
	t.Parallel()
	db := openDB(t, "web", "other")
	update(t, db, func(tx *patchdb.Tx) error { return Bind(tx, "web", "main", 80, http(80)) })
	b := hosts(t, db, "web")["main"].Bindings["80"]
	require.True(t, b.Enabled)
	require.GreaterOrEqual(t, *b.Net.AssignedPort, uint16(49152), "80 is never given")
	require.NotNil(t, b.Net.AssignedSSLPort)
	require.NotEqual(t, *b.Net.AssignedPort, *b.Net.AssignedSSLPort)

	update(t, db, func(tx *patchdb.Tx) error { return Bind(tx, "other", "main", 80, http(80)) })
	o := hosts(t, db, "other")["main"].Bindings["80"]
	require.NotEqual(t, *b.Net.AssignedPort, *o.Net.AssignedPort)

	update(t, db, func(tx *patchdb.Tx) error { return ClearBindings(tx, "web", nil) })
	require.False(t, hosts(t, db, "web")["main"].Bindings["80"].Enabled)
	update(t, db, func(tx *patchdb.Tx) error { return Bind(tx, "web", "main", 80, http(80)) })
	again := hosts(t, db, "web")["main"].Bindings["80"]
	require.True(t, again.Enabled)
	require.Equal(t, b.Net, again.Net)

	update(t, db, func(tx *patchdb.Tx) error { return Release(tx, "web") })
	owners, err := patchdb.Get[map[string]state.PortOwner](db, portsPointer)
	require.NoError(t, err)
	require.Len(t, owners, 2)
	for _, o := range owners {
		require.Equal(t, "other", o.Package)
	}
}

func TestPreferredPort(t *testing.T) {
	t.Parallel()
	for port, given := range map[uint16]bool{48213: true, 1024: false, 5353: false, 5432: false, 9050: false, 0: false} {
		db := openDB(t, "a")
		update(t, db, func(tx *patchdb.Tx) error {
			return Bind(tx, "a", "h", 9000, state.BindOptions{PreferredExternalPort: port})
		})
		b := hosts(t, db, "a")["h"].Bindings["9000"]
		require.Equal(t, given, *b.Net.AssignedPort == port, "preferred %d gave %d", port, *b.Net.AssignedPort)
		require.Nil(t, b.Net.AssignedSSLPort)
	}
}

func TestOwnTLSWithTLSBeforeItHasNoPlainPort(t *testing.T) {
	t.Parallel()
	db := openDB(t, "a")
	o := http(443)
	o.Secure = &state.Security{SSL: true}
	update(t, db, func(tx *patchdb.Tx) error { return Bind(tx, "a", "h", 443, o) })
	b := hosts(t, db, "a")["h"].Bindings["443"]
	require.Nil(t, b.Net.AssignedPort)
	require.NotNil(t, b.Net.AssignedSSLPort)
	o.AddSSL = nil
	update(t, db, func(tx *patchdb.Tx) error { return Bind(tx, "a", "h", 443, o) })
	b = hosts(t, db, "a")["h"].Bindings["443"]
	require.NotNil(t, b.Net.AssignedPort)
	require.Nil(t, b.Net.AssignedSSLPort, "a port that is no longer needed is freed")
}

func TestRanges(t *testing.T) {
	t.Parallel()
	db := openDB(t, "a", "b")
	update(t, db, func(tx *patchdb.Tx) error { return BindRange(tx, "a", "h", 7000, 47000, 10) })
	update(t, db, func(tx *patchdb.Tx) error { return BindRange(tx, "a", "h", 7000, 47000, 10) })
	_, err := db.Update(t.Context(), func(tx *patchdb.Tx) error { return BindRange(tx, "b", "h", 1, 47009, 2) })
	require.ErrorIs(t, err, ErrPortTaken)
	require.ErrorContains(t, err, "by a")
	require.Empty(t, hosts(t, db, "b"), "all or nothing")
	for _, bad := range [][3]int{{7000, 47000, 1}, {7000, 47000, 501}, {7000, 80, 10}, {65535, 47000, 2}, {0, 47000, 2}} {
		_, err := db.Update(t.Context(), func(tx *patchdb.Tx) error {
			return BindRange(tx, "b", "h", uint16(bad[0]), uint16(bad[1]), bad[2])
		})
		require.ErrorIs(t, err, ErrInvalid, "%v", bad)
	}
	update(t, db, func(tx *patchdb.Tx) error { return BindRange(tx, "a", "h", 7000, 47100, 5) })
	update(t, db, func(tx *patchdb.Tx) error { return BindRange(tx, "b", "h", 7000, 47000, 10) })
}

func TestInterfaces(t *testing.T) {
	t.Parallel()
	db := openDB(t, "a")
	i := state.ServiceInterface{ID: "ui", Type: "ui", AddressInfo: state.AddressInfo{HostID: "h", InternalPort: 80}}
	_, err := db.Update(t.Context(), func(tx *patchdb.Tx) error { return ExportInterface(tx, "a", i) })
	require.ErrorIs(t, err, ErrNotFound)
	update(t, db, func(tx *patchdb.Tx) error {
		if err := Bind(tx, "a", "h", 80, http(80)); err != nil {
			return err
		}
		if err := BindRange(tx, "a", "h", 90, 46000, 2); err != nil {
			return err
		}
		if err := ExportRangeInterface(tx, "a", "h", 90, state.RangeInterface{ID: "r"}); err != nil {
			return err
		}
		return ExportInterface(tx, "a", i)
	})
	require.Equal(t, i, hosts(t, db, "a")["h"].Bindings["80"].Interfaces["ui"])
	update(t, db, func(tx *patchdb.Tx) error { return ClearInterfaces(tx, "a", []string{"ui"}) })
	require.Contains(t, hosts(t, db, "a")["h"].Bindings["80"].Interfaces, "ui")
	require.Nil(t, hosts(t, db, "a")["h"].BindingRanges["90"].Interface)
	update(t, db, func(tx *patchdb.Tx) error { return ClearInterfaces(tx, "a", nil) })
	require.Empty(t, hosts(t, db, "a")["h"].Bindings["80"].Interfaces)
}

func TestForwardsAndAddresses(t *testing.T) {
	t.Parallel()
	db := openDB(t, "a")
	update(t, db, func(tx *patchdb.Tx) error {
		if err := BindRange(tx, "a", "h", 90, 45000, 3); err != nil {
			return err
		}
		return Bind(tx, "a", "h", 80, state.BindOptions{PreferredExternalPort: 45100})
	})
	own := append([]Own{
		{Gateway: "eth0", Prefix: netip.MustParsePrefix("192.168.1.10/24"), Default: true},
		{Gateway: "eth0", Prefix: netip.MustParsePrefix("fd00::10/64"), Default: true},
	}, inside(netip.MustParseAddr("10.59.0.1"))...)
	all := map[string]map[string]state.Host{"a": hosts(t, db, "a")}
	require.Empty(t, forwards(all, nil, own, nil).Forwards, "no container, no forward")
	c := map[string]Container{"a": {netip.MustParseAddr("10.59.0.2"), netip.MustParseAddr("fd00:59::2")}}
	clients := map[string][]netip.Addr{"a": {netip.MustParseAddr("10.59.0.3"), netip.MustParseAddr("fd00:59::3")}}
	sources := func(cfg nat.Config) (out []string) {
		require.NoError(t, cfg.Validate())
		for _, f := range cfg.Forwards {
			out = append(out, f.Source.String())
		}
		return out
	}
	// Nobody was told of the binding: it stays inside.
	cfg := forwards(all, c, own, clients)
	require.Equal(t, []string{"10.59.0.1:45100", "127.0.0.1:45100", "10.59.0.1:45000", "127.0.0.1:45000"}, sources(cfg))
	require.True(t, refresh(all["a"], own))
	require.Len(t, all["a"]["h"].Bindings["80"].Addresses.Available, 2)

	update(t, db, func(tx *patchdb.Tx) error {
		i := state.ServiceInterface{ID: "ui", Type: "ui", AddressInfo: state.AddressInfo{HostID: "h", InternalPort: 80}}
		if err := ExportInterface(tx, "a", i); err != nil {
			return err
		}
		return ExportRangeInterface(tx, "a", "h", 90, state.RangeInterface{ID: "r"})
	})
	all["a"] = hosts(t, db, "a")
	cfg = forwards(all, c, own, clients)
	require.Len(t, cfg.Forwards, 8)
	f := cfg.Forwards[0]
	require.Equal(t, "192.168.1.10:45100", f.Source.String())
	require.Equal(t, 32, f.Target.Prefix)
	require.Equal(t, uint16(80), f.Target.Port)
	require.Empty(t, f.AllowFrom, "anyone")
	require.Equal(t, "[fd00::10]:45100", cfg.Forwards[1].Source.String())
	f = cfg.Forwards[2]
	require.Equal(t, "10.59.0.1:45100", f.Source.String())
	require.Equal(t, []netip.Prefix{netip.MustParsePrefix("10.59.0.2/32"), netip.MustParsePrefix("10.59.0.3/32")}, f.AllowFrom, "itself and its client")
	require.Equal(t, []netip.Prefix{netip.MustParsePrefix("10.59.0.2/32")}, forwards(all, c, own, nil).Forwards[2].AllowFrom, "no client is not everyone")

	// A whole subnet is said where everyone may come in, and nowhere else.
	m := &Manager{o: Options{Subnet4: netip.MustParsePrefix("10.59.0.0/16"), Subnet6: netip.MustParsePrefix("fd00:59::/64")}}
	for _, f := range m.inSubnets(cfg).Forwards {
		want := 16
		switch {
		case len(f.AllowFrom) > 0:
			want = 32
		case f.Source.Addr().Is6():
			want = 64
		}
		require.Equal(t, want, f.Target.Prefix, f.Name)
	}

	require.True(t, refresh(all["a"], own))
	require.False(t, refresh(all["a"], own), "nothing new")
	got := all["a"]["h"].Bindings["80"].Addresses.Available
	require.Len(t, got, 4)
	require.Equal(t, BridgeName, got[2].Metadata.Gateway)
	require.Equal(t, LoopbackName, got[3].Metadata.Gateway)
	require.Equal(t, "ipv6", got[1].Metadata.Kind)
	require.True(t, refresh(all["a"], own[:1]))

	n := describe(own[:2])
	require.Equal(t, "192.168.1.10", n.Outside)
	require.Equal(t, []string{"192.168.1.10/24", "fd00::10/64"}, n.Gateways["eth0"].Subnets)
}

// Who reaches whom is what manifests declare and owners grant, nothing else.
func TestAccess(t *testing.T) {
	t.Parallel()
	db := openDB(t, "server", "dependent", "granted", "sibling")
	update(t, db, func(tx *patchdb.Tx) error {
		for id, manifest := range map[string]string{
			"dependent": `{"id":"dependent","dependencies":{"server":{},"dependent":{},"gone":{}}}`,
			"granted":   `{"id":"granted","dependencies":null}`,
			"sibling":   `{"id":"sibling","dependencies":{}}`,
		} {
			if err := tx.Put(state.PackagePointer(id, "stateInfo", "manifest"), json.RawMessage(manifest)); err != nil {
				return err
			}
		}
		for i, id := range []string{"server", "dependent", "granted", "sibling"} {
			keep := state.ServiceKeep{Addr4: fmt.Sprintf("10.59.0.%d", i+2)}
			if err := tx.PutAll(state.PrivatePointer("services", id), keep); err != nil {
				return err
			}
		}
		if err := tx.PutAll(state.PackagePointer("server", "grants"), map[string]time.Time{"granted": {}, "gone": {}, "server": {}, "dependent": {}}); err != nil {
			return err
		}
		return tx.Put(state.PackagePointer("sibling", "currentDependencies"), json.RawMessage(`{"server":{}}`))
	})
	require.NoError(t, db.View(func(tx *patchdb.Tx) error {
		access, err := Access(tx)
		require.NoError(t, err)
		require.Equal(t, []string{"dependent", "granted"}, access["server"])
		for _, id := range []string{"dependent", "granted", "sibling", "gone"} {
			require.Empty(t, access[id], id)
		}
		clients, err := clientAddresses(tx)
		require.NoError(t, err)
		require.Equal(t, []netip.Addr{netip.MustParseAddr("10.59.0.3"), netip.MustParseAddr("10.59.0.4")}, clients["server"])
		return nil
	}))
}

func TestPublic(t *testing.T) {
	t.Parallel()
	for ip, want := range map[string]bool{"8.8.8.8": true, "192.168.1.1": false, "10.0.0.1": false, "100.64.3.1": false, "fd00::1": false, "2001:db8::1": false} {
		require.Equal(t, want, public(netip.MustParseAddr(ip)), ip)
	}
}
