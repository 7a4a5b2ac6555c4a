package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/selfstead/selfstead/lxcrt"
	"github.com/selfstead/selfstead/nat"
	"github.com/selfstead/selfstead/patchdb"
	"github.com/selfstead/selfstead/server"
	"github.com/selfstead/selfstead/server/account"
	"github.com/selfstead/selfstead/server/api"
	"github.com/selfstead/selfstead/server/authority"
	"github.com/selfstead/selfstead/server/embedded"
	"github.com/selfstead/selfstead/server/idempotency"
	"github.com/selfstead/selfstead/server/journal"
	"github.com/selfstead/selfstead/server/network"
	"github.com/selfstead/selfstead/server/notification"
	"github.com/selfstead/selfstead/server/operation"
	"github.com/selfstead/selfstead/server/problem"
	"github.com/selfstead/selfstead/server/service"
	"github.com/selfstead/selfstead/server/state"
	"github.com/selfstead/selfstead/server/system"
)

// Options tunes Open. Dir and Listen have to be set.
type Options struct {
	Dir        string       // the state folder; made if missing
	Listen     string       // TCP address for clients
	Plain      bool         // no TLS, whatever the address
	BaseImage  string       // squashfs that every container starts from; "" means Dir/base, where one is built if need be
	BaseCaches []string     // folders to take a finished image from, instead of building one
	Version    string       // of the program
	ManageHost bool         // host name and time zone of the machine may be changed
	SSHKeys    string       // file that gets the SSH keys; "" means none
	Logger     *slog.Logger // nil means silent
}

// logName is the newest file of the server's own log, in the folder log.
const logName = "server.log"

// The ends that Ended tells of.
const (
	Shutdown = "shutdown"  // services are to stop too
	HandOver = "hand-over" // services are to go on
)

// Daemon is a server over its state folder. Close it.
type Daemon struct {
	o   Options
	log *slog.Logger
	id  identity

	lock     *os.File
	db       *patchdb.DB
	account  *account.Manager
	root     *authority.Authority
	runtime  *lxcrt.Runtime
	nat      *nat.Controller
	network  *network.Manager
	ops      *operation.Manager
	services *service.Manager
	base     *embedded.Base
	server   *server.Server
	notes    *notification.Manager
	requests *idempotency.Store
	machine  *system.Manager

	tcp, socket net.Listener
	scheme      string
	serving     sync.WaitGroup
	ready       atomic.Bool
	ended       chan string
	undo        []func() // what Close does at last, in reverse order
	closing     sync.Once
	closed      error
}

// Open takes the folder, prepares every room and binds the listeners. Nobody is
// answered before Serve. On an error nothing of it stays but what is on disk.
func Open(ctx context.Context, o Options) (_ *Daemon, err error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("daemon: containers, links and nftables need root")
	}
	if o.Dir, err = filepath.Abs(o.Dir); err != nil {
		return nil, fmt.Errorf("daemon: %w", err)
	}
	d := &Daemon{o: o, log: o.Logger, ended: make(chan string, 4)}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	defer func() {
		if err != nil {
			d.unwind()
		}
	}()
	if err := d.openFolder(ctx); err != nil {
		return nil, err
	}
	if err := d.openAccess(ctx); err != nil {
		return nil, err
	}
	if err := d.openRooms(ctx); err != nil {
		return nil, err
	}
	d.server = server.New(server.Deps{
		DB: d.db, Operations: d.ops, Account: d.account, Services: d.services, Forwards: d.network.Forwards, Authority: d.root,
		ServerLog: journal.OpenName(filepath.Join(d.o.Dir, "log"), logName), Notifications: d.notes, Requests: d.requests, System: d.machine, Gateways: d.network.Gateways, Inspector: d.services,
		Shell: func(ctx context.Context, id string, o api.ShellOptions) (server.Terminal, error) {
			t, err := d.services.Shell(ctx, id, o)
			if err != nil {
				return nil, err
			}
			return t, nil
		},
	}, server.Options{
		Dir: o.Dir, Version: o.Version, Architecture: architecture(), Power: d.end, Ready: d.isReady, Logger: d.log,
	})
	return d, nil
}

func (d *Daemon) push(fn func()) { d.undo = append(d.undo, fn) }

func (d *Daemon) unwind() {
	for _, fn := range slices.Backward(d.undo) {
		fn()
	}
	d.undo = nil
}

// openFolder takes the lock and opens the document.
func (d *Daemon) openFolder(ctx context.Context) error {
	if err := os.MkdirAll(d.o.Dir, 0o700); err != nil {
		return fmt.Errorf("daemon: %w", err)
	}
	if err := os.Chmod(d.o.Dir, 0o700); err != nil {
		return fmt.Errorf("daemon: %w", err)
	}
	var err error
	if d.lock, err = lock(d.o.Dir); err != nil {
		return err
	}
	d.push(func() { d.lock.Close() })
	own, err := journal.NewWriter(filepath.Join(d.o.Dir, "log"), logName)
	if err != nil {
		return fmt.Errorf("daemon: %w", err)
	}
	d.push(func() { own.Close() }) //nolint:errcheck // nothing is buffered
	d.log = slog.New(slog.NewMultiHandler(d.log.Handler(), slog.NewTextHandler(own, nil)))
	if d.db, err = patchdb.Open(filepath.Join(d.o.Dir, "state.db"), patchdb.Options{Logger: d.log}); err != nil {
		return fmt.Errorf("daemon: %w", err)
	}
	d.push(func() { d.db.Close() })
	if d.requests, err = idempotency.Open(ctx, filepath.Join(d.o.Dir, "requests.db"), idempotency.Options{}); err != nil {
		return fmt.Errorf("daemon: %w", err)
	}
	d.push(func() { d.requests.Close() })
	d.id, err = prepare(ctx, d.db, d.o.Version)
	return err
}

// openAccess opens what has to do with who may come in, and binds the listeners.
func (d *Daemon) openAccess(ctx context.Context) error {
	var err error
	if d.account, err = account.Open(ctx, account.Options{DB: d.db, ClaimFile: filepath.Join(d.o.Dir, "claim-code"), Logger: d.log}); err != nil {
		return fmt.Errorf("daemon: %w", err)
	}
	hostname, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("daemon: host name: %w", err)
	}
	if d.root, err = authority.Open(authority.Options{Dir: filepath.Join(d.o.Dir, "tls"), Hostname: hostname}); err != nil {
		return fmt.Errorf("daemon: %w", err)
	}
	if d.tcp, d.scheme, err = listenTCP(d.o.Listen, d.o.Plain, d.root); err != nil {
		return err
	}
	d.push(func() { d.tcp.Close() })
	if d.socket, err = listenSocket(d.Socket()); err != nil {
		return err
	}
	d.push(func() { d.socket.Close() })
	return nil
}

// openRooms opens the runtime, the network and the services.
func (d *Daemon) openRooms(ctx context.Context) error {
	containers := filepath.Join(d.o.Dir, "containers")
	guest, err := embedded.Layer(filepath.Join(d.o.Dir, "guest"), func(name string) bool { return inUse(containers, name) })
	if err != nil {
		return fmt.Errorf("daemon: %w", err)
	}
	tag, links := d.id.tag(), "ss"+d.id.tag()[:5]
	d.runtime, err = lxcrt.New(ctx, lxcrt.Options{
		Dir: containers, CgroupParent: "selfstead-" + tag, LinkPrefix: links, Table: "selfstead-lxc-" + tag,
		Subnet4: d.id.subnet4, Subnet6: d.id.subnet6, Logger: d.log,
	})
	if err != nil {
		return fmt.Errorf("daemon: %w", err)
	}
	d.push(func() { d.warn("runtime", d.runtime.Close()) })
	// Services ask this server for ports, and open none on a router themselves.
	if d.nat, err = nat.New(nat.Options{Table: "selfstead-nat-" + tag, Logger: d.log, NoPortMapping: true}); err != nil {
		return fmt.Errorf("daemon: %w", err)
	}
	d.push(func() { d.warn("nat", d.nat.Close()) })
	gate4, gate6 := d.runtime.Gateway()
	d.network, err = network.New(network.Options{
		DB: d.db, NAT: d.nat, Gateway4: gate4, Gateway6: gate6, Subnet4: d.id.subnet4, Subnet6: d.id.subnet6, Skip: links, Logger: d.log,
	})
	if err != nil {
		return fmt.Errorf("daemon: %w", err)
	}
	d.push(func() { d.warn("network", d.network.Close()) })
	d.ops = operation.New(operation.Options{Logger: d.log, Store: operation.InDocument(d.db)})
	d.machine = system.New(system.Options{DB: d.db, ManageHost: d.o.ManageHost, AuthorizedKeys: d.o.SSHKeys, Logger: d.log})
	d.notes = notification.New(notification.Options{DB: d.db, Logger: d.log})
	d.push(func() { d.notes.Close() }) //nolint:errcheck // it has none
	d.base = embedded.NewBase(embedded.BaseOptions{
		Dir: filepath.Join(d.o.Dir, "base"), Given: d.o.BaseImage, Beside: d.o.BaseCaches, Logger: d.log,
	})
	if d.o.BaseImage != "" {
		if _, err := d.base.Image(ctx); err != nil {
			return fmt.Errorf("daemon: %w", err)
		}
	}
	d.services, err = service.New(service.Deps{
		DB: d.db, Runtime: d.runtime, Network: d.network, Operations: d.ops, Dir: d.o.Dir,
		Arch: architecture(), Issuer: d.root, Logger: d.log,
		Layers: func(ctx context.Context) ([]lxcrt.Layer, error) {
			image, err := d.base.Image(ctx)
			if err != nil {
				return nil, noImage(err)
			}
			return []lxcrt.Layer{{Path: guest}, {Path: image}}, nil
		},
	})
	if err != nil {
		return fmt.Errorf("daemon: %w", err)
	}
	return nil
}

// Serve answers clients, then brings the network and the services up to what
// the document says. It returns once that is done; from then on the server is
// ready. On an error the caller closes the daemon.
func (d *Daemon) Serve(ctx context.Context) error {
	for l, local := range map[net.Listener]bool{d.tcp: false, d.socket: true} {
		d.serving.Go(func() {
			if err := d.server.Serve(l, local); err != nil {
				d.log.Error("a listener failed", "address", l.Addr().String(), "err", err)
				d.end(HandOver)
			}
		})
	}
	// The first service should not wait for the image longer than need be.
	d.serving.Go(func() {
		if _, err := d.base.Image(ctx); err != nil && ctx.Err() == nil {
			d.log.Error("there is no image that containers could start from; the next install tries again", "err", err)
		}
	})
	if err := d.network.Start(ctx); err != nil {
		return fmt.Errorf("daemon: %w", err)
	}
	if err := d.services.Start(ctx); err != nil {
		return fmt.Errorf("daemon: %w", err)
	}
	if err := d.machine.Start(ctx); err != nil {
		return fmt.Errorf("daemon: %w", err)
	}
	if err := d.notes.Start(ctx); err != nil {
		return fmt.Errorf("daemon: %w", err)
	}
	d.ready.Store(true)
	return nil
}

// Ended tells when someone asked for the daemon's end, and which: Shutdown or
// HandOver.
func (d *Daemon) Ended() <-chan string { return d.ended }

func (d *Daemon) end(how string) {
	select {
	case d.ended <- how:
	default: // it has been asked for often enough
	}
}

// noImage tells whoever installs what the machine lacks.
func noImage(err error) error {
	text, _, _ := strings.Cut(err.Error(), ";")
	return problem.New(503, "no-base-image", "the image that containers start from cannot be built: "+text).Because(err)
}

var errStarting = errors.New("daemon: services are being brought up")

func (d *Daemon) isReady() error {
	if !d.ready.Load() {
		return errStarting
	}
	return nil
}

// Close takes the server down. With stop every service is stopped and nothing
// of the server stays but its folder; without, services and their forwards go
// on for the next start to take over. A done ctx makes it hurry, not stop half
// way. Only the first call counts.
func (d *Daemon) Close(ctx context.Context, stop bool) error {
	d.closing.Do(func() { d.closed = d.close(ctx, stop) })
	return d.closed
}

func (d *Daemon) close(ctx context.Context, stop bool) error {
	d.ready.Store(false)
	errs := []error{ignoreEnd(ctx, d.server.Shutdown(ctx))}
	d.serving.Wait()
	errs = append(errs, d.services.Close(ctx, stop), ignoreEnd(ctx, d.ops.Close(ctx)), d.notes.Close(), d.network.Close())
	if stop {
		errs = append(errs, d.nat.CleanUp(context.WithoutCancel(ctx)))
	}
	errs = append(errs, d.nat.Close(), d.runtime.Close(), d.requests.Close(), d.db.Close())
	d.unwind() // each Close above may be called again
	if err := os.Remove(d.Socket()); err != nil && !errors.Is(err, os.ErrNotExist) {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// ignoreEnd drops the error of a context that was meant to hurry us.
func ignoreEnd(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func (d *Daemon) warn(room string, err error) {
	if err != nil {
		d.log.Warn("a room does not close", "room", room, "err", err)
	}
}

// URL is the API's address for people.
func (d *Daemon) URL() string {
	outside, _ := patchdb.Get[string](d.db, patchdb.Join(state.ServerInfo, "network", "outside"))
	return d.scheme + "://" + display(d.tcp.Addr(), outside)
}

// Socket is the path of the root-only socket.
func (d *Daemon) Socket() string { return SocketPath(d.o.Dir) }

// SocketPath is where the server of a folder has its socket.
func SocketPath(dir string) string { return filepath.Join(dir, "stead.sock") }

// ClaimCode claims the server; "" when it has an owner.
func (d *Daemon) ClaimCode() string { return d.account.ClaimCode() }

// Fingerprint is that of the root certificate; "" when clients come in plain.
func (d *Daemon) Fingerprint() string {
	if d.scheme != "https" {
		return ""
	}
	return d.root.Fingerprint()
}

// inUse reports whether a container was made with the guest layer of that name.
func inUse(containers, name string) bool {
	specs, err := filepath.Glob(filepath.Join(containers, "*", "spec.json"))
	if err != nil {
		return true
	}
	for _, path := range specs {
		if data, err := os.ReadFile(path); err != nil || bytes.Contains(data, []byte(name)) {
			return true
		}
	}
	return false
}

// architecture is this machine's, in the words of packages.
func architecture() string {
	switch runtime.GOARCH {
	case "amd64":
		return "x86_64"
	case "arm64":
		return "aarch64"
	}
	return runtime.GOARCH
}
