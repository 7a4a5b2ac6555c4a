package client

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/selfstead/selfstead/server/api"
	"github.com/selfstead/selfstead/server/journal"
	"github.com/selfstead/selfstead/server/operation"
)

func encodePEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// get makes a call without a body.
func get[T any](ctx context.Context, c *Client, path string) (T, error) {
	var out T
	err := c.Call(ctx, http.MethodGet, path, nil, &out)
	return out, err
}

// every reads a whole list, page by page.
func every[T any](ctx context.Context, c *Client, path string) ([]T, error) {
	out := []T{}
	for path != "" {
		req, err := c.request(ctx, http.MethodGet, path, nil)
		if err != nil {
			return nil, err
		}
		res, err := c.send(req)
		if err != nil {
			return nil, err
		}
		var page []T
		err = json.NewDecoder(io.LimitReader(res.Body, maxAnswer)).Decode(&page)
		res.Body.Close()
		if err != nil {
			return nil, fmt.Errorf("client: answer of GET %s: %w", path, err)
		}
		out = append(out, page...)
		path = next(res.Header.Get("Link"))
	}
	return out, nil
}

// next is the path of the page after one with that Link header.
func next(link string) string {
	target, rest, ok := strings.Cut(strings.TrimPrefix(link, "<"), ">")
	if !ok || !strings.Contains(rest, `rel="next"`) || !strings.HasPrefix(target, "/") {
		return ""
	}
	return target
}

func post[T any](ctx context.Context, c *Client, method, path string, in any) (T, error) {
	var out T
	err := c.Call(ctx, method, path, in, &out)
	return out, err
}

func pkg(id, rest string) string { return "/v1/packages/" + url.PathEscape(id) + rest }

// Mode says whether the server has an owner.
func (c *Client) Mode(ctx context.Context) (api.Mode, error) {
	return get[api.Mode](ctx, c, "/v1/mode")
}

// Ready is nil once the server can run packages.
func (c *Client) Ready(ctx context.Context) error {
	return c.Call(ctx, http.MethodGet, "/readyz", nil, nil)
}

// System says what the server is and runs on.
func (c *Client) System(ctx context.Context) (api.System, error) {
	return get[api.System](ctx, c, "/v1/system")
}

// Claim makes the caller the owner of a new server.
func (c *Client) Claim(ctx context.Context, code, password string) error {
	return c.Call(ctx, http.MethodPost, "/v1/setup:claim", api.Claim{Code: code, Password: password}, nil)
}

// SignIn makes a session. The client itself goes on with the token it has.
func (c *Client) SignIn(ctx context.Context, in api.SignIn) (api.NewSession, error) {
	return post[api.NewSession](ctx, c, http.MethodPost, "/v1/sessions", in)
}

// SignOut ends the client's session.
func (c *Client) SignOut(ctx context.Context) error {
	return c.Call(ctx, http.MethodDelete, "/v1/sessions/current", nil, nil)
}

// Sessions lists who is signed in.
func (c *Client) Sessions(ctx context.Context) ([]api.Session, error) {
	return every[api.Session](ctx, c, "/v1/sessions")
}

// RevokeSession ends a session.
func (c *Client) RevokeSession(ctx context.Context, id string) error {
	return c.Call(ctx, http.MethodDelete, "/v1/sessions/"+url.PathEscape(id), nil, nil)
}

// ChangePassword replaces the owner's password.
func (c *Client) ChangePassword(ctx context.Context, in api.PasswordChange) error {
	return c.Call(ctx, http.MethodPut, "/v1/account/password", in, nil)
}

// Packages lists the packages.
func (c *Client) Packages(ctx context.Context) ([]api.Package, error) {
	return every[api.Package](ctx, c, "/v1/packages")
}

// Package reads one.
func (c *Client) Package(ctx context.Context, id string) (api.Package, error) {
	return get[api.Package](ctx, c, pkg(id, ""))
}

// SetDesired starts or stops a package: "running" or "stopped".
func (c *Client) SetDesired(ctx context.Context, id, state string, force bool) (api.Package, error) {
	return post[api.Package](ctx, c, http.MethodPut, pkg(id, "/desired-state"), api.DesiredState{State: state, Force: force})
}

// Restart restarts a package.
func (c *Client) Restart(ctx context.Context, id string) (api.Package, error) {
	return post[api.Package](ctx, c, http.MethodPost, pkg(id, ":restart"), nil)
}

// Rebuild makes a package's container anew.
func (c *Client) Rebuild(ctx context.Context, id string) (api.Package, error) {
	return post[api.Package](ctx, c, http.MethodPost, pkg(id, ":rebuild"), nil)
}

// Uninstall removes a package; soft keeps its data, force goes on when its own
// clean-up fails.
func (c *Client) Uninstall(ctx context.Context, id string, soft, force bool) (operation.Operation, error) {
	q := url.Values{"soft": {strconv.FormatBool(soft)}, "force": {strconv.FormatBool(force)}}
	return post[operation.Operation](ctx, c, http.MethodDelete, pkg(id, "?"+q.Encode()), nil)
}

// Sideload sends a package file; size is -1 when unknown. It returns the
// operation that goes on after the last byte.
func (c *Client) Sideload(ctx context.Context, body io.Reader, size int64) (operation.Operation, error) {
	return c.SideloadWith(ctx, body, size, api.SideloadOptions{})
}

// SideloadWith is Sideload with the owner's decisions.
func (c *Client) SideloadWith(ctx context.Context, body io.Reader, size int64, o api.SideloadOptions) (operation.Operation, error) {
	var op operation.Operation
	q := url.Values{}
	if o.Reinstall {
		q.Set("reinstall", "true")
	}
	if o.AcceptSigner != "" {
		q.Set("acceptSigner", o.AcceptSigner)
	}
	path := "/v1/packages:sideload"
	if len(q) > 0 {
		path += "?" + q.Encode()
	}
	req, err := c.request(ctx, http.MethodPost, path, io.NopCloser(body))
	if err != nil {
		return op, err
	}
	req.ContentLength = size
	req.Header.Set("Content-Type", "application/octet-stream")
	res, err := c.send(req)
	if err != nil {
		return op, err
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(&op); err != nil {
		return op, fmt.Errorf("client: answer of the sideload: %w", err)
	}
	return op, nil
}

// Grants lists which packages may reach a package inside the server.
func (c *Client) Grants(ctx context.Context, id string) ([]api.Grant, error) {
	return every[api.Grant](ctx, c, pkg(id, "/grants"))
}

// Grant lets client reach a package inside the server.
func (c *Client) Grant(ctx context.Context, id, client string) ([]api.Grant, error) {
	return post[[]api.Grant](ctx, c, http.MethodPut, pkg(id, "/grants/"+url.PathEscape(client)), nil)
}

// Revoke takes a grant back.
func (c *Client) Revoke(ctx context.Context, id, client string) error {
	return c.Call(ctx, http.MethodDelete, pkg(id, "/grants/"+url.PathEscape(client)), nil, nil)
}

// Limits says what a package may take of the machine.
func (c *Client) Limits(ctx context.Context, id string) (api.PackageLimits, error) {
	return get[api.PackageLimits](ctx, c, pkg(id, "/limits"))
}

// SetLimits replaces what is set of a package's limits.
func (c *Client) SetLimits(ctx context.Context, id string, set api.Limits) (api.PackageLimits, error) {
	return post[api.PackageLimits](ctx, c, http.MethodPut, pkg(id, "/limits"), set)
}

// Hosts lists where a package can be reached.
func (c *Client) Hosts(ctx context.Context, id string) ([]api.Host, error) {
	return every[api.Host](ctx, c, pkg(id, "/hosts"))
}

// Actions lists what a package offers to do.
func (c *Client) Actions(ctx context.Context, id string) ([]api.Action, error) {
	return every[api.Action](ctx, c, pkg(id, "/actions"))
}

// ActionInput asks for the form of an action.
func (c *Client) ActionInput(ctx context.Context, id, action string, in api.ActionInputRequest) (api.ActionInput, error) {
	return post[api.ActionInput](ctx, c, http.MethodPost, pkg(id, "/actions/"+url.PathEscape(action)+"/input"), in)
}

// RunAction runs an action and returns its result, or null.
func (c *Client) RunAction(ctx context.Context, id, action string, in api.ActionRunRequest) (json.RawMessage, error) {
	return post[json.RawMessage](ctx, c, http.MethodPost, pkg(id, "/actions/"+url.PathEscape(action)+"/runs"), in)
}

// Tasks lists what a package is asked to do.
func (c *Client) Tasks(ctx context.Context, id string) ([]api.Task, error) {
	return every[api.Task](ctx, c, pkg(id, "/tasks"))
}

// Log reads one page of a package's log.
func (c *Client) Log(ctx context.Context, id string, q journal.Query) (journal.Page, error) {
	v := url.Values{}
	if q.Limit > 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	if q.Cursor != "" {
		v.Set("cursor", q.Cursor)
	}
	if q.Before {
		v.Set("before", "true")
	}
	return get[journal.Page](ctx, c, pkg(id, "/logs?"+v.Encode()))
}

// Operations lists what runs and what ended lately.
func (c *Client) Operations(ctx context.Context) ([]operation.Operation, error) {
	return every[operation.Operation](ctx, c, "/v1/operations")
}

// Operation reads one.
func (c *Client) Operation(ctx context.Context, id string) (operation.Operation, error) {
	return get[operation.Operation](ctx, c, "/v1/operations/"+url.PathEscape(id))
}

// CancelOperation asks an operation to end.
func (c *Client) CancelOperation(ctx context.Context, id string) (operation.Operation, error) {
	return post[operation.Operation](ctx, c, http.MethodDelete, "/v1/operations/"+url.PathEscape(id), nil)
}

// State reads the state, or the part that pointer names.
func (c *Client) State(ctx context.Context, pointer string) (api.Dump, error) {
	return get[api.Dump](ctx, c, "/v1/state?"+url.Values{"pointer": {pointer}}.Encode())
}

// Forwards lists the published ports.
func (c *Client) Forwards(ctx context.Context) ([]api.Forward, error) {
	return every[api.Forward](ctx, c, "/v1/network/forwards")
}

// SMTP reads the outgoing mail server.
func (c *Client) SMTP(ctx context.Context) (api.SMTP, error) {
	return get[api.SMTP](ctx, c, "/v1/system/smtp")
}

// SetSMTP sets the outgoing mail server.
func (c *Client) SetSMTP(ctx context.Context, in api.SMTPChange) (api.SMTP, error) {
	return post[api.SMTP](ctx, c, http.MethodPut, "/v1/system/smtp", in)
}

// DeleteSMTP takes the outgoing mail server back.
func (c *Client) DeleteSMTP(ctx context.Context) error {
	return c.Call(ctx, http.MethodDelete, "/v1/system/smtp", nil, nil)
}

// Power ends the server program; only over its own socket.
func (c *Client) Power(ctx context.Context, action string) error {
	return c.Call(ctx, http.MethodPost, "/v1/system/power", api.Power{Action: action}, nil)
}
