package server

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/selfstead/selfstead/server/api"
	"github.com/selfstead/selfstead/server/problem"
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
	if s.deps.Gateways != nil {
		s.gatewayRoutes()
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

func (s *Server) gatewayRoutes() {
	add(s, huma.Operation{
		OperationID: "list-gateways", Method: http.MethodGet, Path: "/v1/gateways", Tags: []string{tagNetwork},
		Summary: "List the ways out of the server", Description: "Its interfaces with addresses, as they are now.",
	}, func(ctx context.Context, in *pageInput) (*list[api.Gateway], error) {
		found, err := s.deps.Gateways()
		if err != nil {
			return nil, err
		}
		return paged(ctx, *in, found, false, func(g api.Gateway) string { return g.ID })
	})
	type gatewayInput struct {
		ID string `path:"id" maxLength:"15" doc:"name of the interface" example:"eth0"`
	}
	add(s, huma.Operation{
		OperationID: "get-gateway", Method: http.MethodGet, Path: "/v1/gateways/{id}", Tags: []string{tagNetwork}, Errors: []int{http.StatusNotFound},
		Summary: "Read a way out of the server",
	}, func(_ context.Context, in *gatewayInput) (*body[api.Gateway], error) {
		found, err := s.deps.Gateways()
		for _, g := range found {
			if g.ID == in.ID {
				return &body[api.Gateway]{g}, nil
			}
		}
		if err == nil {
			err = problem.NotFound("gateway", in.ID)
		}
		return nil, err
	})
}
