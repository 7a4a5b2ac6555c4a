package patchdbtest

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/selfstead/selfstead/patchdb"
)

// Open opens a new database in a folder of the test. When the test ends the
// database is closed, and its file must be sound and lead to the document that
// was in memory.
func Open(t testing.TB, o patchdb.Options) *patchdb.DB {
	t.Helper()
	path := filepath.Join(t.TempDir(), "patch.db")
	db, err := patchdb.Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeChecked(t, db, path) })
	return db
}

// With is Open of a database that starts with the value v, as encoding/json
// writes it, at revision 1.
func With(t testing.TB, v any, o patchdb.Options) *patchdb.DB {
	t.Helper()
	db := Open(t, o)
	if _, err := db.Put(t.Context(), "", v); err != nil {
		t.Fatal(err)
	}
	return db
}

func closeChecked(t testing.TB, db *patchdb.DB, path string) {
	t.Helper()
	if db.Err() == nil {
		// The test's own context is over by now.
		if _, err := db.Check(context.Background()); err != nil {
			t.Error(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
	if _, err := patchdb.Check(path); err != nil {
		t.Error(err)
	}
}
