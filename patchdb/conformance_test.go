package patchdb

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/selfstead/selfstead/patchdb/internal/tree"
)

type conformanceCase struct {
	Comment  string          `json:"comment"`
	Doc      json.RawMessage `json:"doc"`
	Patch    json.RawMessage `json:"patch"`
	Expected json.RawMessage `json:"expected"`
	Error    string          `json:"error"`
}

// The public suite, the cases included that it disables because
// implementations differ.
func TestConformance(t *testing.T) {
	for _, file := range []string{"tests.json", "spec_tests.json"} {
		var cases []conformanceCase
		b, err := os.ReadFile(filepath.Join("testdata/json-patch-tests", file))
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(b, &cases); err != nil {
			t.Fatal(err)
		}
		for i, c := range cases {
			t.Run(fmt.Sprintf("%s/%d", file, i), func(t *testing.T) {
				var got json.RawMessage
				patch, err := ParsePatch(c.Patch)
				if err == nil {
					got, err = patch.ApplyTo(c.Doc)
				}
				switch {
				case c.Error != "" && err == nil:
					t.Errorf("%s: %s\ndoc %s\npatch %s\ngot %s, want error %q", c.Comment, c.Error, c.Doc, c.Patch, got, c.Error)
				case c.Error == "" && err != nil:
					t.Errorf("%s: %v\ndoc %s\npatch %s", c.Comment, err, c.Doc, c.Patch)
				case c.Error == "" && c.Expected != nil && !equalJSON(t, got, c.Expected):
					t.Errorf("%s: got %s, want %s", c.Comment, got, c.Expected)
				}
			})
		}
	}
}

func equalJSON(t testing.TB, a, b []byte) bool {
	t.Helper()
	return tree.Equal(mustParse(t, a), mustParse(t, b))
}

func mustParse(t testing.TB, b []byte) tree.Node {
	t.Helper()
	n, err := tree.Parse(b)
	if err != nil {
		t.Fatalf("%v in %s", err, b)
	}
	return n
}
