package server_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// contract is what of an OpenAPI document clients depend on.
type contract struct {
	Info struct {
		Version string `json:"x-api-version"`
	}
	Tags  []struct{ Name, Description string }
	Paths map[string]map[string]*struct {
		OperationID string
		Tags        []string
		Parameters  []struct {
			Name, In, Description string
			Required              bool
			Schema                *shape
		}
		RequestBody *struct {
			Required bool
			Content  map[string]struct{ Schema *shape }
		}
		Responses map[string]struct {
			Content map[string]struct{ Schema *shape }
		}
	}
	Components struct{ Schemas map[string]*shape }
}

type shape struct {
	Ref                  string `json:"$ref"`
	Type                 any
	Properties           map[string]*shape
	Required             []string
	Items                *shape
	Enum                 []any
	AdditionalProperties any
}

// breaks compares two documents and lists what a client of the old one would
// stumble over.
type breaks struct {
	old, now *contract
	list     []string
	seen     map[string]bool
}

func (b *breaks) say(format string, args ...any) {
	b.list = append(b.list, fmt.Sprintf(format, args...))
}

func resolve(c *contract, s *shape) *shape {
	for s != nil && s.Ref != "" {
		s = c.Components.Schemas[strings.TrimPrefix(s.Ref, "#/components/schemas/")]
	}
	return s
}

// schema compares one value; sent says that clients send it and do not get it.
func (b *breaks) schema(at string, old, now *shape, sent bool) {
	if old != nil && old.Ref != "" {
		key := fmt.Sprint(old.Ref, sent)
		if b.seen[key] {
			return
		}
		b.seen[key] = true
	}
	old, now = resolve(b.old, old), resolve(b.now, now)
	if old == nil {
		return
	}
	if now == nil {
		b.say("%s: gone", at)
		return
	}
	if fmt.Sprint(old.Type) != fmt.Sprint(now.Type) {
		b.say("%s: was %v, is %v", at, old.Type, now.Type)
	}
	for _, name := range slices.Sorted(maps.Keys(old.Properties)) {
		if now.Properties[name] == nil {
			b.say("%s.%s: gone", at, name)
			continue
		}
		b.schema(at+"."+name, old.Properties[name], now.Properties[name], sent)
	}
	if sent {
		for _, name := range now.Required {
			if !slices.Contains(old.Required, name) {
				b.say("%s.%s: needed now", at, name)
			}
		}
		for _, v := range old.Enum {
			if len(now.Enum) > 0 && !slices.Contains(now.Enum, v) {
				b.say("%s: %v is refused now", at, v)
			}
		}
	} else {
		for _, name := range old.Required {
			if !slices.Contains(now.Required, name) {
				b.say("%s.%s: may be left out now", at, name)
			}
		}
	}
	if old.Items != nil {
		b.schema(at+"[]", old.Items, now.Items, sent)
	}
}

func breaking(old, now *contract) []string {
	b := &breaks{old: old, now: now, seen: map[string]bool{}}
	for _, path := range slices.Sorted(maps.Keys(old.Paths)) {
		for _, method := range slices.Sorted(maps.Keys(old.Paths[path])) {
			at, was, is := strings.ToUpper(method)+" "+path, old.Paths[path][method], now.Paths[path][method]
			if is == nil {
				b.say("%s: gone", at)
				continue
			}
			if was.OperationID != is.OperationID {
				b.say("%s: was called %s", at, was.OperationID)
			}
			have := map[string]*shape{}
			for _, p := range is.Parameters {
				have[p.In+" "+p.Name] = p.Schema
			}
			had := map[string]bool{}
			for _, p := range was.Parameters {
				had[p.In+" "+p.Name] = true
				b.schema(at+" "+p.Name, p.Schema, have[p.In+" "+p.Name], true)
			}
			for _, p := range is.Parameters {
				if p.Required && !had[p.In+" "+p.Name] {
					b.say("%s: %s is needed now", at, p.Name)
				}
			}
			if is.RequestBody != nil && is.RequestBody.Required && (was.RequestBody == nil || !was.RequestBody.Required) {
				b.say("%s: a body is needed now", at)
			}
			if was.RequestBody != nil {
				for kind, c := range was.RequestBody.Content {
					if is.RequestBody == nil {
						b.say("%s: takes no body now", at)
						break
					}
					b.schema(at+" body", c.Schema, is.RequestBody.Content[kind].Schema, true)
				}
			}
			for status, r := range was.Responses {
				if status >= "300" {
					continue
				}
				if _, ok := is.Responses[status]; !ok {
					b.say("%s: no %s now", at, status)
					continue
				}
				for kind, c := range r.Content {
					b.schema(at+" "+status, c.Schema, is.Responses[status].Content[kind].Schema, false)
				}
			}
		}
	}
	return b.list
}

// TestNothingBreaks compares the document with that of the last release. Rewrite
// testdata/openapi-baseline.json, with -update-baseline, when one is made.
func TestNothingBreaks(t *testing.T) {
	t.Parallel()
	const file = "testdata/openapi-baseline.json"
	text := newLab(t).do("guest", "GET", "/openapi.json", "").body
	if *updateBaseline {
		require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
	}
	data, err := os.ReadFile(file)
	require.NoError(t, err)
	read := func(text string) *contract {
		c := &contract{}
		require.NoError(t, json.Unmarshal([]byte(text), c))
		return c
	}
	old, now := read(string(data)), read(text)
	major := func(c *contract) string { m, _, _ := strings.Cut(c.Info.Version, "."); return m }
	require.NotEmpty(t, major(old))
	if major(old) == major(now) {
		assert.Empty(t, breaking(old, now), "clients of version %s would break; raise apiVersion, or keep what they use", old.Info.Version)
	}

	// The comparison itself sees what it is for.
	for name, damage := range map[string]func(*contract){
		"GET /v1/packages: gone":                        func(c *contract) { delete(c.Paths["/v1/packages"], "get") },
		"was called get-system":                         func(c *contract) { c.Paths["/v1/system"]["get"].OperationID = "x" },
		"GET /v1/packages limit: gone":                  func(c *contract) { c.Paths["/v1/packages"]["get"].Parameters = nil },
		"GET /v1/packages 200[].title: gone":            func(c *contract) { delete(c.Components.Schemas["Package"].Properties, "title") },
		"POST /v1/sessions body.name: needed now":       func(c *contract) { s := c.Components.Schemas["SignIn"]; s.Required = append(s.Required, "name") },
		"POST /v1/sessions: no 201 now":                 func(c *contract) { delete(c.Paths["/v1/sessions"]["post"].Responses, "201") },
		"body.state: running is refused now":            func(c *contract) { c.Components.Schemas["DesiredState"].Properties["state"].Enum = []any{"stopped"} },
		"GET /v1/mode 200.mode: was string, is integer": func(c *contract) { c.Components.Schemas["Mode"].Properties["mode"].Type = "integer" },
	} {
		c := read(string(data))
		damage(c)
		assert.Contains(t, strings.Join(breaking(old, c), "\n"), name)
	}
}

// TestContractExplains: every parameter and tag says what it is, and there is a
// form of the document for generators that know 3.0 only.
func TestContractExplains(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	c := decode[contract](t, l.do("guest", "GET", "/openapi.json", "").body)
	tags := map[string]bool{}
	for _, tag := range c.Tags {
		assert.NotEmpty(t, tag.Description, tag.Name)
		tags[tag.Name] = true
	}
	for path, item := range c.Paths {
		for method, op := range item {
			at := method + " " + path
			for _, tag := range op.Tags {
				assert.True(t, tags[tag], "%s: tag %s", at, tag)
			}
			names := map[string]bool{}
			for _, p := range op.Parameters {
				assert.NotEmpty(t, p.Description, "%s: %s", at, p.Name)
				assert.NotNil(t, p.Schema, "%s: %s", at, p.Name)
				names[p.Name] = true
			}
			if method != "get" && op.Responses["401"].Content != nil && path != "/v1/sessions" {
				assert.True(t, names["Idempotency-Key"], at)
			}
		}
	}
	var old struct{ OpenAPI string }
	require.NoError(t, json.Unmarshal([]byte(l.do("guest", "GET", "/openapi-3.0.json", "").body), &old))
	assert.True(t, strings.HasPrefix(old.OpenAPI, "3.0."))
	page := l.do("guest", "GET", "/docs", "")
	assert.Equal(t, 200, page.status)
	assert.NotRegexp(t, `(src|href)="(https?:)?//`, page.body, "the page loads nothing from other hosts")
}
