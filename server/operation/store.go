package operation

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/selfstead/selfstead/patchdb"
	"github.com/selfstead/selfstead/server/problem"
	"github.com/selfstead/selfstead/server/state"
)

// Store remembers operations for the processes that follow. It is called for
// one operation at a time, in order.
type Store interface {
	Load() ([]Operation, error)
	Save(Operation) error
	Remove(id string) error
}

// errInterrupted is how an operation ended that was running when its process
// was killed and that nobody took up again.
var errInterrupted = problem.New(503, "interrupted", "the server was stopped in the middle of it, and what it had done was taken back")

// recall lists what earlier processes left. What was running then still is,
// until Resume or SettleInterrupted.
func (m *Manager) recall() {
	if m.store == nil {
		return
	}
	list, err := m.store.Load()
	if err != nil {
		m.log.Error("earlier operations are not known", "err", err)
		return
	}
	slices.SortFunc(list, func(a, b Operation) int { return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID)) })
	for _, op := range list {
		j := &Job{m: m, changed: make(chan struct{}), op: op, left: !op.Done()}
		j.ctx, j.cancel = context.WithCancelCause(m.ctx)
		if op.Done() {
			j.cancel(nil)
		}
		m.next++
		j.seq = m.next
		m.jobs[op.ID] = j
	}
}

// Resume takes up the operation that an earlier process was doing on a package
// when it ended, nil when there is none. The caller brings it to its end.
func (m *Manager) Resume(pkg string) *Job {
	for _, j := range m.sorted() {
		j.mu.Lock()
		mine := j.left && j.op.Package == pkg && !j.op.Done()
		if mine {
			j.left = false
		}
		j.mu.Unlock()
		if mine {
			return j
		}
	}
	return nil
}

// SettleInterrupted ends what earlier processes were doing and nobody took up
// with Resume: it had succeeded where done says so, else it was taken back.
func (m *Manager) SettleInterrupted(done func(Operation) bool) {
	for _, j := range m.sorted() {
		j.mu.Lock()
		mine := j.left && !j.op.Done()
		j.left = false
		j.mu.Unlock()
		switch {
		case mine && done(j.Operation()):
			j.Finish(nil, nil)
		case mine:
			j.Finish(nil, errInterrupted)
		}
	}
}

// Interrupted is the problem of an operation that was cut off and taken back.
func Interrupted() error { return errInterrupted }

// keepRecord stores a snapshot. A store that fails costs the record, not the
// work.
func (m *Manager) keepRecord(op Operation) {
	if m.store == nil {
		return
	}
	m.storing.Lock()
	defer m.storing.Unlock()
	if j, err := m.job(op.ID); err == nil {
		op = j.Operation() // the newest, whoever came first
	} else {
		return
	}
	if err := m.store.Save(op); err != nil {
		m.log.Error("operation is not stored", "operation", op.ID, "err", err)
	}
}

func (m *Manager) dropRecord(id string) {
	if m.store == nil {
		return
	}
	m.storing.Lock()
	defer m.storing.Unlock()
	if err := m.store.Remove(id); err != nil {
		m.log.Error("operation is not removed", "operation", id, "err", err)
	}
}

// InDocument is a Store in the server's document.
func InDocument(db *patchdb.DB) Store { return document{db} }

type document struct{ db *patchdb.DB }

var records = state.PrivatePointer("operations")

func (d document) Load() ([]Operation, error) {
	all, err := patchdb.Get[map[string]Operation](d.db, records)
	if errors.Is(err, patchdb.ErrNotFound) {
		return nil, nil
	}
	list := make([]Operation, 0, len(all))
	for _, op := range all {
		list = append(list, op)
	}
	return list, err
}

func (d document) Save(op Operation) error {
	_, err := d.db.Update(context.Background(), func(tx *patchdb.Tx) error { return tx.PutAll(patchdb.Join(records, op.ID), op) })
	return err
}

func (d document) Remove(id string) error {
	_, err := d.db.Update(context.Background(), func(tx *patchdb.Tx) error {
		if at := patchdb.Join(records, id); tx.Exists(at) {
			return tx.Remove(at)
		}
		return nil
	})
	return err
}
