package server

import (
	"context"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"

	"github.com/selfstead/selfstead/server/account"
	"github.com/selfstead/selfstead/server/problem"
)

// cookieName is the cookie that holds the session's token.
const cookieName = "stead_session"

type principalKey struct{}

// principal is who asks.
type principal struct {
	local   bool             // over the server's own socket
	session *account.Session // nil for guests, and on a local listener
	token   string
}

func caller(ctx context.Context) principal {
	p, _ := ctx.Value(principalKey{}).(principal)
	return p
}

// Security of a route: what its OpenAPI entry says is what authenticate does.
var (
	needsSession = []map[string][]string{{"bearer": {}}, {"cookie": {}}}
	forAnyone    = []map[string][]string{{}}
	localOnly    = []map[string][]string{{"socket": {}}}
)

// crossOrigin refuses what a browser sends for a page of another origin.
var crossOrigin = http.NewCrossOriginProtection()

// authenticate finds out who asks and refuses those who may not. Browsers send
// cookies along for pages of other origins too (SameSite=Strict still allows
// other ports of the same host), so a write with a cookie must come from our
// own origin, and so must the writes that need no session.
func (s *Server) authenticate(ctx huma.Context, next func(huma.Context)) {
	req := info(ctx.Context())
	r, _ := humachi.Unwrap(ctx)
	security := ctx.Operation().Security
	open := isSecurity(security, forAnyone)
	who := principal{local: req.local}
	refuse := func(p *problem.Problem) {
		_, w := humachi.Unwrap(ctx)
		writeProblem(w, p.WithInstance(req.instance()))
	}
	if req.local {
		next(huma.WithValue(ctx, principalKey{}, who))
		return
	}
	if isSecurity(security, localOnly) {
		refuse(problem.New(http.StatusForbidden, codeLocalOnly, "only the server's own socket offers this"))
		return
	}
	byCookie := false
	if header := r.Header.Get("Authorization"); header != "" {
		scheme, token, _ := strings.Cut(header, " ")
		if strings.EqualFold(scheme, "Bearer") {
			who.token = strings.TrimSpace(token)
		}
	} else if c, err := r.Cookie(cookieName); err == nil {
		who.token, byCookie = c.Value, true
	}
	who.session, _ = s.deps.Account.Authenticate(who.token)
	if who.session == nil && !open {
		p := problem.New(http.StatusUnauthorized, problem.CodeUnauthorized, "sign in first").
			WithFix("POST", "/v1/sessions", "sign in").WithHeader("WWW-Authenticate", `Bearer realm="selfstead"`)
		if !s.deps.Account.Claimed() {
			p = p.WithFix("POST", "/v1/setup:claim", "the server has no owner yet; claim it")
		}
		refuse(p)
		return
	}
	if byCookie || who.session == nil {
		if err := crossOrigin.Check(r); err != nil {
			refuse(problem.New(http.StatusForbidden, codeCrossOrigin, "a page of another origin may not do this"))
			return
		}
	}
	next(huma.WithValue(ctx, principalKey{}, who))
}

// isSecurity compares by the one scheme that tells the three apart.
func isSecurity(have, want []map[string][]string) bool {
	if len(have) != len(want) {
		return false
	}
	for i := range want {
		if len(have[i]) != len(want[i]) {
			return false
		}
		for name := range want[i] {
			if _, ok := have[i][name]; !ok {
				return false
			}
		}
	}
	return true
}

// sessionCookie is the cookie for a token; an empty one deletes it.
func sessionCookie(token string, secure bool) http.Cookie {
	c := http.Cookie{
		Name: cookieName, Value: token, Path: "/", HttpOnly: true, Secure: secure, SameSite: http.SameSiteStrictMode,
		MaxAge: int(account.IdleLimit.Seconds()),
	}
	if token == "" {
		c.MaxAge = -1
	}
	return c
}
