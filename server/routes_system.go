package server

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/selfstead/selfstead/patchdb"
	"github.com/selfstead/selfstead/server/api"
	"github.com/selfstead/selfstead/server/problem"
	"github.com/selfstead/selfstead/server/state"
)

func (s *Server) systemRoutes() {
	add(s, huma.Operation{
		OperationID: "get-system", Method: http.MethodGet, Path: "/v1/system", Tags: []string{tagSystem},
		Summary: "Read what the server is and runs on",
	}, s.getSystem)
	type powerInput struct{ Body api.Power }
	if s.opts.Power != nil {
		add(s, huma.Operation{
			OperationID: "power", Method: http.MethodPost, Path: "/v1/system/power", Security: localOnly, Tags: []string{tagSystem},
			DefaultStatus: http.StatusAccepted, Summary: "End the server program", Description: "Only on the server's own socket.",
		}, func(_ context.Context, in *powerInput) (*nothing, error) {
			s.opts.Power(in.Body.Action)
			return nil, nil
		})
	}
	add(s, huma.Operation{
		OperationID: "get-health", Method: http.MethodGet, Path: "/healthz", Security: forAnyone, Tags: []string{tagSystem},
		Summary: "Ask whether the server program works",
	}, func(context.Context, *nothing) (*body[api.Ping], error) {
		return &body[api.Ping]{api.Ping{OK: true}}, nil
	})
	add(s, huma.Operation{
		OperationID: "get-readiness", Method: http.MethodGet, Path: "/readyz", Security: forAnyone, Tags: []string{tagSystem},
		Errors: []int{http.StatusServiceUnavailable}, Summary: "Ask whether the server can run packages",
	}, func(context.Context, *nothing) (*body[api.Ping], error) {
		if s.opts.Ready != nil {
			if err := s.opts.Ready(); err != nil {
				return nil, problem.New(http.StatusServiceUnavailable, codeNotReady, "the server is starting").Because(err)
			}
		}
		return &body[api.Ping]{api.Ping{OK: true}}, nil
	})
}

func (s *Server) getSystem(context.Context, *nothing) (*body[api.System], error) {
	known, err := patchdb.Get[state.Server](s.deps.DB, state.ServerInfo)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	kernel, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return &body[api.System]{api.System{
		ID: known.ID, Version: s.opts.Version, Hostname: known.Hostname, Architecture: s.opts.Architecture,
		Kernel: strings.TrimSpace(string(kernel)), Started: s.started.UTC(), Claimed: s.deps.Account.Claimed(),
	}}, nil
}
