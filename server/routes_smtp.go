package server

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"net/mail"

	"github.com/danielgtaylor/huma/v2"

	"github.com/selfstead/selfstead/patchdb"
	"github.com/selfstead/selfstead/server/api"
	"github.com/selfstead/selfstead/server/problem"
	"github.com/selfstead/selfstead/server/state"
)

func (s *Server) smtpRoutes() {
	type smtpInput struct{ Body api.SMTPChange }
	const path = "/v1/system/smtp"
	add(s, huma.Operation{
		OperationID: "get-smtp", Method: http.MethodGet, Path: path, Tags: []string{tagSystem}, Errors: []int{http.StatusNotFound},
		Summary: "Read the outgoing mail server",
	}, func(context.Context, *nothing) (*body[api.SMTP], error) {
		v, err := patchdb.Get[state.SMTP](s.deps.DB, state.SMTPPointer)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, problem.NotFound("outgoing mail server", "set")
		}
		return &body[api.SMTP]{api.SMTP(v.Info())}, err
	})
	add(s, huma.Operation{
		OperationID: "set-smtp", Method: http.MethodPut, Path: path, Tags: []string{tagSystem},
		Summary: "Set the outgoing mail server", Description: "Services that use it are told. The password goes to them and is never answered here.",
	}, func(ctx context.Context, in *smtpInput) (*body[api.SMTP], error) {
		v, err := s.setSMTP(ctx, in.Body)
		return &body[api.SMTP]{api.SMTP(v.Info())}, err
	})
	add(s, huma.Operation{
		OperationID: "delete-smtp", Method: http.MethodDelete, Path: path, Tags: []string{tagSystem}, DefaultStatus: http.StatusNoContent,
		Summary: "Have no outgoing mail server",
	}, func(ctx context.Context, _ *nothing) (*nothing, error) {
		_, err := s.deps.DB.Update(ctx, func(tx *patchdb.Tx) error {
			for _, at := range []patchdb.Pointer{state.SMTPPointer, state.SMTPInfoPointer} {
				if tx.Exists(at) {
					if err := tx.Remove(at); err != nil {
						return err
					}
				}
			}
			return nil
		})
		return nil, err
	})
	if s.deps.Notifications != nil {
		s.smtpTestRoute()
	}
}

// smtpTestRoute sends a mail.
func (s *Server) smtpTestRoute() {
	type testInput struct{ Body api.SMTPTest }
	add(s, huma.Operation{
		OperationID: "test-smtp", Method: http.MethodPost, Path: "/v1/system/smtp:test", Tags: []string{tagSystem}, DefaultStatus: http.StatusNoContent,
		Errors:  []int{http.StatusNotFound},
		Summary: "Try an outgoing mail server", Description: "Sends one mail and answers once the server has taken it. Always with TLS.",
	}, func(ctx context.Context, in *testInput) (*nothing, error) {
		if _, err := mail.ParseAddress(in.Body.To); err != nil {
			return nil, problem.New(http.StatusUnprocessableEntity, problem.CodeInvalid, "that is no mail address").WithField("body.to", "expected an address", in.Body.To)
		}
		v, err := patchdb.Get[state.SMTP](s.deps.DB, state.SMTPPointer)
		missing := errors.Is(err, fs.ErrNotExist)
		if err != nil && !missing {
			return nil, err
		}
		if c := in.Body.Server; c != nil {
			was := v
			v = state.SMTP{Host: c.Host, Port: c.Port, From: c.From, Username: c.Username, Password: c.Password, Security: c.Security}
			if _, err := mail.ParseAddress(c.From); err != nil {
				return nil, problem.New(http.StatusUnprocessableEntity, problem.CodeInvalid, "the sender is no mail address").WithField("body.server.from", "expected an address", c.From)
			}
			if v.Password == nil && was.Host == v.Host && was.Port == v.Port && was.Username == v.Username {
				v.Password = was.Password
			}
			if v.Password != nil && *v.Password == "" {
				v.Password = nil
			}
		} else if missing {
			return nil, problem.NotFound("outgoing mail server", "set").WithFix(http.MethodPut, "/v1/system/smtp", "set the outgoing mail server")
		}
		return nil, s.deps.Notifications.Test(ctx, v, in.Body.To)
	})
}

func (s *Server) setSMTP(ctx context.Context, in api.SMTPChange) (state.SMTP, error) {
	v := state.SMTP{Host: in.Host, Port: in.Port, From: in.From, Username: in.Username, Password: in.Password, Security: in.Security}
	if _, err := mail.ParseAddress(in.From); err != nil {
		return v, problem.New(http.StatusUnprocessableEntity, problem.CodeInvalid, "the sender is no mail address").WithField("body.from", "expected an address", in.From)
	}
	_, err := s.deps.DB.Update(ctx, func(tx *patchdb.Tx) error {
		// A password goes to the server that it was set for and to no other.
		was, err := patchdb.TxGet[state.SMTP](tx, state.SMTPPointer)
		if err == nil && v.Password == nil && was.Host == v.Host && was.Port == v.Port && was.Username == v.Username {
			v.Password = was.Password
		}
		if v.Password != nil && *v.Password == "" {
			v.Password = nil
		}
		if err := tx.PutAll(state.SMTPPointer, v); err != nil {
			return err
		}
		return tx.PutAll(state.SMTPInfoPointer, v.Info())
	})
	if err == nil && s.deps.Notifications != nil {
		s.deps.Notifications.Retry()
	}
	return v, err
}
