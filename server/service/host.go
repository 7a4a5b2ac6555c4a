package service

import (
	"context"
	"encoding/json"
	"net/netip"

	"github.com/selfstead/selfstead/patchdb"
	"github.com/selfstead/selfstead/server/service/effect"
)

// instance is the effect.Host of its package.
var _ effect.Host = (*instance)(nil)

// Rebuild implements effect.Host.
func (r *instance) Rebuild() { r.u.requestRebuild() }

// InitProgress implements effect.Host.
func (r *instance) InitProgress(p json.RawMessage) {
	if fn := r.initProgress.Load(); fn != nil {
		(*fn)(p)
	}
}

// BackupProgress implements effect.Host.
func (r *instance) BackupProgress(p json.RawMessage) {
	if fn := r.backupProgress.Load(); fn != nil && *fn != nil {
		(*fn)(p)
	}
}

// neighbours waits until the server has taken over what ran before it: until
// then it does not know how other packages stand.
func (r *instance) neighbours(ctx context.Context) error {
	ctx, cancel := r.bound(ctx, 0)
	defer cancel()
	return r.u.m.await(ctx)
}

// SyncNetwork implements effect.Host.
func (r *instance) SyncNetwork(ctx context.Context) error { return r.u.m.net.Sync(ctx) }

// OSIP implements effect.Host.
func (r *instance) OSIP() netip.Addr { return r.u.m.net.OSIP() }

// ContainerIP implements effect.Host.
func (r *instance) ContainerIP(ctx context.Context, pkg string) (netip.Addr, bool, error) {
	if pkg == r.u.id {
		return parseAddr(r.keep.Addr4), true, nil
	}
	if err := r.neighbours(ctx); err != nil {
		return netip.Addr{}, false, err
	}
	u := r.u.m.unit(pkg)
	if u == nil {
		return netip.Addr{}, false, nil
	}
	select {
	case <-u.settled():
	case <-ctx.Done():
		return netip.Addr{}, false, ctx.Err()
	}
	run := u.instance()
	if run == nil || !run.alive() {
		return netip.Addr{}, false, nil
	}
	addr := parseAddr(run.keep.Addr4)
	return addr, addr.IsValid(), nil
}

// ActionInput implements effect.Host.
func (r *instance) ActionInput(ctx context.Context, pkg, action, eventID string, prefill json.RawMessage) (json.RawMessage, error) {
	if err := r.neighbours(ctx); err != nil {
		return nil, err
	}
	return r.u.m.actionInput(ctx, pkg, action, eventID, prefill)
}

// RunAction implements effect.Host.
func (r *instance) RunAction(ctx context.Context, pkg, action, eventID string, input json.RawMessage) (json.RawMessage, error) {
	call := effect.CallID(ctx)
	if call != "" { // a name of the caller's own choice
		call = r.u.id + " " + call
	}
	if err := r.neighbours(ctx); err != nil {
		return nil, err
	}
	return r.u.m.runAction(ctx, pkg, action, call, eventID, input)
}

// CurrentInput implements effect.Host.
func (r *instance) CurrentInput(ctx context.Context, pkg, action string) (json.RawMessage, bool) {
	if r.neighbours(ctx) != nil {
		return nil, false
	}
	u := r.u.m.unit(pkg)
	if u == nil {
		return nil, false
	}
	return u.currentInput(ctx, action)
}

// RecheckTasks implements effect.Host.
func (r *instance) RecheckTasks(action string) { r.u.recheckSoon(action) }

// Dependency implements effect.Host.
func (r *instance) Dependency(_ context.Context, id string) (json.RawMessage, *string) {
	if d, ok := r.bundle.dependencies[id]; ok {
		return d.Title, d.Icon
	}
	return json.RawMessage("null"), nil
}

// DataVersion implements effect.Host.
func (r *instance) DataVersion() (*string, error) { return r.u.m.dir.dataVersion(r.u.id) }

// SetDataVersion implements effect.Host.
func (r *instance) SetDataVersion(v *string) error {
	return r.write(func() error { return r.u.m.dir.setDataVersion(r.u.id, v) })
}

// Watch implements effect.Host.
func (r *instance) Watch(id int64, p patchdb.Pointer) { r.u.m.watch.add(r, id, p) }

// Forget implements effect.Host.
func (r *instance) Forget(only, except []int64) { r.u.m.watch.forget(r, only, except) }
