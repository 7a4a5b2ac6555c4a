package server

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/selfstead/selfstead/server/api"
)

type grantInput struct {
	ID     string `path:"id" maxLength:"200" doc:"id of the package that is reached" example:"hello-world"`
	Client string `path:"client" maxLength:"200" doc:"id of the package that may reach it" example:"dashboard"`
}

func (s *Server) grantRoutes() {
	missing := []int{http.StatusNotFound}
	add(s, huma.Operation{
		OperationID: "list-grants", Method: http.MethodGet, Path: "/v1/packages/{id}/grants", Tags: []string{tagPackages},
		Errors: missing, Summary: "List which packages may reach a package",
		Description: "Packages whose manifests declare the dependency, and those that its owner lets in. No other package reaches it inside the server.",
	}, func(ctx context.Context, in *packagePageInput) (*list[api.Grant], error) {
		found, err := s.deps.Services.Grants(in.ID)
		if err != nil {
			return nil, err
		}
		return paged(ctx, in.page(), found, false, func(g api.Grant) string { return g.Client })
	})
	add(s, huma.Operation{
		OperationID: "put-grant", Method: http.MethodPut, Path: "/v1/packages/{id}/grants/{client}", Tags: []string{tagPackages},
		Errors: missing, Summary: "Let a package reach another",
		Description: "In force at the answer, and until it is taken back or one of the two is uninstalled.",
	}, func(ctx context.Context, in *grantInput) (*body[[]api.Grant], error) {
		if err := s.deps.Services.Grant(ctx, in.ID, in.Client); err != nil {
			return nil, err
		}
		return s.grantsBody(in.ID)
	})
	add(s, huma.Operation{
		OperationID: "delete-grant", Method: http.MethodDelete, Path: "/v1/packages/{id}/grants/{client}", Tags: []string{tagPackages},
		DefaultStatus: http.StatusNoContent, Errors: missing, Summary: "Take back that a package may reach another",
		Description: "Connections that are open end. What the package's manifest declares stays.",
	}, func(ctx context.Context, in *grantInput) (*nothing, error) {
		return nil, s.deps.Services.Revoke(ctx, in.ID, in.Client)
	})
}

func (s *Server) grantsBody(id string) (*body[[]api.Grant], error) {
	list, err := s.deps.Services.Grants(id)
	if list == nil {
		list = []api.Grant{}
	}
	return &body[[]api.Grant]{list}, err
}
