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

// FuzzApply: no document and patch make it panic, and what comes out is a
// document; the one that went in stays as it was.
func FuzzApply(f *testing.F) {
	f.Add([]byte(`{"a":[1,{"b~/":2}]}`), []byte(`[{"op":"move","from":"/a/1/b~0~1","path":"/a/-"},{"op":"copy","from":"","path":"/c"},{"op":"test","path":"/c/a/0","value":1}]`))
	f.Add([]byte(`[]`), []byte(`[{"op":"add","path":"/18446744073709551616","value":null},{"op":"remove","path":""},{"op":"replace","path":"/-1","value":1e5}]`))
	f.Fuzz(func(t *testing.T, doc, text []byte) {
		n, err := tree.Parse(doc)
		if err != nil {
			return
		}
		before := tree.Encode(n)
		patch, err := ParsePatch(text)
		if err != nil {
			return
		}
		e := editor{root: n}
		err = e.patch(patch)
		if string(tree.Encode(n)) != string(before) {
			t.Fatalf("%s became %s", before, tree.Encode(n))
		}
		if err != nil || e.root.Size() > 1<<20 {
			return
		}
		got := mustParse(t, tree.Encode(e.root))
		if !tree.Equal(got, e.root) {
			t.Fatalf("%s reads back as another", tree.Encode(e.root))
		}
		// The operations that a revision keeps lead there too.
		_, kept := encodeOps(e.ops)
		replay := editor{root: n}
		if err := replay.patch(kept); err != nil || !tree.Equal(replay.root, got) {
			t.Fatalf("kept %v: %v", kept, err)
		}
	})
}
