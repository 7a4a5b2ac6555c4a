package service_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/selfstead/selfstead/s9pk"
	"github.com/selfstead/selfstead/server/operation"
	"github.com/selfstead/selfstead/server/service/effect"
	"github.com/stretchr/testify/require"
)

// Addresses that a package provides for another stay while either is made anew
// and while servers come and go, and leave with the package that provides them.
func TestAddressesOfAPlugin(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.start()
	l.install(build(t, testPackage{ID: "base", Port: 18081}))
	l.install(build(t, testPackage{ID: "tor", Port: 18082, Manifest: func(m *s9pk.Manifest) { m.Plugins = []string{"url-v0"} }}))
	l.install(build(t, testPackage{ID: "other", Port: 18083}))
	l.healthy("base")
	l.healthy("tor")
	export := map[string]any{"removeAction": nil, "overflowActions": []any{}, "hostnameInfo": map[string]any{
		"packageId": "base", "hostId": "ui-multi", "internalPort": 8080, "ssl": false, "public": true, "hostname": "x.onion", "port": 80, "info": nil}}
	provided := func() (names []string) {
		t.Helper()
		result, e := l.effect("base", "get-host-info", map[string]any{"hostId": "ui-multi"})
		require.Nil(t, e)
		var host struct {
			Bindings map[string]struct {
				Addresses struct {
					Available []struct {
						Hostname string
						Metadata struct{ Kind, PackageID string }
					}
				}
			}
		}
		require.NoError(t, json.Unmarshal(result, &host))
		for _, a := range host.Bindings["8080"].Addresses.Available {
			if a.Metadata.Kind == "plugin" {
				require.Equal(t, "tor", a.Metadata.PackageID)
				names = append(names, a.Hostname)
			}
		}
		return names
	}
	_, e := l.effect("other", "plugin.url.export-url", export)
	require.NotNil(t, e)
	require.Equal(t, effect.KindInvalidRequest, e.Code, "its manifest does not say that it is one")
	_, e = l.effect("tor", "plugin.url.register", map[string]any{"tableAction": "set-name"})
	require.Nil(t, e)
	for range 2 {
		_, e = l.effect("tor", "plugin.url.export-url", export)
		require.Nil(t, e)
	}
	require.Equal(t, []string{"x.onion"}, provided())

	pid := l.pid("base")
	l.json("POST", "/v1/packages/base:rebuild", "", 202, nil)
	l.await("another container", 20*time.Second, func() bool {
		for _, now := range l.inits() {
			if now == pid {
				return false
			}
		}
		return len(l.inits()) == 3
	})
	l.healthy("base")
	require.Equal(t, []string{"x.onion"}, provided())
	l.kill()
	l.start()
	l.healthy("base")
	require.Equal(t, []string{"x.onion"}, provided())
	var op operation.Operation
	l.json("DELETE", "/v1/packages/tor", "", 202, &op)
	require.Equal(t, operation.Succeeded, l.finish(op.ID).Status)
	require.Empty(t, provided())
}
