package lxcrt

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/selfstead/selfstead/lxcrt/internal/launcher"
	"github.com/selfstead/selfstead/lxcrt/internal/liblxc"
)

// Runtime makes containers. It is safe for concurrent use. There must be one at
// a time for a Dir; a later one, in this process or another, takes over what it
// left running.
type Runtime struct {
	o        Options
	log      *slog.Logger
	features Features
	trees    hierarchies
	host     host
	net      *network
	shop     *workshop
	images   *unpacked
	launch   launcher.Options

	mu         sync.Mutex
	containers map[string]*Container // guarded by mu
	closed     bool                  // guarded by mu

	events   listeners
	done     chan struct{} // closed by Close
	watchers sync.WaitGroup
}

// New prepares the host: the state folder, forwarding, the gateway's addresses
// and the table. It starts no container and ends none. What is missing on this
// machine is named in an error that wraps ErrNotSupported.
func New(ctx context.Context, o Options) (*Runtime, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	r, err := open(ctx, o)
	if err != nil {
		return nil, &Error{Op: "new", Err: err}
	}
	return r, nil
}

func open(ctx context.Context, o Options) (*Runtime, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	o.Dir = filepath.Clean(o.Dir)
	r := &Runtime{o: o, log: o.Logger, containers: map[string]*Container{}, done: make(chan struct{}), launch: launcher.Options{Path: o.Launcher}}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	var err error
	if r.trees, err = findHierarchies(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, err
	}
	if r.features, err = probe(o.Dir, o.CgroupParent, r.trees); err != nil {
		return nil, err
	}
	if probeHook != nil {
		probeHook(&r.features)
	}
	if o.UnpackImages || !r.features.MappedImages {
		r.images = &unpacked{dir: filepath.Join(o.Dir, ".images")}
	}
	r.host = host{dir: o.Dir, parent: o.CgroupParent, hook: launcher.StartHook, cgroup2: r.trees.cgroup2(), swap: r.features.SwapLimit}
	r.host.apparmor, r.features.NoAppArmor = apparmorLabel(o.Table)
	if r.features.AppArmor = r.features.NoAppArmor == ""; r.features.AppArmor {
		if err := loadProfile(r.host.apparmor); err != nil {
			return nil, err
		}
	} else if r.host.apparmor != "" {
		r.log.Warn("containers run unconfined by AppArmor", "err", r.features.NoAppArmor)
	}
	var known []Spec
	names, err := r.List()
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		if s, err := r.readSpec(n); err == nil {
			known = append(known, s)
		}
	}
	if r.shop, err = newWorkshop(o.Dir); err != nil {
		return nil, err
	}
	if r.net, err = newNetwork(o, known); err != nil {
		r.shop.close()
		return nil, err
	}
	return r, nil
}

// Features says what was found on this machine.
func (r *Runtime) Features() Features { return r.features }

// Gateway returns the host's addresses for the containers, which are also where
// they ask for names. They stand on the host from New to Close.
func (r *Runtime) Gateway() (v4, v6 netip.Addr) { return r.net.gate4, r.net.gate6 }

// SetEdges replaces the list of ports that containers may reach of one another.
// An edge may name a container that does not exist yet.
func (r *Runtime) SetEdges(ctx context.Context, edges []Edge) error {
	for _, e := range edges {
		if e.Port == 0 || e.Protocol != "tcp" && e.Protocol != "udp" {
			return &Error{Op: "edges", Err: fmt.Errorf("%w: %+v", ErrInvalid, e)}
		}
	}
	if err := r.net.wall.setEdges(slices.Clone(edges)); err != nil {
		return &Error{Op: "edges", Err: err}
	}
	return nil
}

// List returns the names of all containers below Dir, whoever made them, sorted.
func (r *Runtime) List() ([]string, error) {
	entries, err := os.ReadDir(r.o.Dir)
	if err != nil {
		return nil, &Error{Op: "list", Err: err}
	}
	var names []string
	for _, e := range entries {
		if !e.IsDir() || !validName(e.Name()) {
			continue
		}
		if _, err := os.Stat(filepath.Join(r.o.Dir, e.Name(), specFile)); err == nil {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

const specFile = "spec.json"

func (r *Runtime) readSpec(name string) (Spec, error) {
	var s Spec
	b, err := os.ReadFile(filepath.Join(r.o.Dir, name, specFile))
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return s, fmt.Errorf("%s: %w", specFile, err)
	}
	if s.Name != name {
		return s, fmt.Errorf("%w: the folder %s holds the container %q", ErrInvalid, name, s.Name)
	}
	return s, s.Validate()
}

// Create makes a stopped container. ErrExists says that there is one of the
// name; on any error nothing is left.
func (r *Runtime) Create(ctx context.Context, s Spec) (*Container, error) {
	if len(s.Init) == 0 && r.o.Guest != "" {
		s.Init = []string{GuestPath, "run"}
	}
	if err := s.Validate(); err != nil {
		return nil, err
	}
	fail := func(err error) (*Container, error) { return nil, &Error{Op: "create", Name: s.Name, Err: err} }
	if err := r.features.allow(s.Limits); err != nil {
		return fail(err)
	}
	if s.IDs.Count == 0 {
		s.IDs.Count = s.IDs.count()
	}
	for _, a := range []struct {
		addr   netip.Addr
		subnet netip.Prefix
	}{{s.Addr4, r.o.Subnet4}, {s.Addr6, r.o.Subnet6}} {
		if a.addr.IsValid() && s.Bridge == nil && (!a.subnet.IsValid() || !a.subnet.Contains(a.addr) || a.addr == gateway(a.subnet) || a.addr == a.subnet.Masked().Addr()) {
			return fail(fmt.Errorf("%w: address %s in subnet %s", ErrInvalid, a.addr, a.subnet))
		}
	}
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return fail(ErrClosed)
	}
	if r.containers[s.Name] != nil {
		r.mu.Unlock()
		return fail(ErrExists)
	}
	c := r.newContainer(s)
	r.containers[s.Name] = c // the name is taken from here on
	r.mu.Unlock()
	go r.trees.warm()
	c.op.Lock()
	defer c.op.Unlock()
	if err := c.lay(ctx); err != nil {
		r.forget(c)
		return fail(err)
	}
	return c, nil
}

func (r *Runtime) newContainer(s Spec) *Container {
	return &Container{r: r, spec: s, dir: filepath.Join(r.o.Dir, s.Name), state: Stopped}
}

func (r *Runtime) forget(c *Container) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.containers[c.spec.Name] == c {
		delete(r.containers, c.spec.Name)
	}
}

// lay makes the container's folder; the spec is written last, since a folder
// without one is nobody's.
func (c *Container) lay(ctx context.Context) (err error) {
	if err := os.Mkdir(c.dir, 0o700); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.RemoveAll(c.dir)
		}
	}()
	if err := c.write(); err != nil {
		return err
	}
	if c.networked() {
		return c.r.net.wall.admit(c.r.net.plan(c.spec))
	}
	return ctx.Err()
}

// Load finds a container of Dir again, running or not, whichever process made
// it; twice gives the same Container. ErrNotFound says that there is none.
func (r *Runtime) Load(ctx context.Context, name string) (*Container, error) {
	fail := func(err error) (*Container, error) { return nil, &Error{Op: "load", Name: name, Err: err} }
	if !validName(name) {
		return fail(fmt.Errorf("%w: name", ErrInvalid))
	}
	if err := ctx.Err(); err != nil {
		return fail(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return fail(ErrClosed)
	}
	if c := r.containers[name]; c != nil {
		return c, nil
	}
	s, err := r.readSpec(name)
	if err != nil {
		return fail(err)
	}
	c := r.newContainer(s)
	if err := c.adopt(); err != nil {
		return fail(err)
	}
	r.containers[name] = c
	return c, nil
}

// Close lets go of everything this process holds. Containers that run go on; if
// there is none, the table, the gateway's addresses and the parent cgroup go.
// It may be called twice.
func (r *Runtime) Close() error {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return nil
	}
	r.closed = true
	busy := false
	for _, c := range r.containers {
		busy = c.release() || busy
	}
	r.mu.Unlock()
	close(r.done)
	r.watchers.Wait()
	r.events.close()
	if !busy { // some may run that nobody has loaded
		names, _ := r.List()
		for _, n := range names {
			if rec, err := readRecord(filepath.Join(r.o.Dir, n)); err == nil && rec.Init.alive() {
				busy = true
			}
		}
	}
	errs := []error{r.net.close(busy), r.shop.close()}
	if !busy {
		errs = append(errs, r.trees.remove(r.o.CgroupParent, false))
		if r.features.AppArmor {
			errs = append(errs, removeProfile(r.host.apparmor))
		}
		errs = append(errs, removeLocks(liblxc.Path(r.o.Dir), ""))
	}
	if err := errors.Join(errs...); err != nil {
		return &Error{Op: "close", Err: err}
	}
	return nil
}

// removeLocks takes away the lock files that liblxc leaves for a container, or
// the emptied folders of the whole path.
func removeLocks(dir, name string) error {
	root := "/run/lxc/lock"
	place := filepath.Join(root, dir)
	if name != "" {
		err := os.Remove(filepath.Join(place, "."+name))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return nil
	}
	for place != root && strings.HasPrefix(place, root+"/") {
		if err := os.Remove(place); err != nil {
			break // not empty: somebody else's
		}
		place = filepath.Dir(place)
	}
	return nil
}

// flush brings a file to the disk if it is still there.
func flush(file string) {
	if f, err := os.Open(file); err == nil {
		_ = unix.Fdatasync(int(f.Fd()))
		f.Close()
	}
}

// writeFile replaces a file whole.
func writeFile(file string, data []byte, mode os.FileMode) error {
	tmp := file + ".new"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp, file)
	}
	if err != nil {
		_ = os.Remove(tmp)
	}
	return err
}
