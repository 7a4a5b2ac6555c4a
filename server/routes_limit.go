package server

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/selfstead/selfstead/server/api"
)

func (s *Server) limitRoutes() {
	type limitsInput struct {
		ID   string `path:"id" maxLength:"200" doc:"id of the package" example:"hello-world"`
		Body api.Limits
	}
	missing := []int{http.StatusNotFound}
	show := func(id string) (*body[api.PackageLimits], error) {
		l, err := s.deps.Services.Limits(id)
		return &body[api.PackageLimits]{l}, err
	}
	add(s, huma.Operation{
		OperationID: "get-limits", Method: http.MethodGet, Path: "/v1/packages/{id}/limits", Tags: []string{tagPackages},
		Errors: missing, Summary: "Read what a package may take of the machine",
	}, func(_ context.Context, in *packageInput) (*body[api.PackageLimits], error) { return show(in.ID) })
	add(s, huma.Operation{
		OperationID: "set-limits", Method: http.MethodPut, Path: "/v1/packages/{id}/limits", Tags: []string{tagPackages},
		Errors: []int{http.StatusNotFound, http.StatusConflict}, Summary: "Set what a package may take of the machine",
		Description: "Replaces what was set; what is left out is at its default. In force at the answer, without a restart, and kept until the package is uninstalled. Limits that the running package cannot be brought under are refused.",
	}, func(ctx context.Context, in *limitsInput) (*body[api.PackageLimits], error) {
		if err := s.deps.Services.SetLimits(ctx, in.ID, in.Body); err != nil {
			return nil, err
		}
		return show(in.ID)
	})
}
