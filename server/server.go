package server

import (
	"context"
	"encoding/json"
	"errors"
	"hash/maphash"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"
	"github.com/go-chi/chi/v5"

	"github.com/selfstead/selfstead/patchdb"
	"github.com/selfstead/selfstead/server/account"
	"github.com/selfstead/selfstead/server/api"
	"github.com/selfstead/selfstead/server/authority"
	"github.com/selfstead/selfstead/server/idempotency"
	"github.com/selfstead/selfstead/server/journal"
	"github.com/selfstead/selfstead/server/notification"
	"github.com/selfstead/selfstead/server/operation"
	"github.com/selfstead/selfstead/server/system"
)

// Services is what the routes need of the room that runs packages. Its errors
// are problems where callers are to learn the reason.
type Services interface {
	// Sideload installs the package that body holds, or updates the installed one
	// to it; size is -1 when unknown. It
	// returns once the last byte is proven, with the operation that goes on, or
	// with a problem as soon as the bytes show a fault. body is an io.Closer too:
	// Close makes a Read that waits return at once.
	Sideload(ctx context.Context, body io.Reader, size int64, o api.SideloadOptions) (operation.Operation, error)
	Uninstall(ctx context.Context, id string, soft, force bool) (operation.Operation, error)
	List() ([]api.Package, error)
	Get(id string) (api.Package, error)
	SetDesired(ctx context.Context, id, state string, force bool) error
	Restart(ctx context.Context, id string) error
	Rebuild(ctx context.Context, id string) error
	// Grants lists who may reach a package inside the server; Grant and Revoke
	// are in force when they return.
	Grants(id string) ([]api.Grant, error)
	Grant(ctx context.Context, id, client string) error
	Revoke(ctx context.Context, id, client string) error
	// Limits says what a package may take of the machine; SetLimits replaces what
	// its owner has set, in force when it returns.
	Limits(id string) (api.PackageLimits, error)
	SetLimits(ctx context.Context, id string, set api.Limits) error
	Hosts(id string) ([]api.Host, error)
	ActionInput(ctx context.Context, id, action string, prefill json.RawMessage) (json.RawMessage, error)
	RunAction(ctx context.Context, id, action, eventID string, input json.RawMessage) (json.RawMessage, error)
	Logs(id string) (*journal.Log, error)
}

// Deps are the rooms that the routes lead to.
type Deps struct {
	DB         *patchdb.DB
	Operations *operation.Manager
	Account    *account.Manager
	Services   Services
	Forwards   func() []api.Forward // what nat has in the kernel now
	Authority  *authority.Authority // nil: no root certificate to offer

	Notifications *notification.Manager // nil: the routes are left out
	Requests      *idempotency.Store    // nil: Idempotency-Key is not heeded
	Inspector     Inspector             // nil: the routes are left out
	System        *system.Manager       // nil: the routes are left out
	ServerLog     *journal.Log          // the server's own; nil: the routes are left out
	// Gateways lists the ways out of the server; nil: the routes are left out.
	Gateways func() ([]api.Gateway, error)
	// Shell starts a program with a terminal inside a package; nil: no route.
	Shell func(ctx context.Context, id string, o api.ShellOptions) (Terminal, error)
}

// Options tunes New. The zero value suits tests.
type Options struct {
	Version      string              // of the program
	Architecture string              // "x86_64" or "aarch64"
	Dir          string              // the state folder, whose disk is measured; "" means the working directory
	Power        func(action string) // ends the program; called once the answer is on its way
	Ready        func() error        // nil once the server can serve packages; nil func means always
	Heartbeat    time.Duration       // between comments on an idle stream; 0 means 15 s
	BodyTimeout  time.Duration       // for a JSON body to arrive; 0 means 10 s
	Logger       *slog.Logger        // nil means silent
}

// Server serves the API. It is safe to share.
type Server struct {
	deps    Deps
	opts    Options
	log     *slog.Logger
	started time.Time
	api     huma.API
	router  chi.Router
	tagged  tagged
	handler http.Handler

	ctx    context.Context // done at Shutdown: ends the streams
	cancel context.CancelFunc

	requests       context.Context // parent of every request's; done some time after Shutdown began
	cancelRequests context.CancelFunc

	streams atomic.Int64
	uploads atomic.Int64
	shells  atomic.Int64

	hijacked sync.WaitGroup // connections that net/http has let go

	mu      sync.Mutex
	servers []*http.Server
	closed  bool

	silent silentConns
}

// New builds the routes. It starts nothing.
func New(d Deps, o Options) *Server {
	s := &Server{deps: d, opts: o, log: o.Logger, started: time.Now()}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.opts.Heartbeat == 0 {
		s.opts.Heartbeat = 15 * time.Second
	}
	if s.opts.BodyTimeout == 0 {
		s.opts.BodyTimeout = 10 * time.Second
	}
	s.requests, s.cancelRequests = context.WithCancel(context.Background())
	s.ctx, s.cancel = context.WithCancel(context.Background())

	router := chi.NewMux()
	router.NotFound(s.notFound)
	router.MethodNotAllowed(methodNotAllowed(router))
	s.api = humachi.New(router, s.humaConfig())
	s.router = router
	s.tagged.paths, s.tagged.seed = map[string]bool{}, maphash.MakeSeed()
	s.api.UseMiddleware(s.authenticate, s.single, s.once, s.conditional)
	s.routes()
	s.describeHeaders()
	s.documentRoutes(router)
	s.handler = s.outer(router)
	return s
}

func (s *Server) routes() {
	s.setupRoutes()
	s.sessionRoutes()
	s.stateRoutes()
	s.operationRoutes()
	s.packageRoutes()
	s.grantRoutes()
	s.limitRoutes()
	s.logRoutes()
	s.actionRoutes()
	s.networkRoutes()
	s.systemRoutes()
	s.machineRoutes()
	s.smtpRoutes()
	s.notificationRoutes()
	s.metricRoutes()
	s.shellRoutes()
}

// Handler serves the API; local says that only the server's own user can reach
// it, so that requests need no session.
func (s *Server) Handler(local bool) http.Handler {
	if !local {
		return s.handler
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.handler.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), localKey{}, true)))
	})
}

// Serve answers on l until Shutdown; local as in Handler. It returns nil after
// Shutdown.
func (s *Server) Serve(l net.Listener, local bool) error {
	srv := &http.Server{
		Handler:           s.Handler(local),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		BaseContext:       func(net.Listener) context.Context { return s.requests },
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		ConnState:         s.silent.note,
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return errors.Join(l.Close())
	}
	s.servers = append(s.servers, srv)
	s.mu.Unlock()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// lastCall is how long requests may go on after Shutdown before their context
// is cancelled.
const lastCall = 3 * time.Second

// Shutdown closes the listeners, ends streams and uploads, and waits until the
// other requests are answered or ctx is done, when it cuts them off.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	servers := s.servers
	s.mu.Unlock()
	s.cancel()
	defer s.cancelRequests()
	defer time.AfterFunc(lastCall, s.cancelRequests).Stop()
	var wg sync.WaitGroup
	errs := make([]error, len(servers))
	for i, srv := range servers {
		wg.Go(func() {
			if err := srv.Shutdown(ctx); err != nil {
				errs[i] = errors.Join(err, srv.Close())
			}
		})
	}
	s.silent.close()
	wg.Wait()
	s.hijacked.Wait() // their programs are hung up, and killed soon after
	return errors.Join(errs...)
}
