package patchdb

import (
	"context"
	"errors"
	"io/fs"
	"time"

	"github.com/selfstead/selfstead/patchdb/internal/tree"
	"github.com/selfstead/selfstead/patchdb/internal/vfs"
	"github.com/selfstead/selfstead/patchdb/internal/wal"
)

// A compaction writes the document as it is into a new file, copies the
// revisions that came meanwhile, and lets the new file take the old one's name.
// Writers go on. From the moment when the new file has caught up until it has
// the name for good, each batch is written to both: whichever of the two a
// crash leaves under the name is complete. Nothing slow happens with a lock held.

// successor is the new file while batches go to both.
type successor struct {
	log      *wal.Log
	base     RevisionID
	snapped  int64
	err      error // why it is of no use any more
	renaming bool  // it may have the name already: a failure is the database's
}

func (n *successor) add(id uint64, payload []byte) {
	if n != nil && n.err == nil {
		n.log.Add(id, payload)
	}
}

func (n *successor) flush() error {
	if n == nil {
		return nil
	}
	if n.err == nil {
		n.err = n.log.Write()
	}
	if n.err == nil {
		n.err = n.log.File.Sync()
	}
	if n.renaming {
		return n.err
	}
	return nil
}

func (n *successor) commit() {
	if n != nil && n.err == nil {
		n.err = n.log.Commit()
	}
}

func (n *successor) drop() {
	if n != nil {
		n.err = errors.Join(n.err, n.log.Drop(), errors.New("an update failed meanwhile"))
	}
}

// compactDue says whether the log has grown enough. Called with logMu held.
func (db *DB) compactDue() bool {
	every := db.opts.CompactEvery
	if every < 0 || db.next != nil || db.Err() != nil {
		return false
	}
	if every == 0 {
		every = defaultCompactEvery
	}
	since := max(db.base, db.tried)
	grown := db.log.Tail()-db.snapped > max(minGrowth, 4*db.snapped)
	if db.tip.id-since < RevisionID(every) && !(grown && db.tip.id-since >= 64) {
		return false
	}
	db.tried = db.tip.id
	return true
}

// minGrowth is how long the log may become whatever CompactEvery says.
const minGrowth = 16 << 20

func (db *DB) compactInBackground() {
	if db.ctx.Err() != nil {
		return
	}
	db.background.Go(func() {
		if err := db.Compact(db.ctx); err != nil && db.ctx.Err() == nil {
			db.logger.Warn("compaction did not succeed", "file", db.path, "err", err)
		}
	})
}

// Compact rewrites the file so that it holds the document and none of the
// revisions that led to it. Updates go on meanwhile. On error the database is
// as it was, unless Err says otherwise. Subscribers can still resume from
// revisions held in memory.
func (db *DB) Compact(ctx context.Context) error {
	db.compacting.Lock()
	defer db.compacting.Unlock()
	if err := db.Err(); err != nil {
		return err
	}
	if err := db.compact(ctx); err != nil {
		return fileError("compact", db.path, err)
	}
	return nil
}

func (db *DB) compact(ctx context.Context) (err error) {
	db.logMu.Lock()
	st, from, old := db.tip, db.log.Tail(), db.log
	db.logMu.Unlock()

	// One that is there is of no use: we hold the database's lock.
	if err := db.fs.Remove(db.path + newSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := createNew(db.path, db.fs)
	if err != nil {
		return err
	}
	taken := false // the new file has the name, or may have it
	defer func() {
		if !taken {
			db.logMu.Lock()
			db.next = nil
			db.logMu.Unlock()
			f.Close()
			db.fs.Remove(db.path + newSuffix)
		}
	}()
	if h, ok := f.(vfs.Inheriter); ok {
		if err := h.Inherit(old.File); err != nil {
			return err
		}
	}
	l, err := wal.NewFile(f, newSalt(), uint64(st.id), db.letWriters(ctx), func(add func([]byte) error) error {
		return tree.Stream(st.root, streamPiece, add)
	})
	if err != nil {
		return err
	}
	next := &successor{log: l, base: st.id, snapped: l.Tail()}
	if err := db.catchUp(ctx, old, next, from); err != nil {
		return err
	}
	// Batches go to both files now.
	if err := f.Sync(); err != nil {
		return err
	}
	db.logMu.Lock()
	err = errors.Join(next.err, db.Err(), ctx.Err())
	next.renaming = err == nil
	db.logMu.Unlock()
	if err != nil {
		return err
	}
	if err := db.fs.Rename(db.path+newSuffix, db.path); err != nil {
		if ok, nerr := db.fs.Names(db.path, old.File); ok && nerr == nil {
			return err
		}
		taken = true
		return db.lostTrack(err)
	}
	taken = true
	if err := db.fs.SyncDir(db.path); err != nil {
		return db.lostTrack(err)
	}
	db.logMu.Lock()
	if next.err != nil {
		db.fail(readOnly{&FileError{"write", db.path, next.log.Tail(), plain(next.err)}})
	}
	db.log, db.base, db.snapped, db.next = next.log, next.base, next.snapped, nil
	db.logMu.Unlock()
	// The old file's blocks are freed here, which takes time.
	return old.File.Close()
}

// letWriters returns what a compaction does between two pieces of its snapshot:
// where there were updates meanwhile it leaves the disk to them, for as long as
// the piece took.
func (db *DB) letWriters(ctx context.Context) func(took time.Duration) error {
	last := db.Revision()
	return func(took time.Duration) error {
		id := db.Revision()
		if id == last {
			took = 0
		}
		last = id
		pause := time.NewTimer(min(took, maxPause))
		defer pause.Stop()
		select {
		case <-pause.C:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// maxPause keeps a slow disk from stretching a compaction without end.
const maxPause = 20 * time.Millisecond

// lostTrack: which file has the name is unknown, so no update may be promised.
func (db *DB) lostTrack(err error) error {
	db.fail(readOnly{&FileError{"compact", db.path, -1, err}})
	return err
}

// copyLocked is how much of the log may be copied with the lock held.
const copyLocked = 64 << 10

// catchUp copies what the log got from the offset on, until so little is left
// that the rest can be copied while writers wait; then batches go to both.
func (db *DB) catchUp(ctx context.Context, old *wal.Log, next *successor, from int64) error {
	reserved := false
	for round := 0; ; round++ {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		db.logMu.Lock()
		to := old.Tail()
		if reserved && to-from <= copyLocked || round == 100 {
			err := copyRecords(old, next.log, from, to)
			if err == nil {
				db.next = next
			}
			db.logMu.Unlock()
			return err
		}
		db.logMu.Unlock()
		if err := copyRecords(old, next.log, from, to); err != nil {
			return err
		}
		// Nearly there: let the first batch that goes to both find a file with
		// nothing left to flush, and room.
		if to-from <= copyLocked {
			if err := next.log.Reserve(); err != nil {
				return err
			}
			reserved = true
		}
		from = to
	}
}

// copyRecords writes the records between two offsets of one log to another,
// without making them durable.
func copyRecords(from, to *wal.Log, begin, end int64) error {
	if begin == end {
		return nil
	}
	write := func() error {
		if err := to.Write(); err != nil {
			return err
		}
		return to.Commit()
	}
	n := 0
	err := wal.ScanRange(from.File, from.Salt, begin, end, func(r wal.Record) error {
		to.Add(r.ID, r.Payload)
		if n += len(r.Payload); n < copyLocked {
			return nil
		}
		n = 0
		return write()
	})
	if err != nil {
		return err
	}
	return write()
}
