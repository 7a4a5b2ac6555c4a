package main

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/selfstead/selfstead/s9pk"
	"github.com/selfstead/selfstead/s9pk/s9pktest"
	"github.com/selfstead/selfstead/s9pk/squashfs"
)

// runS9pk runs `stead s9pk ARGS` and returns what it prints and its exit status.
func runS9pk(args ...string) (out, errs string, status int) {
	cmd := newS9pkCommand()
	cmd.SilenceErrors = true
	var o, e bytes.Buffer
	cmd.SetOut(&o)
	cmd.SetErr(&e)
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(context.Background())
	if err != nil {
		status = 1
		var c interface{ ExitCode() int }
		if errors.As(err, &c) {
			status = c.ExitCode()
		}
		e.WriteString(err.Error() + "\n")
	}
	return o.String(), e.String(), status
}

func good(t *testing.T, args ...string) string {
	t.Helper()
	out, errs, status := runS9pk(args...)
	require.Zero(t, status, errs)
	return out
}

// imageFile is a small squashfs member.
func imageFile(t *testing.T) []byte {
	t.Helper()
	if _, err := exec.LookPath("mksquashfs"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("mksquashfs is missing")
		}
		t.Skip("mksquashfs is missing")
	}
	path := filepath.Join(t.TempDir(), "i")
	require.NoError(t, squashfs.Create(context.Background(), path, squashfs.CreateOptions{Time: time.Unix(1e9, 0)}, func(w io.Writer) error {
		tw := tar.NewWriter(w)
		for _, h := range []*tar.Header{
			{Name: "etc/", Typeflag: tar.TypeDir, Mode: 0o755},
			{Name: "etc/motd", Typeflag: tar.TypeReg, Mode: 0o640, Size: 5, Uid: 3, Gid: 4},
			{Name: "link", Typeflag: tar.TypeSymlink, Linkname: "etc/motd", Mode: 0o777},
		} {
			if err := tw.WriteHeader(h); err != nil {
				return err
			}
			if _, err := tw.Write([]byte("hello")[:h.Size]); err != nil {
				return err
			}
		}
		return tw.Close()
	}))
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	return b
}

func packageFile(t *testing.T, s s9pktest.Spec) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "p.s9pk")
	require.NoError(t, os.WriteFile(path, s9pktest.Build(t, s), 0o644))
	return path
}

func TestS9pkFixtures(t *testing.T) {
	dir := "../../../s9pk/testdata/fixtures"
	files, err := filepath.Glob(filepath.Join(dir, "*.s9pk"))
	require.NoError(t, err)
	require.Greater(t, len(files), 100)
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			a, openErr := s9pk.OpenFile(file, s9pk.Options{})
			var verifyErr error
			if openErr == nil {
				defer a.Close()
				verifyErr = a.Verify(context.Background(), nil)
			}
			out, errs, status := runS9pk("verify", file)
			if openErr == nil && verifyErr == nil {
				require.Equal(t, "ok\n", out)
				require.Zero(t, status)
			} else {
				require.Equal(t, exitUntrusted, status, errs)
				require.Equal(t, 1, strings.Count(errs, "\n"), errs)
				require.Empty(t, out)
			}
			out, errs, status = runS9pk("inspect", "--json", file)
			if openErr != nil {
				require.Equal(t, exitUntrusted, status, errs)
				var looked inspection
				out, errs, status = runS9pk("inspect", "--lenient", "--json", file)
				require.Equal(t, errors.Is(openErr, s9pk.ErrUnsafe), status == 0, "%s", errs)
				if status == 0 {
					require.NoError(t, json.Unmarshal([]byte(out), &looked))
					require.NotEmpty(t, looked.Entries)
					var listed []entryJSON
					require.NoError(t, json.Unmarshal([]byte(good(t, "list", "--lenient", "--json", file)), &listed))
					require.Equal(t, looked.Entries, listed)
				}
				dir := t.TempDir()
				for _, args := range [][]string{{"list", file}, {"extract", "-d", dir + "/x", file}, {"edit", "filter", file, "--arch", "x86_64", "-o", dir + "/x"},
					{"outboard", "-o", dir + "/x", file}} {
					out, errs, status := runS9pk(args...)
					require.Equal(t, exitUntrusted, status, "%v: %s", args, errs)
					require.Equal(t, 1, strings.Count(errs, "\n"), errs)
					require.Empty(t, out)
				}
				require.NoFileExists(t, dir+"/x")
				return
			}
			if status != 0 {
				require.Equal(t, "pkg-manifest-flip.s9pk", filepath.Base(file))
				require.Equal(t, exitUntrusted, status, errs)
				require.Contains(t, errs, "manifest.json")
				return
			}
			var got inspection
			require.NoError(t, json.Unmarshal([]byte(out), &got))
			require.Equal(t, a.Commitment().RootSighash.String(), got.RootSighash)
			require.Equal(t, entriesOf(a.Root(), ""), got.Entries)
			_, errs, status = runS9pk("verify", "--package", file)
			if status != 0 {
				require.Equal(t, exitUntrusted, status, errs)
				require.Equal(t, 1, strings.Count(errs, "\n"), errs)
			}
		})
	}
}

func TestS9pkInspect(t *testing.T) {
	p := packageFile(t, s9pktest.Spec{})
	var got map[string]any
	require.NoError(t, json.Unmarshal([]byte(good(t, "inspect", "--json", p)), &got))
	require.ElementsMatch(t, []string{"signer", "rootSighash", "rootMaxsize", "manifest", "entries"}, keysOf(got))
	require.Equal(t, "hello-world", got["manifest"].(map[string]any)["id"])
	entry := got["entries"].([]any)[0].(map[string]any)
	require.ElementsMatch(t, []string{"path", "type", "hash", "size", "position"}, keysOf(entry))
	require.Contains(t, good(t, "inspect", p), "Title of hello-world")

	p = packageFile(t, s9pktest.Spec{Files: map[string][]byte{"manifest.json": nil}})
	require.Contains(t, good(t, "inspect", "--json", p), `"manifest": null`)
	p = packageFile(t, s9pktest.Spec{Files: map[string][]byte{"manifest.json": []byte("nonsense")}})
	out, errs, status := runS9pk("inspect", "--json", p)
	require.Zero(t, status)
	require.Contains(t, out, `"manifest": null`, "an archive that holds no manifest")
	require.Equal(t, "warning: manifest.json is not JSON\n", errs)
	require.Regexp(t, `(?m)^manifest  .*is not JSON`, good(t, "inspect", p))
	_, errs, status = runS9pk("verify", "--package", p)
	require.Equal(t, exitUntrusted, status)
	require.Regexp(t, `^not a valid package: manifest.json: is not JSON: .*\n$`, errs)

	p = packageFile(t, s9pktest.Spec{})
	b, err := os.ReadFile(p)
	require.NoError(t, err)
	b[bytes.LastIndex(b, []byte("Title of"))] ^= 1
	require.NoError(t, os.WriteFile(p, b, 0o644))
	for _, args := range [][]string{{"inspect", "--json", p}, {"inspect", p}} {
		out, errs, status = runS9pk(args...)
		require.Equal(t, exitUntrusted, status)
		require.Empty(t, out)
		require.Regexp(t, `^s9pk: read manifest.json: content does not match its hash: .*\n$`, errs)
	}
}

// TestS9pkNames prints names that would do something to a terminal.
func TestS9pkNames(t *testing.T) {
	p := packageFile(t, s9pktest.Spec{Files: map[string][]byte{"a\nb": []byte("x"), "\x1b[2J": []byte("x"), "größe": []byte("x")}})
	for _, args := range [][]string{{"list", p}, {"list", "-l", p}, {"inspect", p}} {
		out := good(t, args...)
		require.Contains(t, out, `"a\nb"`)
		require.Contains(t, out, `"\x1b[2J"`)
		require.Contains(t, out, "größe")
		require.NotContains(t, out, "\x1b")
	}
	require.Equal(t, "x", good(t, "cat", p, "a\nb"))
}

func keysOf(m map[string]any) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	return keys
}

func TestS9pkVerify(t *testing.T) {
	p := packageFile(t, s9pktest.Spec{})
	require.Equal(t, "ok\n", good(t, "verify", p))
	require.Equal(t, "ok\n", good(t, "verify", "--package", p))
	require.Contains(t, good(t, "verify", "--json", p), `"ok": true`)
	_, errs, status := runS9pk("verify", "--arch", "riscv64", p)
	require.Equal(t, exitUntrusted, status)
	require.Contains(t, errs, "images/riscv64/main.squashfs")

	p = packageFile(t, s9pktest.Spec{Files: map[string][]byte{"LICENSE.md": nil, "icon.svg": nil}})
	require.Equal(t, "ok\n", good(t, "verify", p))
	_, errs, status = runS9pk("verify", "--package", p)
	require.Equal(t, exitUntrusted, status)
	require.Equal(t, "not a valid package: icon: no icon with the extension of an image type; LICENSE.md: is missing\n", errs)
	var judged struct {
		OK       bool
		Breaches []breachJSON
	}
	out, errs, status := runS9pk("verify", "--package", "--json", p)
	require.Equal(t, exitUntrusted, status)
	require.Equal(t, 1, strings.Count(errs, "\n"), errs)
	require.NoError(t, json.Unmarshal([]byte(out), &judged))
	filtered := filepath.Join(t.TempDir(), "filtered")
	_, errs, status = runS9pk("edit", "filter", p, "--arch", "x86_64", "-o", filtered)
	require.Equal(t, exitUntrusted, status)
	require.Regexp(t, "^not a valid package: .*icon.*; .*LICENSE.md: is missing\n$", errs)
	require.NoFileExists(t, filtered)
	require.False(t, judged.OK)
	require.Contains(t, judged.Breaches, breachJSON{Path: "LICENSE.md", Reason: "is missing"})

	b, err := os.ReadFile(p)
	require.NoError(t, err)
	b[len(b)-1] ^= 1
	require.NoError(t, os.WriteFile(p, b, 0o644))
	for _, args := range [][]string{{"verify", p}, {"extract", p, "-d", filepath.Join(t.TempDir(), "x")}, {"sign", p, "--key", keyFile(t)}} {
		_, errs, status = runS9pk(args...)
		require.Equal(t, exitUntrusted, status, "%v: %s", args, errs)
		require.Regexp(t, `^s9pk: \w+ \S+: content does not match its hash: .*\n$`, errs, args)
	}
	_, _, status = runS9pk("verify", filepath.Join(t.TempDir(), "none"))
	require.Equal(t, 1, status)
	left, err := filepath.Glob(filepath.Join(filepath.Dir(p), "*"))
	require.NoError(t, err)
	require.Equal(t, []string{p}, left, "nothing half-made stays")
}

func keyFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key.pem")
	good(t, "key", "new", path)
	return path
}

func TestS9pkMembers(t *testing.T) {
	p := packageFile(t, s9pktest.Spec{Files: map[string][]byte{"images/x86_64/main.squashfs": imageFile(t)}})
	b, err := os.ReadFile(p)
	require.NoError(t, err)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/p.s9pk" {
			http.NotFound(w, r)
			return
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
	}))
	defer srv.Close()
	for _, name := range []string{p, srv.URL + "/p.s9pk"} {
		require.Contains(t, good(t, "list", name), "images/x86_64/main.squashfs\n")
		require.Equal(t, "images/x86_64/main.env\nimages/x86_64/main.json\nimages/x86_64/main.squashfs\n", good(t, "list", name+"!/images/x86_64"))
		require.Equal(t, "images/x86_64/main.squashfs\n", good(t, "list", name+"!/images/x86_64/main.squashfs"))
		in := name + "!/images/x86_64/main.squashfs/"
		require.Equal(t, "images/x86_64/main.squashfs/etc/\nimages/x86_64/main.squashfs/etc/motd\nimages/x86_64/main.squashfs/link\n", good(t, "list", in))
		require.Contains(t, good(t, "list", "-l", in+"etc"), "-rw-r-----  3/4  5  ")
		var list []innerJSON
		require.NoError(t, json.Unmarshal([]byte(good(t, "list", "--json", in+"link")), &list))
		require.Equal(t, "etc/motd", list[0].Link)
		require.Equal(t, "hello", good(t, "cat", in+"etc/motd"))
		require.Equal(t, "hello", good(t, "cat", in+"link"))
		require.Equal(t, "MIT\n", good(t, "cat", name, "LICENSE.md"))
		for _, path := range []string{"nope", "images/x86_64/main.squashfs/nope", "images", "LICENSE.md/x"} {
			_, errs, status := runS9pk("cat", name+"!/"+path)
			require.Equal(t, 1, status, "%s: %s", path, errs)
		}
	}
	bad := bytes.Clone(b)
	bad[bytes.LastIndex(bad, []byte("hsqs"))+300] ^= 1
	require.NoError(t, os.WriteFile(p, bad, 0o644))
	out, errs, status := runS9pk("cat", p+"!/images/x86_64/main.squashfs/etc/motd")
	require.Equal(t, exitUntrusted, status, errs)
	require.Empty(t, out, "nothing is printed before it is proven")
}

// TestS9pkFromURL counts what reading a package at a URL costs.
func TestS9pkFromURL(t *testing.T) {
	content := make([]byte, 40<<20)
	rand.NewChaCha8([32]byte{7}).Read(content)
	p := packageFile(t, s9pktest.Spec{Files: map[string][]byte{"images/x86_64/main.squashfs": content}})
	good(t, "outboard", p)
	var requests atomic.Int64
	var sent atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		http.ServeFile(countingWriter{w, &sent}, r, filepath.Join(filepath.Dir(p), filepath.Base(r.URL.Path)))
	}))
	defer srv.Close()
	cost := func(args ...string) (out string, n, size int64) {
		requests.Store(0)
		sent.Store(0)
		out = good(t, args...)
		return out, requests.Load(), sent.Load()
	}
	url := srv.URL + "/p.s9pk"
	out, n, size := cost("inspect", "--json", url)
	require.Equal(t, good(t, "inspect", "--json", p), out)
	require.LessOrEqual(t, n, int64(2))
	require.LessOrEqual(t, size, int64(256<<10))
	out, n, size = cost("cat", url, "images/x86_64/main.squashfs")
	require.True(t, out == string(content))
	require.LessOrEqual(t, n, int64(16))
	require.LessOrEqual(t, size, int64(len(content)+len(content)/100))
	out, n, size = cost("verify", url)
	require.Equal(t, "ok\n", out)
	require.LessOrEqual(t, n, int64(3))
	require.LessOrEqual(t, size, int64(len(content)+len(content)/100))
}

type countingWriter struct {
	http.ResponseWriter
	n *atomic.Int64
}

func (c countingWriter) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.n.Add(int64(n))
	return n, err
}

func TestS9pkRewrite(t *testing.T) {
	p := packageFile(t, s9pktest.Spec{Arch: []string{"aarch64", "x86_64"}})
	key := keyFile(t)
	pub := strings.TrimSpace(good(t, "key", "show", key))
	require.Contains(t, pub, "PUBLIC KEY")
	_, _, status := runS9pk("key", "new", key)
	require.Equal(t, 1, status, "an existing key is left alone")

	dir := t.TempDir()
	signed := filepath.Join(dir, "signed.s9pk")
	good(t, "sign", p, "-o", signed, "--key", key)
	before, after := inspect(t, p), inspect(t, signed)
	require.Equal(t, before.RootSighash, after.RootSighash)
	require.NotEqual(t, before.Signer, after.Signer)

	edited := filepath.Join(dir, "edited.s9pk")
	good(t, "edit", "manifest", signed, `.title = "Another <title>"`, "-o", edited, "--key", key)
	require.Contains(t, string(inspect(t, edited).Manifest), "Another <title>")
	good(t, "verify", "--package", edited)
	for expr, want := range map[string]string{".id = 7": "manifest", ".": "", "empty": "gives nothing", ".[": "jq:", ".images.more = .images.main": "more"} {
		_, errs, status := runS9pk("edit", "manifest", edited, expr, "-o", filepath.Join(dir, "o"), "--key", key)
		require.Equal(t, want == "", status == 0, "%s: %s", expr, errs)
		require.Contains(t, errs, want)
	}

	file := filepath.Join(dir, "notes")
	require.NoError(t, os.WriteFile(file, []byte("new notes"), 0o644))
	good(t, "edit", "put", edited, "instructions.md="+file, "--key", key)
	require.Equal(t, "new notes", good(t, "cat", edited, "instructions.md"))
	_, errs, status := runS9pk("edit", "put", edited, "../x="+file, "--key", key)
	require.Equal(t, 1, status, errs)
	good(t, "edit", "remove", edited, "assets.squashfs", "--key", key)
	require.NotContains(t, good(t, "list", edited), "assets.squashfs")
	good(t, "verify", "--package", edited)

	small := filepath.Join(dir, "small.s9pk")
	good(t, "edit", "filter", p, "--arch", "x86_64", "-o", small)
	require.Equal(t, before.Signer, inspect(t, small).Signer)
	require.Contains(t, good(t, "list", small), "images/aarch64 (left out)\n")
	good(t, "verify", "--arch", "x86_64", small)

	require.Equal(t, p+s9pk.OutboardSuffix+"\n", good(t, "outboard", p))
	require.Equal(t, "MIT\n", good(t, "cat", p, "LICENSE.md"))
	for _, args := range [][]string{
		{"sign", p, "-o", signed, "--key", key}, {"edit", "manifest", signed, ".", "-o", edited, "--key", key}, {"outboard", p},
		{"convert", p, "-o", signed}, {"extract", p, "-d", filepath.Join(dir, "all")}, {"init", filepath.Join(dir, "project")},
	} {
		var got map[string]any
		require.NoError(t, json.Unmarshal([]byte(good(t, append(args, "--json")...)), &got), args)
		require.FileExists(t, strings.TrimSuffix(got["path"].(string), "/")+map[string]string{"extract": "/LICENSE.md", "init": "/LICENSE"}[args[0]])
	}
	out := filepath.Join(dir, "out")
	good(t, "extract", p, "LICENSE.md", "images/x86_64", "-d", out)
	require.FileExists(t, filepath.Join(out, "images/x86_64/main.env"))
	require.NoFileExists(t, filepath.Join(out, "manifest.json"))
}

func inspect(t *testing.T, path string) inspection {
	t.Helper()
	var i inspection
	require.NoError(t, json.Unmarshal([]byte(good(t, "inspect", "--json", path)), &i))
	return i
}

func TestS9pkPack(t *testing.T) {
	if _, err := exec.LookPath("node"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("node is missing")
		}
		t.Skip("node is missing")
	}
	imageFile(t) // needs mksquashfs
	dir := t.TempDir()
	t.Setenv("XDG_CONFIG_HOME", dir+"/config")
	t.Setenv("XDG_CACHE_HOME", dir+"/cache")
	t.Setenv("SOURCE_DATE_EPOCH", "1000000000")
	m, err := s9pktest.Manifest(t, "demo", "1.0.0:0", "x86_64").MarshalJSON()
	require.NoError(t, err)
	for name, text := range map[string]string{
		"javascript/index.js": "exports.manifest = " + string(m), "icon.svg": "<svg/>", "LICENSE": "MIT", "instructions.md": "#",
		"root/bin/app": "app", "more/bin/app": "more",
	} {
		p := filepath.Join(dir, "demo", name)
		require.NoError(t, os.MkdirAll(filepath.Dir(p), 0o755))
		require.NoError(t, os.WriteFile(p, []byte(text), 0o644))
	}
	out := filepath.Join(dir, "demo.s9pk")
	text, errs, status := runS9pk("pack", dir+"/demo", "-o", out, "--image", "main=rootfs:root")
	require.Zero(t, status, errs)
	require.Contains(t, text, "demo 1.0.0:0")
	require.Contains(t, errs, "made a new signing key")
	require.Equal(t, "app", good(t, "cat", out+"!/images/x86_64/main.squashfs/bin/app"))
	require.Contains(t, good(t, "pack", dir+"/demo", "-o", out, "--image", "main=rootfs:root", "--json", "--outboard", "--arch", "x86_64"), `"id": "demo"`)
	require.FileExists(t, out+s9pk.OutboardSuffix)
	good(t, "edit", "add-image", out, "more", "rootfs:"+dir+"/demo/more", "--arch", "x86_64")
	require.Equal(t, "more", good(t, "cat", out+"!/images/x86_64/more.squashfs/bin/app"))
	good(t, "verify", "--package", out)
	for _, args := range [][]string{{"--image", "main"}, {"--image", "main=x"}, {"--arch", "mips"}, {"--key", "/nonexistent"}, {"--assets", "a", "--no-assets"}} {
		_, _, status := runS9pk(append([]string{"pack", dir + "/demo", "-o", out}, args...)...)
		require.Equal(t, 1, status, args)
	}
}

func TestS9pkConvert(t *testing.T) {
	imageFile(t) // needs mksquashfs
	old := "testdata/ghost-v1.s9pk"
	key, dir := keyFile(t), t.TempDir()
	_, errs, status := runS9pk("verify", old)
	require.Equal(t, exitUntrusted, status)
	require.Contains(t, errs, "`stead s9pk convert` makes one of version 2 of it")
	b, err := os.ReadFile(old)
	require.NoError(t, err)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
	}))
	defer srv.Close()
	for i, from := range []string{old, srv.URL + "/old.s9pk"} {
		out := filepath.Join(dir, string(rune('a'+i)))
		require.Contains(t, good(t, "convert", from, "-o", out, "--key", key), "ghost-legacy 5.1.2:3")
		good(t, "verify", "--package", out)
		require.Equal(t, "from amd64", good(t, "cat", out+"!/images/x86_64/main.squashfs/etc/hello"))
	}
	again := filepath.Join(dir, "again")
	good(t, "convert", filepath.Join(dir, "a"), "-o", again)
	require.Equal(t, inspect(t, filepath.Join(dir, "a")).Signer, inspect(t, again).Signer)

	b[len(b)-1] ^= 1
	bad := filepath.Join(dir, "bad")
	require.NoError(t, os.WriteFile(bad, b, 0o644))
	_, errs, status = runS9pk("convert", bad, "--key", key)
	require.Equal(t, exitUntrusted, status, errs)
	after, err := os.ReadFile(bad)
	require.NoError(t, err)
	require.Equal(t, b, after)
}
