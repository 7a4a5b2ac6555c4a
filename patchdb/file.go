package patchdb

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"

	"github.com/selfstead/selfstead/patchdb/internal/tree"
	"github.com/selfstead/selfstead/patchdb/internal/vfs"
	"github.com/selfstead/selfstead/patchdb/internal/wal"
)

// newSuffix names the file beside the database in which a new one grows, until
// it is complete and takes the database's name. One that a crash left is
// removed by the next Open.
const newSuffix = ".new"

// target is where a symbolic link leads. A compaction gives its file the
// database's name: it must not take the link's place and leave the old file
// under the other name.
func target(path string) string {
	if st, err := os.Lstat(path); err == nil && st.Mode()&fs.ModeSymlink != 0 {
		if to, err := filepath.EvalSymlinks(path); err == nil {
			return to
		}
	}
	return path
}

// openFile opens and locks the file at path, creating it where allowed.
func openFile(path string, first *Dump, o Options) (vfs.File, error) {
	if o.ReadOnly {
		return o.fs.Open(path, false)
	}
	// A try is lost only when the name moves between open and lock: when another
	// process compacts and closes, or creates the same database, just now.
	for range 100 {
		f, err := o.fs.Open(path, true)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			f, err = createFile(path, first, o.fs)
			if errors.Is(err, fs.ErrExist) && first == nil {
				continue
			}
			return f, err
		case err != nil:
			return nil, err
		case first != nil:
			f.Close()
			return nil, fs.ErrExist
		}
		ok, err := lockAs(o.fs, f, path)
		if err != nil {
			f.Close()
			return nil, err
		}
		if !ok {
			f.Close()
			continue
		}
		if err := o.fs.Remove(path + newSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			f.Close()
			return nil, err
		}
		return f, nil
	}
	return nil, vfs.ErrLocked
}

// lockAs locks f and then makes sure that it still has the name.
func lockAs(fsys vfs.FS, f vfs.File, name string) (bool, error) {
	if err := f.Lock(); err != nil {
		return false, err
	}
	ok, err := fsys.Names(name, f)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return ok, err
}

// createNew opens and locks the file that is to become the database.
func createNew(path string, fsys vfs.FS) (vfs.File, error) {
	f, err := fsys.Create(path + newSuffix)
	if err != nil {
		return nil, err
	}
	if ok, err := lockAs(fsys, f, path+newSuffix); !ok {
		f.Close()
		if err == nil {
			err = vfs.ErrLocked
		}
		return nil, err
	}
	return f, nil
}

// createFile makes a new database under another name and then links it to the
// path, so that the path never shows half a database.
func createFile(path string, first *Dump, fsys vfs.FS) (_ vfs.File, err error) {
	st := state{root: tree.Null{}}
	if first != nil {
		st.id = first.ID
		if st.root, err = tree.Parse(first.Value); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
		}
	}
	f, err := createNew(path, fsys)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	defer fsys.Remove(path + newSuffix)
	if _, err := newLog(f, &st); err != nil {
		return nil, err
	}
	err = fsys.Link(path+newSuffix, path)
	if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, fs.ErrPermission) {
		err = renameNew(path, fsys)
	}
	if err != nil {
		return nil, err
	}
	return f, fsys.SyncDir(path)
}

// renameNew gives the new database its name where the file system has no hard
// links. Between the look and the rename no other Open comes: it would need the
// lock of the file under its first name.
func renameNew(path string, fsys vfs.FS) error {
	f, err := fsys.Open(path, false)
	switch {
	case err == nil:
		f.Close()
		return fs.ErrExist
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	return fsys.Rename(path+newSuffix, path)
}

// streamPiece is how much snapshot text is made at a time.
const streamPiece = 16 << 10

// newLog fills a file with the state and makes it durable.
func newLog(f vfs.File, st *state) (*wal.Log, error) {
	return wal.NewFile(f, newSalt(), uint64(st.id), nil, func(add func([]byte) error) error {
		return tree.Stream(st.root, streamPiece, add)
	})
}

// newSalt keeps the records of one file from being taken for another's.
func newSalt() uint64 { return rand.Uint64() }

// Close waits for updates under way, ends subscriptions and releases the file.
// Later calls of other methods return ErrClosed; Close may be called twice.
func (db *DB) Close() error {
	db.closeOnce.Do(func() { db.closeErr = db.close() })
	return db.closeErr
}

func (db *DB) close() error {
	db.stop()
	db.background.Wait()
	db.compacting.Lock()
	defer db.compacting.Unlock()

	// With the writer's token held nothing is queued; wait for what is.
	db.writer <- struct{}{}
	last := &pending{st: db.head, wake: make(chan bool, 1)}
	db.queueMu.Lock()
	db.queue = append(db.queue, last)
	if !db.leading {
		db.leading = true
		last.wake <- true
	}
	db.queueMu.Unlock()
	if <-last.wake {
		db.lead(last)
	}
	failed := db.Err()
	db.fault.Store(&ErrClosed)
	<-db.writer
	db.hub.close(ErrClosed)

	db.logMu.Lock()
	defer db.logMu.Unlock()
	var err error
	if failed == nil {
		err = db.log.Trim()
	}
	if cerr := db.log.File.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fileError("close", db.path, err)
	}
	return nil
}
