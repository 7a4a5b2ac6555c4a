package lxcrttest

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/selfstead/selfstead/lxcrt"
)

// FakeHost is a machine without a kernel: containers are entries in memory, and
// programs are Go functions. What lxcrt promises to callers holds here as well,
// as far as it needs no kernel; the conformance suite sees to that. Nothing
// is isolated, mounted, limited or sent anywhere.
//
// Open gives the Engine that code under test works with. As with a real machine,
// containers outlive an Engine that is closed and are found again by the next.
// A FakeHost is safe for concurrent use; timers are those of package time, so it
// also runs in a testing/synctest bubble.
type FakeHost struct {
	// Sources says whether a host path that a Spec or Mount names is there; nil
	// looks at the real file system, as a Runtime does.
	Sources func(path string) error

	mu       sync.Mutex
	programs map[string]ProgramFunc        // guarded by mu; by path inside
	users    map[string][2]uint32          // guarded by mu
	dirs     map[string]map[string]*hosted // guarded by mu; by Options.Dir and name
	faults   []*fault                      // guarded by mu
	nextPID  int                           // guarded by mu
}

// fakePIDs begin where no process of a real machine can be, in case somebody
// sends one a signal.
const fakePIDs = 1 << 30

// NewHost makes a machine that has the users root and nobody, and the programs
// /bin/true, /bin/false and /bin/sleep.
func NewHost() *FakeHost {
	h := &FakeHost{programs: map[string]ProgramFunc{}, dirs: map[string]map[string]*hosted{}, nextPID: fakePIDs,
		users: map[string][2]uint32{"root": {0, 0}, "nobody": {65534, 65534}}}
	h.Program("/bin/true", func(context.Context, *FakeProcess) int { return 0 })
	h.Program("/bin/false", func(context.Context, *FakeProcess) int { return 1 })
	h.Program("/bin/sleep", func(ctx context.Context, p *FakeProcess) int {
		if d, err := time.ParseDuration(strings.Join(p.Argv[1:], "") + "s"); err == nil {
			t := time.NewTimer(d)
			defer t.Stop()
			select {
			case <-t.C:
				return 0
			case <-ctx.Done():
				return 1
			}
		}
		<-ctx.Done()
		return 1
	})
	return h
}

// Program says what a path inside containers does when it is executed, in all
// containers. A path without one is not there.
func (h *FakeHost) Program(path string, run ProgramFunc) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.programs[path] = run
}

// User adds a user, in all containers; its group has the same name.
func (h *FakeHost) User(name string, uid, gid uint32) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.users[name] = [2]uint32{uid, gid}
}

// fault is what the next call of an operation meets.
type fault struct {
	op, name string
	err      error
	release  chan struct{} // nil: none
}

// Fail lets calls of an operation fail: the next one with the first error, and so
// on; a nil error lets one pass. op is the method's name in lower case, as in
// "start" or "exec"; an empty name means any container. Nothing else comes of a
// call that fails this way.
func (h *FakeHost) Fail(op, name string, errs ...error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, err := range errs {
		h.faults = append(h.faults, &fault{op: op, name: name, err: err})
	}
}

// Hold makes the next call of an operation wait, until the returned function is
// called or the call's context ends.
func (h *FakeHost) Hold(op, name string) (release func()) {
	f := &fault{op: op, name: name, release: make(chan struct{})}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.faults = append(h.faults, f)
	return sync.OnceFunc(func() { close(f.release) })
}

// met is called at the beginning of each operation.
func (h *FakeHost) met(ctx context.Context, op, name string) error {
	h.mu.Lock()
	i := slices.IndexFunc(h.faults, func(f *fault) bool { return f.op == op && (f.name == "" || f.name == name) })
	var f *fault
	if i >= 0 {
		f = h.faults[i]
		h.faults = slices.Delete(h.faults, i, i+1)
	}
	h.mu.Unlock()
	if f == nil {
		return ctx.Err()
	}
	if f.release != nil {
		select {
		case <-f.release:
		case <-ctx.Done():
		}
	}
	if f.err != nil {
		return f.err
	}
	return ctx.Err()
}

// Crash ends a running container as when its monitor is killed: how PID 1 ended
// stays unknown. It returns when that is done, and says whether there was one.
func (h *FakeHost) Crash(dir, name string) bool {
	c := h.container(dir, name)
	if c == nil {
		return false
	}
	c.mu.Lock()
	life := c.life
	c.mu.Unlock()
	if life == nil {
		return false
	}
	life.end(lxcrt.ExitStatus{Code: -1})
	<-life.done
	return true
}

// SetStats makes Stats of a container return what read does; the limits of its
// Spec are filled in where they are zero. A nil read goes back to the default.
func (h *FakeHost) SetStats(dir, name string, read func() lxcrt.Stats) {
	if c := h.container(dir, name); c != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.stats = read
	}
}

// Mounts lists what is mounted in a container, that of its Spec first.
func (h *FakeHost) Mounts(dir, name string) []lxcrt.Mount {
	c := h.container(dir, name)
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Concat(c.fixed, c.added)
}

func (h *FakeHost) container(dir, name string) *hosted {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.dirs[filepath.Clean(dir)][name]
}

// Close ends everything that runs on the machine and waits for it.
func (h *FakeHost) Close() {
	h.mu.Lock()
	var all []*hosted
	for _, d := range h.dirs {
		all = slices.AppendSeq(all, maps.Values(d))
	}
	h.mu.Unlock()
	for _, c := range all {
		c.mu.Lock()
		life := c.life
		c.mu.Unlock()
		if life != nil {
			life.end(lxcrt.ExitStatus{Code: -1, Signal: sigKill, Known: true})
			<-life.done
		}
	}
}

func (h *FakeHost) pid() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.nextPID++
	return h.nextPID
}

// look finds a program as exec does.
func (h *FakeHost) look(argv0 string, env []string) (ProgramFunc, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	places := []string{argv0}
	if !strings.Contains(argv0, "/") {
		places = nil
		for dir := range strings.SplitSeq(getenv(env, "PATH"), ":") {
			places = append(places, path.Join(dir, argv0))
		}
	}
	for _, p := range places {
		if run := h.programs[p]; run != nil {
			return run, nil
		}
	}
	return nil, fmt.Errorf("%s: %w", argv0, fs.ErrNotExist)
}

func (h *FakeHost) source(p string) error {
	if h.Sources != nil {
		return h.Sources(p)
	}
	_, err := os.Stat(p)
	return err
}

func getenv(env []string, name string) string {
	for _, e := range slices.Backward(env) {
		if v, ok := strings.CutPrefix(e, name+"="); ok {
			return v
		}
	}
	return ""
}

// Open returns an Engine over the machine's containers below o.Dir. Of the other
// options only the subnets count.
func (h *FakeHost) Open(o lxcrt.Options) (lxcrt.Engine, error) {
	if !filepath.IsAbs(o.Dir) {
		return nil, &lxcrt.Error{Op: "options", Err: fmt.Errorf("%w: dir %q", lxcrt.ErrInvalid, o.Dir)}
	}
	o.Dir = filepath.Clean(o.Dir)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.dirs[o.Dir] == nil {
		h.dirs[o.Dir] = map[string]*hosted{}
	}
	return &fakeEngine{h: h, o: o, done: make(chan struct{}), held: map[string]*fakeInstance{}, listeners: map[chan lxcrt.Event]bool{}}, nil
}

// fakeEngine is what one process sees of the machine.
type fakeEngine struct {
	h    *FakeHost
	o    lxcrt.Options
	done chan struct{} // closed by Close

	mu        sync.Mutex
	closed    bool                      // guarded by mu
	held      map[string]*fakeInstance  // guarded by mu
	listeners map[chan lxcrt.Event]bool // guarded by mu
}

func gatewayOf(p netip.Prefix) netip.Addr {
	if !p.IsValid() {
		return netip.Addr{}
	}
	return p.Masked().Addr().Next()
}

func (e *fakeEngine) Gateway() (v4, v6 netip.Addr) {
	return gatewayOf(e.o.Subnet4), gatewayOf(e.o.Subnet6)
}

func (e *fakeEngine) isClosed() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.closed
}

func (e *fakeEngine) Create(ctx context.Context, s lxcrt.Spec) (lxcrt.Instance, error) {
	if len(s.Init) == 0 && e.o.Guest != "" {
		s.Init = []string{lxcrt.GuestPath, "run"}
	}
	if err := s.Validate(); err != nil {
		return nil, err
	}
	fail := func(err error) (lxcrt.Instance, error) {
		return nil, &lxcrt.Error{Op: "create", Name: s.Name, Err: err}
	}
	if err := e.h.met(ctx, "create", s.Name); err != nil {
		return fail(err)
	}
	if s.IDs.Count == 0 {
		s.IDs.Count = 65536
	}
	for _, a := range []struct {
		addr   netip.Addr
		subnet netip.Prefix
	}{{s.Addr4, e.o.Subnet4}, {s.Addr6, e.o.Subnet6}} {
		if a.addr.IsValid() && s.Bridge == nil && (!a.subnet.IsValid() || !a.subnet.Contains(a.addr) || a.addr == gatewayOf(a.subnet) || a.addr == a.subnet.Masked().Addr()) {
			return fail(fmt.Errorf("%w: address %s in subnet %s", lxcrt.ErrInvalid, a.addr, a.subnet))
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return fail(lxcrt.ErrClosed)
	}
	e.h.mu.Lock()
	defer e.h.mu.Unlock()
	all := e.h.dirs[e.o.Dir]
	for name, c := range all {
		if name == s.Name || s.Addr4.IsValid() && c.spec.Addr4 == s.Addr4 || s.Addr6.IsValid() && c.spec.Addr6 == s.Addr6 {
			return fail(fmt.Errorf("%s: %w", name, lxcrt.ErrExists))
		}
	}
	c := &hosted{h: e.h, spec: s, dir: filepath.Join(e.o.Dir, s.Name), state: lxcrt.Stopped, files: &Files{data: map[string][]byte{}}, watchers: map[*fakeEngine]bool{e: true}}
	all[s.Name] = c
	i := &fakeInstance{e: e, c: c}
	e.held[s.Name] = i
	return i, nil
}

func (e *fakeEngine) Load(ctx context.Context, name string) (lxcrt.Instance, error) {
	fail := func(err error) (lxcrt.Instance, error) {
		return nil, &lxcrt.Error{Op: "load", Name: name, Err: err}
	}
	if err := e.h.met(ctx, "load", name); err != nil {
		return fail(err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return fail(lxcrt.ErrClosed)
	}
	if i := e.held[name]; i != nil {
		return i, nil
	}
	c := e.h.container(e.o.Dir, name)
	if c == nil {
		return fail(lxcrt.ErrNotFound)
	}
	i := &fakeInstance{e: e, c: c}
	e.held[name] = i
	c.mu.Lock()
	defer c.mu.Unlock()
	c.watchers[e] = true
	return i, nil
}

func (e *fakeEngine) List() ([]string, error) {
	e.h.mu.Lock()
	defer e.h.mu.Unlock()
	return slices.Sorted(maps.Keys(e.h.dirs[e.o.Dir])), nil
}

func (e *fakeEngine) CleanUp(ctx context.Context, keep func(name string) bool) error {
	names, _ := e.List()
	for _, n := range names {
		e.mu.Lock()
		held := e.held[n] != nil
		e.mu.Unlock()
		if held || keep == nil || keep(n) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return &lxcrt.Error{Op: "clean up", Err: err}
		}
		if c := e.h.container(e.o.Dir, n); c != nil {
			c.remove(e.o.Dir)
		}
	}
	return nil
}

// SetEdges is looked at and dropped: no packet is ever sent here.
func (e *fakeEngine) SetEdges(ctx context.Context, edges []lxcrt.Edge) error {
	for _, d := range edges {
		if d.Port == 0 || d.Protocol != "tcp" && d.Protocol != "udp" {
			return &lxcrt.Error{Op: "edges", Err: fmt.Errorf("%w: %+v", lxcrt.ErrInvalid, d)}
		}
	}
	return nil
}

// fakeEventBuffer is lxcrt's.
const fakeEventBuffer = 256

func (e *fakeEngine) Events(ctx context.Context) <-chan lxcrt.Event {
	ch := make(chan lxcrt.Event, fakeEventBuffer)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		close(ch)
		return ch
	}
	e.listeners[ch] = true
	context.AfterFunc(ctx, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.dropLocked(ch)
	})
	return ch
}

func (e *fakeEngine) dropLocked(ch chan lxcrt.Event) {
	if e.listeners[ch] {
		delete(e.listeners, ch)
		close(ch)
	}
}

func (e *fakeEngine) tell(ev lxcrt.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for ch := range e.listeners {
		select {
		case ch <- ev:
		default:
			e.dropLocked(ch)
		}
	}
}

func (e *fakeEngine) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil
	}
	e.closed = true
	close(e.done)
	for ch := range e.listeners {
		e.dropLocked(ch)
	}
	return nil
}
