package service

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
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
func (m *Manager) issue(ctx context.Context, pkg string, names []string, algorithm string, key bool) (*authority.Issued, error) {
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
	if err := m.roomForCertificate(ctx, pkg, certificateKey(names, algorithm)); err != nil {
		return nil, err
	}
	got, err := m.issuer.Issue(names, algorithm)
	if err != nil {
		return nil, effect.Fail(effect.KindOpenSSL, "%s", err)
	}
	return got, nil
}

// certificateKey is the same for the same names, in whatever order and case.
func certificateKey(names []string, algorithm string) string {
	list := []string{}
	for _, n := range names {
		list = append(list, strings.ToLower(n))
	}
	slices.Sort(list)
	return algorithm + " " + strings.Join(slices.Compact(list), " ")
}

// Certificate implements effect.Host. The callback fires when the certificate
// is due for renewal.
func (r *instance) Certificate(ctx context.Context, names []string, algorithm string, callback *int64) ([]string, error) {
	m := r.u.m
	got, err := m.issue(ctx, r.u.id, names, algorithm, false)
	if err != nil {
		return nil, err
	}
	if callback != nil {
		at := patchdb.Join("/certificates", certificateKey(names, algorithm))
		m.watch.add(r, *callback, at)
		m.renewAt(at, got.Renew)
	}
	return got.Chain, nil
}

// Key implements effect.Host.
func (r *instance) Key(ctx context.Context, names []string, algorithm string) (string, error) {
	got, err := r.u.m.issue(ctx, r.u.id, names, algorithm, true)
	if err != nil {
		return "", err
	}
	return got.Key, nil
}

// renewLook is how often at least the clock is asked whether a certificate is
// due: a machine may sleep, and its clock may be set.
const renewLook = 12 * time.Hour

// renewAt fires the callbacks that watch a certificate once it is due.
func (m *Manager) renewAt(at patchdb.Pointer, due time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.renewals[at] == nil {
		m.awaitRenewalLocked(at, due)
	}
}

func (m *Manager) awaitRenewalLocked(at patchdb.Pointer, due time.Time) {
	if m.closed {
		return
	}
	left := due.Round(0).Sub(m.now().Round(0)) // by the clock on the wall, which may have been set
	m.renewals[at] = time.AfterFunc(min(max(left, 0)+time.Second, renewLook), func() {
		m.mu.Lock()
		delete(m.renewals, at)
		if m.now().Before(due) {
			m.awaitRenewalLocked(at, due)
			m.mu.Unlock()
			return
		}
		m.mu.Unlock()
		for run, ids := range m.watch.take([]patchdb.Pointer{at}) {
			run.notify(ids)
		}
	})
}

// maxCertificates is how many sets of names a package may have certificates
// for: each is a key and a file of the server.
const maxCertificates = 256

// certificatesPointer is where the sets of names stand that a package has
// certificates for.
func certificatesPointer(pkg string) patchdb.Pointer {
	return state.PrivatePointer("certificates", pkg)
}

// roomForCertificate remembers a set of names, unless the package has too many.
func (m *Manager) roomForCertificate(ctx context.Context, pkg, set string) error {
	sum := sha256.Sum256([]byte(set))
	key := hex.EncodeToString(sum[:8])
	at := certificatesPointer(pkg)
	if has, err := patchdb.Get[[]string](m.db, at); err == nil && slices.Contains(has, key) {
		return nil
	}
	_, err := m.db.Update(ctx, func(tx *patchdb.Tx) error {
		has, err := patchdb.TxGet[[]string](tx, at)
		if err != nil && !errors.Is(err, patchdb.ErrNotFound) {
			return err
		}
		switch {
		case slices.Contains(has, key):
			return nil
		case len(has) >= maxCertificates:
			return effect.Fail(effect.KindInvalidRequest, "package %s has certificates for %d sets of names, no more are given", pkg, len(has))
		case !tx.Exists(state.PackagePointer(pkg)):
			return effect.Fail(effect.KindInvalidRequest, "Service has already been destroyed")
		}
		return tx.PutAll(at, append(has, key))
	})
	return err
}
