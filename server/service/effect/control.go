package effect

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/selfstead/selfstead/patchdb"
	"github.com/selfstead/selfstead/server/service/status"
	"github.com/selfstead/selfstead/server/state"
)

var _ = register(map[string]method{
	"echo": typed(func(_ context.Context, _ *Handler, p struct {
		Message string `json:"message"`
	}) (any, error) {
		return p.Message, nil
	}, "message"),
	"restart": typed(func(ctx context.Context, h *Handler, _ none) (any, error) {
		return nil, h.updateOnce(ctx, func(tx *patchdb.Tx) error { return Edit(tx, h.Package, status.Restart) })
	}),
	"shutdown": typed(func(ctx context.Context, h *Handler, _ none) (any, error) {
		return nil, h.updateOnce(ctx, func(tx *patchdb.Tx) error { return Edit(tx, h.Package, status.Stop) })
	}),
	"rebuild":             typed(func(_ context.Context, h *Handler, _ none) (any, error) { h.Host.Rebuild(); return nil, nil }),
	"get-status":          typed(getStatus),
	"set-main-status":     typed(setMainStatus),
	"set-health":          typed(setHealth, "name", "result"),
	"clear-callbacks":     typed(clearCallbacks),
	"set-init-progress":   typed(setInitProgress),
	"set-backup-progress": typed(setBackupProgress),
	"get-data-version":    typed(func(_ context.Context, h *Handler, _ none) (any, error) { return h.Host.DataVersion() }),
	"set-data-version":    typed(setDataVersion),
})

// edit changes the caller's own entry by one of status's commands.
func (h *Handler) edit(ctx context.Context, command func(*state.Package)) error {
	return h.update(ctx, func(tx *patchdb.Tx) error { return Edit(tx, h.Package, command) })
}

// Edit changes what a command changes of a package's entry: the status and
// the words derived from it. Nothing else of the entry is rewritten.
func Edit(tx *patchdb.Tx, pkg string, command func(*state.Package)) error {
	var p state.Package
	at := func(name string) patchdb.Pointer { return state.PackagePointer(pkg, name) }
	if err := tx.Get(at("stateInfo"), &p.StateInfo); err != nil {
		return err
	}
	if err := tx.Get(at("statusInfo"), &p.StatusInfo); err != nil {
		return err
	}
	before, _ := json.Marshal(p.StatusInfo)
	command(&p)
	if after, _ := json.Marshal(p.StatusInfo); string(before) != string(after) {
		if err := tx.Put(at("statusInfo"), p.StatusInfo); err != nil {
			return err
		}
	}
	if err := tx.Put(at("state"), p.State); err != nil {
		return err
	}
	return tx.Put(at("desiredState"), p.DesiredState)
}

func getStatus(_ context.Context, h *Handler, p struct {
	PackageID *ID    `json:"packageId"`
	Callback  *int64 `json:"callback"`
}) (any, error) {
	pkg, err := h.pkg(p.PackageID)
	if err != nil {
		return nil, err
	}
	at := state.PackagePointer(pkg, "statusInfo")
	h.watch(p.Callback, at)
	return optional[state.StatusInfo](h.DB, at)
}

// optional is the value at p, or nil when there is none.
func optional[T any](db *patchdb.DB, p patchdb.Pointer) (any, error) {
	v, err := patchdb.Get[T](db, p)
	if errors.Is(err, patchdb.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return v, nil
}

func setMainStatus(ctx context.Context, h *Handler, p struct {
	Status string `json:"status"`
}) (any, error) {
	switch p.Status {
	case "running":
		return nil, h.edit(ctx, func(e *state.Package) { status.Started(e, time.Now()) })
	case "stopped":
		return nil, h.edit(ctx, status.Ended)
	}
	return nil, invalid("status is %q, not running or stopped", p.Status)
}

func setHealth(ctx context.Context, h *Handler, p struct {
	ID      ID      `json:"id"`
	Name    string  `json:"name"`
	Result  string  `json:"result"`
	Message *string `json:"message"`
}) (any, error) {
	if err := p.ID.check(); err != nil {
		return nil, err
	}
	switch p.Result {
	case "success", "disabled", "starting", "waiting":
	case "loading", "failure":
		if p.Message == nil {
			return nil, invalid("a health result %s needs a message", p.Result)
		}
	default:
		return nil, invalid("%q is not a health result", p.Result)
	}
	at := h.own("statusInfo", "health", string(p.ID))
	next := state.HealthResult{Name: p.Name, Result: p.Result, Message: p.Message}
	if now, err := patchdb.Get[state.HealthResult](h.DB, at); err == nil && equalHealth(now, next) {
		return nil, nil // health is repeated all the time; spare the disk
	}
	return nil, h.update(ctx, func(tx *patchdb.Tx) error { return h.put(tx, string(p.ID), next, "statusInfo", "health") })
}

func equalHealth(a, b state.HealthResult) bool {
	same := a.Message == b.Message || a.Message != nil && b.Message != nil && *a.Message == *b.Message
	return same && a.Name == b.Name && a.Result == b.Result
}

func clearCallbacks(_ context.Context, h *Handler, p struct {
	Only   []int64 `json:"only"`
	Except []int64 `json:"except"`
}) (any, error) {
	if p.Only == nil && p.Except == nil {
		return nil, invalid("only or except is missing")
	}
	h.Host.Forget(p.Only, p.Except)
	return nil, nil
}

type progressParams struct {
	Progress json.RawMessage `json:"progress"`
}

func setInitProgress(_ context.Context, h *Handler, p progressParams) (any, error) {
	if err := checkProgress(p.Progress, 0); err != nil {
		return nil, err
	}
	h.Host.InitProgress(p.Progress)
	return nil, nil
}

func setBackupProgress(_ context.Context, h *Handler, p progressParams) (any, error) {
	if err := checkProgress(p.Progress, 0); err != nil {
		return nil, err
	}
	h.Host.BackupProgress(p.Progress)
	return nil, nil
}

func setDataVersion(_ context.Context, h *Handler, p struct {
	Version *string `json:"version"`
}) (any, error) {
	return nil, h.Host.SetDataVersion(p.Version)
}
