package task_test

import (
	"encoding/json"
	"testing"

	"github.com/selfstead/selfstead/server/service/task"
	"github.com/stretchr/testify/require"
)

func TestMatchAndConflict(t *testing.T) {
	for _, c := range []struct {
		accept, value string
		matches       bool
		fate          task.Fate
	}{
		{`{"a":1}`, `{"a":1,"b":2}`, true, task.Deactivate},
		{`{"a":1}`, `{"a":1.0}`, true, task.Deactivate},
		{`{"a":1}`, `{"a":2}`, false, task.Activate},
		{`{"a":1}`, `{}`, false, task.Keep}, // absent: neither satisfied nor contradicted
		{`{"a":null}`, `{}`, true, task.Deactivate},
		{`{"a":null}`, `{"a":3}`, false, task.Activate},
		{`{"a":{"b":true}}`, `{"a":{"b":true,"c":0}}`, true, task.Deactivate},
		{`{"a":[1,2]}`, `{"a":[3,2,1]}`, true, task.Deactivate},
		{`{"a":[1,4]}`, `{"a":[3,2,1]}`, false, task.Activate},
		{`{"a":[]}`, `{"a":[1]}`, true, task.Deactivate},
		{`{"a":[1]}`, `{"a":7}`, false, task.Activate},
		{`{"a":"x"}`, `null`, false, task.Activate},
		{`{"a":9007199254740993}`, `{"a":9007199254740993}`, true, task.Deactivate},
	} {
		in := task.Task{
			When:  &task.When{Condition: task.InputNotMatches},
			Input: &task.Input{Accept: []json.RawMessage{json.RawMessage(c.accept)}},
		}
		require.Equal(t, c.matches, task.Matches(in, json.RawMessage(c.value)), "%s in %s", c.accept, c.value)
		require.Equal(t, c.fate, task.Recheck(in, json.RawMessage(c.value), false), "%s in %s", c.accept, c.value)
	}
}

func TestRunEndsTasks(t *testing.T) {
	plain := task.Task{}
	require.Equal(t, task.Remove, task.Recheck(plain, json.RawMessage(`null`), true))
	require.Equal(t, task.Keep, task.Recheck(plain, json.RawMessage(`null`), false))
	once := task.Task{
		When:  &task.When{Once: true, Condition: task.InputNotMatches},
		Input: &task.Input{Accept: []json.RawMessage{json.RawMessage(`{"a":1}`), json.RawMessage(`{"a":2}`)}},
	}
	require.Equal(t, task.Remove, task.Recheck(once, json.RawMessage(`{"a":2}`), true))
	require.Equal(t, task.Deactivate, task.Recheck(once, json.RawMessage(`{"a":2}`), false))
	require.Equal(t, task.Activate, task.Recheck(once, json.RawMessage(`{"a":3}`), true))
}

func TestOldInputForm(t *testing.T) {
	var in task.Input
	require.NoError(t, json.Unmarshal([]byte(`{"kind":"partial","value":{"a":1}}`), &in))
	text, err := json.Marshal(in)
	require.NoError(t, err)
	require.JSONEq(t, `{"kind":"partial","accept":[{"a":1}],"set":{"a":1}}`, string(text))
}
