package server

import (
	"net/http"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"

	"github.com/selfstead/selfstead/server/problem"
)

// single refuses a query parameter that is given more than once and is no list:
// one of the values would be left out without a word, and which one differs
// from program to program.
func (s *Server) single(hc huma.Context, next func(huma.Context)) {
	r, w := humachi.Unwrap(hc)
	query := r.URL.Query()
	for _, p := range hc.Operation().Parameters {
		if p.In != "query" || len(query[p.Name]) < 2 || p.Schema != nil && p.Schema.Type == huma.TypeArray {
			continue
		}
		bad := problem.New(http.StatusUnprocessableEntity, problem.CodeInvalid, "a parameter is given more than once").
			WithField("query."+p.Name, "more than one value", query[p.Name])
		writeProblem(w, bad.WithInstance(info(hc.Context()).instance()))
		return
	}
	next(hc)
}
