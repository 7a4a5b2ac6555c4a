package service

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/selfstead/selfstead/patchdb"
	"github.com/selfstead/selfstead/server/api"
	"github.com/selfstead/selfstead/server/problem"
	"github.com/selfstead/selfstead/server/service/effect"
	"github.com/selfstead/selfstead/server/service/status"
	"github.com/selfstead/selfstead/server/service/task"
	"github.com/selfstead/selfstead/server/state"
)

// SetDesired says what the owner wants of a package: "running" or "stopped". A
// critical task that is active keeps it from running unless force is set.
func (m *Manager) SetDesired(ctx context.Context, id, desired string, force bool) error {
	u, err := m.installed(ctx, id)
	if err != nil {
		return err
	}
	command := status.Start
	switch desired {
	case state.StateRunning:
	case state.StateStopped:
		command = status.Stop
	default:
		return problem.New(422, problem.CodeInvalid, "the desired state is not known").WithField("body.state", "expected running or stopped", desired)
	}
	if desired == state.StateRunning && !force {
		if err := m.roomToRun(id); err != nil {
			return err
		}
	}
	failed := false
	_, err = m.db.Update(ctx, func(tx *patchdb.Tx) error {
		if desired == state.StateRunning && !force {
			if name, err := blocking(tx, id); err != nil || name != "" {
				if err != nil {
					return err
				}
				return problem.Newf(409, problem.CodeConflict, "package %s has the critical task %s to be done first", id, name).
					WithFix("GET", "/v1/packages/"+id+"/tasks", "lists the tasks; run the action that the task names")
			}
		}
		info, err := patchdb.TxGet[state.StatusInfo](tx, state.PackagePointer(id, "statusInfo"))
		if err != nil {
			return err
		}
		failed = info.Error != nil
		return effect.Edit(tx, id, command)
	})
	if err != nil {
		return err
	}
	if failed && desired == state.StateRunning {
		u.requestRebuild()
	}
	u.poke()
	return nil
}

// blocking is an active critical task of the package, "" when there is none.
func blocking(tx *patchdb.Tx, id string) (string, error) {
	tasks := map[string]task.Entry{}
	if err := tx.Get(state.PackagePointer(id, "tasks"), &tasks); err != nil && !errors.Is(err, patchdb.ErrNotFound) {
		return "", err
	}
	for _, name := range sortedKeys(tasks) {
		if tasks[name].Stops() {
			return name, nil
		}
	}
	return "", nil
}

// Restart asks for one stop and start; a service whose code did not load is
// loaded anew. A stopped service stays stopped.
func (m *Manager) Restart(ctx context.Context, id string) error {
	u, err := m.installed(ctx, id)
	if err != nil {
		return err
	}
	failed := false
	_, err = m.db.Update(ctx, func(tx *patchdb.Tx) error {
		info, err := patchdb.TxGet[state.StatusInfo](tx, state.PackagePointer(id, "statusInfo"))
		if err != nil {
			return err
		}
		if failed = info.Error != nil; failed {
			return nil
		}
		return effect.Edit(tx, id, status.Restart)
	})
	if err != nil {
		return err
	}
	if failed {
		u.requestRebuild()
	}
	u.poke()
	return nil
}

// stale reports whether the container would be made differently now.
func (u *unit) stale(ctx context.Context) bool {
	run := u.instance()
	if run == nil || run.old {
		return run != nil
	}
	layers, err := u.m.layers(ctx)
	return err == nil && run.keep.Spec != u.m.fingerprint(layers, run.keep, u.archive())
}

// Rebuild asks for a new container; what is desired stays.
func (m *Manager) Rebuild(ctx context.Context, id string) error {
	u, err := m.installed(ctx, id)
	if err != nil {
		return err
	}
	u.requestRebuild()
	return nil
}

// List shows every package.
func (m *Manager) List() ([]api.Package, error) {
	list := []api.Package{}
	err := m.db.View(func(tx *patchdb.Tx) error {
		ids, err := tx.Keys(state.PackageData)
		if err != nil {
			return err
		}
		for _, id := range ids {
			p, err := patchdb.TxGet[state.Package](tx, state.PackagePointer(id))
			if err != nil {
				return err
			}
			v := m.view(id, p)
			v.Manifest = nil
			list = append(list, v)
		}
		return nil
	})
	return list, err
}

// Get shows one package.
func (m *Manager) Get(id string) (api.Package, error) {
	p, err := patchdb.Get[state.Package](m.db, state.PackagePointer(id))
	if errors.Is(err, patchdb.ErrNotFound) {
		return api.Package{}, problem.NotFound("package", id)
	}
	if err != nil {
		return api.Package{}, err
	}
	return m.view(id, p), nil
}

func (m *Manager) view(id string, p state.Package) api.Package {
	var mf heading
	_ = json.Unmarshal(p.StateInfo.Manifest, &mf)
	v := api.Package{
		ID: id, Title: mf.Title, Version: mf.Version, Summary: mf.Description.Short.For("en_US"),
		State: p.State, DesiredState: p.DesiredState, Health: map[string]api.Health{},
		Started: p.StatusInfo.Started, Signer: p.DeveloperKey, Manifest: p.StateInfo.Manifest, Disk: p.Disk,
	}
	for name, h := range p.StatusInfo.Health {
		message := ""
		if h.Message != nil {
			message = *h.Message
		}
		result := h.Result
		if u := m.unit(id); u != nil {
			result = u.checks.shown(name, result, startedAt(p.StatusInfo), time.Now())
		}
		v.Health[name] = api.Health{Name: h.Name, Result: result, Message: message}
	}
	for name, f := range p.Failures {
		if v.Failures == nil {
			v.Failures = map[string]api.HealthFailure{}
		}
		v.Failures[name] = api.HealthFailure{Message: f.Message, At: f.At}
	}
	if e := p.StatusInfo.Error; e != nil {
		v.Error = &api.PackageError{Message: e.Details, Details: e.Debug}
	}
	return v
}
