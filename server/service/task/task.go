// Package task is the rules of tasks: what a task's input asks of an action's
// current input, and what a run of the action does to the task. It is pure;
// who asks the action and who writes the document is in server/service.
//
// A task names an action that its package's user should run. Without a
// condition it stays until the action was run; with the condition
// input-not-matches it is active whenever the action's current input
// satisfies none of the accepted partial values (StartOS, tasks).
package task

import (
	"bytes"
	"encoding/json"
	"reflect"
)

// The severities.
const (
	Optional  = "optional"
	Important = "important"
	Critical  = "critical"
)

// InputNotMatches is the only condition there is.
const InputNotMatches = "input-not-matches"

// Task is what a package asks its user to do.
type Task struct {
	PackageID string  `json:"packageId"`
	ActionID  string  `json:"actionId"`
	Severity  string  `json:"severity"`
	Reason    *string `json:"reason"`
	When      *When   `json:"when"`
	Input     *Input  `json:"input"`
}

// When is the condition under which a task is active.
type When struct {
	Once      bool   `json:"once"`
	Condition string `json:"condition"`
}

// Input is what the action's input should be.
type Input struct {
	Kind   string            `json:"kind"`
	Accept []json.RawMessage `json:"accept"`
	Set    json.RawMessage   `json:"set"`
}

// UnmarshalJSON also reads the older form {kind, value}, which accepts and
// sets one value.
func (in *Input) UnmarshalJSON(text []byte) error {
	var v struct {
		Kind   string            `json:"kind"`
		Accept []json.RawMessage `json:"accept"`
		Set    json.RawMessage   `json:"set"`
		Value  json.RawMessage   `json:"value"`
	}
	if err := json.Unmarshal(text, &v); err != nil {
		return err
	}
	*in = Input{Kind: v.Kind, Accept: v.Accept, Set: v.Set}
	if len(v.Value) > 0 && in.Accept == nil {
		in.Accept = []json.RawMessage{v.Value}
		if in.Set == nil {
			in.Set = v.Value
		}
	}
	if in.Accept == nil {
		in.Accept = []json.RawMessage{}
	}
	if in.Set == nil {
		in.Set = json.RawMessage("null")
	}
	return nil
}

// Entry is a task as it stands in the document.
type Entry struct {
	Task   Task `json:"task"`
	Active bool `json:"active"`
}

// Stops reports whether the task keeps its package from running.
func (e Entry) Stops() bool { return e.Active && e.Task.Severity == Critical }

// Fate is what becomes of a task.
type Fate int

// The fates.
const (
	Keep Fate = iota
	Activate
	Deactivate
	Remove
)

// Recheck is the task's fate when its action's input is known to be value.
// run says that the action was just run with it, else it is the current
// input as the action's form shows it.
func Recheck(t Task, value json.RawMessage, run bool) Fate {
	if t.When == nil {
		if run {
			return Remove
		}
		return Keep
	}
	if t.When.Condition != InputNotMatches || t.Input == nil {
		return Keep
	}
	v, ok := decode(value)
	if !ok {
		return Keep
	}
	conflicts := 0
	for _, accept := range t.Input.Accept {
		p, ok := decode(accept)
		if !ok {
			continue
		}
		if matches(p, v) {
			if t.When.Once && run {
				return Remove
			}
			return Deactivate
		}
		if conflict(p, v) {
			conflicts++
		}
	}
	if conflicts == len(t.Input.Accept) {
		return Activate
	}
	return Keep
}

// Matches reports whether value satisfies any of the task's accepted inputs.
func Matches(t Task, value json.RawMessage) bool {
	if t.Input == nil {
		return false
	}
	v, ok := decode(value)
	for _, accept := range t.Input.Accept {
		if p, pok := decode(accept); ok && pok && matches(p, v) {
			return true
		}
	}
	return false
}

func decode(text json.RawMessage) (any, bool) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var v any
	if d.Decode(&v) != nil {
		return nil, false
	}
	return v, true
}

// matches: objects key by key, where a missing key is as null; every element
// of an array matches some element of the other; else equality.
func matches(p, v any) bool {
	switch p := p.(type) {
	case map[string]any:
		o, ok := v.(map[string]any)
		if !ok {
			return false
		}
		for k, pv := range p {
			ov, have := o[k]
			if !have {
				if pv != nil {
					return false
				}
				continue
			}
			if !matches(pv, ov) {
				return false
			}
		}
		return true
	case []any:
		o, ok := v.([]any)
		if !ok {
			return false
		}
		for _, pv := range p {
			found := false
			for _, ov := range o {
				found = found || matches(pv, ov)
			}
			if !found {
				return false
			}
		}
		return true
	}
	return equal(p, v)
}

// conflict: objects conflict when any common key does; arrays when some
// element conflicts with all of the other side; else inequality.
func conflict(p, v any) bool {
	switch p := p.(type) {
	case map[string]any:
		o, ok := v.(map[string]any)
		if !ok {
			return true
		}
		for k, pv := range p {
			if ov, have := o[k]; have && conflict(pv, ov) {
				return true
			}
		}
		return false
	case []any:
		o, ok := v.([]any)
		if !ok {
			return true
		}
		for _, pv := range p {
			all := true
			for _, ov := range o {
				all = all && conflict(pv, ov)
			}
			if all {
				return true
			}
		}
		return false
	}
	return !equal(p, v)
}

// equal compares scalars; numbers by value, so that 1 and 1.0 are the same.
func equal(a, b any) bool {
	x, xok := a.(json.Number)
	y, yok := b.(json.Number)
	if xok && yok {
		if x == y {
			return true
		}
		f, ferr := x.Float64()
		g, gerr := y.Float64()
		return ferr == nil && gerr == nil && f == g
	}
	return reflect.DeepEqual(a, b)
}
