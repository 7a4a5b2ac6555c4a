package operation_test

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/selfstead/selfstead/patchdb"
	"github.com/selfstead/selfstead/server/operation"
	"github.com/selfstead/selfstead/server/state"
)

// Operations outlive the process: those that had ended say how, those that ran
// are taken up, or end as interrupted.
func TestOutlives(t *testing.T) {
	t.Parallel()
	db, err := patchdb.Open(filepath.Join(t.TempDir(), "db"), patchdb.Options{})
	require.NoError(t, err)
	defer db.Close()
	_, err = db.Put(t.Context(), "", state.New())
	require.NoError(t, err)
	open := func() *operation.Manager { return operation.New(operation.Options{Store: operation.InDocument(db)}) }

	first := open() // never closed: it was killed
	ended := first.Start("install", func(_ context.Context, j *operation.Job) (any, error) {
		j.SetPackage("alpha")
		return "well", nil
	})
	final(t, first, ended.ID)
	running := first.Begin("install")
	running.SetPackage("beta")
	running.SetKind("update")
	removal := first.Begin("uninstall")
	removal.SetPackage("gamma")
	upload := first.Begin("install")
	done := first.Begin("uninstall")
	done.SetPackage("delta")

	second := open()
	require.Len(t, second.List(), 5)
	require.Equal(t, done.ID(), second.List()[0].ID, "the newest first")
	op, err := second.Get(ended.ID)
	require.NoError(t, err)
	require.Equal(t, operation.Succeeded, op.Status)
	require.JSONEq(t, `"well"`, string(op.Result))
	_, err = second.Cancel(running.ID())
	require.ErrorContains(t, err, "just started")
	require.Nil(t, second.Resume("alpha"), "it has ended")
	job := second.Resume("gamma")
	require.Equal(t, removal.ID(), job.ID())
	require.Nil(t, second.Resume("gamma"), "it is taken up once")
	second.SettleInterrupted(func(op operation.Operation) bool { return op.Package == "delta" })
	for id, want := range map[string]operation.Status{running.ID(): operation.Failed, upload.ID(): operation.Failed, done.ID(): operation.Succeeded, removal.ID(): operation.Running} {
		op, err := second.Get(id)
		require.NoError(t, err)
		require.Equal(t, want, op.Status)
		if want == operation.Failed {
			require.Equal(t, "interrupted", op.Problem.Code)
		}
	}
	_, err = second.Cancel(removal.ID())
	require.NoError(t, err, "what is taken up can be cancelled")
	job.Finish(nil, nil)

	third := operation.New(operation.Options{Store: operation.InDocument(db), KeepCount: 2, Keep: time.Hour})
	third.SettleInterrupted(func(operation.Operation) bool { return false })
	require.Len(t, third.List(), 2)
	kept, err := patchdb.Get[map[string]operation.Operation](db, state.PrivatePointer("operations"))
	require.NoError(t, err)
	require.Len(t, kept, 2, "what is forgotten is forgotten in the document too")
	op, err = third.Get(done.ID())
	require.NoError(t, err)
	require.Equal(t, operation.Succeeded, op.Status)
	require.Equal(t, "delta", op.Package)
}
