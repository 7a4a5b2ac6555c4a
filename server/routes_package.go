package server

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/selfstead/selfstead/server/api"
)

const sideloadPath = "/v1/packages:sideload"

type (
	packageInput struct {
		ID string `path:"id" maxLength:"200" doc:"id of the package" example:"hello-world"`
	}
	packagePageInput struct {
		ID     string `path:"id" maxLength:"200" doc:"id of the package" example:"hello-world"`
		Limit  int    `query:"limit" minimum:"1" maximum:"1000" default:"200" doc:"most items to return"`
		Cursor string `query:"cursor" maxLength:"1200" pattern:"^([0-9a-f]{2})*$" patternDescription:"cursor of a Link header" doc:"where to go on: the one that the Link header of the page before names"`
	}
	sideloadInput struct {
		Reinstall    bool   `query:"reinstall" doc:"install even the version that is installed, once more over its data"`
		AcceptSigner string `query:"acceptSigner" maxLength:"64" pattern:"^([0-9a-f]{64})?$" doc:"the new signer, in hex, that may take an installed package over; without it another signer than that of the first install is refused"`
	}
	uninstallInput struct {
		ID    string `path:"id" maxLength:"200" doc:"id of the package" example:"hello-world"`
		Soft  bool   `query:"soft" doc:"keep the package's data"`
		Force bool   `query:"force" doc:"go on when the package's own clean-up fails"`
	}
	desiredInput struct {
		ID   string `path:"id" maxLength:"200" doc:"id of the package" example:"hello-world"`
		Body api.DesiredState
	}
)

func (s *Server) packageRoutes() {
	missing := []int{http.StatusNotFound}
	add(s, huma.Operation{
		OperationID: "list-packages", Method: http.MethodGet, Path: "/v1/packages", Tags: []string{tagPackages},
		Summary: "List packages", Description: "Without their manifests.",
	}, func(ctx context.Context, in *pageInput) (*list[api.Package], error) {
		found, err := s.deps.Services.List()
		if err != nil {
			return nil, err
		}
		for i := range found {
			found[i].Manifest = nil
		}
		return paged(ctx, *in, found, false, func(p api.Package) string { return p.ID })
	})
	add(s, huma.Operation{
		OperationID: "sideload-package", Method: http.MethodPost, Path: sideloadPath, Tags: []string{tagPackages},
		DefaultStatus: http.StatusAccepted,
		Errors: []int{http.StatusConflict, http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity,
			http.StatusServiceUnavailable, http.StatusInsufficientStorage},
		Summary: "Install a package from a file, or update it",
		Description: "The body is the .s9pk file itself. Another version of an installed package updates it: its data stays, and when the update fails or is cancelled the old version runs again with its old data. It is verified while it arrives: a fault is answered as soon as the bytes show it, with the entry and the offset, and nothing of the file stays. " +
			"After the last byte the answer is the operation, which then installs. It is listed from the first byte on.",
		RequestBody: &huma.RequestBody{Required: true, Description: "the .s9pk file", Content: map[string]*huma.MediaType{
			"application/octet-stream": {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}},
		}},
	}, s.sideload)
	add(s, huma.Operation{
		OperationID: "get-package", Method: http.MethodGet, Path: "/v1/packages/{id}", Tags: []string{tagPackages},
		Errors: missing, Summary: "Read a package",
	}, func(_ context.Context, in *packageInput) (*body[api.Package], error) { return s.packageBody(in.ID) })
	add(s, huma.Operation{
		OperationID: "uninstall-package", Method: http.MethodDelete, Path: "/v1/packages/{id}", Tags: []string{tagPackages},
		DefaultStatus: http.StatusAccepted, Errors: []int{http.StatusNotFound, http.StatusConflict},
		Summary: "Uninstall a package", Description: "Stops it, runs its own clean-up, and removes it with its data.",
	}, func(ctx context.Context, in *uninstallInput) (*started, error) {
		op, err := s.deps.Services.Uninstall(ctx, in.ID, in.Soft, in.Force)
		return startedOperation(op), err
	})
	add(s, huma.Operation{
		OperationID: "set-desired-state", Method: http.MethodPut, Path: "/v1/packages/{id}/desired-state", Tags: []string{tagPackages},
		Errors: []int{http.StatusNotFound, http.StatusConflict}, Summary: "Start or stop a package",
		Description: "Returns once the wish is recorded; the package's state follows it. The wish outlasts restarts of the server.",
	}, func(ctx context.Context, in *desiredInput) (*body[api.Package], error) {
		if err := s.deps.Services.SetDesired(ctx, in.ID, in.Body.State, in.Body.Force); err != nil {
			return nil, err
		}
		return s.packageBody(in.ID)
	})
	for _, verb := range []struct {
		name, summary string
		do            func(context.Context, string) error
	}{
		{"restart", "Restart a package", s.deps.Services.Restart},
		{"rebuild", "Build a package's container anew", s.deps.Services.Rebuild},
	} {
		add(s, huma.Operation{
			OperationID: verb.name + "-package", Method: http.MethodPost, Path: "/v1/packages/{id}:" + verb.name, Tags: []string{tagPackages},
			DefaultStatus: http.StatusAccepted, Errors: []int{http.StatusNotFound, http.StatusConflict}, Summary: verb.summary,
		}, func(ctx context.Context, in *packageInput) (*body[api.Package], error) {
			if err := verb.do(ctx, in.ID); err != nil {
				return nil, err
			}
			return s.packageBody(in.ID)
		})
	}
	add(s, huma.Operation{
		OperationID: "list-hosts", Method: http.MethodGet, Path: "/v1/packages/{id}/hosts", Tags: []string{tagPackages},
		Errors: missing, Summary: "List where a package can be reached",
	}, func(ctx context.Context, in *packagePageInput) (*list[api.Host], error) {
		hosts, err := s.deps.Services.Hosts(in.ID)
		if err != nil {
			return nil, err
		}
		return paged(ctx, in.page(), hosts, false, func(h api.Host) string { return h.HostID })
	})
}

func (s *Server) packageBody(id string) (*body[api.Package], error) {
	p, err := s.deps.Services.Get(id)
	return &body[api.Package]{p}, err
}
