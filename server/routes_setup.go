package server

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/selfstead/selfstead/server/api"
)

func (s *Server) setupRoutes() {
	add(s, huma.Operation{
		OperationID: "ping", Method: http.MethodGet, Path: "/v1/ping", Security: forAnyone, Tags: []string{tagSystem},
		Summary: "Ask whether the server is there",
	}, func(context.Context, *nothing) (*body[api.Ping], error) {
		return &body[api.Ping]{api.Ping{OK: true}}, nil
	})
	add(s, huma.Operation{
		OperationID: "get-mode", Method: http.MethodGet, Path: "/v1/mode", Security: forAnyone, Tags: []string{tagSetup},
		Summary: "Ask whether the server has an owner yet",
	}, func(context.Context, *nothing) (*body[api.Mode], error) {
		mode := "running"
		if !s.deps.Account.Claimed() {
			mode = "setup"
		}
		return &body[api.Mode]{api.Mode{Mode: mode, Version: s.opts.Version}}, nil
	})
	type claimInput struct{ Body api.Claim }
	add(s, huma.Operation{
		OperationID: "claim", Method: http.MethodPost, Path: "/v1/setup:claim", Security: forAnyone, Tags: []string{tagSetup},
		DefaultStatus: http.StatusNoContent, Errors: []int{http.StatusConflict, http.StatusTooManyRequests},
		Summary:     "Become the owner of a new server",
		Description: "Takes the one-time code from the server's console, or from the file `claim-code` in its state folder, and sets the owner's password. Works once.",
	}, func(ctx context.Context, in *claimInput) (*nothing, error) {
		return nil, s.deps.Account.Claim(ctx, info(ctx).from, in.Body.Code, in.Body.Password)
	})
}
