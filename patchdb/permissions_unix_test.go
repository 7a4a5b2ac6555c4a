//go:build unix

package patchdb

import (
	"os"
	"syscall"
	"testing"
)

// Who may open a database may do so after a compaction by somebody else.
func TestCompactKeepsPermissions(t *testing.T) {
	t.Parallel()
	db := openTest(t, Options{})
	put(t, db, "", 1)
	if err := os.Chmod(db.Path(), 0o640); err != nil {
		t.Fatal(err)
	}
	root := os.Getuid() == 0
	if root {
		if err := os.Chown(db.Path(), 1234, 4321); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(db.Path())
	if err != nil || st.Mode().Perm() != 0o640 {
		t.Fatalf("%v %v", st.Mode(), err)
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); root && ok && (sys.Uid != 1234 || sys.Gid != 4321) {
		t.Errorf("owner %d, group %d", sys.Uid, sys.Gid)
	}
}
