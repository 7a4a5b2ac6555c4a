package server

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/selfstead/selfstead/server/api"
)

func (s *Server) networkRoutes() {
	if s.deps.Forwards != nil {
		add(s, huma.Operation{
			OperationID: "list-forwards", Method: http.MethodGet, Path: "/v1/network/forwards", Tags: []string{tagNetwork},
			Summary: "List the published ports", Description: "As they are in force now.",
		}, func(ctx context.Context, in *pageInput) (*list[api.Forward], error) {
			return paged(ctx, *in, s.deps.Forwards(), false, func(f api.Forward) string { return f.Name + " " + f.Source + " " + f.Protocols })
		})
	}
	if s.deps.Authority != nil {
		type rootOutput struct {
			ContentType        string `header:"Content-Type"`
			ContentDisposition string `header:"Content-Disposition"`
			Body               []byte
		}
		add(s, huma.Operation{
			OperationID: "get-root-certificate", Method: http.MethodGet, Path: "/v1/certificates/root-ca", Security: forAnyone, Tags: []string{tagNetwork},
			Summary: "Download the server's root certificate", Description: "For clients to trust. Compare its fingerprint with the one on the server's console.",
			Responses: map[string]*huma.Response{"200": {Description: "OK", Content: map[string]*huma.MediaType{
				"application/x-x509-ca-cert": {Schema: &huma.Schema{Type: huma.TypeString, Description: "PEM"}},
			}}},
		}, func(context.Context, *nothing) (*rootOutput, error) {
			return &rootOutput{
				ContentType: "application/x-x509-ca-cert", ContentDisposition: `attachment; filename="selfstead-root-ca.crt"`,
				Body: s.deps.Authority.RootPEM(),
			}, nil
		})
	}
}
