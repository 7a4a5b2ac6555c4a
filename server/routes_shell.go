package server

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/coder/websocket"
	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"

	"github.com/selfstead/selfstead/server/api"
	"github.com/selfstead/selfstead/server/problem"
)

const (
	maxShells = 32               // open at once
	pingEvery = 30 * time.Second // between questions whether the client is there
)

const codeUpgrade = "upgrade-required"

// Terminal is a program with a terminal inside a package.
type Terminal interface {
	TTY() *os.File
	Resize(rows, cols uint16) error
	Hangup()
	Wait() (code, signal int, err error)
}

type shellInput struct {
	ID           string   `path:"id" maxLength:"200" doc:"id of the package" example:"hello-world"`
	Command      []string `query:"command,explode" maxItems:"100" doc:"the program and its arguments; left out: a shell"`
	User         string   `query:"user" maxLength:"100" doc:"user, or user:group, inside; left out: root"`
	Subcontainer string   `query:"subcontainer" maxLength:"64" doc:"one of the package's subcontainers; left out: its own container"`
	Term         string   `query:"term" maxLength:"40" pattern:"^[A-Za-z0-9._+-]*$" doc:"kind of terminal, for TERM" example:"xterm-256color"`
	Rows         uint16   `query:"rows" minimum:"1" maximum:"10000" default:"24" doc:"height of the window in characters"`
	Cols         uint16   `query:"cols" minimum:"1" maximum:"10000" default:"80" doc:"width of the window in characters"`
}

func (s *Server) shellRoutes() {
	if s.deps.Inspector != nil {
		add(s, huma.Operation{
			OperationID: "list-subcontainers", Method: http.MethodGet, Path: "/v1/packages/{id}/subcontainers", Tags: []string{tagPackages},
			Errors: []int{http.StatusNotFound, http.StatusConflict}, Summary: "List what a package runs beside its own program",
		}, func(ctx context.Context, in *packagePageInput) (*list[api.Subcontainer], error) {
			found, err := s.deps.Inspector.Subcontainers(ctx, in.ID)
			if err != nil {
				return nil, err
			}
			return paged(ctx, in.page(), found, false, func(x api.Subcontainer) string { return x.ID })
		})
	}
	if s.deps.Shell == nil {
		return
	}
	op := huma.Operation{
		OperationID: "open-shell", Method: http.MethodGet, Path: "/v1/packages/{id}/shell", Tags: []string{tagPackages},
		Errors:  []int{http.StatusNotFound, http.StatusConflict, http.StatusUpgradeRequired, http.StatusServiceUnavailable},
		Summary: "Open a terminal inside a package",
		Description: "A WebSocket. Binary messages are what is typed and what is shown. Text messages are JSON as ShellMessage has it: the client tells the size of its window, " +
			"the server at last how the program ended, and closes with 1000. A client that goes hangs the program up.",
	}
	prepare(&op)
	op.Responses = map[string]*huma.Response{"101": {Description: "A WebSocket", Content: map[string]*huma.MediaType{
		"application/json": {Schema: s.api.OpenAPI().Components.Schemas.Schema(typeOf[api.ShellMessage](), true, "ShellMessage")},
	}}}
	huma.Register(s.api, op, func(ctx context.Context, in *shellInput) (*huma.StreamResponse, error) {
		return &huma.StreamResponse{Body: func(hc huma.Context) {
			r, w := humachi.Unwrap(hc)
			if err := s.shell(hc.Context(), w, r, in); err != nil {
				writeProblem(w, s.fail(info(ctx), err))
			}
		}}, nil
	})
}

// shell runs one terminal. An error means that nothing was answered yet.
func (s *Server) shell(ctx context.Context, w http.ResponseWriter, r *http.Request, in *shellInput) error {
	if !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		return problem.New(http.StatusUpgradeRequired, codeUpgrade, "this is for WebSockets").WithHeader("Upgrade", "websocket")
	}
	if s.shells.Add(1) > maxShells {
		s.shells.Add(-1)
		return problem.New(http.StatusServiceUnavailable, codeTooMany, "too many open terminals").WithHeader("Retry-After", "10")
	}
	defer s.shells.Add(-1)
	s.hijacked.Add(1)
	defer s.hijacked.Done()
	if r.Header.Get("Origin") != "" && !sameOrigin(r) { // before anything runs
		return problem.New(http.StatusForbidden, codeCrossOrigin, "a page of another origin may not do this")
	}
	t, err := s.deps.Shell(ctx, in.ID, api.ShellOptions{
		Command: in.Command, User: in.User, Subcontainer: in.Subcontainer, Term: in.Term, Rows: in.Rows, Cols: in.Cols,
	})
	if err != nil {
		return err
	}
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true}) // sameOrigin is ours
	if err != nil {                                                                      // it has answered
		t.Hangup()
		t.Wait() //nolint:errcheck // nobody asks
		return nil
	}
	defer c.CloseNow() //nolint:errcheck // it may be closed
	c.SetReadLimit(64 << 10)
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	if session := caller(ctx).session; session != nil {
		defer context.AfterFunc(session.Context(), cancel)()
	}
	defer context.AfterFunc(ctx, t.Hangup)()
	go func() {
		defer cancel()
		typed(ctx, c, t)
	}()
	go func() { // a client that is gone without a word
		tick := time.NewTicker(pingEvery)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			one, stop := context.WithTimeout(ctx, pingEvery)
			err := c.Ping(one)
			stop()
			if err != nil {
				cancel()
				return
			}
		}
	}()
	shown(ctx, c, t)
	gone := ctx.Err() != nil
	code, signal, err := t.Wait()
	if gone {
		return nil
	}
	m := api.ShellMessage{Exit: &api.ShellExit{Code: code, Signal: signal}}
	if err != nil {
		m = api.ShellMessage{Problem: "it is not known how the program ended"}
	}
	text, _ := json.Marshal(m) // it always can
	end, stop := context.WithTimeout(ctx, writeTimeout)
	defer stop()
	if c.Write(end, websocket.MessageText, text) == nil {
		c.Close(websocket.StatusNormalClosure, "complete") //nolint:errcheck // the client may be gone
	}
	return nil
}

// sameOrigin reports whether a browser's page came from this very server.
func sameOrigin(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	return strings.EqualFold(origin, "http://"+r.Host) || strings.EqualFold(origin, "https://"+r.Host)
}

// typed carries what the client sends to the program.
func typed(ctx context.Context, c *websocket.Conn, t Terminal) {
	for {
		kind, data, err := c.Read(ctx)
		if err != nil {
			return
		}
		if kind == websocket.MessageBinary {
			if _, err := t.TTY().Write(data); err != nil {
				<-ctx.Done() // the program has ended; what it said is on its way
				return
			}
			continue
		}
		var m api.ShellMessage
		if json.Unmarshal(data, &m) == nil && m.Resize != nil && m.Resize.Rows > 0 && m.Resize.Cols > 0 {
			t.Resize(m.Resize.Rows, m.Resize.Cols) //nolint:errcheck // the program may have ended
		}
	}
}

// shown carries what the program shows to the client, until its end. A client
// that takes nothing for writeTimeout is gone.
func shown(ctx context.Context, c *websocket.Conn, t Terminal) {
	buf := make([]byte, 32<<10)
	open := true
	for {
		n, err := t.TTY().Read(buf)
		if n > 0 && open {
			one, stop := context.WithTimeout(ctx, writeTimeout)
			if c.Write(one, websocket.MessageBinary, buf[:n]) != nil {
				open = false
				t.Hangup()
			}
			stop()
		}
		if err != nil {
			return
		}
	}
}
