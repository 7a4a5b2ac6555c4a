package operation

import (
	"cmp"
	"context"
	"crypto/rand"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/selfstead/selfstead/server/problem"
)

// Options tunes New. The zero value suits production.
type Options struct {
	Keep      time.Duration    // how long an ended operation stays readable; 0 means an hour
	KeepCount int              // how many ended operations stay readable; 0 means 200
	Now       func() time.Time // nil means time.Now
	Logger    *slog.Logger     // nil means silent

	// Store remembers operations across processes; nil means that they are
	// forgotten with this one. Progress is not stored, only beginning, kind,
	// package and end.
	Store Store
}

// Manager holds the operations. It is safe to share.
type Manager struct {
	keep      time.Duration
	keepCount int
	now       func() time.Time
	log       *slog.Logger
	store     Store
	ctx       context.Context
	stop      context.CancelCauseFunc
	wg        sync.WaitGroup
	storing   sync.Mutex // one record at a time

	mu   sync.Mutex
	jobs map[string]*Job
	next uint64
}

// New is a manager without operations. Close it.
func New(o Options) *Manager {
	m := &Manager{keep: cmp.Or(o.Keep, time.Hour), keepCount: cmp.Or(o.KeepCount, 200), now: o.Now, log: o.Logger, store: o.Store, jobs: map[string]*Job{}}
	if m.now == nil {
		m.now = time.Now
	}
	if m.log == nil {
		m.log = slog.New(slog.DiscardHandler)
	}
	m.ctx, m.stop = context.WithCancelCause(context.Background())
	m.recall()
	return m
}

// Close cancels what runs and waits until it has ended or ctx is done. Jobs of
// Begin that nobody moved to Go are the beginner's to finish.
func (m *Manager) Close(ctx context.Context) error {
	m.stop(errStopped)
	done := make(chan struct{})
	go func() { m.wg.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Begin lists a new running operation and returns its job; the caller must
// bring it to Finish or Go.
func (m *Manager) Begin(kind string) *Job {
	j := &Job{m: m, changed: make(chan struct{})}
	j.ctx, j.cancel = context.WithCancelCause(m.ctx)
	j.op = Operation{
		ID: strings.ToLower(rand.Text()), Kind: kind, Status: Running,
		Progress: Progress{Unit: Steps}, Created: m.now(),
	}
	m.mu.Lock()
	m.next++
	j.seq = m.next
	m.jobs[j.op.ID] = j
	m.mu.Unlock()
	m.keepRecord(j.Operation())
	m.prune()
	return j
}

// Start begins an operation and runs fn for it in a goroutine.
func (m *Manager) Start(kind string, fn func(ctx context.Context, j *Job) (any, error)) Operation {
	j := m.Begin(kind)
	op := j.Operation()
	j.Go(func(ctx context.Context) (any, error) { return fn(ctx, j) })
	return op
}

// Get returns the operation; a "not-found" problem when there is none.
func (m *Manager) Get(id string) (Operation, error) {
	j, err := m.job(id)
	if err != nil {
		return Operation{}, err
	}
	return j.Operation(), nil
}

// List returns every operation, the newest first.
func (m *Manager) List() []Operation {
	m.prune()
	jobs := m.sorted()
	ops := make([]Operation, len(jobs))
	for i, j := range jobs {
		ops[i] = j.Operation()
	}
	return ops
}

// Cancel asks a running operation to end; it has ended when its status says
// so. A "conflict" problem when it has ended already.
func (m *Manager) Cancel(id string) (Operation, error) {
	j, err := m.job(id)
	if err != nil {
		return Operation{}, err
	}
	j.mu.Lock()
	left := j.left
	j.mu.Unlock()
	if op := j.Operation(); left && !op.Done() {
		return op, problem.New(409, problem.CodeBusy, "the server has just started and is about to take it up or back")
	} else if op.Done() {
		return op, problem.New(409, problem.CodeConflict, "the operation has ended: "+string(op.Status))
	}
	j.cancel(problem.New(409, problem.CodeCancelled, "the operation was cancelled"))
	return j.Operation(), nil
}

// Subscribe follows one operation: the current snapshot first.
func (m *Manager) Subscribe(id string) (*Subscription, error) {
	j, err := m.job(id)
	if err != nil {
		return nil, err
	}
	ready := make(chan struct{})
	close(ready)
	return &Subscription{j: j, changed: ready}, nil
}

// Subscription follows one operation. It holds no resources and needs no end;
// it is not safe to share.
type Subscription struct {
	j       *Job
	changed <-chan struct{}
	ended   bool
}

// Next waits for a change and returns the newest snapshot; changes in between
// are skipped. After the final snapshot it returns io.EOF.
func (s *Subscription) Next(ctx context.Context) (Operation, error) {
	if s.ended {
		return Operation{}, io.EOF
	}
	select {
	case <-s.changed:
	case <-ctx.Done():
		return Operation{}, ctx.Err()
	}
	op, changed := s.j.snapshot()
	s.changed, s.ended = changed, op.Done()
	return op, nil
}

func (m *Manager) job(id string) (*Job, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if j := m.jobs[id]; j != nil {
		return j, nil
	}
	return nil, problem.NotFound("operation", id)
}

// sorted returns the jobs, the newest first.
func (m *Manager) sorted() []*Job {
	m.mu.Lock()
	defer m.mu.Unlock()
	jobs := make([]*Job, 0, len(m.jobs))
	for _, j := range m.jobs {
		jobs = append(jobs, j)
	}
	slices.SortFunc(jobs, func(a, b *Job) int { return cmp.Compare(b.seq, a.seq) })
	return jobs
}

// prune forgets ended operations that are too old or too many.
func (m *Manager) prune() {
	oldest := m.now().Add(-m.keep)
	ended := 0
	for _, j := range m.sorted() {
		op := j.Operation()
		if !op.Done() {
			continue
		}
		if ended++; ended > m.keepCount || op.Finished.Before(oldest) {
			m.mu.Lock()
			delete(m.jobs, op.ID)
			m.mu.Unlock()
			m.dropRecord(op.ID)
		}
	}
}
