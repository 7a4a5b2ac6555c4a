package patchdb

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"github.com/selfstead/selfstead/patchdb/internal/tree"
	"github.com/selfstead/selfstead/patchdb/internal/wal"
)

// Update calls fn with the newest state and makes what it changed one revision,
// which is on stable storage when Update returns without error. If fn returns
// an error nothing changes and that error comes back. If fn changes nothing no
// revision is spent: the result has the current id and no patch.
//
// One fn runs at a time, and must not call Update; slow work belongs before it.
// The wait for the disk is shared: updates that arrive meanwhile are written
// together. ctx ends the wait for other functions, not the one for the disk.
//
// When a write or sync fails, the error wraps ErrReadOnly: the document stays
// at the last durable revision, and so does the file as far as it can still be
// written.
func (db *DB) Update(ctx context.Context, fn func(tx *Tx) error) (Revision, error) {
	p, err := db.begin(ctx, fn)
	if err != nil {
		return Revision{}, err
	}
	if p.wake != nil {
		if <-p.wake {
			db.gather()
			db.lead(p)
		}
		if p.err != nil {
			return Revision{}, p.err
		}
	}
	r := Revision{ID: p.st.id}
	if p.rev != nil {
		r.Patch = p.rev.patch()
	}
	return r, nil
}

// begin runs fn and queues what it did.
func (db *DB) begin(ctx context.Context, fn func(tx *Tx) error) (*pending, error) {
	select {
	case db.writer <- struct{}{}:
	default:
		select {
		case db.writer <- struct{}{}:
		case <-ctx.Done():
			return nil, fmt.Errorf("patchdb: update: %w", context.Cause(ctx))
		}
	}
	defer func() { <-db.writer }()
	if ctx.Err() != nil {
		return nil, fmt.Errorf("patchdb: update: %w", context.Cause(ctx))
	}
	if err := db.Err(); err != nil {
		return nil, err
	}
	tx := &Tx{id: db.head.id, edit: editor{root: db.head.root}, writable: true}
	defer func() { tx.done = true }()
	if err := fn(tx); err != nil {
		return nil, err
	}
	p := &pending{st: db.head}
	switch ops := tx.edit.ops; {
	case len(ops) > 0 && !tree.Equal(db.head.root, tx.edit.root):
		p.st = &state{db.head.id + 1, tx.edit.root}
		p.old = db.head.root
		p.rev = newRevision(p.st.id, ops)
		p.payload = p.rev.text
		if len(p.payload) > wal.MaxPayload {
			return nil, fmt.Errorf("%w: a revision of %d bytes", ErrInvalid, len(p.payload))
		}
		db.head = p.st
	case db.cur.Load() == db.head:
		return p, nil
	}
	p.wake = make(chan bool, 1)
	db.queueMu.Lock()
	db.queue = append(db.queue, p)
	if !db.leading {
		db.leading = true
		p.wake <- true
	}
	db.queueMu.Unlock()
	return p, nil
}

// gather waits a moment for the writers of the batch before, who have just been
// told and are likely to come again: one sync for all is better than one for
// each half of them. It waits a quarter of a sync at most, not at all for a
// writer alone, and not for a while once it was in vain.
func (db *DB) gather() {
	g := &db.group
	if !g.handed {
		return
	}
	if g.rest > 0 {
		g.rest--
		return
	}
	for start := time.Now(); time.Since(start) < g.took/4; {
		db.queueMu.Lock()
		n := len(db.queue)
		db.queueMu.Unlock()
		if n >= g.expect {
			return
		}
		runtime.Gosched()
	}
	g.rest = 16
}

// lead writes the queue, own included, and then hands the lead to the first of
// those who came meanwhile.
func (db *DB) lead(own *pending) {
	db.queueMu.Lock()
	batch := db.queue
	db.queue = nil
	db.queueMu.Unlock()

	db.logMu.Lock()
	start := time.Now()
	err := db.Err()
	if err == nil {
		err = db.flush(batch)
	}
	db.group.took = time.Since(start)
	due := db.compactDue()
	db.logMu.Unlock()
	if err == nil {
		db.hub.publish(db, batch)
	}

	for _, p := range batch {
		p.err = err
		if p != own {
			p.wake <- false
		}
	}
	db.queueMu.Lock()
	if db.group.handed = len(db.queue) > 0; db.group.handed {
		db.group.expect = len(db.queue) + len(batch)
		db.queue[0].wake <- true
	} else {
		db.leading = false
	}
	db.queueMu.Unlock()
	if due {
		db.compactInBackground()
	}
}

// flush makes the batch durable. Called with logMu held.
func (db *DB) flush(batch []*pending) error {
	n := 0
	for _, p := range batch {
		if p.rev != nil {
			n++
			db.log.Add(uint64(p.rev.id), p.payload)
			db.next.add(uint64(p.rev.id), p.payload)
		}
	}
	if n == 0 {
		return nil
	}
	err := db.log.Write()
	if err == nil {
		err = db.log.File.Sync()
	}
	if err == nil {
		err = db.next.flush()
	}
	if err != nil {
		// What became of the batch is unknown: take it back as far as possible.
		err = readOnly{&FileError{"write", db.path, db.log.Tail(), plain(err)}}
		db.fail(err)
		if cut := db.log.Drop(); cut != nil {
			db.logger.Error("cannot take back an update that failed", "file", db.path, "err", cut)
		}
		db.next.drop()
		return err
	}
	if err := db.log.Commit(); err != nil {
		db.fail(readOnly{&FileError{"write", db.path, db.log.Tail(), plain(err)}})
	}
	db.next.commit()
	db.tip = batch[len(batch)-1].st
	return nil
}
