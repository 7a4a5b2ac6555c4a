package patchdbtest

import (
	"bytes"
	"os"
	"testing"

	"github.com/selfstead/selfstead/patchdb"
)

// recorder is a test whose verdict is looked at.
type recorder struct {
	testing.TB
	cleanup []func()
	failed  bool
}

func (r *recorder) Cleanup(fn func()) { r.cleanup = append(r.cleanup, fn) }
func (r *recorder) Error(...any)      { r.failed = true }

func TestOpen(t *testing.T) {
	t.Parallel()
	db := With(t, map[string]int{"a": 1}, patchdb.Options{})
	if n, err := patchdb.Get[int](db, "/a"); err != nil || n != 1 || db.Revision() != 1 {
		t.Errorf("%d %v", n, err)
	}
}

// A database whose file was damaged behind its back fails the test that had it.
func TestCleanupChecks(t *testing.T) {
	t.Parallel()
	for _, damage := range []bool{false, true} {
		r := &recorder{TB: t}
		db := With(r, map[string]string{"name": "anna"}, patchdb.Options{})
		if damage {
			b, err := os.ReadFile(db.Path())
			if err != nil {
				t.Fatal(err)
			}
			b[bytes.Index(b, []byte("anna"))] ^= 1
			if err := os.WriteFile(db.Path(), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for _, fn := range r.cleanup {
			fn()
		}
		if r.failed != damage {
			t.Errorf("damage %v: failed %v", damage, r.failed)
		}
	}
}
