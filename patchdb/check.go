package patchdb

import (
	"context"
	"errors"
	"fmt"

	"github.com/selfstead/selfstead/patchdb/internal/tree"
	"github.com/selfstead/selfstead/patchdb/internal/vfs"
	"github.com/selfstead/selfstead/patchdb/internal/wal"
)

// Report is what Check found in a sound file.
type Report struct {
	Snapshot  RevisionID // the revision that the file starts from
	Revision  RevisionID // the revision that it leads to
	Revisions int        // patches in between
	Size      int64      // bytes of the file
	Used      int64      // bytes of them up to the last record
	Torn      int64      // bytes of an unfinished write behind that; Open will cut them
	Sealed    bool       // the end is marked: nothing was in flight
}

// Check reads a database file without changing it: every checksum, every
// value, and that every patch applies. The error wraps ErrCorrupt and says
// where. The file may be in use.
func Check(path string) (Report, error) { return check(path, vfs.OS) }

func check(path string, fsys vfs.FS) (r Report, err error) {
	for range readTries { // see open
		if r, err = checkOnce(path, fsys); !errors.Is(err, ErrCorrupt) {
			break
		}
	}
	return r, err
}

func checkOnce(path string, fsys vfs.FS) (Report, error) {
	f, err := fsys.Open(path, false)
	if err != nil {
		return Report{}, fileError("check", path, err)
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return Report{}, fileError("check", path, err)
	}
	r, _, err := checkFile(f, size)
	if err != nil {
		return r, fileError("check", path, err)
	}
	return r, nil
}

func checkFile(f vfs.File, size int64) (Report, *state, error) {
	l := loader{hub: newHub(-1), parser: tree.Parser{Share: true}}
	res, err := wal.Scan(f, size, l.record)
	r := Report{Snapshot: l.base, Revision: l.st.id, Revisions: res.Records, Size: size, Used: res.Tail, Torn: res.Torn, Sealed: res.Sealed}
	if err == nil {
		l.st.root, err = reread(l.st.root)
	}
	return r, &l.st, err
}

// reread proves that the document survives its own text.
func reread(n tree.Node) (tree.Node, error) {
	again, err := tree.Parse(tree.Encode(n))
	if err != nil {
		return n, fmt.Errorf("%w: the document does not read back: %w", ErrCorrupt, err)
	}
	if !tree.Equal(n, again) {
		return n, fmt.Errorf("%w: the document reads back as another", ErrCorrupt)
	}
	return n, nil
}

// Check reads the open database's file as Check does, and proves that it leads
// to the document in memory. Writers wait meanwhile.
func (db *DB) Check(ctx context.Context) (Report, error) {
	db.logMu.Lock()
	defer db.logMu.Unlock()
	if err := ctx.Err(); err != nil {
		return Report{}, context.Cause(ctx)
	}
	if db.fault.Load() == &ErrClosed {
		return Report{}, ErrClosed
	}
	size, err := db.log.File.Size()
	if err != nil {
		return Report{}, fileError("check", db.path, err)
	}
	r, st, err := checkFile(db.log.File, size)
	switch {
	case err != nil:
		return r, fileError("check", db.path, err)
	case st.id != db.tip.id:
		err = fmt.Errorf("%w: the file is at revision %d, the document at %d", ErrCorrupt, st.id, db.tip.id)
		return r, fileError("check", db.path, err)
	case !tree.Equal(st.root, db.tip.root):
		return r, fileError("check", db.path, fmt.Errorf("%w: the file leads to another document", ErrCorrupt))
	}
	return r, nil
}
