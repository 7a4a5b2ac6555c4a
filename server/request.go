package server

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"net/netip"
	"runtime/debug"
	"strings"

	"github.com/selfstead/selfstead/server/problem"
)

type (
	localKey   struct{}
	requestKey struct{}
)

// requestInfo is what every part of a request's handling may want to know.
type requestInfo struct {
	id     string
	method string
	path   string
	query  string
	from   netip.Addr // the client; invalid on a local listener
	local  bool
	tls    bool
	agent  string
}

func (r requestInfo) instance() string { return "urn:selfstead:request:" + r.id }

func info(ctx context.Context) requestInfo {
	r, _ := ctx.Value(requestKey{}).(requestInfo)
	return r
}

func instance(ctx context.Context) string { return info(ctx).instance() }

// outer is what every request passes first: its name, the headers that every
// answer carries, and the net below handlers that panic.
func (s *Server) outer(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		local, _ := r.Context().Value(localKey{}).(bool)
		req := requestInfo{
			id: strings.ToLower(rand.Text()[:16]), method: r.Method, path: r.URL.Path, query: r.URL.RawQuery,
			local: local, tls: r.TLS != nil, agent: r.UserAgent(),
		}
		if ap, err := netip.ParseAddrPort(r.RemoteAddr); err == nil && !local {
			req.from = ap.Addr().Unmap()
		}
		h := w.Header()
		h.Set("X-Request-Id", req.id)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		if strings.HasPrefix(r.URL.Path, "/v1/") {
			h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		}
		defer func() {
			v := recover()
			if v == nil || v == http.ErrAbortHandler {
				if v != nil {
					panic(v)
				}
				return
			}
			s.log.Error("handler panicked", "request", req.id, "method", req.method, "path", req.path, "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
			writeProblem(w, problem.New(http.StatusInternalServerError, problem.CodeInternal, "the server failed; its log says why").WithInstance(req.instance()))
		}()
		r = r.WithContext(context.WithValue(r.Context(), requestKey{}, req))
		if r.Method == http.MethodHead && !strings.HasSuffix(r.URL.Path, "/events") {
			r.Method = http.MethodGet // of our copy: net/http knows to leave the body out
		}
		if r.Method == http.MethodPost && r.URL.Path == sideloadPath {
			s.receiveUpload(w, r, next)
			return
		}
		next.ServeHTTP(w, r)
	})
}
