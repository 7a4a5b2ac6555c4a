package server

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"slices"

	"github.com/danielgtaylor/huma/v2"

	"github.com/selfstead/selfstead/patchdb"
	"github.com/selfstead/selfstead/server/api"
	"github.com/selfstead/selfstead/server/problem"
	"github.com/selfstead/selfstead/server/state"
)

type (
	actionFormInput struct {
		ID     string `path:"id" maxLength:"200" doc:"id of the package" example:"hello-world"`
		Action string `path:"aid" maxLength:"200" doc:"id of the action"`
		Body   *api.ActionInputRequest
	}
	actionRunInput struct {
		ID     string `path:"id" maxLength:"200" doc:"id of the package" example:"hello-world"`
		Action string `path:"aid" maxLength:"200" doc:"id of the action"`
		Body   *api.ActionRunRequest
	}
)

func (s *Server) actionRoutes() {
	missing := []int{http.StatusNotFound}
	add(s, huma.Operation{
		OperationID: "list-actions", Method: http.MethodGet, Path: "/v1/packages/{id}/actions", Tags: []string{tagActions},
		Errors: missing, Summary: "List what a package offers to do",
	}, func(ctx context.Context, in *packagePageInput) (*list[api.Action], error) {
		found, err := members(s.deps.DB, in.ID, "actions", func(id string, a *api.Action) { a.ID = id })
		if err != nil {
			return nil, err
		}
		return paged(ctx, in.page(), found, false, func(a api.Action) string { return a.ID })
	})
	add(s, huma.Operation{
		OperationID: "list-tasks", Method: http.MethodGet, Path: "/v1/packages/{id}/tasks", Tags: []string{tagActions},
		Errors: missing, Summary: "List what a package is asked to do", Description: "Tasks name an action; one with severity critical keeps the package from running.",
	}, func(ctx context.Context, in *packagePageInput) (*list[api.Task], error) {
		found, err := members(s.deps.DB, in.ID, "tasks", func(id string, t *api.Task) { t.ID = id })
		if err != nil {
			return nil, err
		}
		return paged(ctx, in.page(), found, false, func(t api.Task) string { return t.ID })
	})
	fails := []int{http.StatusNotFound, http.StatusConflict, http.StatusServiceUnavailable}
	add(s, huma.Operation{
		OperationID: "get-action-input", Method: http.MethodPost, Path: "/v1/packages/{id}/actions/{aid}/input", Tags: []string{tagActions},
		Errors: fails, Summary: "Ask for the form of an action",
	}, func(ctx context.Context, in *actionFormInput) (*body[api.ActionInput], error) {
		var prefill json.RawMessage
		if in.Body != nil {
			prefill = in.Body.Prefill
		}
		raw, err := s.deps.Services.ActionInput(ctx, in.ID, in.Action, prefill)
		if err != nil {
			return nil, err
		}
		out := &body[api.ActionInput]{}
		if err := json.Unmarshal(raw, &out.Body); err != nil {
			return nil, fmt.Errorf("server: action form: %w", err)
		}
		return out, nil
	})
	add(s, huma.Operation{
		OperationID: "run-action", Method: http.MethodPost, Path: "/v1/packages/{id}/actions/{aid}/runs", Tags: []string{tagActions},
		Errors: fails, Summary: "Run an action", Description: "Answers with the action's result, or null.",
	}, func(ctx context.Context, in *actionRunInput) (*body[json.RawMessage], error) {
		var run api.ActionRunRequest
		if in.Body != nil {
			run = *in.Body
		}
		raw, err := s.deps.Services.RunAction(ctx, in.ID, in.Action, run.EventID, run.Input)
		if len(raw) == 0 {
			raw = json.RawMessage("null")
		}
		return &body[json.RawMessage]{raw}, err
	})
}

// members lists one object of a package's entry in the state, in the order of
// its keys.
func members[T any](db *patchdb.DB, id, part string, name func(string, *T)) ([]T, error) {
	all, err := patchdb.Get[map[string]T](db, state.PackagePointer(id, part))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, problem.NotFound("package", id)
	}
	if err != nil {
		return nil, err
	}
	keys := make([]string, 0, len(all))
	for key := range all {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, cmp.Compare)
	out := make([]T, 0, len(all))
	for _, key := range keys {
		v := all[key]
		name(key, &v)
		out = append(out, v)
	}
	return out, nil
}
