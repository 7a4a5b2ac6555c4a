package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/selfstead/selfstead/lxcrt"
	"github.com/selfstead/selfstead/patchdb"
	"github.com/selfstead/selfstead/server/service/effect"
	"github.com/selfstead/selfstead/server/service/rpc"
	"github.com/selfstead/selfstead/server/service/status"
	"github.com/selfstead/selfstead/server/state"
)

// Limits of the steps that bring a container up and down.
const (
	connectLimit = 120 * time.Second // from start to service.sock
	exitLimit    = 75 * time.Second  // the service's own clean-up: the SDK kills workloads after 60 s
	stopGrace    = 5 * time.Second   // from TERM to KILL of a container that is being removed
	noteLimit    = 10 * time.Second  // to hand one callback to a runtime
)

// errGone is what calls to a container end with when it stopped meanwhile.
var errGone = errors.New("service: the service's container has stopped")

// instance is one container of a package with its two sockets. It ends with
// detach (the container goes on) or destroy.
type instance struct {
	u      *unit
	guid   string
	keep   state.ServiceKeep
	bundle *bundle
	c      *lxcrt.Container
	log    *slog.Logger

	folder *rpc.Folder
	client *rpc.Client
	server *rpc.Server
	ready  atomic.Bool // init was answered
	old    bool        // its runtime speaks another protocol than one made now
	born   time.Time
	mayRun bool // a start was sent and no stop was answered since; the reconciler's

	ctx    context.Context // ends when the container or our hold on it does
	cancel context.CancelCauseFunc
	exited chan struct{} // closed when PID 1 has ended
	exit   lxcrt.ExitStatus
	wg     sync.WaitGroup

	initProgress   atomic.Pointer[func(json.RawMessage)]
	backupProgress atomic.Pointer[func(json.RawMessage)]

	// Effects that write to the package's data hold it: once the container is let
	// go of, a snapshot may take the data's place.
	writing sync.RWMutex
	gone    bool // no more of them

	mu    sync.Mutex
	subs  map[string]string // subcontainer: its image
	notes []int64           // callbacks to be told
	note  chan struct{}
}

// create makes and starts a new container for the package. The document says
// which before there is anything, so that a later process finds it.
func (u *unit) create(ctx context.Context) (_ *instance, err error) {
	m, guid := u.m, effect.NewGUID()
	var undo undoStack
	defer func() {
		if err != nil {
			undo.run(m.log)
		}
	}()
	layers, err := m.layers(ctx)
	if err != nil {
		return nil, err
	}
	b := u.archive()
	for _, v := range b.Manifest.Volumes {
		if _, err := m.dir.volume(u.id, v); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(m.dir.log(u.id), 0o755); err != nil {
		return nil, fmt.Errorf("service: log folder: %w", err)
	}
	var keep state.ServiceKeep
	_, err = m.db.Update(ctx, func(tx *patchdb.Tx) error {
		var err error
		if keep, err = patchdb.TxGet[state.ServiceKeep](tx, keepPointer(u.id)); err != nil {
			return err
		}
		keep.Container, keep.Spec = guid, m.fingerprint(layers, keep, b)
		if err := tx.Put(keepPointer(u.id), keep); err != nil {
			return err
		}
		if err := m.net.ClearBindings(tx, u.id); err != nil {
			return err
		}
		return effect.Edit(tx, u.id, status.Load)
	})
	if err != nil {
		return nil, fmt.Errorf("service: container of %s: %w", u.id, err)
	}
	spec := m.spec(layers, guid, keep, b)
	if spec.Limits, err = m.wantedLimits(b); err != nil {
		return nil, err
	}
	c, err := m.rt.Create(ctx, spec)
	if err != nil {
		return nil, err
	}
	undo.push("container", func(ctx context.Context) error { return c.Destroy(ctx) })
	if err := os.Mkdir(m.dir.rpc(guid), 0o700); err != nil {
		return nil, fmt.Errorf("service: socket folder: %w", err)
	}
	if err := os.Chown(m.dir.rpc(guid), int(keep.IDBase), int(keep.IDBase)); err != nil {
		return nil, fmt.Errorf("service: socket folder: %w", err)
	}
	run, err := u.attach(c, guid, keep, b)
	if err != nil {
		return nil, err
	}
	undo.push("sockets", func(context.Context) error { run.detach(0); return nil })
	if err := c.Start(ctx); err != nil {
		return nil, err
	}
	run.follow()
	if err := run.connect(ctx); err != nil {
		return nil, err
	}
	return run, nil
}

// attach opens the sockets of a container.
func (u *unit) attach(c *lxcrt.Container, guid string, keep state.ServiceKeep, b *bundle) (*instance, error) {
	run := &instance{
		u: u, guid: guid, keep: keep, bundle: b, c: c,
		log:  u.m.log.With("package", u.id, "container", guid),
		born: time.Now(), exited: make(chan struct{}), subs: map[string]string{}, note: make(chan struct{}, 1),
	}
	var err error
	if run.folder, err = rpc.OpenFolder(u.m.dir.rpc(guid)); err != nil {
		return nil, err
	}
	l, err := run.folder.Listen("host.sock", int(keep.IDBase))
	if err != nil {
		run.folder.Close()
		return nil, err
	}
	run.ctx, run.cancel = context.WithCancelCause(context.Background())
	run.client = rpc.NewClient(func(ctx context.Context) (net.Conn, error) { return run.folder.Dial(ctx, "service.sock") })
	handler := &effect.Handler{Package: u.id, DB: u.m.db, Host: run}
	run.server = rpc.Serve(l, handler.Call, rpc.ServerOptions{Logger: run.log})
	run.wg.Go(run.tell)
	return run, nil
}

// follow watches for the end of PID 1 of the started container.
func (r *instance) follow() {
	r.wg.Go(func() {
		exit, err := r.c.Wait(r.ctx)
		if r.ctx.Err() != nil {
			return
		}
		if err != nil {
			r.log.Warn("end of the container is not known", "err", err)
		}
		r.exit = exit
		close(r.exited)
		r.cancel(errGone)
	})
}

// connect waits for the runtime and meanwhile gives the container its name and
// forwards.
func (r *instance) connect(ctx context.Context) error {
	network := make(chan error, 1)
	go func() {
		network <- r.u.m.net.SetContainer(ctx, r.u.id, parseAddr(r.keep.Addr4), parseAddr(r.keep.Addr6))
	}()
	waiting, cancel := r.bound(ctx, connectLimit)
	defer cancel()
	conn, err := r.folder.Await(waiting, "service.sock")
	if nerr := <-network; err == nil && nerr != nil {
		conn.Close()
		err = nerr
	}
	if err != nil {
		return fmt.Errorf("service: the runtime of %s does not answer: %w", r.u.id, err)
	}
	r.client.Add(conn)
	return nil
}

// bound is ctx that also ends with the container, and after limit unless that
// is zero.
func (r *instance) bound(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(r.ctx, func() { cancel(context.Cause(r.ctx)) })
	end := func() { stop(); cancel(nil) }
	if limit == 0 {
		return ctx, end
	}
	timed, cancelTimed := context.WithTimeout(ctx, limit)
	return timed, func() { cancelTimed(); end() }
}

// call asks the runtime.
func (r *instance) call(ctx context.Context, limit time.Duration, method string, params, result any) error {
	ctx, cancel := r.bound(ctx, limit)
	defer cancel()
	err := r.client.Call(ctx, method, params, result)
	if err != nil && r.ctx.Err() != nil {
		return fmt.Errorf("%w (%s)", errGone, method)
	}
	return err
}

// The kinds of init.
const (
	initInstall = "install"
	initUpdate  = "update"
	initRestore = "restore"
)

// init loads the package's code and runs its init; kind "" is a plain load.
// There is no limit: migrations may take long.
func (r *instance) init(ctx context.Context, kind string) error {
	params := struct {
		ID   string  `json:"id"`
		Kind *string `json:"kind"`
	}{ID: effect.NewGUID()}
	if kind != "" {
		params.Kind = &kind
	}
	if err := r.call(ctx, 0, "init", params, nil); err != nil {
		return err
	}
	r.ready.Store(true)
	return nil
}

// leave asks the service to clean up: nil for a removal, else the version
// that comes next. The runtime ends after its answer.
func (r *instance) leave(ctx context.Context, target *string) error {
	return r.call(ctx, exitLimit, "exit", struct {
		ID     string  `json:"id"`
		Target *string `json:"target"`
	}{effect.NewGUID(), target}, nil)
}

// execute runs a procedure of the package. A call id, when there is one, names
// the run: who asks again under it, a later server say, gets the same one.
func (r *instance) execute(ctx context.Context, limit time.Duration, callID, eventID, procedure string, input any) (json.RawMessage, error) {
	if !r.ready.Load() {
		return nil, effect.Fail(effect.KindUninitialized, "package %s is not initialised yet", r.u.id)
	}
	var result json.RawMessage
	err := r.call(ctx, limit, "execute", struct {
		ID        string `json:"id"`
		Procedure string `json:"procedure"`
		Input     any    `json:"input"`
		Timeout   int64  `json:"timeout"`
		CallID    string `json:"callId,omitempty"`
	}{eventID, procedure, input, limit.Milliseconds(), callID}, &result)
	if len(result) == 0 {
		result = json.RawMessage("null")
	}
	return result, err
}

// write runs an effect that writes to the package's data, unless the container
// has been let go of.
func (r *instance) write(fn func() error) error {
	r.writing.RLock()
	defer r.writing.RUnlock()
	if r.gone {
		return errGone
	}
	return fn()
}

// shut lets no more of them begin, and waits for those under way.
func (r *instance) shut() {
	r.writing.Lock()
	defer r.writing.Unlock()
	r.gone = true
}

// alive reports whether PID 1 has not ended.
func (r *instance) alive() bool {
	select {
	case <-r.exited:
		return false
	default:
		return true
	}
}

// notify queues callbacks for the runtime.
func (r *instance) notify(ids []int64) {
	r.mu.Lock()
	room := max(0, maxCallbacks-len(r.notes)) // a runtime that does not read fills its own queue
	lost := max(0, len(ids)-room)
	r.notes = append(r.notes, ids[:len(ids)-lost]...)
	r.mu.Unlock()
	if lost > 0 {
		r.log.Warn("callbacks are dropped, since the runtime does not take them", "callbacks", lost)
	}
	select {
	case r.note <- struct{}{}:
	default:
	}
}

// tell hands queued callbacks to the runtime.
func (r *instance) tell() {
	for {
		select {
		case <-r.note:
		case <-r.ctx.Done():
			return
		}
		r.mu.Lock()
		ids := r.notes
		r.notes = nil
		r.mu.Unlock()
		for _, id := range ids {
			ctx, cancel := r.bound(r.ctx, noteLimit)
			err := r.client.Notify(ctx, "callback", map[string]any{"id": id, "args": []any{}})
			cancel()
			if err != nil && r.ctx.Err() == nil {
				r.log.Warn("callback does not reach the runtime", "callback", id, "err", err)
			}
		}
	}
}

// detach lets go of the container, which goes on; effects under way may end
// within grace.
func (r *instance) detach(grace time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	if err := r.server.Shutdown(ctx); err != nil {
		r.log.Warn("effect socket", "err", err)
	}
	r.cancel(errGone)
	r.shut()
	r.u.m.watch.drop(r)
	r.client.Close()
	r.wg.Wait()
	r.folder.Close()
}

// destroy removes the container with all that belongs to it. What fails is
// reported together, after all was tried.
func (r *instance) destroy(ctx context.Context) error {
	r.detach(0)
	errs := []error{r.u.m.net.SetContainer(ctx, r.u.id, noAddr, noAddr)}
	if r.c.State() != lxcrt.Stopped {
		errs = append(errs, r.c.Stop(ctx, lxcrt.StopOptions{Grace: stopGrace}))
	}
	errs = append(errs, r.c.Destroy(ctx))
	_, err := r.u.m.db.Update(ctx, func(tx *patchdb.Tx) error {
		at := keepPointer(r.u.id)
		if keep, err := patchdb.TxGet[state.ServiceKeep](tx, at); err == nil && keep.Container == r.guid {
			return tx.Put(patchdb.Join(at, "container"), "")
		}
		return nil
	})
	if err := errors.Join(append(errs, err)...); err != nil {
		return fmt.Errorf("service: container of %s: %w", r.u.id, err)
	}
	return nil
}

// subFolder is the host folder of one subcontainer's scratch layer.
func (r *instance) subFolder(guid string) string { return r.u.m.dir.sub(r.guid, guid) }

// recall lists the subcontainers that an earlier process made.
func (r *instance) recall() {
	entries, _ := os.ReadDir(filepath.Join(r.u.m.dir.container(r.guid), "sub"))
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range entries {
		r.subs[e.Name()] = ""
	}
}
