package node

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The committed script names the sources it was built from.
func TestScriptMatchesSources(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("src/*.ts")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	sort.Strings(files)
	digest := sha256.New()
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		fmt.Fprintf(digest, "%s\x00%s\x00", filepath.Base(file), text)
	}
	sum := hex.EncodeToString(digest.Sum(nil))
	assert.Contains(t, string(Script), "sha256 "+sum+"\n", "run: npm run build")
}

func TestProtocol(t *testing.T) {
	t.Parallel()
	assert.Contains(t, string(Script), fmt.Sprintf("protocol: %d,", Protocol))
}

// Building again gives the committed bytes, and the types hold.
func TestScriptRebuilds(t *testing.T) {
	t.Parallel()
	tsc := typescript(t)
	out, err := exec.Command("node", filepath.Join(tsc, "typescript/bin/tsc"), "--noEmit", "-p", filepath.Dir(tsc)).CombinedOutput()
	require.NoError(t, err, "%s", out)
	built := filepath.Join(t.TempDir(), "index.js")
	out, err = exec.Command("node", filepath.Join(filepath.Dir(tsc), "build.mjs"), built).CombinedOutput()
	require.NoError(t, err, "%s", out)
	text, err := os.ReadFile(built)
	require.NoError(t, err)
	assert.Equal(t, string(Script), string(text), "run: npm run build")
}

// typescript returns a node_modules folder with the compiler: the one here, or
// in CI a fresh one beside a copy of the sources.
func typescript(t *testing.T) string {
	t.Helper()
	here, err := filepath.Abs(".")
	require.NoError(t, err)
	modules := filepath.Join(here, "node_modules")
	if _, err := os.Stat(filepath.Join(modules, "typescript/bin/tsc")); err == nil {
		return modules
	}
	if os.Getenv("CI") != "true" {
		t.Skip("needs the TypeScript compiler: npm ci --ignore-scripts")
	}
	dir := t.TempDir()
	for _, name := range []string{"package.json", "package-lock.json", "tsconfig.json", "build.mjs"} {
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), text, 0o600))
	}
	require.NoError(t, os.CopyFS(filepath.Join(dir, "src"), os.DirFS("src")))
	cmd := exec.Command("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return filepath.Join(dir, "node_modules")
}

// The runtime's own tests, by Node's runner.
func TestRuntime(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("node"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs node")
		}
		t.Skip("needs node")
	}
	files, err := filepath.Glob("test/*.test.js")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	cmd := exec.Command("node", append([]string{"--test", "--test-timeout=45000"}, files...)...)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", strings.TrimSpace(string(out)))
}
