package effect

import (
	"context"
	"encoding/json"
	"errors"
	"slices"

	"github.com/selfstead/selfstead/patchdb"
	"github.com/selfstead/selfstead/server/state"
)

var _ = register(map[string]method{
	"plugin.url.register":   typed(registerURLPlugin),
	"plugin.url.export-url": typed(exportURL, "hostnameInfo"),
	"plugin.url.clear-urls": typed(clearURLs),
})

// urlPlugin refuses packages whose manifest does not say that they provide
// addresses for others.
func (h *Handler) urlPlugin() error {
	for _, manifest := range []patchdb.Pointer{
		h.own("stateInfo", "manifest"), h.own("stateInfo", "installingInfo", "newManifest"), // which may be the caller's, in an update
	} {
		plugins, _ := patchdb.Get[[]string](h.DB, patchdb.Join(manifest, "plugins"))
		if slices.Contains(plugins, "url-v0") {
			return nil
		}
	}
	return Fail(KindInvalidRequest, "the manifest does not list the plugin url-v0")
}

func registerURLPlugin(ctx context.Context, h *Handler, p struct {
	TableAction ID `json:"tableAction"`
}) (any, error) {
	if err := errors.Join(p.TableAction.check(), h.urlPlugin()); err != nil {
		return nil, err
	}
	return nil, h.update(ctx, func(tx *patchdb.Tx) error {
		return tx.PutAll(h.own("plugin", "url"), map[string]ID{"tableAction": p.TableAction})
	})
}

// pluginHostname is an address that a plugin provides for a binding.
type pluginHostname struct {
	PackageID    *ID             `json:"packageId"`
	HostID       ID              `json:"hostId"`
	InternalPort uint16          `json:"internalPort"`
	SSL          bool            `json:"ssl"`
	Public       bool            `json:"public"`
	Hostname     string          `json:"hostname"`
	Port         *uint16         `json:"port"`
	Info         json.RawMessage `json:"info"`
}

// is reports whether an address of a binding is the one p speaks of.
func (p pluginHostname) is(pkg, host, port string, a state.HostnameInfo) bool {
	samePort := p.Port == a.Port || p.Port != nil && a.Port != nil && *p.Port == *a.Port
	return p.PackageID != nil && string(*p.PackageID) == pkg && string(p.HostID) == host && portKey(p.InternalPort) == port &&
		p.Hostname == a.Hostname && p.SSL == a.SSL && samePort
}

func exportURL(ctx context.Context, h *Handler, p struct {
	Hostname        pluginHostname `json:"hostnameInfo"`
	RemoveAction    *ID            `json:"removeAction"`
	OverflowActions []ID           `json:"overflowActions"`
}) (any, error) {
	n := p.Hostname
	if n.PackageID == nil {
		return nil, Fail(KindNotFound, "the server itself has no host that takes addresses of plugins")
	}
	if err := errors.Join(checkIDs(*n.PackageID, n.HostID), h.urlPlugin()); err != nil {
		return nil, err
	}
	if n.Hostname == "" {
		return nil, invalid("hostnameInfo.hostname is missing")
	}
	if err := checkIDs(p.OverflowActions...); err != nil {
		return nil, err
	}
	if p.RemoveAction != nil {
		if err := p.RemoveAction.check(); err != nil {
			return nil, err
		}
	}
	pkg, host, port := string(*n.PackageID), string(n.HostID), portKey(n.InternalPort)
	at := state.PackagePointer(pkg, "hosts", host, "bindings", port, "addresses", "available")
	return nil, h.update(ctx, func(tx *patchdb.Tx) error {
		list, err := patchdb.TxGet[[]state.HostnameInfo](tx, at)
		if errors.Is(err, patchdb.ErrNotFound) {
			return Fail(KindNotFound, "%s has no binding of port %s on host %s", pkg, port, host)
		}
		if err != nil {
			return err
		}
		list = slices.DeleteFunc(list, func(a state.HostnameInfo) bool {
			return a.Metadata.Kind == state.KindPlugin && a.Metadata.PackageID == h.Package && n.is(pkg, host, port, a)
		})
		if len(list) >= maxMembers {
			return Fail(KindInvalidRequest, "port %s of %s has %d addresses, no more are taken", port, pkg, len(list))
		}
		info := n.Info
		if len(info) == 0 {
			info = json.RawMessage("null")
		}
		return tx.Put(at, append(list, state.HostnameInfo{
			SSL: n.SSL, Public: n.Public, Hostname: n.Hostname, Port: n.Port,
			Metadata: state.HostnameMetadata{
				Kind: state.KindPlugin, PackageID: h.Package, RemoveAction: (*string)(p.RemoveAction), OverflowActions: texts(p.OverflowActions), Info: info,
			},
		}))
	})
}

func clearURLs(ctx context.Context, h *Handler, p struct {
	Except []pluginHostname `json:"except"`
}) (any, error) {
	if err := h.urlPlugin(); err != nil {
		return nil, err
	}
	return nil, h.update(ctx, func(tx *patchdb.Tx) error {
		return ClearURLs(tx, h.Package, func(pkg, host, port string, a state.HostnameInfo) bool {
			return slices.ContainsFunc(p.Except, func(n pluginHostname) bool { return n.is(pkg, host, port, a) })
		})
	})
}

// ClearURLs removes every address that a package provides for others, but those
// that keep wants; a nil keep wants none.
func ClearURLs(tx *patchdb.Tx, plugin string, keep func(pkg, host, port string, a state.HostnameInfo) bool) error {
	ids, err := tx.Keys(state.PackageData)
	if err != nil {
		return err
	}
	for _, pkg := range ids {
		hosts := map[string]state.Host{}
		if err := tx.Get(state.PackagePointer(pkg, "hosts"), &hosts); err != nil {
			return err
		}
		for host, x := range hosts {
			for port, b := range x.Bindings {
				n := len(b.Addresses.Available)
				list := slices.DeleteFunc(b.Addresses.Available, func(a state.HostnameInfo) bool {
					return a.Metadata.Kind == state.KindPlugin && a.Metadata.PackageID == plugin && (keep == nil || !keep(pkg, host, port, a))
				})
				if len(list) == n {
					continue
				}
				if err := tx.Put(state.PackagePointer(pkg, "hosts", host, "bindings", port, "addresses", "available"), list); err != nil {
					return err
				}
			}
		}
	}
	return nil
}
