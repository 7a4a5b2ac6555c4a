package server

import (
	"context"
	"encoding/json"
	"net/http"
	"reflect"
	"sync"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-chi/chi/v5"
)

// Tags group the routes in the document.
const (
	tagSetup      = "Setup"
	tagSessions   = "Sessions"
	tagState      = "State"
	tagOperations = "Operations"
	tagPackages   = "Packages"
	tagLogs       = "Logs"
	tagActions    = "Actions"
	tagNetwork    = "Network"
	tagSystem     = "System"

	tagNotifications = "Notifications"
	tagMetrics       = "Metrics"
)

// apiVersion is that of the contract; a change that breaks clients raises its
// first number.
const apiVersion = "1.0"

// humaConfig is the frame of the OpenAPI document. Formats is JSON alone, and
// no $schema members are added to answers.
func (s *Server) humaConfig() huma.Config {
	version := s.opts.Version
	if version == "" {
		version = "0.0.0"
	}
	return huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info: &huma.Info{
				Title: "selfstead", Version: version,
				Description: "The API of a selfstead server. Sign in with `POST /v1/sessions` and send the token as `Authorization: Bearer`, or keep the cookie. " +
					"Errors are problem details (RFC 9457) with a stable `code`. Long work is an operation: follow it at `/v1/operations/{id}/events`. " +
					"Streams are server-sent events; `Last-Event-ID` resumes them.",
				Extensions: map[string]any{"x-api-version": apiVersion},
				License:    &huma.License{Name: "MIT", Identifier: "MIT"},
			},
			Servers:  []*huma.Server{{URL: "/"}},
			Security: needsSession,
			Components: &huma.Components{
				Schemas: huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer),
				SecuritySchemes: map[string]*huma.SecurityScheme{
					"bearer": {Type: "http", Scheme: "bearer", Description: "the token of `POST /v1/sessions`"},
					"cookie": {Type: "apiKey", In: "cookie", Name: cookieName, Description: "the cookie of `POST /v1/sessions`; writes must come from the server's own origin"},
					"socket": {Type: "apiKey", In: "header", Name: "Host", Description: "only on the server's own socket, which its operating system user alone can open; no header is needed there"},
				},
			},
			Tags: []*huma.Tag{
				{Name: tagSetup, Description: "Claim a new server."},
				{Name: tagSessions, Description: "Sign in and out."},
				{Name: tagState, Description: "The server's state as one document, and its changes."},
				{Name: tagOperations, Description: "Work that outlives its request."},
				{Name: tagPackages, Description: "Install, run and remove packages."},
				{Name: tagLogs, Description: "What services print."},
				{Name: tagActions, Description: "What services offer to do, and ask for."},
				{Name: tagNetwork, Description: "Published ports and certificates."},
				{Name: tagMetrics, Description: "How busy the server and its packages are."},
				{Name: tagNotifications, Description: "Messages to the owner, and where they are sent to."},
				{Name: tagSystem, Description: "The server program and its machine."},
			},
		},
		Formats:       map[string]huma.Format{"application/json": jsonFormat, "json": jsonFormat},
		DefaultFormat: "application/json",
	}
}

// body is an answer whose content is v.
type body[T any] struct{ Body T }

func typeOf[T any]() reflect.Type { return reflect.TypeFor[T]() }

// nothing is the input of a route without parameters, or an empty answer.
type nothing struct{}

// add registers a route. Whatever fn returns as an error becomes a problem.
func add[I, O any](s *Server, op huma.Operation, fn func(context.Context, *I) (*O, error)) {
	prepare(&op)
	if _, ok := reflect.TypeFor[I]().FieldByName("Body"); ok {
		op.Errors = append(op.Errors, http.StatusBadRequest, http.StatusRequestTimeout, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType)
	}
	op.BodyReadTimeout = s.opts.BodyTimeout
	huma.Register(s.api, op, func(ctx context.Context, in *I) (*O, error) {
		out, err := fn(ctx, in)
		if err != nil {
			return nil, s.fail(info(ctx), err)
		}
		return out, nil
	})
}

// prepare fills in what routes have in common.
func prepare(op *huma.Operation) {
	if op.Security == nil {
		op.Security = needsSession
	}
	errs := []int{}
	if !isSecurity(op.Security, forAnyone) {
		errs = append(errs, http.StatusUnauthorized, http.StatusForbidden)
	} else if op.Method != http.MethodGet {
		errs = append(errs, http.StatusForbidden)
	}
	op.Errors = append(errs, op.Errors...)
}

// documentRoutes serves the contract and its viewer.
func (s *Server) documentRoutes(router chi.Router) {
	serve := func(path, contentType string, build func() ([]byte, error)) {
		once := sync.OnceValues(build)
		router.Get(path, func(w http.ResponseWriter, r *http.Request) {
			data, err := once()
			if err != nil {
				writeProblem(w, s.fail(info(r.Context()), err))
				return
			}
			w.Header().Set("Content-Type", contentType)
			w.Write(data) //nolint:errcheck // the client is gone then
		})
	}
	doc := s.api.OpenAPI()
	serve("/openapi.json", "application/openapi+json", func() ([]byte, error) { return json.Marshal(doc) })
	serve("/openapi.yaml", "application/openapi+yaml", doc.YAML)
	serve("/openapi-3.0.json", "application/openapi+json", doc.Downgrade)
	serve("/openapi-3.0.yaml", "application/openapi+yaml", doc.DowngradeYAML)
	s.viewerRoutes(router)
}
