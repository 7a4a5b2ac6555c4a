package patchdb

import (
	"os/exec"
	"strings"
	"testing"
)

// What each package may import beside the standard library, and why no more:
// whoever uses the database inherits it.
func TestImports(t *testing.T) {
	t.Parallel()
	const own = "github.com/selfstead/selfstead/patchdb"
	allowed := map[string][]string{
		own:                    {own + "/internal/", "github.com/evanphx/json-patch/v5"},
		own + "/internal/tree": nil,
		own + "/internal/vfs":  nil,
		own + "/internal/wal":  {own + "/internal/vfs"},
		own + "/patchdbtest":   {own},
		own + "/startos":       {own, "github.com/fxamacker/cbor/v2"}, // CBOR only for those who import StartOS files
		own + "/stream":        {own, "github.com/coder/websocket"},   // WebSocket only for those who serve
	}
	out, err := exec.Command(needTool(t, "go"), "list", "-f", "{{.ImportPath}} {{join .Imports \",\"}}", "./...").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		pkg, imports, _ := strings.Cut(strings.TrimSpace(line), " ")
		if strings.Contains(pkg, "/client/") {
			continue // a program for the client's tests
		}
		may, known := allowed[pkg]
		if !known {
			t.Errorf("%s is not in the list", pkg)
		}
		for imp := range strings.SplitSeq(imports, ",") {
			ok := !strings.Contains(strings.Split(imp, "/")[0], ".")
			for _, prefix := range may {
				ok = ok || strings.HasPrefix(imp, prefix)
			}
			if !ok {
				t.Errorf("%s imports %s", pkg, imp)
			}
		}
	}
}
