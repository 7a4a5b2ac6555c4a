package daemon

import (
	"context"
	"encoding/json"
	"io"
	"sync/atomic"

	"github.com/selfstead/selfstead/server"
	"github.com/selfstead/selfstead/server/api"
	"github.com/selfstead/selfstead/server/journal"
	"github.com/selfstead/selfstead/server/operation"
	"github.com/selfstead/selfstead/server/problem"
)

// late is the room of services before there is one: while a base image is being
// built the API answers already, and says so where a package is asked for.
type late struct{ room atomic.Value } // of holder

type holder struct{ server.Services }

func (l *late) set(s server.Services) { l.room.Store(holder{s}) }

func (l *late) get() (server.Services, error) {
	if h, ok := l.room.Load().(holder); ok {
		return h.Services, nil
	}
	return nil, problem.New(503, "not-ready", "the server prepares the image that containers start from").WithHeader("Retry-After", "5")
}

// with calls fn on the room.
func with[T any](l *late, fn func(server.Services) (T, error)) (out T, err error) {
	s, err := l.get()
	if err != nil {
		return out, err
	}
	return fn(s)
}

func do(l *late, fn func(server.Services) error) error {
	s, err := l.get()
	if err != nil {
		return err
	}
	return fn(s)
}

func (l *late) Sideload(ctx context.Context, body io.Reader, size int64) (operation.Operation, error) {
	return with(l, func(s server.Services) (operation.Operation, error) { return s.Sideload(ctx, body, size) })
}

func (l *late) Uninstall(ctx context.Context, id string, soft, force bool) (operation.Operation, error) {
	return with(l, func(s server.Services) (operation.Operation, error) { return s.Uninstall(ctx, id, soft, force) })
}

func (l *late) List() ([]api.Package, error) {
	return with(l, func(s server.Services) ([]api.Package, error) { return s.List() })
}

func (l *late) Get(id string) (api.Package, error) {
	return with(l, func(s server.Services) (api.Package, error) { return s.Get(id) })
}

func (l *late) SetDesired(ctx context.Context, id, state string, force bool) error {
	return do(l, func(s server.Services) error { return s.SetDesired(ctx, id, state, force) })
}

func (l *late) Restart(ctx context.Context, id string) error {
	return do(l, func(s server.Services) error { return s.Restart(ctx, id) })
}

func (l *late) Rebuild(ctx context.Context, id string) error {
	return do(l, func(s server.Services) error { return s.Rebuild(ctx, id) })
}

func (l *late) Hosts(id string) ([]api.Host, error) {
	return with(l, func(s server.Services) ([]api.Host, error) { return s.Hosts(id) })
}

func (l *late) ActionInput(ctx context.Context, id, action string, prefill json.RawMessage) (json.RawMessage, error) {
	return with(l, func(s server.Services) (json.RawMessage, error) { return s.ActionInput(ctx, id, action, prefill) })
}

func (l *late) RunAction(ctx context.Context, id, action, event string, input json.RawMessage) (json.RawMessage, error) {
	return with(l, func(s server.Services) (json.RawMessage, error) { return s.RunAction(ctx, id, action, event, input) })
}

func (l *late) Logs(id string) (*journal.Log, error) {
	return with(l, func(s server.Services) (*journal.Log, error) { return s.Logs(id) })
}
