package patchdb

import (
	"errors"
	"fmt"
	"testing"
)

type account struct {
	Name  string `json:"name"`
	Limit int    `json:"limit,omitempty"`
	Tags  []tag  `json:"tags"`
}

type tag struct {
	ID int `json:"id"`
}

func (a *account) Validate() error {
	if a.Name == "" {
		return errors.New("a name is needed")
	}
	return nil
}

// What T does not know stays, and what was not changed is no operation.
func TestMutateKeepsWhatItDoesNotKnow(t *testing.T) {
	t.Parallel()
	db := openTest(t, Options{})
	put(t, db, "", map[string]any{"acc": map[string]any{
		"name": "anna", "since": 1999, "tags": []any{map[string]any{"id": 1, "note": "one"}, map[string]any{"id": 2, "note": "two"}},
	}})
	r, err := Mutate(t.Context(), db, "/acc", func(a *account) error {
		a.Limit = 5
		a.Tags = append([]tag{{7}}, a.Tags[1])
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"name":"anna","since":1999,"tags":[{"id":7,"note":"one"},{"id":2,"note":"two"}],"limit":5}`
	if got := text(t, db, "/acc"); got != want {
		t.Errorf("%s", got)
	}
	if len(r.Patch) != 2 {
		t.Errorf("%v", r.Patch)
	}
	if r, err := Mutate(t.Context(), db, "/acc", func(a *account) error { return nil }); err != nil || len(r.Patch) != 0 {
		t.Errorf("%v %v", r, err)
	}
}

func TestValidation(t *testing.T) {
	t.Parallel()
	db := openTest(t, Options{})
	put(t, db, "", map[string]any{"good": map[string]any{"name": "anna"}, "bad": map[string]any{"limit": 1}, "ill": map[string]any{"name": 5}})
	if a, err := Get[account](db, "/good"); err != nil || a.Name != "anna" {
		t.Errorf("%v %v", a, err)
	}
	var pe *PointerError
	for _, p := range []Pointer{"/bad", "/ill"} {
		if _, err := Get[account](db, p); !errors.Is(err, ErrInvalid) || !errors.As(err, &pe) || pe.Pointer != p {
			t.Errorf("%s: %v", p, err)
		}
	}
	if _, err := Get[account](db, "/none"); !errors.Is(err, ErrNotFound) {
		t.Errorf("%v", err)
	}
	_, err := Mutate(t.Context(), db, "/good", func(a *account) error { a.Name = ""; return nil })
	if !errors.Is(err, ErrInvalid) || text(t, db, "/good/name") != `"anna"` {
		t.Errorf("%v", err)
	}
	mine := fmt.Errorf("mine")
	if _, err := Mutate(t.Context(), db, "/good", func(a *account) error { a.Name = "x"; return mine }); err != mine {
		t.Errorf("%v", err)
	}
	// A pointer type, and plain values.
	if _, err := Mutate(t.Context(), db, "/bad/limit", func(n *int) error { *n++; return nil }); err != nil || text(t, db, "/bad/limit") != "2" {
		t.Errorf("%v", err)
	}
}

// A dump's Update is a database's, without one.
func TestDumpUpdate(t *testing.T) {
	t.Parallel()
	d := Dump{ID: 7, Value: []byte(`{"a":[1,2]}`)}
	change := func(tx *Tx) error {
		if err := tx.Expect(7); err != nil {
			return err
		}
		return tx.Put("/a/1", 3)
	}
	after, r, err := d.Update(change)
	if err != nil || after.ID != 8 || string(after.Value) != `{"a":[1,3]}` || asJSON(t, r) != `{"id":8,"patch":[{"op":"replace","path":"/a/1","value":3}]}` {
		t.Errorf("%+v %s %v", after, asJSON(t, r), err)
	}
	if string(d.Value) != `{"a":[1,2]}` {
		t.Errorf("the dump became %s", d.Value)
	}
	if _, _, err := after.Update(change); !errors.Is(err, ErrConflict) {
		t.Errorf("at another revision: %v", err)
	}
	if same, r, err := d.Update(func(tx *Tx) error { return tx.Put("/a/0", 1) }); err != nil || same.ID != 7 || r.ID != 7 || len(r.Patch) > 0 {
		t.Errorf("without a change: %+v %+v %v", same, r, err)
	}
	if _, _, err := (Dump{Value: []byte("{")}).Update(change); !errors.Is(err, ErrInvalid) {
		t.Errorf("no JSON: %v", err)
	}
}
