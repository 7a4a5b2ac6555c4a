package effect

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/selfstead/selfstead/patchdb"
	"github.com/selfstead/selfstead/server/service/status"
	"github.com/selfstead/selfstead/server/service/task"
	"github.com/selfstead/selfstead/server/state"
)

var _ = register(map[string]method{
	"action.export":      typed(exportAction, "metadata.name", "metadata.allowedStatuses"),
	"action.clear":       typed(clearActions),
	"action.get-input":   typed(getActionInput),
	"action.run":         typed(runAction),
	"action.create-task": typed(createTask),
	"action.clear-tasks": typed(clearTasks),
})

func exportAction(ctx context.Context, h *Handler, p struct {
	ID       ID                   `json:"id"`
	Metadata state.ActionMetadata `json:"metadata"`
}) (any, error) {
	if err := p.ID.check(); err != nil {
		return nil, err
	}
	m := &p.Metadata
	switch m.AllowedStatuses {
	case "only-running", "only-stopped", "any":
	default:
		return nil, invalid("%q is not one of only-running, only-stopped, any", m.AllowedStatuses)
	}
	switch m.Access {
	case "", "public", "dependent", "user":
	default:
		return nil, invalid("%q is not one of public, dependent, user", m.Access)
	}
	if len(m.Visibility) == 0 || string(m.Visibility) == "null" {
		m.Visibility = json.RawMessage(`"enabled"`)
	}
	if err := checkVisibility(m.Visibility); err != nil {
		return nil, err
	}
	err := h.update(ctx, func(tx *patchdb.Tx) error { return h.put(tx, string(p.ID), m, "actions") })
	if err != nil {
		return nil, err
	}
	h.Host.RecheckTasks(string(p.ID))
	return nil, nil
}

func clearActions(ctx context.Context, h *Handler, p struct {
	Except []string `json:"except"`
}) (any, error) {
	return nil, h.update(ctx, func(tx *patchdb.Tx) error {
		return selection{Except: p.Except}.clear(tx, h.own("actions"))
	})
}

func checkVisibility(v json.RawMessage) error {
	var word string
	if json.Unmarshal(v, &word) == nil {
		if word != "enabled" && word != "hidden" {
			return invalid("visibility %q is not one of enabled, hidden", word)
		}
		return nil
	}
	var off struct {
		Disabled *string `json:"disabled"`
	}
	if err := json.Unmarshal(v, &off); err != nil || off.Disabled == nil {
		return invalid("visibility is neither a word nor a reason why the action is disabled")
	}
	return nil
}

func getActionInput(ctx context.Context, h *Handler, p struct {
	PackageID *ID             `json:"packageId"`
	ActionID  ID              `json:"actionId"`
	Prefill   json.RawMessage `json:"prefill"`
	EventID   string          `json:"eventId"`
}) (any, error) {
	pkg, err := h.pkg(p.PackageID)
	if err != nil {
		return nil, err
	}
	if err := p.ActionID.check(); err != nil {
		return nil, err
	}
	return h.Host.ActionInput(ctx, pkg, string(p.ActionID), p.EventID, p.Prefill)
}

func runAction(ctx context.Context, h *Handler, p struct {
	PackageID *ID             `json:"packageId"`
	ActionID  ID              `json:"actionId"`
	Input     json.RawMessage `json:"input"`
	EventID   string          `json:"eventId"`
}) (any, error) {
	pkg, err := h.pkg(p.PackageID)
	if err != nil {
		return nil, err
	}
	if err := p.ActionID.check(); err != nil {
		return nil, err
	}
	m, err := patchdb.Get[state.ActionMetadata](h.DB, state.PackagePointer(pkg, "actions", string(p.ActionID)))
	if errors.Is(err, patchdb.ErrNotFound) {
		return nil, Fail(KindNotFound, "%s has no action %s", pkg, p.ActionID)
	}
	if err != nil {
		return nil, err
	}
	if pkg != h.Package {
		switch m.Access {
		case "public":
		case "dependent":
			if _, err := patchdb.Get[json.RawMessage](h.DB, h.own("currentDependencies", pkg)); err != nil {
				return nil, Fail(KindInvalidRequest, "action %s of %s is for its dependents, and %s is none", p.ActionID, pkg, h.Package)
			}
		default:
			return nil, Fail(KindInvalidRequest, "action %s of %s is for its user alone", p.ActionID, pkg)
		}
	}
	if m.HasInput {
		// The runtime validates the input against the form that it gave under
		// the same event id, so there must be one.
		if p.EventID == "" {
			p.EventID = NewGUID()
		}
		if _, err := h.Host.ActionInput(ctx, pkg, string(p.ActionID), p.EventID, nil); err != nil {
			return nil, err
		}
	}
	return h.Host.RunAction(ctx, pkg, string(p.ActionID), p.EventID, p.Input)
}

func createTask(ctx context.Context, h *Handler, p struct {
	ReplayID string `json:"replayId"`
	task.Task
}) (any, error) {
	if p.ReplayID == "" {
		return nil, invalid("replayId is missing")
	}
	t := p.Task
	if err := checkIDs(ID(t.PackageID), ID(t.ActionID)); err != nil {
		return nil, err
	}
	switch t.Severity {
	case "":
		t.Severity = task.Important
	case task.Optional, task.Important, task.Critical:
	default:
		return nil, invalid("%q is not one of optional, important, critical", t.Severity)
	}
	if t.Input != nil && t.Input.Kind != "partial" {
		return nil, invalid("input kind %q is not partial", t.Input.Kind)
	}
	known, satisfied := true, false
	if t.When != nil {
		if t.When.Condition != task.InputNotMatches {
			return nil, invalid("%q is not a condition; there is %s", t.When.Condition, task.InputNotMatches)
		}
		if t.Input == nil {
			return nil, Fail(KindInvalidRequest, "a task with the condition %s needs input", task.InputNotMatches)
		}
		var value json.RawMessage
		if value, known = h.Host.CurrentInput(ctx, t.PackageID, t.ActionID); known {
			satisfied = task.Matches(t, value)
		}
		if satisfied && t.When.Once {
			return nil, nil
		}
	}
	at := h.own("tasks", p.ReplayID)
	return nil, h.updateOnce(ctx, func(tx *patchdb.Tx) error {
		entry := task.Entry{Task: t, Active: !satisfied}
		if old, err := patchdb.TxGet[task.Entry](tx, at); !known && err == nil {
			entry.Active = old.Active
		}
		if err := h.put(tx, p.ReplayID, entry, "tasks"); err != nil {
			return err
		}
		if entry.Stops() {
			return Edit(tx, h.Package, status.Stop)
		}
		return nil
	})
}

func clearTasks(ctx context.Context, h *Handler, p selection) (any, error) {
	if p.Only == nil && p.Except == nil {
		return nil, invalid("only or except is missing")
	}
	return nil, h.updateOnce(ctx, func(tx *patchdb.Tx) error { return p.clear(tx, h.own("tasks")) })
}
