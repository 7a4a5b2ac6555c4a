package service

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/selfstead/selfstead/patchdb"
	"github.com/selfstead/selfstead/server/authority"
	"github.com/selfstead/selfstead/server/network"
	"github.com/selfstead/selfstead/server/service/effect"
	"github.com/selfstead/selfstead/server/state"
)

// Issuer makes certificates; authority.Authority is one.
type Issuer interface {
	Issue(names []string, algorithm string) (*authority.Issued, error)
}

// zones are the domains in which containers have names.
var zones = []string{".startos", ".embassy"}

// named is whose a host name or address is.
type named struct {
	known, own bool
}

// nameOwner says whether a name belongs to any package, to the containers'
// network or to the server, and whether it is the package's own. Only names
// that are somebody's get a certificate, and only its owner gets the key.
func (m *Manager) nameOwner(pkg, name string) (named, error) {
	name = strings.ToLower(name)
	ip, ipErr := netip.ParseAddr(name)
	var n named
	err := m.db.View(func(tx *patchdb.Tx) error {
		ids, err := tx.Keys(state.PackageData)
		if err != nil {
			return err
		}
		for _, id := range ids {
			yes := false
			for _, zone := range zones {
				yes = yes || name == id+zone || strings.HasSuffix(name, "."+id+zone)
			}
			if keep, err := patchdb.TxGet[state.ServiceKeep](tx, keepPointer(id)); err == nil && ipErr == nil {
				yes = yes || ip == parseAddr(keep.Addr4) || ip == parseAddr(keep.Addr6)
			}
			hosts := map[string]state.Host{}
			if err := tx.Get(state.PackagePointer(id, "hosts"), &hosts); err != nil && !errors.Is(err, patchdb.ErrNotFound) {
				return err
			}
			for _, h := range hosts {
				_, public := h.PublicDomains[name]
				_, private := h.PrivateDomains[name]
				yes = yes || public || private
				for _, b := range h.Bindings {
					// The server's own addresses are among these; they are not the
					// package's alone.
					available := slices.ContainsFunc(b.Addresses.Available, func(a state.HostnameInfo) bool {
						return a.Hostname == name && a.Metadata.Gateway != network.LoopbackName
					})
					n.known = n.known || available
				}
			}
			n.known = n.known || yes
			n.own = n.own || yes && id == pkg
		}
		for _, part := range []string{"subnet4", "subnet6"} {
			text, err := patchdb.TxGet[string](tx, state.PrivatePointer(part))
			if subnet, perr := netip.ParsePrefix(text); err == nil && perr == nil && ipErr == nil {
				n.known = n.known || subnet.Contains(ip)
			}
		}
		gateways := map[string]state.Gateway{}
		if err := tx.Get(patchdb.Join(state.ServerInfo, "network", "gateways"), &gateways); err != nil && !errors.Is(err, patchdb.ErrNotFound) {
			return err
		}
		for _, g := range gateways {
			for _, s := range g.Subnets {
				if p, err := netip.ParsePrefix(s); err == nil && ipErr == nil {
					n.known = n.known || p.Addr() == ip
				}
			}
		}
		return nil
	})
	return n, err
}

// issue makes the certificate for names that the package may have.
func (m *Manager) issue(pkg string, names []string, algorithm string, key bool) (*authority.Issued, error) {
	if m.issuer == nil {
		return nil, effect.Fail(effect.KindOpenSSL, "this server does not issue certificates to services")
	}
	for _, name := range names {
		n, err := m.nameOwner(pkg, name)
		switch {
		case err != nil:
			return nil, err
		case !n.known:
			return nil, effect.Fail(effect.KindNotFound, "%s is no name of this server or of its packages", name)
		case key && !n.own:
			return nil, effect.Fail(effect.KindNotFound, "%s is no name of package %s, so it does not get its key", name, pkg)
		}
	}
	got, err := m.issuer.Issue(names, algorithm)
	if err != nil {
		return nil, effect.Fail(effect.KindOpenSSL, "%s", err)
	}
	return got, nil
}

// Certificate implements effect.Host. The callback fires when the certificate
// is due for renewal.
func (r *instance) Certificate(_ context.Context, names []string, algorithm string, callback *int64) ([]string, error) {
	m := r.u.m
	got, err := m.issue(r.u.id, names, algorithm, false)
	if err != nil {
		return nil, err
	}
	if callback != nil {
		at := patchdb.Join("/certificates", algorithm, strings.Join(slices.Sorted(slices.Values(names)), " "))
		m.watch.add(r, *callback, at)
		m.renewAt(at, got.Renew)
	}
	return got.Chain, nil
}

// Key implements effect.Host.
func (r *instance) Key(_ context.Context, names []string, algorithm string) (string, error) {
	got, err := r.u.m.issue(r.u.id, names, algorithm, true)
	if err != nil {
		return "", err
	}
	return got.Key, nil
}

// renewAt fires the callbacks that watch a certificate once it is due.
func (m *Manager) renewAt(at patchdb.Pointer, due time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.renewals[at] != nil || m.closed {
		return
	}
	m.renewals[at] = time.AfterFunc(time.Until(due)+time.Second, func() {
		m.mu.Lock()
		delete(m.renewals, at)
		m.mu.Unlock()
		for run, ids := range m.watch.take([]patchdb.Pointer{at}) {
			run.notify(ids)
		}
	})
}
