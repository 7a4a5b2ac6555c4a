package server_test

import (
	"encoding/json"
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "rewrite testdata/openapi.yaml")

var updateBaseline = flag.Bool("update-baseline", false, "rewrite testdata/openapi-baseline.json")

// TestContract compares the OpenAPI document with the golden one: whoever
// changes the API sees what clients see.
func TestContract(t *testing.T) {
	t.Parallel()
	const golden = "testdata/openapi.yaml"
	got := newLab(t).do("guest", "GET", "/openapi.yaml", "").body
	got = strings.Replace(got, "0.0.0-test", "VERSION", 1)
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(golden, []byte(got), 0o644))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	assert.Equal(t, string(want), got, "the contract changed; read the difference, then run the test with -update")
}

// TestContractIsComplete: every route says what it is for, who may use it and
// how it fails.
func TestContractIsComplete(t *testing.T) {
	t.Parallel()
	type response struct {
		Description string
		Content     map[string]any
	}
	var doc struct {
		Paths map[string]map[string]struct {
			OperationID, Summary string
			Tags                 []string
			Security             []map[string][]string
			Responses            map[string]response
			RequestBody          *struct{ Content map[string]any }
		}
		Components struct {
			Schemas map[string]struct {
				Properties map[string]struct{ Description string }
			}
		}
	}
	require.NoError(t, json.Unmarshal([]byte(newLab(t).do("guest", "GET", "/openapi.json", "").body), &doc))
	seen := map[string]bool{}
	for path, item := range doc.Paths {
		for verb, op := range item {
			name := strings.ToUpper(verb) + " " + path
			assert.NotEmpty(t, op.OperationID, name)
			assert.False(t, seen[op.OperationID], name)
			seen[op.OperationID] = true
			assert.NotEmpty(t, op.Summary, name)
			assert.Len(t, op.Tags, 1, name)
			assert.NotEmpty(t, op.Security, name)
			failures := 0
			for status, r := range op.Responses {
				if status >= "400" || status == "default" {
					failures++
					assert.Contains(t, r.Content, "application/problem+json", name)
				}
			}
			assert.Positive(t, failures, name)
		}
	}
	assert.Contains(t, doc.Paths["/v1/packages:sideload"]["post"].RequestBody.Content, "application/octet-stream")
	assert.Contains(t, doc.Paths["/v1/state/events"]["get"].Responses["200"].Content, "text/event-stream")
}
