package effect_test

import (
	"fmt"
	"testing"

	"github.com/selfstead/selfstead/patchdb"
	"github.com/selfstead/selfstead/server/service/effect"
	"github.com/selfstead/selfstead/server/state"
	"github.com/stretchr/testify/require"
)

// A call that another server has answered already does nothing more.
func TestCallsThatComeAgain(t *testing.T) {
	b := newBench(t)
	for range 3 {
		b.again("a", "notification.create", `{"level":"info","title":"T","message":"M"}`)
	}
	b.again("b", "notification.create", `{"level":"info","title":"T","message":"M"}`)
	list, err := patchdb.Get[[]state.Notification](b.db, "/private/notifications")
	require.NoError(t, err)
	require.Len(t, list, 2)
	b.again("r", "restart", `{}`)
	_, err = b.db.Put(t.Context(), "/public/packageData/self/statusInfo/desired", map[string]any{"main": "running"})
	require.NoError(t, err)
	b.again("r", "restart", `{}`)
	require.JSONEq(t, `{"main":"running"}`, b.doc("/statusInfo/desired"))
	b.again("s", "shutdown", `{}`)
	_, err = b.db.Put(t.Context(), "/public/packageData/self/statusInfo/desired", map[string]any{"main": "running"})
	require.NoError(t, err)
	b.again("s", "shutdown", `{}`)
	require.JSONEq(t, `{"main":"running"}`, b.doc("/statusInfo/desired"), "started again since")

	// A task that its owner has done is not there again; one that was made since
	// is not cleared.
	const created = `{"replayId":"t","packageId":"self","actionId":"go","severity":"critical"}`
	b.again("t", "action.create-task", created)
	b.again("u", "action.clear-tasks", `{"except":[]}`)
	b.again("t", "action.create-task", created)
	require.JSONEq(t, `{}`, b.doc("/tasks"))
	b.again("v", "action.create-task", created)
	b.again("u", "action.clear-tasks", `{"except":[]}`)
	require.Contains(t, b.doc("/tasks"), `"t"`)

	// As many as a runtime can have under way are known by their names.
	list, err = patchdb.Get[[]state.Notification](b.db, "/private/notifications")
	require.NoError(t, err)
	before := list[len(list)-1].ID
	for range 2 {
		for i := range 200 {
			b.again(fmt.Sprint("m", i), "notification.create", `{"level":"info","title":"T","message":"M"}`)
		}
	}
	list, err = patchdb.Get[[]state.Notification](b.db, "/private/notifications")
	require.NoError(t, err)
	require.Equal(t, before+200, list[len(list)-1].ID)
	for i := range 100 {
		b.again(fmt.Sprint("n", i), "notification.create", `{"level":"info","title":"T","message":"M"}`)
	}
	calls, err := patchdb.Get[[]string](b.db, effect.CallsPointer("self"))
	require.NoError(t, err)
	require.Len(t, calls, 256)
	require.Equal(t, effect.GUIDFor("x", "a"), effect.GUIDFor("x", "a"))
	require.NotEqual(t, effect.GUIDFor("x", "a"), effect.GUIDFor("y", "a"))
	require.NotEqual(t, effect.GUIDFor("x", ""), effect.GUIDFor("x", ""))
}
