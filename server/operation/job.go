package operation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"

	"github.com/selfstead/selfstead/server/problem"
)

// errStopped is the cause of a job's context when the manager closes.
var errStopped = problem.New(503, problem.CodeStopping, "the server is stopping")

// Job is one operation seen by the code that does its work. Its methods may be
// called from any goroutine; after Finish they do nothing.
type Job struct {
	m      *Manager
	ctx    context.Context
	cancel context.CancelCauseFunc
	seq    uint64 // order of beginning

	mu      sync.Mutex
	op      Operation
	left    bool          // running since an earlier process, and nobody's yet
	changed chan struct{} // closed and replaced at each change
}

// ID is the operation's name.
func (j *Job) ID() string { return j.op.ID }

// Context is cancelled when someone cancels the operation, when the manager
// closes, and after Finish. It is not bound to the request that began the job.
func (j *Job) Context() context.Context { return j.ctx }

// Operation is the current snapshot.
func (j *Job) Operation() Operation {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.op
}

// Progress says how far the work is; a negative total is unknown.
func (j *Job) Progress(phase string, done, total int64, unit Unit) {
	var t *int64
	if total >= 0 {
		t = &total
	}
	j.update(func(o *Operation) { o.Progress = Progress{Phase: phase, Done: done, Total: t, Unit: unit} })
}

// SetPackage says which package the job works on.
func (j *Job) SetPackage(id string) {
	j.update(func(o *Operation) { o.Package = id })
	j.m.keepRecord(j.Operation())
}

// SetKind says what kind of work it has turned out to be.
func (j *Job) SetKind(kind string) {
	j.update(func(o *Operation) { o.Kind = kind })
	j.m.keepRecord(j.Operation())
}

// Go runs fn in a goroutine and finishes the job with what it returns. A panic
// of fn is logged and fails the job.
func (j *Job) Go(fn func(ctx context.Context) (any, error)) {
	j.m.wg.Add(1)
	go func() {
		defer j.m.wg.Done()
		defer func() {
			if v := recover(); v != nil {
				j.m.log.Error("operation panicked", "operation", j.op.ID, "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
				j.Finish(nil, fmt.Errorf("operation: panic: %v", v))
			}
		}()
		result, err := fn(j.ctx)
		j.Finish(result, err)
	}()
}

// Finish ends the operation: succeeded with result (encoded at once, so the
// caller may change it afterwards) when err is nil, cancelled when err came
// after a cancel, else failed with the problem that err is. Only the first
// call counts.
func (j *Job) Finish(result any, err error) {
	var raw json.RawMessage
	if err == nil && result != nil {
		raw, err = json.Marshal(result)
	}
	asked := context.Cause(j.ctx)
	ended := false
	j.update(func(o *Operation) {
		now := j.m.now()
		o.Finished, ended = &now, true
		switch {
		case err == nil:
			o.Status, o.Result = Succeeded, raw
		case asked != nil:
			o.Status, o.Problem = Cancelled, problem.From(asked)
		default:
			o.Status, o.Problem = Failed, problem.From(err)
		}
	})
	if !ended {
		return
	}
	j.cancel(nil)
	j.m.keepRecord(j.Operation())
	if err != nil && asked == nil && j.op.Problem.Code == problem.CodeInternal {
		j.m.log.Error("operation failed", "operation", j.op.ID, "kind", j.op.Kind, "err", err)
	} else if err != nil && !errors.Is(err, context.Canceled) {
		j.m.log.Info("operation ended", "operation", j.op.ID, "kind", j.op.Kind, "status", string(j.op.Status), "err", err)
	}
	j.m.prune()
}

// update changes the snapshot of a running job and wakes its readers.
func (j *Job) update(fn func(*Operation)) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.op.Done() {
		return
	}
	fn(&j.op)
	close(j.changed)
	j.changed = make(chan struct{})
}

// snapshot returns the current operation and what closes at its next change.
func (j *Job) snapshot() (Operation, <-chan struct{}) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.op, j.changed
}
