package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/selfstead/selfstead/patchdb"
	"github.com/selfstead/selfstead/server/service/effect"
	"github.com/selfstead/selfstead/server/service/status"
	"github.com/selfstead/selfstead/server/service/task"
	"github.com/selfstead/selfstead/server/state"
)

// updateTasks applies what is known of an action's input to every task that
// targets it; packages with an active critical task stop.
func (m *Manager) updateTasks(ctx context.Context, id, action string, value json.RawMessage, run bool) error {
	_, err := m.db.Update(ctx, func(tx *patchdb.Tx) error {
		return eachTask(tx, id, action, func(owner, name string, e task.Entry) error {
			at := state.PackagePointer(owner, "tasks", name)
			switch task.Recheck(e.Task, value, run) {
			case task.Remove:
				return tx.Remove(at)
			case task.Activate:
				e.Active = true
			case task.Deactivate:
				e.Active = false
			}
			if err := tx.Put(at, e); err != nil {
				return err
			}
			if e.Stops() {
				return effect.Edit(tx, owner, status.Stop)
			}
			return nil
		})
	})
	if err != nil {
		return fmt.Errorf("service: tasks for %s of %s: %w", action, id, err)
	}
	return nil
}

// eachTask visits every package's tasks that target an action; an empty action
// means any of the package.
func eachTask(tx *patchdb.Tx, id, action string, fn func(owner, name string, e task.Entry) error) error {
	owners, err := tx.Keys(state.PackageData)
	if err != nil {
		return err
	}
	for _, owner := range owners {
		names, err := tx.Keys(state.PackagePointer(owner, "tasks"))
		if errors.Is(err, patchdb.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		for _, name := range names {
			e, err := patchdb.TxGet[task.Entry](tx, state.PackagePointer(owner, "tasks", name))
			if err != nil {
				return err
			}
			if e.Task.PackageID != id || action != "" && e.Task.ActionID != action {
				continue
			}
			if err := fn(owner, name, e); err != nil {
				return err
			}
		}
	}
	return nil
}

// currentInput is the value that an action's form shows now; false when the
// service cannot tell.
func (u *unit) currentInput(ctx context.Context, action string) (json.RawMessage, bool) {
	meta, err := u.m.metadata(u.id, action)
	if err != nil || !meta.HasInput {
		return nil, false
	}
	run := u.instance()
	if run == nil || !run.ready.Load() {
		return nil, false
	}
	input, err := run.input(ctx, action, effect.NewGUID(), json.RawMessage("null"))
	if err != nil {
		return nil, false
	}
	var form struct {
		Value json.RawMessage `json:"value"`
	}
	if json.Unmarshal(input, &form) != nil || len(form.Value) == 0 {
		return nil, false
	}
	return form.Value, true
}

// recheckSoon looks again, in the background, at the tasks that target an
// action of this package; an empty name means every action.
func (u *unit) recheckSoon(action string) {
	u.mu.Lock()
	first := len(u.recheck) == 0
	u.recheck[action] = true
	run := u.run
	u.mu.Unlock()
	if !first || run == nil {
		return
	}
	run.wg.Go(func() {
		ctx, cancel := run.bound(run.ctx, 0)
		defer cancel()
		for {
			u.mu.Lock()
			actions := u.recheck
			u.recheck = map[string]bool{}
			u.mu.Unlock()
			if len(actions) == 0 || ctx.Err() != nil {
				return
			}
			if err := u.recheckTasks(ctx, actions); err != nil && ctx.Err() == nil {
				u.m.log.Warn("tasks are not rechecked", "package", u.id, "err", err)
			}
		}
	})
}

func (u *unit) recheckTasks(ctx context.Context, actions map[string]bool) error {
	wanted := map[string]bool{}
	err := u.m.db.View(func(tx *patchdb.Tx) error {
		return eachTask(tx, u.id, "", func(_, _ string, e task.Entry) error {
			if e.Task.Input != nil && (actions[""] || actions[e.Task.ActionID]) {
				wanted[e.Task.ActionID] = true
			}
			return nil
		})
	})
	if err != nil {
		return err
	}
	for _, action := range sortedKeys(wanted) {
		if value, ok := u.currentInput(ctx, action); ok {
			if err := u.m.updateTasks(ctx, u.id, action, value, false); err != nil {
				return err
			}
		}
	}
	return nil
}
