package server

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/selfstead/selfstead/server/account"
	"github.com/selfstead/selfstead/server/api"
	"github.com/selfstead/selfstead/server/problem"
)

type (
	signInInput  struct{ Body api.SignIn }
	signInOutput struct {
		SetCookie http.Cookie `header:"Set-Cookie" doc:"the session's cookie"`
		Body      api.NewSession
	}
	signOutOutput struct {
		SetCookie http.Cookie `header:"Set-Cookie" doc:"deletes the session's cookie"`
	}
	sessionInput struct {
		ID string `path:"id" maxLength:"64" doc:"name of the session"`
	}
	passwordInput struct{ Body api.PasswordChange }
)

func (s *Server) sessionRoutes() {
	add(s, huma.Operation{
		OperationID: "sign-in", Method: http.MethodPost, Path: "/v1/sessions", Security: forAnyone, Tags: []string{tagSessions},
		DefaultStatus: http.StatusCreated, Errors: []int{http.StatusUnauthorized, http.StatusConflict, http.StatusTooManyRequests},
		Summary:     "Sign in",
		Description: "Answers with a token, and sets it as a cookie too. A session ends after 30 days without use.",
	}, s.signIn)
	add(s, huma.Operation{
		OperationID: "list-sessions", Method: http.MethodGet, Path: "/v1/sessions", Tags: []string{tagSessions},
		Summary: "List who is signed in",
	}, s.listSessions)
	add(s, huma.Operation{
		OperationID: "sign-out", Method: http.MethodDelete, Path: "/v1/sessions/current", Tags: []string{tagSessions},
		DefaultStatus: http.StatusNoContent, Errors: []int{http.StatusNotFound},
		Summary: "Sign out", Description: "Ends the caller's session and every stream that it opened.",
	}, s.signOut)
	add(s, huma.Operation{
		OperationID: "revoke-session", Method: http.MethodDelete, Path: "/v1/sessions/{id}", Tags: []string{tagSessions},
		DefaultStatus: http.StatusNoContent, Errors: []int{http.StatusNotFound},
		Summary: "End a session", Description: "Its open streams end with it.",
	}, func(ctx context.Context, in *sessionInput) (*nothing, error) {
		return nil, s.deps.Account.Revoke(ctx, in.ID)
	})
	add(s, huma.Operation{
		OperationID: "change-password", Method: http.MethodPut, Path: "/v1/account/password", Tags: []string{tagSessions},
		DefaultStatus: http.StatusNoContent, Errors: []int{http.StatusConflict, http.StatusTooManyRequests},
		Summary: "Change the owner's password", Description: "Every other session ends.",
	}, s.changePassword)
}

func (s *Server) signIn(ctx context.Context, in *signInInput) (*signInOutput, error) {
	req := info(ctx)
	name := in.Body.Name
	if name == "" {
		name = req.agent
	}
	session, token, err := s.deps.Account.SignIn(ctx, req.from, in.Body.Password, name, in.Body.Ephemeral)
	if err != nil {
		return nil, err
	}
	return &signInOutput{
		SetCookie: sessionCookie(token, req.tls),
		Body:      api.NewSession{Token: token, ID: session.ID, Expires: session.LoggedIn.Add(account.IdleLimit)},
	}, nil
}

func (s *Server) listSessions(ctx context.Context, in *pageInput) (*list[api.Session], error) {
	current := ""
	if session := caller(ctx).session; session != nil {
		current = session.ID
	}
	out := []api.Session{}
	for _, session := range s.deps.Account.Sessions() {
		out = append(out, api.Session{
			ID: session.ID, Name: session.UserAgent, LoggedIn: session.LoggedIn, LastActive: session.LastActive, Current: session.ID == current,
		})
	}
	return paged(ctx, *in, out, true, func(x api.Session) string { return timeKey(x.LoggedIn, x.ID) })
}

func (s *Server) signOut(ctx context.Context, _ *nothing) (*signOutOutput, error) {
	session := caller(ctx).session
	if session == nil {
		return nil, problem.New(http.StatusNotFound, problem.CodeNotFound, "the server's own socket has no session")
	}
	if err := s.deps.Account.Revoke(ctx, session.ID); err != nil {
		return nil, err
	}
	return &signOutOutput{SetCookie: sessionCookie("", info(ctx).tls)}, nil
}

func (s *Server) changePassword(ctx context.Context, in *passwordInput) (*nothing, error) {
	keep := ""
	if session := caller(ctx).session; session != nil {
		keep = session.ID
	}
	req := info(ctx)
	return nil, s.deps.Account.ChangePassword(ctx, req.from, req.local, in.Body.OldPassword, in.Body.NewPassword, keep)
}
