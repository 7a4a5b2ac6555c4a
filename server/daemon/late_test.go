package daemon

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/selfstead/selfstead/server"
	"github.com/selfstead/selfstead/server/api"
	"github.com/selfstead/selfstead/server/problem"
)

type listOnly struct{ server.Services }

func (listOnly) List() ([]api.Package, error) { return []api.Package{{ID: "a"}}, nil }
func (listOnly) Hosts(id string) ([]api.Host, error) {
	return nil, problem.NotFound("package", id)
}

func TestPackagesAreRefusedUntilThereIsABaseImage(t *testing.T) {
	t.Parallel()
	var l late
	notReady := problem.New(0, "not-ready", "")
	ctx := t.Context()
	for name, call := range map[string]func() error{
		"sideload":  func() error { _, err := l.Sideload(ctx, nil, 0); return err },
		"uninstall": func() error { _, err := l.Uninstall(ctx, "a", false, false); return err },
		"list":      func() error { _, err := l.List(); return err },
		"get":       func() error { _, err := l.Get("a"); return err },
		"desired":   func() error { return l.SetDesired(ctx, "a", "running", false) },
		"restart":   func() error { return l.Restart(ctx, "a") },
		"rebuild":   func() error { return l.Rebuild(ctx, "a") },
		"hosts":     func() error { _, err := l.Hosts("a"); return err },
		"input":     func() error { _, err := l.ActionInput(ctx, "a", "b", nil); return err },
		"run":       func() error { _, err := l.RunAction(ctx, "a", "b", "", nil); return err },
		"logs":      func() error { _, err := l.Logs("a"); return err },
	} {
		err := call()
		require.ErrorIs(t, err, notReady, name)
		assert.Equal(t, 503, problem.From(err).Status)
	}
	l.set(listOnly{})
	list, err := l.List()
	require.NoError(t, err)
	assert.Len(t, list, 1)
	_, err = l.Hosts("a")
	assert.ErrorIs(t, err, problem.New(0, problem.CodeNotFound, ""))
}
