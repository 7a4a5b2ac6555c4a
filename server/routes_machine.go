package server

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/selfstead/selfstead/server/api"
	"github.com/selfstead/selfstead/server/problem"
	"github.com/selfstead/selfstead/server/system"
)

// machineRoutes are about the machine that the server runs on.
func (s *Server) machineRoutes() {
	m := s.deps.System
	if m == nil {
		return
	}
	tags := []string{tagSystem}
	identity := func() (*body[api.Identity], error) {
		n, err := m.Names()
		return &body[api.Identity]{api.Identity(n)}, err
	}
	add(s, huma.Operation{
		OperationID: "get-identity", Method: http.MethodGet, Path: "/v1/system/identity", Tags: tags, Summary: "Read how the server is called",
	}, func(context.Context, *nothing) (*body[api.Identity], error) { return identity() })
	type identityInput struct{ Body api.IdentityChange }
	add(s, huma.Operation{
		OperationID: "change-identity", Method: http.MethodPatch, Path: "/v1/system/identity", Tags: tags, Errors: []int{http.StatusConflict},
		Summary: "Change how the server is called",
	}, func(ctx context.Context, in *identityInput) (*body[api.Identity], error) {
		if err := m.SetNames(ctx, in.Body.Name, in.Body.Hostname); err != nil {
			return nil, err
		}
		return identity()
	})
	clock := func() *body[api.Clock] {
		return &body[api.Clock]{api.Clock{Now: time.Now().UTC(), Timezone: m.Timezone(), Synced: system.Synced(), Uptime: time.Since(s.started).Seconds()}}
	}
	add(s, huma.Operation{
		OperationID: "get-time", Method: http.MethodGet, Path: "/v1/system/time", Tags: tags, Summary: "Read the server's time",
	}, func(context.Context, *nothing) (*body[api.Clock], error) { return clock(), nil })
	type zoneInput struct{ Body api.Timezone }
	add(s, huma.Operation{
		OperationID: "set-timezone", Method: http.MethodPut, Path: "/v1/system/timezone", Tags: tags, Errors: []int{http.StatusConflict},
		Summary: "Set the machine's time zone", Description: "Only where the server manages its machine. Programs that run keep theirs until they start anew.",
	}, func(_ context.Context, in *zoneInput) (*body[api.Clock], error) {
		if err := m.SetTimezone(in.Body.Timezone); err != nil {
			return nil, err
		}
		return clock(), nil
	})
	add(s, huma.Operation{
		OperationID: "get-device", Method: http.MethodGet, Path: "/v1/system/device", Tags: tags, Summary: "Read what the machine is",
	}, func(context.Context, *nothing) (*body[api.Device], error) {
		d := m.Device()
		return &body[api.Device]{api.Device{
			OS: d.OS, Kernel: d.Kernel, Architecture: s.opts.Architecture, CPU: d.CPU, CPUs: d.CPUs, Memory: d.Memory, Product: d.Product,
		}}, nil
	})
	s.keyRoutes(m)
}

func (s *Server) keyRoutes(m *system.Manager) {
	const path = "/v1/ssh-keys"
	tags := []string{tagSystem}
	add(s, huma.Operation{
		OperationID: "list-ssh-keys", Method: http.MethodGet, Path: path, Tags: tags, Summary: "List the SSH keys that may come in",
	}, func(ctx context.Context, in *pageInput) (*list[api.SSHKey], error) {
		keys, err := m.Keys()
		if err != nil {
			return nil, err
		}
		out := []api.SSHKey{}
		for _, k := range keys {
			out = append(out, api.SSHKey(k))
		}
		return paged(ctx, *in, out, false, func(k api.SSHKey) string { return timeKey(k.Added, k.ID) })
	})
	type addInput struct{ Body api.NewSSHKey }
	type addOutput struct {
		Location string `header:"Location" doc:"path of the key"`
		Body     api.SSHKey
	}
	add(s, huma.Operation{
		OperationID: "add-ssh-key", Method: http.MethodPost, Path: path, Tags: tags, DefaultStatus: http.StatusCreated, Errors: []int{http.StatusConflict},
		Summary: "Let an SSH key in", Description: "Into the file that the server was started with, if any. A key that is there already stays as it is.",
	}, func(ctx context.Context, in *addInput) (*addOutput, error) {
		k, err := m.AddKey(ctx, in.Body.Key)
		return &addOutput{path + "/" + k.ID, api.SSHKey(k)}, err
	})
	type keyInput struct {
		ID string `path:"id" maxLength:"64" pattern:"^[0-9a-f]*$" doc:"SHA-256 of the key, hex"`
	}
	add(s, huma.Operation{
		OperationID: "get-ssh-key", Method: http.MethodGet, Path: path + "/{id}", Tags: tags, Errors: []int{http.StatusNotFound}, Summary: "Read an SSH key's description",
	}, func(_ context.Context, in *keyInput) (*body[api.SSHKey], error) {
		keys, err := m.Keys()
		for _, k := range keys {
			if k.ID == in.ID {
				return &body[api.SSHKey]{api.SSHKey(k)}, nil
			}
		}
		if err == nil {
			err = problem.NotFound("SSH key", in.ID)
		}
		return nil, err
	})
	add(s, huma.Operation{
		OperationID: "delete-ssh-key", Method: http.MethodDelete, Path: path + "/{id}", Tags: tags, DefaultStatus: http.StatusNoContent,
		Errors: []int{http.StatusNotFound}, Summary: "Let an SSH key in no more", Description: "Connections that it opened go on.",
	}, func(ctx context.Context, in *keyInput) (*nothing, error) { return nil, m.RemoveKey(ctx, in.ID) })
}
