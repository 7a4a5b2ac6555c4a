package server_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/selfstead/selfstead/patchdb"
	"github.com/selfstead/selfstead/server/api"
	"github.com/selfstead/selfstead/server/journal"
	"github.com/selfstead/selfstead/server/operation"
	"github.com/selfstead/selfstead/server/problem"
	"github.com/selfstead/selfstead/server/state"
)

// services is an in-memory Services with the contract of the real one: an
// upload is listed from its first byte, refused at the byte that is wrong
// ('!'), and goes on as an operation after the last one.
type services struct {
	db   *patchdb.DB
	ops  *operation.Manager
	logs string

	mu       sync.Mutex
	packages map[string]api.Package
	finish   chan struct{} // installs end once it is closed
	received chan int64    // told the bytes received so far, if someone listens
}

func newServices(db *patchdb.DB, ops *operation.Manager, dir string) *services {
	return &services{db: db, ops: ops, logs: dir, packages: map[string]api.Package{}, finish: make(chan struct{}), received: make(chan int64, 1)}
}

func (s *services) put(p api.Package) error {
	s.mu.Lock()
	s.packages[p.ID] = p
	s.mu.Unlock()
	_, err := s.db.Update(context.Background(), func(tx *patchdb.Tx) error {
		return tx.PutAll(state.PackagePointer(p.ID), state.Package{
			State: p.State, DesiredState: p.DesiredState,
			Actions: map[string]json.RawMessage{"greet": json.RawMessage(`{"name":"Greet","description":"Says hello","warning":null,"visibility":"enabled","allowedStatuses":"any","hasInput":true,"group":null}`)},
			Tasks:   map[string]json.RawMessage{"t1": json.RawMessage(`{"active":true,"task":{"packageId":"hello-world","actionId":"greet","severity":"critical"}}`)},
		})
	})
	return err
}

func (s *services) Sideload(_ context.Context, body io.Reader, size int64, _ api.SideloadOptions) (operation.Operation, error) {
	job := s.ops.Begin("install")
	stop := context.AfterFunc(job.Context(), func() { body.(io.Closer).Close() })
	defer stop()
	fail := func(err error) (operation.Operation, error) {
		job.Finish(nil, err)
		return job.Operation(), err
	}
	buf := make([]byte, 32<<10)
	var n int64
	for {
		k, err := body.Read(buf)
		if i := bytes.IndexByte(buf[:k], '!'); i >= 0 {
			return fail(problem.New(422, problem.CodeCorrupt, "content does not match its hash").At("images/x86_64/main.squashfs", n+int64(i)))
		}
		n += int64(k)
		job.Progress("upload", n, size, operation.Bytes)
		select {
		case s.received <- n:
		default:
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			if cause := context.Cause(job.Context()); cause != nil {
				return fail(cause)
			}
			return fail(problem.Newf(422, problem.CodeTruncated, "the upload broke off: %w", err))
		}
	}
	if p, err := s.Get("hello-world"); err == nil && p.State != "" {
		return fail(problem.New(409, problem.CodeAlreadyInstalled, "hello-world is installed already").WithFix("DELETE", "/v1/packages/hello-world", ""))
	}
	job.SetPackage("hello-world")
	if err := s.put(api.Package{ID: "hello-world", Title: "Hello World", Version: "1.0.0:0", State: "installing", DesiredState: "stopped"}); err != nil {
		return fail(err)
	}
	job.Progress("install", 0, 2, operation.Steps)
	op := job.Operation()
	job.Go(func(ctx context.Context) (any, error) {
		select {
		case <-s.finish:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		err := s.put(helloWorld)
		return map[string]string{"packageId": "hello-world", "version": "1.0.0:0"}, err
	})
	return op, nil
}

var helloWorld = api.Package{
	ID: "hello-world", Title: "Hello World", Version: "1.0.0:0", State: "running", DesiredState: "running",
	Health:   map[string]api.Health{"web": {Name: "Web interface", Result: "success", Message: "ready"}},
	Manifest: json.RawMessage(`{"id":"hello-world"}`),
}

func (s *services) Uninstall(_ context.Context, id string, soft, force bool) (operation.Operation, error) {
	if _, err := s.Get(id); err != nil {
		return operation.Operation{}, err
	}
	return s.ops.Start("uninstall", func(context.Context, *operation.Job) (any, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.packages, id)
		return map[string]bool{"soft": soft, "force": force}, nil
	}), nil
}

func (s *services) List() ([]api.Package, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []api.Package
	for _, p := range s.packages {
		out = append(out, p)
	}
	return out, nil
}

func (s *services) Get(id string) (api.Package, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.packages[id]
	if !ok {
		return api.Package{}, problem.NotFound("package", id)
	}
	return p, nil
}

func (s *services) SetDesired(_ context.Context, id, desired string, _ bool) error {
	p, err := s.Get(id)
	if err != nil {
		return err
	}
	p.DesiredState = desired
	return s.put(p)
}

func (s *services) Restart(_ context.Context, id string) error {
	if id == "panic" {
		panic("secret")
	}
	_, err := s.Get(id)
	return err
}
func (s *services) Rebuild(_ context.Context, id string) error { _, err := s.Get(id); return err }

func (s *services) Grants(id string) ([]api.Grant, error) {
	if _, err := s.Get(id); err != nil {
		return nil, err
	}
	return []api.Grant{{Client: "dashboard", Declared: true}}, nil
}

func (s *services) Grant(_ context.Context, id, client string) error {
	if client == "none" {
		return problem.NotFound("package", client)
	}
	_, err := s.Get(id)
	return err
}

func (s *services) Revoke(_ context.Context, id, client string) error {
	return s.Grant(context.Background(), id, client)
}

func (s *services) Limits(id string) (api.PackageLimits, error) {
	_, err := s.Get(id)
	memory := int64(1 << 30)
	return api.PackageLimits{Default: api.Limits{Memory: &memory}}, err
}

func (s *services) SetLimits(_ context.Context, id string, set api.Limits) error {
	if set.Memory != nil && *set.Memory == 134217728 {
		return problem.New(409, problem.CodeConflict, "it uses more")
	}
	_, err := s.Get(id)
	return err
}

func (s *services) Hosts(id string) ([]api.Host, error) {
	if _, err := s.Get(id); err != nil {
		return nil, err
	}
	return []api.Host{{HostID: "ui", Bindings: []api.Binding{{InternalPort: 80, Enabled: true, Addresses: []api.Address{{IP: "192.0.2.7", Port: 49152, URL: "http://192.0.2.7:49152"}}}}}}, nil
}

func (s *services) ActionInput(_ context.Context, id, action string, prefill json.RawMessage) (json.RawMessage, error) {
	if _, err := s.Get(id); err != nil {
		return nil, err
	}
	if action != "greet" {
		return nil, problem.NotFound("action", action)
	}
	if prefill == nil {
		prefill = json.RawMessage("null")
	}
	return json.Marshal(map[string]any{"eventId": "e1", "spec": map[string]any{"name": map[string]any{"type": "text"}}, "value": prefill})
}

func (s *services) RunAction(ctx context.Context, id, action, event string, input json.RawMessage) (json.RawMessage, error) {
	if _, err := s.Get(id); err != nil {
		return nil, err
	}
	if action == "nothing" {
		return nil, nil
	}
	if action == "slow" {
		timer := time.NewTimer(600 * time.Millisecond)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return json.Marshal(map[string]any{"version": "1", "title": "Done", "event": event, "input": input})
}

func (s *services) Logs(id string) (*journal.Log, error) {
	if _, err := s.Get(id); err != nil {
		return nil, err
	}
	return journal.Open(filepath.Join(s.logs, id)), nil
}

// log appends a line to a package's log as its PID 1 would.
func (s *services) log(id, line string) error {
	dir := filepath.Join(s.logs, id)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(dir, "service.log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString(line + "\n")
	return err
}
