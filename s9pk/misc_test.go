package s9pk_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/selfstead/selfstead/s9pk"
	"github.com/selfstead/selfstead/s9pk/merkle"
	"github.com/selfstead/selfstead/s9pk/s9pktest"
)

func TestNormalizeURL(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"https://start9.com":                         "https://start9.com/",
		"HTTP://A.B/../c":                            "http://a.b/c",
		"https://Example.com:8443/a/./b/../c?x=y#z":  "https://example.com:8443/a/c?x=y#z",
		"https://a.b:443":                            "https://a.b/",
		"http://a.b:0080/x":                          "http://a.b/x",
		"https://a.b/ü?ö#ä":                          "https://a.b/%C3%BC?%C3%B6#%C3%A4",
		"https://a.b/{x}?{y}":                        "https://a.b/%7Bx%7D?{y}",
		"https://münchen.example/":                   "https://xn--mnchen-3ya.example/",
		"https://u:p@a.b":                            "https://u:p@a.b/",
		"https://u:@a.b":                             "https://u@a.b/",
		"https:a.b":                                  "https://a.b/",
		`https:\\a.b\c`:                              "https://a.b/c",
		"  https://a.b/x\n":                          "https://a.b/x",
		"http://[::1]:8080/":                         "http://[::1]:8080/",
		"mailto:a@b":                                 "mailto:a@b",
		"file:///etc/x":                              "file:///etc/x",
		"https://a.b/c/..":                           "https://a.b/",
		"https://a.b/c//d":                           "https://a.b/c//d",
		"https://a.b/%2e%2E/c":                       "https://a.b/c",
		"https://abcdefghijklmnop.onion/git?a=b&c=d": "https://abcdefghijklmnop.onion/git?a=b&c=d",
	} {
		got, err := s9pk.NormalizeURL(in)
		if err != nil || got != want {
			t.Errorf("%q: got %q, %v; want %q", in, got, err, want)
		}
		if again, err := s9pk.NormalizeURL(got); err != nil || again != got {
			t.Errorf("%q: again %q, %v", got, again, err)
		}
	}
	for _, in := range []string{"", "not a url", "//a.b", "/x", "https://", "https://a.b:x", "https://a.b:65536", "https://a b/", "http://[zz]/"} {
		if got, err := s9pk.NormalizeURL(in); err == nil {
			t.Errorf("%q: got %q, want an error", in, got)
		}
	}
}

func TestLocaleString(t *testing.T) {
	t.Parallel()
	var l s9pk.LocaleString
	if err := l.UnmarshalJSON([]byte(`{"de_DE":"d","en_GB":"g","en_US":"u"}`)); err != nil {
		t.Fatal(err)
	}
	for locale, want := range map[string]string{"en_US": "u", "en_AU": "g", "de_AT": "d", "fr_FR": "d", "en": "g", "": "d"} {
		if got := l.For(locale); got != want {
			t.Errorf("%q: got %q, want %q", locale, got, want)
		}
	}
	if out, err := l.MarshalJSON(); err != nil || string(out) != `{"de_DE":"d","en_GB":"g","en_US":"u"}` {
		t.Errorf("%s, %v", out, err)
	}
	other := s9pk.LocaleString{Localized: []s9pk.LocaleText{l.Localized[2], l.Localized[0], l.Localized[1]}}
	if !l.Equal(other) || l.Equal(s9pk.Text("d")) {
		t.Error("Equal looks at the order, or not at the kind")
	}
	if (s9pk.LocaleString{Localized: []s9pk.LocaleText{}}).For("x") != "" || s9pk.Text("t").For("x") != "t" {
		t.Error("no locale, or plain text")
	}
}

func TestDevices(t *testing.T) {
	t.Parallel()
	text := func(s string) *string { return &s }
	ram := uint64(8 << 30)
	gpu := s9pk.HardwareDevice{Class: s9pk.ClassDisplay, Product: text("GeForce RTX 3060"), Vendor: text("NVIDIA Corporation"), Capabilities: []string{"vga", "pm"}, Driver: text("nvidia")}
	cpu := s9pk.HardwareDevice{Class: s9pk.ClassProcessor, Product: text("EPYC"), Capabilities: []string{"avx2"}}
	need := s9pk.HardwareRequirements{Arch: []string{"aarch64", "x86_64"}, RAM: &ram, Devices: []s9pk.DeviceFilter{
		{Description: "a card", Class: s9pk.ClassDisplay, Product: text("RTX"), Vendor: text("(?i)nvidia"), Capabilities: []string{"pm"}, Driver: text("nvidia")},
		{Description: "a processor", Class: s9pk.ClassProcessor, Capabilities: []string{"avx2"}, Driver: text("ignored")},
	}}
	good := s9pk.Device{Arch: "x86_64", RAM: ram, Hardware: []s9pk.HardwareDevice{cpu, gpu}}
	if reasons := need.Unmet(good); reasons != nil {
		t.Errorf("a device that has everything: %q", reasons)
	}
	if reasons := need.Unmet(s9pk.Device{Arch: "x86_64"}); reasons != nil {
		t.Errorf("a device that is not known: %q", reasons)
	}
	if reasons := need.Unmet(s9pk.Device{Arch: "riscv64", RAM: ram - 1, Hardware: []s9pk.HardwareDevice{}}); len(reasons) != 4 {
		t.Errorf("a device that has nothing: %q", reasons)
	}
	other := gpu
	other.Driver = text("nouveau")
	if need.Devices[0].Matches(other) {
		t.Error("another driver matches")
	}
	general := s9pk.HardwareRequirements{}
	if need.CompareSpecific(general) >= 0 || general.CompareSpecific(need) <= 0 || need.CompareSpecific(need) != 0 {
		t.Error("order of specific requirements")
	}
}

func TestForDevice(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	a := s9pktest.Archive(t, s9pktest.Spec{Arch: []string{"aarch64", "x86_64"}, Files: map[string][]byte{"extra": []byte("x")}})
	root, err := a.ForDevice(ctx, s9pk.Device{Arch: "x86_64"})
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]error{"extra": s9pk.ErrMissing, "images/aarch64/main.env": s9pk.ErrMissing, "images/x86_64/main.env": nil} {
		e, err := root.Lookup(path)
		if err == nil && e.Kind == merkle.KindMissing {
			err = s9pk.ErrMissing
		}
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", path, err, want)
		}
	}
	if _, err := a.ForDevice(ctx, s9pk.Device{Arch: "riscv64"}); !errors.Is(err, s9pk.ErrIncompatible) {
		t.Errorf("another architecture: %v", err)
	}
	var b bytes.Buffer
	if err := a.Rewrite(ctx, &b, root, s9pk.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	filtered, err := open(b.Bytes(), s9pk.Options{Commitment: func() *merkle.Commitment { c := a.Commitment(); return &c }()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := filtered.File("extra"); !errors.Is(err, s9pk.ErrMissing) {
		t.Errorf("extra: %v", err)
	}

	// Signed anew, the bound shrinks to what is there, and the root stays.
	var again bytes.Buffer
	if err := s9pk.Write(&again, filtered.Root().Clone(), s9pktest.Key("other"), s9pk.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	resigned, err := open(again.Bytes(), s9pk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	was, is := a.Commitment(), resigned.Commitment()
	if is.RootSighash != was.RootSighash || is.RootMaxsize >= was.RootMaxsize || bytes.Equal(resigned.Signer(), a.Signer()) {
		t.Errorf("signed anew: %v, was %v", is, was)
	}
}

func TestPackageAccess(t *testing.T) {
	t.Parallel()
	emulate := "x86_64"
	a := s9pktest.Archive(t, s9pktest.Spec{
		Manifest: func(m *s9pk.Manifest) {
			img := m.Images["main"]
			img.EmulateMissingAs = &emulate
			m.Images["main"] = img
			m.HardwareRequirements.Arch = nil
			m.Dependencies["bitcoind"] = s9pk.Dependency{Optional: true}
		},
		Files: map[string][]byte{
			"dependencies/bitcoind/metadata.json": []byte(`{"title":{"en_US":"Bitcoin"}}`), "dependencies/bitcoind/icon.png": []byte("png"),
			"images/x86_64/main.env":  []byte("A=1\nbroken\nB=2=3"),
			"images/x86_64/main.json": []byte(`{"workdir":"","user":"","entrypoint":["/init"],"cmd":null}`),
		},
	})
	m, err := a.Manifest(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	img, err := a.Image(m, "main", "aarch64")
	if err != nil {
		t.Fatal(err)
	}
	if img.Arch != "x86_64" || img.Config.Workdir != "/" || img.Config.User != "root" || !slices.Equal(img.Env, []string{"A=1", "B=2=3"}) {
		t.Errorf("image: %+v", img)
	}
	if _, err := a.Image(m, "none", "x86_64"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("unknown image: %v", err)
	}
	dep, err := a.Dependency("bitcoind")
	if err != nil || dep.Title == nil || dep.Title.For("en_US") != "Bitcoin" || dep.Icon == nil || dep.IconType != "image/png" {
		t.Errorf("dependency: %+v, %v", dep, err)
	}
	if dep, err := a.Dependency("lnd"); err != nil || dep.Title != nil || dep.Icon != nil {
		t.Errorf("dependency without files: %+v, %v", dep, err)
	}
	icon, kind, err := a.Icon()
	if err != nil || icon.Path != "icon.svg" || kind != "image/svg+xml" {
		t.Errorf("icon: %v, %s, %v", icon, kind, err)
	}
	if text, err := a.License(); err != nil || text != "MIT\n" {
		t.Errorf("licence: %q, %v", text, err)
	}
	if text, err := a.Instructions(); err != nil || text != "# hello-world\n" {
		t.Errorf("instructions: %q, %v", text, err)
	}
}

func TestStreamVerifier(t *testing.T) {
	t.Parallel()
	b := s9pktest.Build(t, s9pktest.Spec{})
	sv := s9pk.NewStreamVerifier(s9pk.Options{Package: true, Size: int64(len(b))})
	for i, c := range b {
		if _, err := sv.Write([]byte{c}); err != nil {
			t.Fatalf("byte %d: %v", i, err)
		}
	}
	if m := sv.Manifest(); m == nil || m.ID != "hello-world" {
		t.Errorf("manifest: %+v", m)
	}
	sum, err := sv.Close()
	if err != nil || sum.Size != int64(len(b)) || sum.Files != 9 || sum.Manifest == nil || sum.Root.Entry("images") == nil {
		t.Errorf("summary: %+v, %v", sum, err)
	}
	if _, err := sv.Write([]byte{1}); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}

	for name, c := range map[string]struct {
		b    []byte
		o    s9pk.Options
		want error
	}{
		"longer than announced":   {append(bytes.Clone(b), 0), s9pk.Options{Size: int64(len(b))}, s9pk.ErrSize},
		"shorter than announced":  {b, s9pk.Options{Size: int64(len(b)) + 1}, s9pk.ErrTruncated},
		"announced too short":     {b, s9pk.Options{Size: int64(len(b)) - 1}, s9pk.ErrTruncated},
		"no package":              {fixture(t, "nested.s9pk"), s9pk.Options{Package: true}, fs.ErrNotExist},
		"manifest is a directory": {fixture(t, "pkg-manifest-dir.s9pk"), s9pk.Options{Package: true}, s9pk.ErrKind},
		"manifest too long":       {b, s9pk.Options{Package: true, Limits: s9pk.Limits{Manifest: 10}}, s9pk.ErrLimit},
		"too many entries":        {b, s9pk.Options{Limits: s9pk.Limits{Entries: 3}}, s9pk.ErrLimit},
		"too large a table":       {b, s9pk.Options{Limits: s9pk.Limits{Table: 100}}, s9pk.ErrLimit},
		"version 1":               {fixture(t, "version-1.s9pk"), s9pk.Options{}, s9pk.ErrVersion1},
		"nothing":                 {nil, s9pk.Options{}, s9pk.ErrTruncated},
	} {
		if _, err := stream(c.b, 11, c.o); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
	}

	bad := s9pktest.Build(t, s9pktest.Spec{Files: map[string][]byte{"manifest.json": []byte(`{"id":"Bad"}`)}})
	if _, err := stream(bad, 100, s9pk.Options{Package: true}); !errors.Is(err, s9pk.ErrManifest) {
		t.Errorf("stream of a bad package: %v", err)
	}

	// What lies behind what it describes needs a second look.
	last := fixture(t, "toc-last.s9pk")
	sv = s9pk.NewStreamVerifier(s9pk.Options{})
	if _, err := sv.Write(last); !errors.Is(err, s9pk.ErrNotStreamable) {
		t.Errorf("without Received: %v", err)
	}
	if _, err := stream(last, 5, s9pk.Options{}); err != nil {
		t.Errorf("with Received: %v", err)
	}
}

// TestNotAPackage opens archives that hold no package, with and without the demand.
func TestNotAPackage(t *testing.T) {
	t.Parallel()
	b := fixture(t, "nested.s9pk")
	if _, err := open(b, s9pk.Options{Package: true}); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	a, err := open(b, s9pk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.File("foo"); !errors.Is(err, s9pk.ErrKind) {
		t.Error(err)
	}
	if f, err := a.File("/foo//bar/baz.txt/"); err != nil || f.Path != "foo/bar/baz.txt" {
		t.Errorf("%v, %v", f, err)
	}
	if _, err := a.File("./foo"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// moody is a source that does not keep its word.
type moody struct {
	size int64
	r    string
}

func (m moody) Size() int64                  { return m.size }
func (m moody) Open() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(m.r)), nil }

func TestWriterRefuses(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	key := s9pktest.Key("x")
	for name, c := range map[string]struct {
		src  merkle.Source
		want error
	}{
		"too short": {moody{5, "1234"}, s9pk.ErrSize}, "too long": {moody{5, "123456"}, s9pk.ErrSize},
		"like an empty directory": {s9pk.Bytes([]byte{0}), s9pk.ErrUnsafe},
	} {
		root := merkle.NewDirectory()
		if _, err := root.Put("dir/file", c.src); err != nil {
			t.Fatal(err)
		}
		var ee *s9pk.EntryError
		if err := s9pk.Write(io.Discard, root.Clone(), key, s9pk.WriteOptions{}); !errors.Is(err, c.want) || !errors.As(err, &ee) || ee.Path != "dir/file" {
			t.Errorf("%s, Write: %v", name, err)
		}
		dir := t.TempDir()
		if err := s9pk.WriteFile(ctx, filepath.Join(dir, "x"), root.Clone(), key, s9pk.WriteOptions{NoSync: true}); !errors.Is(err, c.want) {
			t.Errorf("%s, WriteFile: %v", name, err)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
			t.Errorf("%s: left behind: %v, %v", name, left, err)
		}
	}
	for name, c := range map[string]struct {
		paths []string
		want  error
	}{
		"deep": {[]string{strings.Repeat("d/", 17) + "f"}, s9pk.ErrUnsafe}, "as deep as may be": {[]string{strings.Repeat("d/", 16) + "f"}, nil},
	} {
		root := merkle.NewDirectory()
		for _, p := range c.paths {
			if _, err := root.Put(p, s9pk.Bytes(nil)); err != nil {
				t.Fatal(err)
			}
		}
		var out bytes.Buffer
		err := s9pk.Write(&out, root, key, s9pk.WriteOptions{})
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if _, oerr := open(out.Bytes(), s9pk.Options{}); err == nil && oerr != nil {
			t.Errorf("%s: written and refused: %v", name, oerr)
		}
	}
	a := s9pktest.Archive(t, s9pktest.Spec{})
	changed := a.Root().Clone()
	if _, err := changed.Put("new", s9pk.Bytes([]byte("x"))); err != nil {
		t.Fatal(err)
	}
	if err := a.Rewrite(ctx, io.Discard, changed, s9pk.WriteOptions{}); !errors.Is(err, s9pk.ErrHashMismatch) {
		t.Errorf("old signature on a changed tree: %v", err)
	}
	if err := s9pk.Write(io.Discard, changed, nil, s9pk.WriteOptions{}); err == nil {
		t.Error("neither key nor header")
	}
	canceled, cancel := context.WithCancel(ctx)
	cancel()
	if err := s9pk.WriteContext(canceled, io.Discard, changed, key, s9pk.WriteOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
	if err := a.Verify(canceled, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled verify: %v", err)
	}
}

func TestProgress(t *testing.T) {
	t.Parallel()
	b, _ := big(t)
	a, err := open(b, s9pk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	check := func(what string, run func(func(done, total int64)) error) {
		var last, all int64
		err := run(func(done, total int64) {
			if done < last || done > total {
				t.Errorf("%s: %d after %d of %d", what, done, last, total)
			}
			last, all = done, total
		})
		if err != nil || last != all || all == 0 {
			t.Errorf("%s: ended at %d of %d, %v", what, last, all, err)
		}
	}
	check("verify", func(p func(done, total int64)) error { return a.Verify(context.Background(), p) })
	check("write", func(p func(done, total int64)) error {
		return s9pk.Write(io.Discard, s9pktest.Tree(t, s9pktest.Spec{}), s9pktest.Key("x"), s9pk.WriteOptions{Progress: p})
	})
	check("write file", func(p func(done, total int64)) error {
		return s9pk.WriteFile(context.Background(), filepath.Join(t.TempDir(), "x"), s9pktest.Tree(t, s9pktest.Spec{}), s9pktest.Key("x"), s9pk.WriteOptions{Progress: p, NoSync: true})
	})
}

// TestImports keeps the room free of the others: s9pk is to be used without the
// server, and merkle without packages.
func TestImports(t *testing.T) {
	t.Parallel()
	const module = "github.com/selfstead/selfstead/"
	allowed := map[string][]string{
		".": {"s9pk/merkle", "s9pk/exver"}, "merkle": nil, "exver": nil, "validate": {"s9pk", "s9pk/merkle"},
		"s9pktest": {"s9pk", "s9pk/merkle", "s9pk/exver"},
		"v1":       {"s9pk", "s9pk/merkle", "s9pk/exver", "s9pk/pack", "s9pk/pack/image", "s9pk/validate"},
	}
	for dir, may := range allowed {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v", dir, err)
		}
		for _, name := range files {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
			if err != nil {
				t.Fatal(err)
			}
			for _, imp := range f.Imports {
				path, err := strconv.Unquote(imp.Path.Value)
				if err != nil {
					t.Fatal(err)
				}
				if inner, ok := strings.CutPrefix(path, module); ok && !slices.Contains(may, inner) {
					t.Errorf("%s imports %s", name, path)
				}
			}
		}
	}
}

// TestManifestParts writes and reads parts of a manifest by themselves.
func TestManifestParts(t *testing.T) {
	t.Parallel()
	m := s9pktest.Manifest(t, "a", "1:0", "x86_64")
	note := s9pk.Text("why")
	m.Dependencies["b"] = s9pk.Dependency{Description: &note, Optional: true}
	whole, err := json.Marshal(*m)
	if err != nil {
		t.Fatal(err)
	}
	var parts struct {
		Images               map[string]s9pk.Image      `json:"images"`
		Dependencies         map[string]s9pk.Dependency `json:"dependencies"`
		HardwareRequirements s9pk.HardwareRequirements  `json:"hardwareRequirements"`
	}
	if err := json.Unmarshal(whole, &parts); err != nil {
		t.Fatal(err)
	}
	out, err := json.Marshal(parts)
	if err != nil {
		t.Fatal(err)
	}
	for text := range strings.SplitSeq(strings.Trim(string(out), "{}"), `},"`) {
		if !strings.Contains(string(whole), strings.Trim(text, `"`)) {
			t.Errorf("%s is not how it stands in %s", text, whole)
		}
	}
	if err := json.Unmarshal([]byte(`{"ram":-1}`), &parts.HardwareRequirements); !errors.Is(err, s9pk.ErrManifest) {
		t.Errorf("negative memory: %v", err)
	}
}
