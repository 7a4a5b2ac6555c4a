package server

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-chi/chi/v5"

	"github.com/selfstead/selfstead/patchdb"
	"github.com/selfstead/selfstead/server/journal"
	"github.com/selfstead/selfstead/server/problem"
)

// Codes of problems that arise before a domain room is reached.
const (
	codeBadRequest       = "bad-request"
	codeMethod           = "method-not-allowed"
	codeTooLarge         = "too-large"
	codeMediaType        = "unsupported-media-type"
	codeCrossOrigin      = "cross-origin"
	codeLocalOnly        = "local-only"
	codeTooMany          = "too-many-requests"
	codeReadOnly         = "read-only"
	codeNotReady         = "not-ready"
	codePreconditionFail = "precondition-failed"
)

// byStatus names what huma itself refuses.
var byStatus = map[int]string{
	http.StatusBadRequest:            codeBadRequest,
	http.StatusNotFound:              problem.CodeNotFound,
	http.StatusMethodNotAllowed:      codeMethod,
	http.StatusRequestTimeout:        problem.CodeTimeout,
	http.StatusPreconditionFailed:    codePreconditionFail,
	http.StatusRequestEntityTooLarge: codeTooLarge,
	http.StatusUnsupportedMediaType:  codeMediaType,
	http.StatusUnprocessableEntity:   problem.CodeInvalid,
}

func init() {
	huma.DefaultArrayNullable = false
	huma.NewError = func(status int, msg string, errs ...error) huma.StatusError {
		return humaProblem(status, msg, errs)
	}
	huma.NewErrorWithContext = func(ctx huma.Context, status int, msg string, errs ...error) huma.StatusError {
		p := humaProblem(status, msg, errs)
		if ctx != nil {
			p = p.WithInstance(instance(ctx.Context()))
		}
		return p
	}
}

// humaProblem is the Problem of what huma refuses. Values are repeated to the
// caller only where they cannot be secrets: never a whole body, never a field
// that names one.
func humaProblem(status int, msg string, errs []error) *problem.Problem {
	if status >= 500 && len(errs) == 1 && errs[0] != nil {
		return problem.From(errs[0])
	}
	code, ok := byStatus[status]
	if !ok {
		code = strings.ToLower(strings.ReplaceAll(http.StatusText(status), " ", "-"))
	}
	p := problem.New(status, code, msg)
	for _, err := range errs {
		var d *huma.ErrorDetail
		switch {
		case err == nil:
		case errors.As(err, &d):
			value := d.Value
			if !mayRepeat(d.Location, value) {
				value = nil
			}
			p = p.WithField(d.Location, d.Message, value)
		default:
			p = p.WithField("", err.Error(), nil)
		}
	}
	return p
}

func mayRepeat(location string, value any) bool {
	switch value.(type) {
	case string, bool, float64, int, int64, json.Number:
	default:
		return false
	}
	place := strings.ToLower(location)
	if place == "" || place == "body" {
		return false
	}
	for _, secret := range []string{"password", "code", "token", "secret", "key", "cookie", "authorization", "input", "prefill"} {
		if strings.Contains(place, secret) {
			return false
		}
	}
	return true
}

// fail is the one place where an error becomes an answer: a domain room's
// problem as it is, a few errors of rooms that know no problems, anything else
// as "internal" with its cause in the log.
func (s *Server) fail(r requestInfo, err error) *problem.Problem {
	if errors.Is(err, journal.ErrCursor) {
		err = problem.New(http.StatusUnprocessableEntity, problem.CodeInvalid, "that is not a cursor of this log").
			WithField("query.cursor", "not a cursor", nil)
	}
	if errors.Is(err, patchdb.ErrReadOnly) {
		err = problem.New(http.StatusServiceUnavailable, codeReadOnly, "the state cannot be written; the server's log says why").Because(err)
	}
	p := problem.From(err).WithInstance(r.instance())
	level := slog.LevelDebug // the caller is told
	switch {
	case p.Code == problem.CodeInternal || p.Code == codeReadOnly:
		level = slog.LevelError
	case p.Status >= 500 && p.Code != codeNotReady:
		level = slog.LevelWarn
	}
	s.log.Log(context.Background(), level, "request failed", "request", r.id, "method", r.method, "path", r.path, "status", p.Status, "err", err)
	return p
}

// writeProblem answers outside of huma.
func writeProblem(w http.ResponseWriter, p *problem.Problem) {
	for name, values := range p.GetHeaders() {
		w.Header()[name] = values
	}
	w.Header().Set("Content-Type", problem.ContentType)
	w.WriteHeader(p.Status)
	json.NewEncoder(w).Encode(p) //nolint:errcheck // the client is gone then
}

func (s *Server) notFound(w http.ResponseWriter, r *http.Request) {
	writeProblem(w, problem.New(http.StatusNotFound, problem.CodeNotFound, "there is no such path").WithInstance(instance(r.Context())))
}

// methodNotAllowed answers for a path that has other methods, and names them
// (RFC 9110 section 15.5.6).
func methodNotAllowed(router chi.Router) http.HandlerFunc {
	methods := []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete}
	return func(w http.ResponseWriter, r *http.Request) {
		var allowed, verbs []string // verbs: of patterns such as /v1/packages/{id}:restart, which are the closer match
		path := r.URL.RawPath
		if path == "" {
			path = r.URL.Path
		}
		for _, method := range methods {
			found := chi.NewRouteContext()
			if !router.Match(found, method, path) {
				continue
			}
			allowed = append(allowed, method)
			if strings.Contains(found.RoutePattern(), "}:") {
				verbs = append(verbs, method)
			}
		}
		if verbs != nil {
			allowed = verbs
		}
		writeProblem(w, problem.New(http.StatusMethodNotAllowed, codeMethod, "the path has no "+r.Method).
			WithHeader("Allow", strings.Join(allowed, ", ")).WithInstance(instance(r.Context())))
	}
}
