package v1

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/sha512"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/fxamacker/cbor/v2"

	"github.com/selfstead/selfstead/s9pk"
	"github.com/selfstead/selfstead/s9pk/s9pktest"
	"github.com/selfstead/selfstead/s9pk/squashfs"
	"github.com/selfstead/selfstead/s9pk/validate"
)

// need skips where a program is not installed; in CI that is a failure.
func need(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s is not installed", program)
		}
		t.Skipf("%s is not installed", program)
	}
}

type member struct {
	name, content string
	link          bool
}

func tarOf(t testing.TB, members ...member) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range members {
		hdr := &tar.Header{Name: m.name, Mode: 0o644, Size: int64(len(m.content)), Typeflag: tar.TypeReg}
		if m.link {
			hdr = &tar.Header{Name: m.name, Linkname: m.content, Typeflag: tar.TypeSymlink}
		}
		if m.name[len(m.name)-1] == '/' {
			hdr = &tar.Header{Name: m.name, Mode: 0o755, Typeflag: tar.TypeDir}
		}
		if err := w.WriteHeader(hdr); err != nil {
			t.Fatal(err)
		}
		if hdr.Typeflag == tar.TypeReg {
			if _, err := w.Write([]byte(m.content)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// saved is what `docker save` writes of one image.
func saved(t testing.TB, machine, content string, tags ...string) []byte {
	t.Helper()
	layer := tarOf(t, member{name: "etc/"}, member{name: "etc/hello", content: content})
	config := map[string]any{"architecture": machine, "os": "linux", "config": map[string]any{"Env": []string{"A=1"}, "Cmd": []string{"/bin/sh"}}}
	list := []map[string]any{{"Config": "c.json", "RepoTags": tags, "Layers": []string{"l/layer.tar"}}}
	text := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	return tarOf(t, member{name: "c.json", content: text(config)}, member{name: "l/"}, member{name: "l/layer.tar", content: string(layer)},
		member{name: "manifest.json", content: text(list)})
}

func manifest() map[string]any {
	procedure := map[string]any{"type": "docker", "image": "main", "entrypoint": "run", "gpu-acceleration": true}
	return map[string]any{
		"eos-version": "0.3.5", "id": "ghost", "title": "Ghost", "version": "5.1.2.3",
		"description": map[string]any{"short": "s", "long": "l"}, "release-notes": "notes", "license": "MIT",
		"wrapper-repo": "https://example.com/wrapper", "upstream-repo": "https://example.com/up", "assets": map[string]any{"icon": "art/icon.svg"},
		"main": procedure, "health-checks": map[string]any{}, "backup": map[string]any{"create": map[string]any{"type": "script"}, "restore": procedure},
		"volumes":               map[string]any{"main": map[string]any{"type": "data"}, "pics": map[string]any{"type": "assets"}},
		"dependencies":          map[string]any{"lnd": map[string]any{"version": "*", "requirement": map[string]any{"type": "opt-in", "how": "x"}, "description": "d"}},
		"hardware-requirements": map[string]any{"device": map[string]any{"processor": "EPYC"}, "ram": 1024},
	}
}

func sectionsOf(t testing.TB) map[string][]byte {
	t.Helper()
	m, err := cbor.Marshal(manifest())
	if err != nil {
		t.Fatal(err)
	}
	multi, err := cbor.Marshal(map[string]any{"default": "x86_64", "available": []string{"x86_64", "aarch64"}})
	if err != nil {
		t.Fatal(err)
	}
	tag := "start9/ghost/main:5.1.2.3"
	return map[string][]byte{
		SectionManifest: m, SectionLicense: []byte("MIT"), SectionInstructions: []byte("# how"), SectionIcon: []byte("<svg/>"),
		SectionImages: tarOf(t, member{name: "multiarch.cbor", content: string(multi)},
			member{name: "x86_64.tar", content: string(saved(t, "amd64", "from amd64", tag))},
			member{name: "aarch64.tar", content: string(saved(t, "arm64", "from arm64", tag))}),
		SectionAssets:  tarOf(t, member{name: "pics/"}, member{name: "pics/a.txt", content: "a"}, member{name: "pics/b", content: "a.txt", link: true}),
		SectionScripts: []byte("export const x = 1"),
	}
}

var labels = []string{SectionManifest, SectionLicense, SectionInstructions, SectionIcon, SectionImages, SectionAssets, SectionScripts}

// build writes a version 1 package.
func build(t testing.TB, sections map[string][]byte) []byte {
	t.Helper()
	n := 0
	for _, l := range labels {
		n += 17 + len(l)
	}
	pos := fixedHeader + n
	var table, body []byte
	for _, l := range labels {
		table = append(table, byte(len(l)))
		table = append(table, l...)
		table = binary.BigEndian.AppendUint64(table, uint64(pos+len(body)))
		table = binary.BigEndian.AppendUint64(table, uint64(len(sections[l])))
		body = append(body, sections[l]...)
	}
	key := s9pktest.Key("v1")
	digest := sha512.Sum512(body)
	sig, err := key.Sign(nil, digest[:], &ed25519.Options{Hash: crypto.SHA512, Context: s9pk.Context})
	if err != nil {
		t.Fatal(err)
	}
	b := append([]byte{0x3b, 0x3b, 1}, key.Public().(ed25519.PublicKey)...)
	b = append(b, sig...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(table)))
	return slices.Concat(b, table, body)
}

func open(b []byte) (*Archive, error) { return Open(bytes.NewReader(b), int64(len(b))) }

func TestRead(t *testing.T) {
	t.Parallel()
	b := build(t, sectionsOf(t))
	if len(labels) != 7 || fixedHeader+176 != 279 {
		t.Fatal("the header of a package with all sections has 279 bytes")
	}
	a, err := open(b)
	if err != nil || a.body != 279 {
		t.Fatalf("header of %d bytes, %v", a.body, err)
	}
	if err := a.Verify(context.Background()); err != nil {
		t.Error(err)
	}
	if h, err := a.ContentHash(context.Background()); err != nil || len(h) != 103 {
		t.Errorf("content hash %q, %v", h, err)
	}
	m, err := a.Manifest()
	if err != nil || m.ID != "ghost" || m.IconName() != "icon.svg" || !slices.Equal(m.Images(), []ImageRef{{ID: "main"}}) {
		t.Errorf("manifest: %+v, %v", m, err)
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	b := build(t, sectionsOf(t))
	for n := range 400 {
		if _, err := open(b[:n]); !errors.Is(err, s9pk.ErrTruncated) && !errors.Is(err, s9pk.ErrFormat) {
			t.Fatalf("cut to %d: %v", n, err)
		}
	}
	for _, i := range []int{3, 50, 279, len(b) - 1} {
		bad := bytes.Clone(b)
		bad[i] ^= 1
		if a, err := open(bad); err == nil {
			if err := a.Verify(context.Background()); !errors.Is(err, s9pk.ErrSignature) {
				t.Errorf("byte %d changed: %v", i, err)
			}
		}
	}
	in := bytes.Clone(b)
	binary.BigEndian.PutUint64(in[fixedHeader+1+len(SectionManifest):], 10)
	if _, err := open(in); !errors.Is(err, s9pk.ErrUnsafe) {
		t.Errorf("manifest in the unsigned header: %v", err)
	}
	sections := sectionsOf(t)
	sections[SectionAssets] = tarOf(t, member{name: "../../out", content: "x"})
	a, err := open(build(t, sections))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if _, _, err := a.Convert(context.Background(), ConvertOptions{Scratch: filepath.Join(dir, "")}); err == nil {
		t.Error("assets were unpacked outside")
	}
}

func TestConvertVersion(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{"1.2.3.4": "1.2.3:4", "1.2.3": "1.2.3:0", "1.2": "1.2.0:0"} {
		if v, err := ConvertVersion(in); err != nil || v.String() != want {
			t.Errorf("%s: got %v, %v; want %s", in, v, err, want)
		}
	}
	for _, in := range []string{"", "1", "1.2.3.4.5", "1.x", "1.2-rc"} {
		if v, err := ConvertVersion(in); err == nil {
			t.Errorf("%s: got %v", in, v)
		}
	}
}

func TestConvertManifest(t *testing.T) {
	t.Parallel()
	for id, want := range map[string][2]string{
		"ghost": {"ghost-legacy", "5.1.2:3"}, "lnd": {"lnd", "5.1.2-beta:3"}, "robosats": {"robosats", "5.1.2-alpha:3"}, "bitcoind": {"bitcoind", "#knots:5.1.2:3"},
	} {
		old := &Manifest{ID: id, Version: "5.1.2.3", EosVersion: "0.3.5", Title: "Bitcoin Knots", WrapperRepo: "https://a.b", UpstreamRepo: "https://c.d"}
		m, err := old.Convert()
		if err != nil || m.ID != want[0] || m.Version.String() != want[1] || *m.MarketingURL != "https://c.d/" {
			t.Errorf("%s: %+v, %v", id, m, err)
		}
	}
}

func TestConvert(t *testing.T) {
	t.Parallel()
	need(t, "mksquashfs")
	ctx := context.Background()
	a, err := open(build(t, sectionsOf(t)))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "new.s9pk")
	m, err := a.ConvertFile(ctx, file, s9pktest.Key("new"), ConvertOptions{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if m.ID != "ghost-legacy" || m.Version.String() != "5.1.2:3" || m.Title != "Ghost (Legacy)" || !m.HardwareAcceleration ||
		!slices.Equal(m.Volumes, []string{"embassy", "main"}) || !m.Dependencies["lnd"].Optional || m.OSVersion.String() != "0.3.5" {
		t.Errorf("manifest: %+v", m)
	}
	n, err := s9pk.OpenFile(file, s9pk.Options{Package: true})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if err := n.Verify(ctx, nil); err != nil {
		t.Error(err)
	}
	if breaches := validate.Package(n, ""); !validate.OK(breaches) {
		t.Errorf("breaches: %v", breaches)
	}
	for path, want := range map[string]string{
		"images/aarch64/main.squashfs!etc/hello": "from arm64", "images/x86_64/main.squashfs!etc/hello": "from amd64",
		"assets.squashfs!pics/a.txt": "a", "javascript.squashfs!embassy.js": "export const x = 1",
	} {
		outer, inner, _ := bytes.Cut([]byte(path), []byte("!"))
		f, err := n.File(string(outer))
		if err != nil {
			t.Fatal(err)
		}
		r, err := f.Open(ctx)
		if err != nil {
			t.Fatal(err)
		}
		fsys, err := squashfs.Open(r, f.Size)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := fs.ReadFile(fsys, string(inner)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", path, got, err)
		}
	}
}
