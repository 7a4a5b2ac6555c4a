package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/selfstead/selfstead/patchdb"
	"github.com/selfstead/selfstead/server/problem"
	"github.com/selfstead/selfstead/server/service/effect"
	"github.com/selfstead/selfstead/server/service/rpc"
	"github.com/selfstead/selfstead/server/state"
)

// How long an action may take. The service is not told: it goes on.
const (
	inputLimit = 30 * time.Second
	runLimit   = 120 * time.Second
)

// ActionInput asks an action for its form: {eventId, spec, value}. The event
// id belongs in the run that fills the form in.
func (m *Manager) ActionInput(ctx context.Context, id, action string, prefill json.RawMessage) (json.RawMessage, error) {
	if err := m.await(ctx); err != nil {
		return nil, err
	}
	input, err := m.actionInput(ctx, id, action, "", prefill)
	return input, asProblem(err)
}

// RunAction runs an action and returns its result, version 1, or null.
func (m *Manager) RunAction(ctx context.Context, id, action, eventID string, input json.RawMessage) (json.RawMessage, error) {
	if err := m.await(ctx); err != nil {
		return nil, err
	}
	meta, err := m.metadata(id, action)
	if err != nil {
		return nil, err
	}
	if meta.HasInput && eventID == "" {
		eventID = effect.NewGUID()
		if _, err := m.actionInput(ctx, id, action, eventID, nil); err != nil {
			return nil, asProblem(err)
		}
	}
	result, err := m.runAction(ctx, id, action, "", eventID, input)
	if err != nil {
		return nil, asProblem(err)
	}
	return upcast(result), nil
}

// asProblem turns what a service answered into what callers of the API see.
func asProblem(err error) error {
	var e *rpc.Error
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.DeadlineExceeded):
		return problem.New(504, problem.CodeTimeout, "the action takes too long; it goes on").Because(err)
	case errors.Is(err, errGone), errors.Is(err, rpc.ErrClosed):
		return problem.New(503, problem.CodeServiceNotReachable, "the service stopped meanwhile").Because(err)
	case errors.As(err, &e):
		switch e.Code {
		case effect.KindNotFound:
			return problem.New(404, problem.CodeNotFound, e.Details())
		case effect.KindUninitialized:
			return problem.New(503, problem.CodeServiceNotReachable, e.Details())
		case effect.KindInvalidRequest:
			return problem.New(409, problem.CodeConflict, e.Details())
		}
		return problem.New(422, "action-failed", strings.TrimPrefix(e.Details(), "Error: ")).Because(err)
	}
	return err
}

func (m *Manager) metadata(id, action string) (state.ActionMetadata, error) {
	meta, err := patchdb.Get[state.ActionMetadata](m.db, state.PackagePointer(id, "actions", action))
	if errors.Is(err, patchdb.ErrNotFound) {
		if _, err := patchdb.Get[state.StateInfo](m.db, state.PackagePointer(id, "stateInfo")); err != nil {
			return meta, problem.NotFound("package", id)
		}
		return meta, problem.NotFound("action", action+" of "+id)
	}
	return meta, err
}

// loaded is the package's container, when the package's code runs in it.
func (m *Manager) loaded(id string) (*unit, *instance, error) {
	u := m.unit(id)
	if u == nil {
		return nil, nil, effect.Fail(effect.KindNotFound, "package %s is not installed", id)
	}
	run := u.instance()
	if run == nil || !run.ready.Load() {
		return nil, nil, effect.Fail(effect.KindUninitialized, "package %s is not initialised", id)
	}
	return u, run, nil
}

// actionInput is null for actions without input. An empty event id is made up.
func (m *Manager) actionInput(ctx context.Context, id, action, eventID string, prefill json.RawMessage) (json.RawMessage, error) {
	meta, err := m.metadata(id, action)
	if err != nil {
		return nil, err
	}
	if !meta.HasInput {
		return json.RawMessage("null"), nil
	}
	_, run, err := m.loaded(id)
	if err != nil {
		return nil, err
	}
	if eventID == "" {
		eventID = effect.NewGUID()
	}
	if len(prefill) == 0 {
		prefill = json.RawMessage("null")
	}
	return run.input(ctx, action, eventID, prefill)
}

func (r *instance) input(ctx context.Context, action, eventID string, prefill json.RawMessage) (json.RawMessage, error) {
	input, err := r.execute(ctx, inputLimit, "", eventID, "/actions/"+action+"/getInput", map[string]json.RawMessage{"prefill": prefill})
	return input, actionError(err)
}

// actionError gives what the package's code threw the kind that callers expect.
func actionError(err error) error {
	var e *rpc.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &e) && e.Code != effect.KindUninitialized:
		return effect.Fail(effect.KindAction, "%s", strings.TrimPrefix(e.Details(), "Error: "))
	}
	return err
}

// runAction runs an action with the checks that every run has, and then lets
// tasks know. Runs with the same call id are one, whichever server asks.
func (m *Manager) runAction(ctx context.Context, id, action, callID, eventID string, input json.RawMessage) (json.RawMessage, error) {
	meta, err := m.metadata(id, action)
	if err != nil {
		return nil, err
	}
	if reason, off := meta.Disabled(); off {
		return nil, effect.Fail(effect.KindInvalidRequest, "action %s of %s is disabled: %s", action, id, reason)
	}
	info, err := patchdb.Get[state.StatusInfo](m.db, state.PackagePointer(id, "statusInfo"))
	if err != nil {
		return nil, err
	}
	switch running := info.Started != nil; {
	case meta.AllowedStatuses == "only-running" && !running:
		return nil, effect.Fail(effect.KindInvalidRequest, "action %s of %s needs the service to run", action, id)
	case meta.AllowedStatuses == "only-stopped" && running:
		return nil, effect.Fail(effect.KindInvalidRequest, "action %s of %s needs the service to be stopped", action, id)
	}
	u, run, err := m.loaded(id)
	if err != nil {
		return nil, err
	}
	if eventID == "" {
		eventID = effect.NewGUID()
	}
	if len(input) == 0 {
		input = json.RawMessage("null")
	}
	unlock, err := u.runs.lock(ctx, eventID)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if callID != "" {
		if err := m.once(ctx, callID, run); err != nil {
			return nil, err
		}
	}
	result, err := run.execute(ctx, runLimit, callID, eventID, "/actions/"+action+"/run", map[string]json.RawMessage{"input": input})
	if err != nil {
		return nil, actionError(err)
	}
	return result, m.updateTasks(ctx, id, action, input, true)
}

// upcast turns a result of version 0 into version 1.
func upcast(result json.RawMessage) json.RawMessage {
	var v struct {
		Version string  `json:"version"`
		Message string  `json:"message"`
		Value   *string `json:"value"`
		Copy    bool    `json:"copyable"`
		QR      bool    `json:"qr"`
	}
	if json.Unmarshal(result, &v) != nil || v.Version != "0" {
		return result
	}
	var single any
	if v.Value != nil {
		single = map[string]any{"type": "single", "value": *v.Value, "copyable": v.Copy, "qr": v.QR, "masked": false}
	}
	out, _ := json.Marshal(map[string]any{"version": "1", "title": "Action Complete", "message": v.Message, "result": single})
	return out
}

// runLock lets one action run at a time, and what an action runs itself, which
// has the same event id.
type runLock struct {
	free chan struct{}
	mu   sync.Mutex
	who  string
	n    int
}

func (l *runLock) init() {
	l.free = make(chan struct{}, 1)
	l.free <- struct{}{}
}

func (l *runLock) lock(ctx context.Context, event string) (func(), error) {
	l.mu.Lock()
	if l.n > 0 && l.who == event {
		l.n++
		l.mu.Unlock()
		return l.unlock, nil
	}
	l.mu.Unlock()
	select {
	case <-l.free:
	case <-ctx.Done():
		return nil, fmt.Errorf("service: another action runs: %w", context.Cause(ctx))
	}
	l.mu.Lock()
	l.who, l.n = event, 1
	l.mu.Unlock()
	return l.unlock, nil
}

func (l *runLock) unlock() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.n--; l.n == 0 {
		l.free <- struct{}{}
	}
}
