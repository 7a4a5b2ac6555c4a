package server

import (
	"embed"
	"net/http"

	"github.com/go-chi/chi/v5"
)

//go:embed docs
var docs embed.FS

// viewerRoutes serve the page that shows the contract to people. It is our own
// and loads nothing from other hosts.
func (s *Server) viewerRoutes(router chi.Router) {
	for path, file := range map[string]struct{ name, contentType string }{
		"/docs":          {"docs/index.html", "text/html; charset=utf-8"},
		"/docs/docs.js":  {"docs/docs.js", "text/javascript; charset=utf-8"},
		"/docs/docs.css": {"docs/docs.css", "text/css; charset=utf-8"},
	} {
		router.Get(path, func(w http.ResponseWriter, r *http.Request) {
			data, err := docs.ReadFile(file.name)
			if err != nil {
				writeProblem(w, s.fail(info(r.Context()), err))
				return
			}
			h := w.Header()
			h.Set("Content-Type", file.contentType)
			h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; form-action 'none'; base-uri 'none'; frame-ancestors 'none'")
			w.Write(data) //nolint:errcheck // the client is gone then
		})
	}
	router.Get("/", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/docs", http.StatusFound) })
}
