package operation_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/selfstead/selfstead/server/operation"
	"github.com/selfstead/selfstead/server/problem"
)

func newManager(t *testing.T, o operation.Options) *operation.Manager {
	t.Helper()
	m := operation.New(o)
	t.Cleanup(func() { assert.NoError(t, m.Close(context.Background())) })
	return m
}

// final reads a subscription to its end and returns the last snapshot.
func final(t *testing.T, m *operation.Manager, id string) operation.Operation {
	t.Helper()
	sub, err := m.Subscribe(id)
	require.NoError(t, err)
	var last operation.Operation
	for {
		op, err := sub.Next(t.Context())
		if errors.Is(err, io.EOF) {
			return last
		}
		require.NoError(t, err)
		last = op
	}
}

func TestEnds(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		fn     func(ctx context.Context, j *operation.Job) (any, error)
		status operation.Status
		code   string
		result string
	}{
		{"succeeds", func(context.Context, *operation.Job) (any, error) { return map[string]int{"a": 1}, nil }, operation.Succeeded, "", `{"a":1}`},
		{"succeeds without a result", func(context.Context, *operation.Job) (any, error) { return nil, nil }, operation.Succeeded, "", ""},
		{"fails with a problem", func(context.Context, *operation.Job) (any, error) {
			return nil, problem.New(422, problem.CodeCorrupt, "flipped byte")
		}, operation.Failed, "corrupt", ""},
		{"fails with an unknown error", func(context.Context, *operation.Job) (any, error) { return nil, errors.New("secret") }, operation.Failed, "internal", ""},
		{"panics", func(context.Context, *operation.Job) (any, error) { panic("secret") }, operation.Failed, "internal", ""},
		{"gives a result that has no JSON", func(context.Context, *operation.Job) (any, error) { return func() {}, nil }, operation.Failed, "internal", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m := newManager(t, operation.Options{})
			op := m.Start("test", tt.fn)
			assert.Equal(t, operation.Running, op.Status)
			op = final(t, m, op.ID)
			assert.Equal(t, tt.status, op.Status)
			assert.Equal(t, tt.result, string(op.Result))
			assert.NotNil(t, op.Finished)
			if tt.code != "" {
				require.NotNil(t, op.Problem)
				assert.Equal(t, tt.code, op.Problem.Code)
			}
			body, err := json.Marshal(op)
			require.NoError(t, err)
			assert.NotContains(t, string(body), "secret")
		})
	}
}

func TestOperationIsListedFromBegin(t *testing.T) {
	t.Parallel()
	m := newManager(t, operation.Options{})
	a, b := m.Begin("install"), m.Begin("install")
	a.Progress("upload", 5, -1, operation.Bytes)
	b.Progress("upload", 5, 10, operation.Bytes)
	b.SetPackage("hello-world")
	ops := m.List()
	require.Len(t, ops, 2)
	assert.Equal(t, b.ID(), ops[0].ID, "the newest first")
	assert.Equal(t, "hello-world", ops[0].Package)
	assert.EqualValues(t, 10, *ops[0].Progress.Total)
	assert.Nil(t, ops[1].Progress.Total)
	body, err := json.Marshal(ops[1].Progress)
	require.NoError(t, err)
	assert.JSONEq(t, `{"phase":"upload","done":5,"total":null,"unit":"bytes"}`, string(body))
	a.Finish(nil, nil)
	b.Finish(nil, nil)
}

func TestCancel(t *testing.T) {
	t.Parallel()
	m := newManager(t, operation.Options{})
	op := m.Start("test", func(ctx context.Context, _ *operation.Job) (any, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})
	_, err := m.Cancel(op.ID)
	require.NoError(t, err)
	op = final(t, m, op.ID)
	assert.Equal(t, operation.Cancelled, op.Status)
	assert.Equal(t, "cancelled", op.Problem.Code)

	_, err = m.Cancel(op.ID)
	assert.ErrorIs(t, err, problem.New(0, problem.CodeConflict, ""))
	_, err = m.Cancel("none")
	assert.ErrorIs(t, err, problem.New(0, problem.CodeNotFound, ""))
}

func TestWorkThatEndedWellDespiteACancelSucceeds(t *testing.T) {
	t.Parallel()
	m := newManager(t, operation.Options{})
	j := m.Begin("test")
	_, err := m.Cancel(j.ID())
	require.NoError(t, err)
	j.Finish("done", nil)
	op, err := m.Get(j.ID())
	require.NoError(t, err)
	assert.Equal(t, operation.Succeeded, op.Status)
}

func TestOnlyTheFirstFinishCounts(t *testing.T) {
	t.Parallel()
	m := newManager(t, operation.Options{})
	j := m.Begin("test")
	j.Finish("one", nil)
	j.Finish(nil, errors.New("two"))
	j.Progress("late", 1, 2, operation.Steps)
	op, err := m.Get(j.ID())
	require.NoError(t, err)
	assert.Equal(t, operation.Succeeded, op.Status)
	assert.Equal(t, `"one"`, string(op.Result))
	assert.Empty(t, op.Progress.Phase)
	require.Error(t, j.Context().Err(), "an ended job's context is done")
}

func TestClose(t *testing.T) {
	t.Parallel()
	m := operation.New(operation.Options{})
	op := m.Start("test", func(ctx context.Context, _ *operation.Job) (any, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})
	require.NoError(t, m.Close(context.Background()))
	require.NoError(t, m.Close(context.Background()), "twice")
	op, err := m.Get(op.ID)
	require.NoError(t, err)
	assert.Equal(t, operation.Cancelled, op.Status)
	assert.Equal(t, "stopping", op.Problem.Code)
}

func TestCloseGivesUpWithItsContext(t *testing.T) {
	t.Parallel()
	m := operation.New(operation.Options{})
	hold := make(chan struct{})
	m.Start("stubborn", func(context.Context, *operation.Job) (any, error) { <-hold; return nil, nil })
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	assert.ErrorIs(t, m.Close(ctx), context.Canceled)
	close(hold)
	assert.NoError(t, m.Close(context.Background()))
}

func TestEndedOperationsAreForgotten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := operation.New(operation.Options{Keep: time.Hour, KeepCount: 3})
		running := m.Begin("running")
		for range 5 {
			m.Begin("test").Finish(nil, nil)
		}
		assert.Len(t, m.List(), 4, "three ended ones and the running one")
		time.Sleep(time.Hour + time.Second) // synctest's clock
		ops := m.List()
		require.Len(t, ops, 1)
		assert.Equal(t, running.ID(), ops[0].ID)
		running.Finish(nil, nil)
		require.NoError(t, m.Close(context.Background()))
	})
}

func TestSubscriptionSkipsToTheNewest(t *testing.T) {
	t.Parallel()
	m := newManager(t, operation.Options{})
	j := m.Begin("test")
	sub, err := m.Subscribe(j.ID())
	require.NoError(t, err)
	op, err := sub.Next(t.Context())
	require.NoError(t, err, "the current snapshot comes at once")
	assert.EqualValues(t, 0, op.Progress.Done)
	for i := range int64(1000) {
		j.Progress("work", i+1, 1000, operation.Steps)
	}
	op, err = sub.Next(t.Context())
	require.NoError(t, err)
	assert.EqualValues(t, 1000, op.Progress.Done)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = sub.Next(ctx)
	assert.ErrorIs(t, err, context.Canceled)
	j.Finish(nil, nil)
	op, err = sub.Next(t.Context())
	require.NoError(t, err)
	assert.True(t, op.Done())
	_, err = sub.Next(t.Context())
	assert.ErrorIs(t, err, io.EOF)
}

// TestRace has writers, readers, cancels and prunes at once; the race detector
// and the law "a subscription sees progress grow and ends with a final status"
// are the judges.
func TestRace(t *testing.T) {
	t.Parallel()
	m := newManager(t, operation.Options{KeepCount: 1000})
	var wg sync.WaitGroup
	for i := range 16 {
		j := m.Begin("race")
		wg.Go(func() {
			for n := range int64(200) {
				j.Progress("work", n, 200, operation.Steps)
			}
			j.Go(func(ctx context.Context) (any, error) { return nil, ctx.Err() })
			if i%2 == 0 {
				j.Finish(nil, errors.New("first"))
			}
		})
		for range 2 {
			wg.Go(func() {
				sub, err := m.Subscribe(j.ID())
				if !assert.NoError(t, err) {
					return
				}
				last := int64(-1)
				for {
					op, err := sub.Next(t.Context())
					if errors.Is(err, io.EOF) {
						return
					}
					assert.NoError(t, err)
					assert.GreaterOrEqual(t, op.Progress.Done, last)
					last = op.Progress.Done
				}
			})
		}
		wg.Go(func() {
			m.List()
			if i%3 == 0 {
				_, _ = m.Cancel(j.ID())
			}
		})
	}
	wg.Wait()
	for _, op := range m.List() {
		assert.True(t, final(t, m, op.ID).Done())
	}
}
