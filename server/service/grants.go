package service

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/selfstead/selfstead/patchdb"
	"github.com/selfstead/selfstead/server/api"
	"github.com/selfstead/selfstead/server/network"
	"github.com/selfstead/selfstead/server/problem"
	"github.com/selfstead/selfstead/server/state"
)

// Grants lists which packages may open connections to one, sorted.
func (m *Manager) Grants(id string) ([]api.Grant, error) {
	list := []api.Grant{}
	err := m.db.View(func(tx *patchdb.Tx) error {
		if !tx.Exists(state.PackagePointer(id)) {
			return problem.NotFound("package", id)
		}
		access, err := network.Access(tx)
		if err != nil {
			return err
		}
		granted, err := grants(tx, id)
		if err != nil {
			return err
		}
		for _, client := range access[id] {
			g := api.Grant{Client: client}
			if since, ok := granted[client]; ok {
				g.Granted = &since
			}
			needs, err := tx.Keys(state.PackagePointer(client, "stateInfo", "manifest", "dependencies"))
			g.Declared = err == nil && slices.Contains(needs, id)
			list = append(list, g)
		}
		return nil
	})
	return list, err
}

func grants(tx *patchdb.Tx, id string) (map[string]time.Time, error) {
	list, err := patchdb.TxGet[map[string]time.Time](tx, state.PackagePointer(id, "grants"))
	if errors.Is(err, patchdb.ErrNotFound) {
		return nil, nil
	}
	return list, err
}

// Grant lets a package open connections to another one that it does not declare
// as a dependency, until Revoke or until either is removed. At return it can.
func (m *Manager) Grant(ctx context.Context, id, client string) error {
	if err := m.await(ctx); err != nil {
		return err
	}
	if id == client {
		return problem.New(422, problem.CodeInvalid, "a package needs no grant for itself").WithField("path.client", "expected another package", client)
	}
	_, err := m.db.Update(ctx, func(tx *patchdb.Tx) error {
		for _, p := range []string{id, client} {
			if !tx.Exists(state.PackagePointer(p)) {
				return problem.NotFound("package", p)
			}
		}
		if list, err := grants(tx, id); err != nil || !list[client].IsZero() {
			return err
		}
		return tx.PutAll(state.PackagePointer(id, "grants", client), time.Now().UTC().Truncate(time.Second))
	})
	if err != nil {
		return err
	}
	return m.syncAccess(ctx)
}

// Revoke takes a grant back. At return the client cannot reach the package any
// longer, connections that it had included, unless its manifest declares it.
func (m *Manager) Revoke(ctx context.Context, id, client string) error {
	if err := m.await(ctx); err != nil {
		return err
	}
	_, err := m.db.Update(ctx, func(tx *patchdb.Tx) error {
		if !tx.Exists(state.PackagePointer(id)) {
			return problem.NotFound("package", id)
		}
		at := state.PackagePointer(id, "grants", client)
		if !tx.Exists(at) {
			return problem.NotFound("grant", client+" of "+id)
		}
		return tx.Remove(at)
	})
	if err != nil {
		return err
	}
	return m.syncAccess(ctx)
}

// dropGrants takes a package that goes out of the grants of all others.
func dropGrants(tx *patchdb.Tx, client string) error {
	ids, err := tx.Keys(state.PackageData)
	if err != nil {
		return err
	}
	for _, id := range ids {
		if at := state.PackagePointer(id, "grants", client); tx.Exists(at) {
			if err := tx.Remove(at); err != nil {
				return err
			}
		}
	}
	return nil
}
