package service

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// need skips what the machine cannot do, and fails instead where CI is set.
func need(t *testing.T, ok bool, what string) {
	t.Helper()
	if ok {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("missing: " + what)
	}
	t.Skip("missing: " + what)
}

// The committed program names the sources it was built from.
func TestProgramMatchesSources(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("program/src/*.ts")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	slices.Sort(files)
	digest := sha256.New()
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		fmt.Fprintf(digest, "%s\x00%s\x00", filepath.Base(file), text)
	}
	require.Contains(t, string(program[:min(len(program), 200)]), "sha256 "+hex.EncodeToString(digest.Sum(nil))+"\n", "run in program: npm ci && npm run build")
}

// Building again gives the committed bytes, and the types hold.
func TestProgramRebuilds(t *testing.T) {
	t.Parallel()
	dir, err := filepath.Abs("program")
	require.NoError(t, err)
	if _, err := os.Stat(filepath.Join(dir, "node_modules/esbuild")); err != nil {
		need(t, os.Getenv("CI") == "true", "the program's modules: npm ci --ignore-scripts in program")
		own := t.TempDir()
		for _, name := range []string{"package.json", "package-lock.json", "tsconfig.json", "build.mjs"} {
			text, err := os.ReadFile(filepath.Join(dir, name))
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(filepath.Join(own, name), text, 0o600))
		}
		require.NoError(t, os.CopyFS(filepath.Join(own, "src"), os.DirFS(filepath.Join(dir, "src"))))
		dir = own
		run(t, dir, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	}
	run(t, dir, "node", "node_modules/typescript/bin/tsc", "--noEmit")
	out := t.TempDir()
	run(t, dir, "node", "build.mjs", out)
	for name, committed := range map[string][]byte{"index.js": program, "licences.txt": licences} {
		built, err := os.ReadFile(filepath.Join(out, name))
		require.NoError(t, err)
		require.True(t, string(committed) == string(built), "%s: run in program: npm ci && npm run build", name)
	}
}

func run(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s %v: %s", name, args, out)
	return string(out)
}

// The program gives the manifest of what it finds beside it, and offers what a
// package has to.
func TestProgramManifest(t *testing.T) {
	t.Parallel()
	_, err := exec.LookPath("node")
	need(t, err == nil, "node")
	text, err := os.ReadFile("testdata/everything.yaml")
	require.NoError(t, err)
	s, err := Parse("everything.yaml", text)
	require.NoError(t, err)
	dir := t.TempDir()
	require.NoError(t, s.Bundle(dir))
	out := run(t, dir, "node", "-e", `const p = require('./index.js')
const kinds = Object.fromEntries(Object.entries(p).map(([k, v]) => [k, typeof v]))
console.log(JSON.stringify({ manifest: p.manifest, kinds, actions: ['ask', 'other', 'config'].map(a => typeof p.actions.get(a).run) }))
process.exit(0)`)
	var got struct {
		Manifest map[string]any
		Kinds    map[string]string
		Actions  []string
	}
	require.NoError(t, json.Unmarshal([]byte(out), &got))
	require.Equal(t, map[string]string{"actions": "object", "createBackup": "function", "init": "function", "main": "function",
		"manifest": "object", "uninit": "function"}, got.Kinds)
	require.Equal(t, []string{"function", "function", "function"}, got.Actions)
	m := got.Manifest
	require.Equal(t, "everything", m["id"])
	require.Equal(t, "2.1.0:3", m["version"])
	require.Equal(t, "<=2.1.0:3", m["canMigrateFrom"])
	require.Equal(t, map[string]any{"en_US": "More of everything.", "de_DE": "Mehr von allem."}, m["releaseNotes"])
	require.Equal(t, true, m["userspaceFilesystems"])
	require.Equal(t, []any{"main", "cache"}, m["volumes"])
	require.Equal(t, 1073741824.0, m["hardwareRequirements"].(map[string]any)["ram"])
	require.Equal(t, "x86_64", m["images"].(map[string]any)["ready"].(map[string]any)["emulateMissingAs"])
	peer := m["dependencies"].(map[string]any)["peer"].(map[string]any)
	require.Equal(t, map[string]any{"title": "Peer", "icon": "icon.svg"}, peer["metadata"])
}

// {{…}} inside the program, judged by the program's own code.
func TestTemplates(t *testing.T) {
	t.Parallel()
	esbuild := ""
	for _, dir := range []string{"program", "../../../examples/services"} { // either has it: make example
		exe, err := filepath.Abs(filepath.Join(dir, "node_modules/esbuild/bin/esbuild"))
		require.NoError(t, err)
		if _, err := os.Stat(exe); err == nil {
			esbuild = exe
		}
	}
	need(t, esbuild != "", "esbuild: npm ci in program, or make example")
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, DescriptionName), []byte(`{"id":"demo","title":"Demo","version":"1:0"}`), 0o600))
	run(t, "program", esbuild, "src/template.ts", "--bundle", "--platform=node", "--format=cjs",
		"--log-level=warning", "--outfile="+filepath.Join(dir, "template.js"))
	out := run(t, dir, "node", "-e", `const { fill } = require('./template.js')
const scope = { config: { a: 'x"y', n: 3, no: null, l: ['p', 'q'], yes: true }, input: { w: '$(id) {{config.a}}' } }
console.log(JSON.stringify(['{{config.a}}', '{{ config.a | json }}', '{{config.n}}{{config.no}}{{config.yes}}', '{{config.l}}', '{{input.w}}',
  '{{input | json}}', '{{service.id}} {{service.version}}', '\\{{config.a}} {{config.missing}}', '{{config.constructor}}'].map(t => fill(t, scope))))`)
	var got []string
	require.NoError(t, json.Unmarshal([]byte(out), &got))
	require.Equal(t, []string{`x"y`, `"x\"y"`, "3true", `["p","q"]`, "$(id) {{config.a}}", `{"w":"$(id) {{config.a}}"}`, "demo 1:0", "{{config.a}} ", ""}, got)
}
