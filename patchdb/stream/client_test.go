package stream

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// The TypeScript client's own tests, one of which has this package's handler
// on the other side.
func TestTypeScriptClient(t *testing.T) {
	t.Parallel()
	run := func(args ...string) {
		t.Helper()
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Dir = "client"
		out, err := cmd.CombinedOutput()
		if err != nil {
			missing(t, "%v: %v\n%s", args, err, out)
		}
	}
	for _, tool := range []string{"npm", "node"} {
		if _, err := exec.LookPath(tool); err != nil {
			missing(t, "%s is missing", tool)
		}
	}
	if _, err := os.Stat(filepath.Join("client", "node_modules", ".bin", "tsc")); err != nil {
		run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
	}
	cmd := exec.Command("npm", "test", "--silent")
	cmd.Dir = "client"
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// missing skips, except in CI, where nothing may be missing.
func missing(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}
