package pack

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/selfstead/selfstead/s9pk"
	"github.com/selfstead/selfstead/s9pk/pack/image"
	"github.com/selfstead/selfstead/s9pk/squashfs"
	"github.com/selfstead/selfstead/s9pk/validate"
)

// need skips what the machine cannot do, and fails instead where CI is set.
func need(t *testing.T, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err == nil {
			continue
		}
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s is missing", tool)
		}
		t.Skipf("%s is missing", tool)
	}
}

var testKey = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, 32))

type object = map[string]any

func testManifest() object {
	return object{
		"id": "demo", "title": "Demo <1>", "version": "1.0.0:0", "canMigrateTo": "!", "canMigrateFrom": "*",
		"description":  object{"short": object{"en_US": "short", "de_DE": "kurz"}, "long": "long"},
		"releaseNotes": "none", "license": "MIT", "upstreamRepo": "https://example.com",
		"images":               object{"main": object{"source": "packed", "arch": []string{"aarch64", "x86_64"}, "emulateMissingAs": "x86_64"}},
		"volumes":              []string{"main"},
		"hardwareRequirements": object{"arch": nil},
	}
}

// project writes a project folder whose bundle exports m.
func project(t *testing.T, m object) string {
	t.Helper()
	need(t, "node", "mksquashfs")
	dir := t.TempDir()
	text, err := json.Marshal(m)
	require.NoError(t, err)
	write(t, dir, "javascript/index.js", "console.log('loading'); setInterval(() => {}, 1000);\nexports.manifest = "+string(text))
	write(t, dir, "icon.svg", "<svg/>")
	write(t, dir, "License.txt", "MIT")
	write(t, dir, "instructions.md", "# How")
	write(t, dir, "assets/a/b", "asset")
	write(t, dir, "rootfs-x86_64/bin/app", "x86")
	write(t, dir, "rootfs-aarch64/bin/app", "arm")
	write(t, dir, "images/main.json", `{"rootfs": "rootfs-{arch}", "env": ["A=1"], "user": "app", "entrypoint": ["/bin/app"]}`)
	return dir
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	p := filepath.Join(dir, name)
	require.NoError(t, os.MkdirAll(filepath.Dir(p), 0o755))
	require.NoError(t, os.WriteFile(p, []byte(text), 0o755))
}

// packed packs and opens the result.
func packed(t *testing.T, o Options) *s9pk.Archive {
	t.Helper()
	if o.Key == nil {
		o.Key = testKey
	}
	if o.CacheDir == "" {
		o.CacheDir = t.TempDir()
	}
	path, err := Pack(context.Background(), o)
	require.NoError(t, err)
	a, err := s9pk.OpenFile(path, s9pk.Options{Package: true})
	require.NoError(t, err)
	t.Cleanup(func() { a.Close() })
	return a
}

func paths(a *s9pk.Archive) []string {
	var list []string
	for _, f := range a.Files() {
		list = append(list, f.Path)
	}
	return list
}

func content(t *testing.T, a *s9pk.Archive, path string) string {
	t.Helper()
	f, err := a.File(path)
	require.NoError(t, err)
	b, err := f.ReadAll(0)
	require.NoError(t, err)
	return string(b)
}

// TestRoundTrip packs a project, proves the package, filters it for a device and
// extracts it.
func TestRoundTrip(t *testing.T) {
	dir := project(t, testManifest())
	var steps []string
	a := packed(t, Options{Dir: dir, Progress: func(p Progress) {
		if len(steps) == 0 || steps[len(steps)-1] != p.Step {
			steps = append(steps, p.Step)
		}
	}})
	require.Equal(t, []string{"manifest", "javascript", "assets", "image main aarch64", "image main x86_64", "write"}, steps)
	require.Equal(t, []string{
		"LICENSE.md", "assets.squashfs", "icon.svg", "images/aarch64/main.env", "images/aarch64/main.json", "images/aarch64/main.squashfs",
		"images/x86_64/main.env", "images/x86_64/main.json", "images/x86_64/main.squashfs", "instructions.md", "javascript.squashfs", "manifest.json",
	}, paths(a))
	ctx := context.Background()
	require.NoError(t, a.Verify(ctx, nil))
	require.Empty(t, validate.Package(a, ""))
	require.Equal(t, testKey.Public(), a.Signer())
	require.Equal(t, `{"workdir":"/","user":"app","entrypoint":["/bin/app"],"cmd":null}`, content(t, a, "images/x86_64/main.json"))
	require.Contains(t, content(t, a, "manifest.json"), `"title":"Demo <1>"`)
	require.Contains(t, content(t, a, "manifest.json"), `"gitHash":null`)
	for path, want := range map[string]string{"javascript.squashfs": "index.js", "assets.squashfs": "a/b", "images/aarch64/main.squashfs": "bin/app"} {
		f, err := a.File(path)
		require.NoError(t, err)
		require.Zero(t, f.Size%4096)
		r, err := f.Open(ctx)
		require.NoError(t, err)
		img, err := squashfs.Open(r, f.Size)
		require.NoError(t, err)
		b, err := fs.ReadFile(img, want)
		require.NoError(t, err)
		require.NotEmpty(t, b)
	}

	root, err := a.ForArch(ctx, "x86_64")
	require.NoError(t, err)
	small := filepath.Join(t.TempDir(), "small.s9pk")
	h := a.Header()
	require.NoError(t, s9pk.WriteFile(ctx, small, root, nil, s9pk.WriteOptions{Header: &h}))
	b, err := s9pk.OpenFile(small, s9pk.Options{})
	require.NoError(t, err)
	defer b.Close()
	require.Equal(t, a.Commitment(), b.Commitment())
	require.Less(t, b.Size(), a.Size())
	require.NoError(t, b.Verify(ctx, nil))
	require.Empty(t, validate.Package(b, "x86_64"))

	out := filepath.Join(t.TempDir(), "out")
	require.NoError(t, b.Extract(ctx, out, s9pk.ExtractOptions{}))
	got, err := os.ReadFile(filepath.Join(out, "images/x86_64/main.env"))
	require.NoError(t, err)
	require.Equal(t, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nA=1", string(got))
	require.NoFileExists(t, filepath.Join(out, "images/aarch64/main.env"))
}

func TestSameBytes(t *testing.T) {
	var first []byte
	for i := range 2 {
		dir := project(t, testManifest())
		for _, d := range []string{"rootfs-x86_64", "rootfs-aarch64"} { // a root's own times are its content
			require.NoError(t, filepath.WalkDir(filepath.Join(dir, d), func(p string, _ os.DirEntry, err error) error {
				return errors.Join(err, os.Chtimes(p, time.Unix(1e9, 0), time.Unix(1e9, 0)))
			}))
		}
		require.NoError(t, os.Chtimes(filepath.Join(dir, "assets/a/b"), time.Unix(int64(i), 0), time.Unix(int64(i), 0)))
		packed(t, Options{Dir: dir})
		b, err := os.ReadFile(filepath.Join(dir, "demo.s9pk"))
		require.NoError(t, err)
		if first == nil {
			first = b
		}
		require.True(t, bytes.Equal(first, b))
	}
}

func TestGit(t *testing.T) {
	need(t, "git")
	dir := project(t, testManifest())
	_, err := Pack(context.Background(), Options{Dir: dir, Key: testKey, CacheDir: t.TempDir(), RequireGit: true})
	require.ErrorIs(t, err, ErrGit)
	git := func(args ...string) {
		cmd := exec.Command("git", append([]string{"-c", "user.name=t", "-c", "user.email=t@example.com"}, args...)...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GIT_COMMITTER_DATE=2020-01-02T03:04:05Z", "GIT_AUTHOR_DATE=2020-01-02T03:04:05Z")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, string(out))
	}
	git("init", "-q")
	git("add", ".")
	git("commit", "-q", "-m", "one")
	hash := func(o Options) string {
		o.Dir, o.RequireGit, o.Output = dir, true, filepath.Join(t.TempDir(), "x.s9pk")
		m, err := packed(t, o).Manifest(context.Background())
		require.NoError(t, err)
		return *m.GitHash
	}
	clean := hash(Options{})
	require.Regexp(t, "^[0-9a-f]{40}$", clean)
	write(t, dir, "assets/a/b", "changed")
	require.Equal(t, clean+"-modified", hash(Options{}))
}

func TestArchitectures(t *testing.T) {
	m := testManifest()
	only := func(a *s9pk.Archive) (images, hw []string) {
		man, err := a.Manifest(context.Background())
		require.NoError(t, err)
		return man.Images["main"].Arch, man.HardwareRequirements.Arch
	}
	dir := project(t, m)
	images, hw := only(packed(t, Options{Dir: dir, Arch: []string{"x86_64", "x86_64"}}))
	require.Equal(t, []string{"x86_64"}, images)
	require.Equal(t, []string{"x86_64"}, hw)

	m["hardwareRequirements"] = object{"arch": []string{"aarch64", "riscv64"}}
	dir = project(t, m) // riscv64 emulates x86_64
	a := packed(t, Options{Dir: dir})
	images, hw = only(a)
	require.Equal(t, []string{"aarch64"}, images)
	require.Equal(t, []string{"aarch64", "riscv64"}, hw)
	require.Contains(t, paths(a), "images/x86_64/main.squashfs")

	images, hw = only(packed(t, Options{Dir: dir, Arch: []string{"riscv64"}}))
	require.Equal(t, []string{"x86_64"}, images)
	require.Equal(t, []string{"riscv64"}, hw)

	_, err := Pack(context.Background(), Options{Dir: dir, Key: testKey, CacheDir: t.TempDir(), Arch: []string{"x86_64"}})
	require.ErrorIs(t, err, ErrArch)
	m["images"].(object)["main"].(object)["emulateMissingAs"] = nil
	_, err = Pack(context.Background(), Options{Dir: project(t, m), Key: testKey, CacheDir: t.TempDir(), Arch: []string{"riscv64"}})
	require.ErrorContains(t, err, "image main exists for")
}

func TestImageSources(t *testing.T) {
	m := testManifest()
	m["hardwareRequirements"] = object{"arch": []string{"x86_64"}}
	dir := project(t, m)
	require.NoError(t, os.Remove(filepath.Join(dir, "images/main.json")))
	o := Options{Dir: dir, Key: testKey, CacheDir: t.TempDir()}
	_, err := Pack(context.Background(), o)
	require.ErrorContains(t, err, "image main for x86_64: pack: unusable project: the manifest says that it is packed")

	o.Images = map[string]image.Source{"other": {Rootfs: "rootfs-x86_64"}}
	_, err = Pack(context.Background(), o)
	require.ErrorContains(t, err, "image other is not in the manifest")

	o.Images = map[string]image.Source{"main": {Rootfs: "rootfs-x86_64"}}
	a := packed(t, o)
	f, err := a.File("images/x86_64/main.squashfs")
	require.NoError(t, err)
	rootfs, err := f.ReadAll(0)
	require.NoError(t, err)

	// the same image lying ready, without its padding
	o.Images = nil
	ready := bytes.TrimRight(rootfs, "\x00")
	write(t, dir, "images/x86_64/main.squashfs", string(ready))
	write(t, dir, "images/x86_64/main.env", "B=2")
	write(t, dir, "images/x86_64/main.json", `{"workdir":"/x","user":"u","entrypoint":null,"cmd":null}`)
	a = packed(t, o)
	require.Equal(t, string(rootfs), content(t, a, "images/x86_64/main.squashfs"))
	require.Equal(t, "B=2", content(t, a, "images/x86_64/main.env"))

	write(t, dir, "images/x86_64/main.squashfs", "not one")
	_, err = Pack(context.Background(), o)
	require.ErrorContains(t, err, "is no squashfs")
}

func TestDependencies(t *testing.T) {
	dep := project(t, func() object { m := testManifest(); m["id"], m["title"] = "dep", "Dep"; return m }())
	depPackage := filepath.Join(dep, "dep.s9pk")
	packed(t, Options{Dir: dep, Arch: []string{"x86_64"}})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/icon" {
			w.Header().Set("Content-Type", "image/jpeg; x=1")
			w.Write([]byte("jpeg"))
			return
		}
		http.ServeFile(w, r, depPackage)
	}))
	defer srv.Close()
	m := testManifest()
	m["dependencies"] = object{
		"a": object{"optional": true, "metadata": object{"title": object{"en_US": "A & co"}, "icon": "icon.svg"}},
		"b": object{"optional": true, "s9pk": depPackage},
		"c": object{"optional": false, "s9pk": srv.URL + "/dep.s9pk"},
		"d": object{"optional": false, "metadata": object{"title": "D", "icon": srv.URL + "/icon"}},
		"e": object{"optional": false, "metadata": object{"title": "E", "icon": "data:image/png;base64,cG5n"}},
		"f": object{"optional": false, "s9pk": nil},
	}
	a := packed(t, Options{Dir: project(t, m), Arch: []string{"x86_64"}})
	for path, want := range map[string]string{
		"a/metadata.json": `{"title":{"en_US":"A & co"}}`, "a/icon.svg": "<svg/>",
		"b/metadata.json": `{"title":"Dep"}`, "b/icon.svg": "<svg/>", "c/metadata.json": `{"title":"Dep"}`, "c/icon.svg": "<svg/>",
		"d/icon.pjp": "jpeg", "e/icon.png": "png",
	} {
		require.Equal(t, want, content(t, a, "dependencies/"+path), path)
	}
	man, err := a.Manifest(context.Background())
	require.NoError(t, err)
	for id, d := range man.Dependencies {
		require.Nil(t, d.Metadata, id)
		require.Nil(t, d.Package, id)
	}
	require.NotContains(t, content(t, a, "manifest.json"), "icon.svg")

	for icon, want := range map[string]string{
		"none.png": "no such file", "License.txt": "no type of image", "ftp://x/icon.png": "do not come from",
		"data:text/plain,x": "no type of image", srv.URL + "/dep.s9pk": "more than",
	} {
		m["dependencies"] = object{"a": object{"optional": true, "metadata": object{"title": "A", "icon": icon}}}
		_, err := Pack(context.Background(), Options{Dir: project(t, m), Key: testKey, CacheDir: t.TempDir(), Arch: []string{"x86_64"}})
		require.ErrorContains(t, err, "dependency a", icon)
		if icon != srv.URL+"/dep.s9pk" { // whose media type depends on the machine
			require.ErrorContains(t, err, want, icon)
		}
	}
}

func TestRefused(t *testing.T) {
	big := testManifest()
	big["title"] = strings.Repeat("x", maxManifest)
	for name, c := range map[string]struct {
		manifest object
		spoil    func(dir string)
		o        Options
		want     string
	}{
		"no bundle":       {spoil: func(d string) { os.Remove(d + "/javascript/index.js") }, want: "is the bundle built?"},
		"throws":          {spoil: func(d string) { write(t, d, "javascript/index.js", "throw new TypeError('boom')") }, want: "TypeError: boom"},
		"no export":       {spoil: func(d string) { write(t, d, "javascript/index.js", "") }, want: `"manifest" is missing`},
		"no object":       {spoil: func(d string) { write(t, d, "javascript/index.js", "exports.manifest=[1]") }, want: "no object"},
		"too large":       {manifest: big, want: "larger than"},
		"bad manifest":    {manifest: object{"id": "Demo"}, want: "manifest of"},
		"no icon":         {spoil: func(d string) { os.Remove(d + "/icon.svg") }, want: "no icon in"},
		"two icons":       {spoil: func(d string) { write(t, d, "ICON.png", "x") }, want: "more than one icon"},
		"icon of no type": {spoil: func(d string) { os.Rename(d+"/icon.svg", d+"/icon.ico") }, want: "no type of image"},
		"icon bare":       {spoil: func(d string) { os.Rename(d+"/icon.svg", d+"/icon") }, want: "no extension"},
		"no license":      {spoil: func(d string) { os.Remove(d + "/License.txt") }, want: "no license in"},
		"no instructions": {spoil: func(d string) { os.Remove(d + "/instructions.md") }, want: "instructions.md"},
		"assets demanded": {o: Options{Assets: "nowhere"}, want: "assets"},
		"no key":          {want: "a key to sign with"},
		"bad source":      {spoil: func(d string) { write(t, d, "images/main.json", `{"rootfs":"x","oci":"y"}`) }, want: "names 2"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.manifest == nil {
				c.manifest = testManifest()
			}
			dir := project(t, c.manifest)
			if c.spoil != nil {
				c.spoil(dir)
			}
			before := tree(t, dir)
			c.o.Dir, c.o.CacheDir = dir, t.TempDir()
			if name != "no key" {
				c.o.Key = testKey
			}
			_, err := Pack(context.Background(), c.o)
			require.ErrorContains(t, err, c.want)
			require.Equal(t, before, tree(t, dir), "nothing is left behind")
		})
	}
}

// TestInvalid: what a device would refuse is never put in place.
func TestInvalid(t *testing.T) {
	m := testManifest()
	maps.Copy(m, object{"license": "MIT", "images": object{"main": object{"source": "packed", "arch": []string{"x86_64"}}}})
	dir := project(t, m)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "demo.s9pk"), []byte("older"), 0o644))
	before := tree(t, dir)
	_, err := Pack(context.Background(), Options{Dir: dir, Key: testKey, CacheDir: t.TempDir()})
	require.ErrorIs(t, err, ErrInvalid)
	require.Equal(t, before, tree(t, dir))
}

func tree(t *testing.T, dir string) []string {
	t.Helper()
	var list []string
	require.NoError(t, filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		list = append(list, p)
		return err
	}))
	return list
}
