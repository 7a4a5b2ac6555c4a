package server_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/selfstead/selfstead/server/idempotency"
)

var codeName = regexp.MustCompile(`^[Cc]ode[A-Z]\w*$`)

// codes finds every problem code that the server's sources can answer with: the
// constants named Code…, and the literals given to problem.New and Newf. tests
// are the texts of all tests.
func codes(t *testing.T) (found map[string][]string, tests string) {
	t.Helper()
	found = map[string][]string{}
	constants := map[string]string{}
	var text strings.Builder
	literal := func(e ast.Expr) string {
		l, ok := e.(*ast.BasicLit)
		if !ok || l.Kind != token.STRING {
			return ""
		}
		s, err := strconv.Unquote(l.Value)
		require.NoError(t, err)
		return s
	}
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") {
			return err
		}
		if strings.HasSuffix(path, "_test.go") {
			if path == "problem_codes_test.go" { // it names what is not reached too
				all := source(t, path)
				text.WriteString(all[strings.LastIndex(all, "func TestRareProblems"):])
				return nil
			}
			data, err := os.ReadFile(path)
			text.Write(data)
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			return err
		}
		usesProblem := file.Name.Name == "problem"
		for _, i := range file.Imports {
			usesProblem = usesProblem || strings.HasSuffix(i.Path.Value, `/server/problem"`)
		}
		if !usesProblem {
			return nil
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.ValueSpec:
				for i, name := range n.Names {
					if codeName.MatchString(name.Name) && i < len(n.Values) {
						if s := literal(n.Values[i]); s != "" {
							constants[s] = name.Name
							found[s] = append(found[s], path)
						}
					}
				}
			case *ast.CallExpr:
				if sel, ok := n.Fun.(*ast.SelectorExpr); ok && (sel.Sel.Name == "New" || sel.Sel.Name == "Newf") && len(n.Args) >= 3 {
					if x, ok := sel.X.(*ast.Ident); ok && x.Name == "problem" {
						if s := literal(n.Args[1]); s != "" {
							found[s] = append(found[s], path)
						}
					}
				}
			}
			return true
		})
		return nil
	})
	require.NoError(t, err)
	return found, text.String()
}

// reached are calls that end in a problem of this room, whose codes no other
// room's tests see.
var reached = []struct {
	code      string
	status    int
	who       string
	method    string
	path      string
	body      string
	header    []string
	field     string // at fault
	fixMethod string
	fixPath   string
}{
	{"bad-request", 400, "user", "POST", "/v1/notifications", `{`, nil, "", "", ""},
	{"not-found", 404, "user", "GET", "/v1/packages/none", "", nil, "", "", ""},
	{"not-found", 404, "guest", "GET", "/v1/nothing", "", nil, "", "", ""},
	{"not-found", 404, "user", "POST", "/v1/system/smtp:test", `{"to":"a@example.org"}`, nil, "", "PUT", "/v1/system/smtp"},
	{"method-not-allowed", 405, "user", "PATCH", "/v1/packages", "", nil, "", "", ""},
	{"too-large", 413, "user", "POST", "/v1/notifications", `{"title":"` + strings.Repeat("x", 2<<20) + `"}`, nil, "", "", ""},
	{"unsupported-media-type", 415, "user", "POST", "/v1/packages:sideload", `{}`, nil, "header.Content-Type", "", ""},
	{"cross-origin", 403, "guest", "POST", "/v1/sessions", `{"password":"x"}`, []string{"Origin", "http://evil.example"}, "", "", ""},
	{"local-only", 403, "user", "POST", "/v1/system/power", `{"action":"shutdown"}`, nil, "", "", ""},
	{"unauthorized", 401, "guest", "GET", "/v1/packages", "", nil, "", "POST", "/v1/sessions"},
	{"invalid", 422, "user", "GET", "/v1/packages?limit=0", "", nil, "query.limit", "", ""},
	{"precondition-failed", 412, "user", "PUT", "/v1/notification-delivery", `{}`, []string{"If-Match", `"x"`}, "header.If-Match", "GET", "/v1/notification-delivery"},
	{"upgrade-required", 426, "user", "GET", "/v1/packages/hello-world/shell", "", nil, "", "", ""},
	{"not-managed", 409, "user", "PATCH", "/v1/system/identity", `{"hostname":"attic"}`, nil, "", "", ""},
	{"mail-failed", 422, "user", "POST", "/v1/system/smtp:test", `{"to":"a@example.org","server":{"host":"127.0.0.1","port":1,"from":"a@example.org","username":""}}`, nil, "", "PUT", "/v1/system/smtp"},
	{"internal", 500, "user", "POST", "/v1/packages/panic:restart", "", nil, "", "", ""},
}

// TestProblems: each is RFC 9457 with its code, the field at fault and, where
// there is one, the call that helps, which is a route.
func TestProblems(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	type document struct{ Paths map[string]map[string]any }
	paths := decode[document](t, l.do("guest", "GET", "/openapi.json", "").body).Paths
	for _, tt := range reached {
		a := l.do(tt.who, tt.method, tt.path, tt.body, tt.header...)
		name := tt.method + " " + tt.path
		if !assert.Equal(t, tt.status, a.status, "%s: %.300s", name, a.body) {
			continue
		}
		assert.Equal(t, "application/problem+json", a.header.Get("Content-Type"), name)
		p := decode[struct {
			Type, Title, Detail, Instance, Code string
			Status                              int
			Errors                              []struct{ Location string }
			Fix                                 *struct{ Method, Path string }
		}](t, a.body)
		assert.Equal(t, tt.code, p.Code, name)
		assert.Equal(t, "urn:selfstead:problem:"+tt.code, p.Type, name)
		assert.Equal(t, tt.status, p.Status, name)
		assert.NotEmpty(t, p.Title, name)
		assert.NotEmpty(t, p.Detail, name)
		assert.Equal(t, "urn:selfstead:request:"+a.header.Get("X-Request-Id"), p.Instance, name)
		if tt.field != "" {
			if assert.NotEmpty(t, p.Errors, name) {
				assert.Equal(t, tt.field, p.Errors[0].Location, name)
			}
		}
		if tt.fixPath != "" {
			if assert.NotNil(t, p.Fix, name) {
				assert.Equal(t, tt.fixMethod+" "+tt.fixPath, p.Fix.Method+" "+p.Fix.Path, name)
				assert.Contains(t, paths[p.Fix.Path], strings.ToLower(p.Fix.Method), name)
			}
		}
	}
}

// unreached are the codes that no test reaches yet, and what that takes.
var unreached = map[string]string{
	"action-failed":       "a service whose action throws",
	"service-unavailable": "a service whose runtime does not answer",
	"no-base-image":       "a machine that cannot build the base image",
}

// TestNotReady, the limits and the answers that are not there again.
func TestRareProblems(t *testing.T) {
	t.Parallel()
	const body = `{"level":"info","title":"x","message":""}`
	print := sha256.Sum256([]byte("POST /v1/notifications?\n\n" + body))
	l := newLab(t, func(l *lab) {
		l.notReady = errors.New("not yet")
		l.before = func(dir string) { // a server that died while a request ran
			s, err := idempotency.Open(t.Context(), filepath.Join(dir, "requests.db"), idempotency.Options{})
			require.NoError(t, err)
			_, _, err = s.Do(t.Context(), "dead", hex.EncodeToString(print[:]), func() (idempotency.Answer, bool) {
				return idempotency.Answer{}, assert.NoError(t, s.Close())
			})
			require.Error(t, err)
		}
	})
	a := l.do("guest", "GET", "/readyz", "")
	assert.Equal(t, 503, a.status)
	assert.Equal(t, "not-ready", a.code())
	a = l.do("user", "POST", "/v1/notifications", body, "Idempotency-Key", "dead")
	assert.Equal(t, 409, a.status)
	assert.Equal(t, "request-interrupted", a.code())
	long := `{"input":"` + strings.Repeat("x", 100<<10) + `"}`
	const run = "/v1/packages/hello-world/actions/greet/runs"
	assert.Equal(t, 200, l.do("user", "POST", run, long, "Idempotency-Key", "long").status)
	a = l.do("user", "POST", run, long, "Idempotency-Key", "long")
	assert.Equal(t, 409, a.status)
	assert.Equal(t, "answer-not-kept", a.code())
	for range 32 {
		_, _, err := l.shell("/v1/packages/hello-world/shell?command=cat")
		require.NoError(t, err)
	}
	_, res, err := l.shell("/v1/packages/hello-world/shell?command=cat")
	require.Error(t, err)
	assert.Equal(t, 503, res.StatusCode)
	text, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	assert.Contains(t, string(text), `"code":"too-many-requests"`)
}

// TestEveryProblemIsReached: no code is without a test that names it.
func TestEveryProblemIsReached(t *testing.T) {
	t.Parallel()
	found, tests := codes(t)
	assert.Greater(t, len(found), 20)
	constant := map[string]string{}
	for _, name := range regexp.MustCompile(`\b[Cc]ode[A-Z]\w*\b`).FindAllString(tests, -1) {
		constant[name] = name
	}
	values := constantsOf(t)
	for _, code := range slices.Sorted(maps.Keys(found)) {
		named := strings.Contains(tests, `"`+code+`"`)
		for _, name := range values[code] {
			named = named || constant[name] != ""
		}
		if unreached[code] != "" {
			assert.False(t, named, "%s is reached by now; take it off the list", code)
			continue
		}
		assert.True(t, named, "no test names %s of %s", code, found[code])
	}
}

func source(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	for _, tt := range reached { // TestProblems calls these
		data = append(data, []byte(`"`+tt.code+`" `)...)
	}
	return string(data)
}

// constantsOf are the names of the constants of each code.
func constantsOf(t *testing.T) map[string][]string {
	t.Helper()
	out := map[string][]string{}
	declared := regexp.MustCompile(`\b([Cc]ode[A-Z]\w*)\s*=\s*"([a-z0-9-]+)"`)
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") {
			return err
		}
		data, err := os.ReadFile(path)
		for _, m := range declared.FindAllStringSubmatch(string(data), -1) {
			out[m[2]] = append(out[m[2]], m[1])
		}
		return err
	})
	require.NoError(t, err)
	return out
}
