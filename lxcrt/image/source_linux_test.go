package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"
)

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// listing is what an image holds: mode, owner, size or target, and path.
func listing(t *testing.T, image string) string {
	t.Helper()
	out, err := exec.Command("unsquashfs", "-UTC", "-d", "", "-lln", image).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}

func content(t *testing.T, image, name string) string {
	t.Helper()
	out, err := exec.Command("unsquashfs", "-cat", image, name).Output()
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return string(out)
}

func TestFromDir(t *testing.T) {
	need(t, "mksquashfs", "unsquashfs")
	build := func(when time.Time) string {
		dir := t.TempDir()
		check(t, os.MkdirAll(filepath.Join(dir, "etc"), 0o750))
		check(t, os.WriteFile(filepath.Join(dir, "etc/a"), []byte("text"), 0o640))
		check(t, os.Lchown(filepath.Join(dir, "etc/a"), 1000, 44))
		check(t, os.Link(filepath.Join(dir, "etc/a"), filepath.Join(dir, "b")))
		check(t, os.Symlink("/etc/a", filepath.Join(dir, "link")))
		check(t, unix.Setxattr(filepath.Join(dir, "etc/a"), "trusted.overlay.opaque", []byte("y"), 0))
		check(t, os.Chtimes(filepath.Join(dir, "etc/a"), when, when))
		return dir
	}
	one, two := build(time.Now()), build(time.Unix(1e9, 0))
	caches := []string{t.TempDir(), t.TempDir()}
	first, err := FromDir(t.Context(), Source{Cache: caches[0], Path: one})
	check(t, err)
	second, err := FromDir(t.Context(), Source{Cache: caches[1], Path: two})
	check(t, err)
	a, err := os.ReadFile(first)
	check(t, err)
	b, err := os.ReadFile(second)
	check(t, err)
	if !bytes.Equal(a, b) || filepath.Base(first) != filepath.Base(second) {
		t.Error("equal folders give different images")
	}
	if l := listing(t, first); !strings.Contains(l, "-rw-r----- 1000/44") || !strings.Contains(l, "link -> /etc/a") || !strings.Contains(l, "2025-08-09") {
		t.Errorf("image holds:\n%s", l)
	}
	// From the cache, unless that is damaged.
	before, err := os.Stat(first)
	check(t, err)
	again, err := FromDir(t.Context(), Source{Cache: caches[0], Path: two})
	check(t, err)
	after, err := os.Stat(again)
	check(t, err)
	if !os.SameFile(before, after) {
		t.Error("made again")
	}
	a[len(a)/2] ^= 1
	check(t, os.WriteFile(first, a, 0o600))
	if err := Verify(first); !errors.Is(err, ErrDamaged) {
		t.Errorf("a changed image: %v", err)
	}
	again, err = FromDir(t.Context(), Source{Cache: caches[0], Path: one})
	check(t, err)
	if a, err := os.ReadFile(again); err != nil || !bytes.Equal(a, b) {
		t.Error("a changed image is used", err)
	}
	// Each of these is content.
	for what, change := range map[string]func(dir string) error{
		"text":  func(dir string) error { return os.WriteFile(filepath.Join(dir, "etc/a"), []byte("test"), 0o640) },
		"mode":  func(dir string) error { return os.Chmod(filepath.Join(dir, "etc"), 0o755) },
		"owner": func(dir string) error { return os.Lchown(filepath.Join(dir, "etc"), 1, 0) },
		"name":  func(dir string) error { return os.Rename(filepath.Join(dir, "b"), filepath.Join(dir, "c")) },
		"target": func(dir string) error {
			return errors.Join(os.Remove(filepath.Join(dir, "link")), os.Symlink("/etc/b", filepath.Join(dir, "link")))
		},
	} {
		dir := build(time.Now())
		check(t, change(dir))
		if key, err := treeKey(t.Context(), dir, attributesFlag(t.Context())...); err != nil || strings.Contains(first, key[:20]) {
			t.Errorf("%s does not count (%v)", what, err)
		}
	}
	if _, err := FromDir(t.Context(), Source{Cache: caches[0], Path: "/no/such/folder"}); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if _, err := FromDir(t.Context(), Source{Cache: caches[0], Path: "relative"}); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
	left, _ := filepath.Glob(filepath.Join(caches[0], ".build-*"))
	if len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// maker puts a layout together.
type maker struct {
	t   *testing.T
	dir string
}

func (m maker) blob(data []byte, media string) map[string]any {
	sum := sha256.Sum256(data)
	name := hex.EncodeToString(sum[:])
	check(m.t, os.MkdirAll(filepath.Join(m.dir, "blobs/sha256"), 0o755))
	check(m.t, os.WriteFile(filepath.Join(m.dir, "blobs/sha256", name), data, 0o644))
	return map[string]any{"mediaType": media, "digest": "sha256:" + name, "size": len(data)}
}

func (m maker) json(v any, media string) map[string]any {
	b, err := json.Marshal(v)
	check(m.t, err)
	return m.blob(b, media)
}

func layerTar(t *testing.T, headers ...*tar.Header) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		text := h.PAXRecords["text"]
		delete(h.PAXRecords, "text")
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(text))
		}
		h.ModTime = time.Unix(1.6e9, 0)
		check(t, w.WriteHeader(h))
		_, err := w.Write([]byte(text))
		check(t, err)
	}
	check(t, w.Close())
	return b.Bytes()
}

func file(name, text string) *tar.Header {
	return &tar.Header{Name: name, PAXRecords: map[string]string{"text": text}}
}

func diffID(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// image adds an image of layers, compressed in turn by gzip, zstd and not at all.
func (m maker) image(layers ...[]byte) map[string]any {
	var ids []string
	var list []any
	for i, l := range layers {
		ids = append(ids, diffID(l))
		var b bytes.Buffer
		switch i % 3 {
		case 0:
			w := gzip.NewWriter(&b)
			_, _ = w.Write(l)
			check(m.t, w.Close())
		case 1:
			w, err := zstd.NewWriter(&b)
			check(m.t, err)
			_, _ = w.Write(l)
			check(m.t, w.Close())
		default:
			b.Write(l)
		}
		list = append(list, m.blob(b.Bytes(), "application/vnd.oci.image.layer.v1.tar"))
	}
	config := m.json(map[string]any{"architecture": runtime.GOARCH, "os": "linux", "rootfs": map[string]any{"type": "layers", "diff_ids": ids},
		"config": map[string]any{"Env": []string{"A=b"}, "Entrypoint": []string{"/bin/x"}, "Cmd": []string{"-v"}, "User": "alice", "WorkingDir": "/srv", "StopSignal": "SIGINT"}},
		"application/vnd.oci.image.config.v1+json")
	return m.json(map[string]any{"schemaVersion": 2, "config": config, "layers": list}, "application/vnd.oci.image.manifest.v1+json")
}

func (m maker) index(manifests ...any) {
	check(m.t, os.WriteFile(filepath.Join(m.dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644))
	b, err := json.Marshal(map[string]any{"schemaVersion": 2, "manifests": manifests})
	check(m.t, err)
	check(m.t, os.WriteFile(filepath.Join(m.dir, "index.json"), b, 0o644))
}

func threeLayers(t *testing.T) [][]byte {
	capable := file("usr/bin/ping", "ping")
	capable.Mode, capable.PAXRecords["SCHILY.xattr.security.capability"] = 0o755, string([]byte{1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	setuid := file("usr/bin/su", "su")
	setuid.Mode = 0o4755
	owned := file("srv/data", "old")
	owned.Uid, owned.Gid = 1000, 44
	return [][]byte{
		layerTar(t, &tar.Header{Name: "./", Typeflag: tar.TypeDir, Mode: 0o755}, &tar.Header{Name: "usr/bin/", Typeflag: tar.TypeDir, Mode: 0o755},
			&tar.Header{Name: "bin", Typeflag: tar.TypeSymlink, Linkname: "/usr/bin"}, capable, setuid, owned,
			file("gone", "x"), file("dir/old", "x"), file("dir/sub/old", "x"), file("stays", "1"),
			&tar.Header{Name: "hard", Typeflag: tar.TypeLink, Linkname: "stays"}),
		layerTar(t, file(".wh.gone", ""), file("dir/new", "y"), file("dir/.wh..wh..opq", ""), file("dir/sub/new", "y"), file("srv/data", "new"),
			file("bin/through-link", "z"), file("stays/.wh.nothing", "")),
		layerTar(t, file("stays", "2"), &tar.Header{Name: "node", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3}, &tar.Header{Name: "wiped", Typeflag: tar.TypeChar},
			&tar.Header{Name: "dir/new", Typeflag: tar.TypeDir, Mode: 0o700}),
	}
}

func TestFromOCI(t *testing.T) {
	need(t, "mksquashfs", "unsquashfs", "tar")
	m := maker{t, t.TempDir()}
	layers := threeLayers(t)
	layers[1] = layerTar(t, file(".wh.gone", ""), file("dir/new", "y"), file("dir/.wh..wh..opq", ""), file("dir/sub/new", "y"), file("srv/data", "new"), file("bin/through-link", "z"))
	m.index(m.image(layers...))
	cache := t.TempDir()
	c, err := FromOCI(t.Context(), Source{Cache: cache, Path: m.dir})
	check(t, err)
	if g := c.Config; g.User != "alice" || g.WorkingDir != "/srv" || g.Env[0] != "A=b" || g.Entrypoint[0] != "/bin/x" || g.Cmd[0] != "-v" || g.StopSignal != "SIGINT" {
		t.Errorf("config %+v", g)
	}
	var names []string
	l := listing(t, c.Path)
	for line := range strings.Lines(l) {
		if i := strings.Index(line, " /"); i > 0 {
			names = append(names, strings.Fields(line[i:])[0])
		}
	}
	if got := strings.Join(names, " "); got != "/bin /dir /dir/new /dir/sub /dir/sub/new /hard /node /srv /srv/data /stays /usr /usr/bin /usr/bin/ping /usr/bin/su /usr/bin/through-link" {
		t.Errorf("image holds %s\n%s", got, l)
	}
	for _, want := range []string{"-rwsr-xr-x 0/0", "crw-r--r-- 0/0", "drwx------ 0/0", "2020-09-13"} {
		if !strings.Contains(l, want) {
			t.Errorf("no %s in\n%s", want, l)
		}
	}
	for name, want := range map[string]string{"stays": "2", "hard": "1", "srv/data": "new", "dir/sub/new": "y"} {
		if got := content(t, c.Path, name); got != want {
			t.Errorf("%s is %q", name, got)
		}
	}
	// The same from a tar, in another cache.
	packed := filepath.Join(t.TempDir(), "layout.tar")
	if out, err := exec.Command("tar", "-C", m.dir, "-cf", packed, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	d, err := FromOCI(t.Context(), Source{Cache: t.TempDir(), Path: packed})
	check(t, err)
	a, err := os.ReadFile(c.Path)
	check(t, err)
	b, err := os.ReadFile(d.Path)
	check(t, err)
	if !bytes.Equal(a, b) || c.Digest != d.Digest {
		t.Error("a layout gives another image each time")
	}
	// A changed image is not used.
	b[len(b)/2] ^= 1
	check(t, os.WriteFile(d.Path, b, 0o600))
	d, err = FromOCI(t.Context(), Source{Cache: filepath.Dir(d.Path), Path: packed})
	check(t, err)
	if b, err = os.ReadFile(d.Path); err != nil || !bytes.Equal(a, b) {
		t.Error("a changed image is used", err)
	}
}

func TestLayoutsRefused(t *testing.T) {
	need(t, "mksquashfs")
	plain := layerTar(t, file("a", "a"))
	from := func(m maker, edit ...func(*Source)) error {
		cache := t.TempDir()
		s := Source{Cache: cache, Path: m.dir}
		for _, e := range edit {
			e(&s)
		}
		_, err := FromOCI(t.Context(), s)
		if kept, _ := filepath.Glob(filepath.Join(cache, "[^.]*")); err != nil && len(kept) > 0 {
			t.Errorf("kept: %v", kept)
		}
		return err
	}
	// Every blob, with a byte changed, cut short and longer.
	m := maker{t, t.TempDir()}
	m.index(m.image(plain))
	blobs, err := filepath.Glob(filepath.Join(m.dir, "blobs/sha256/*"))
	check(t, err)
	for _, b := range blobs {
		good, err := os.ReadFile(b)
		check(t, err)
		for what, bad := range map[string][]byte{"changed": append([]byte{good[0] ^ 1}, good[1:]...), "tail changed": append(bytes.Clone(good[:len(good)-1]), good[len(good)-1]^1),
			"short": good[:len(good)-1], "long": append(bytes.Clone(good), ' ')} {
			check(t, os.WriteFile(b, bad, 0o644))
			if err := from(m); err == nil {
				t.Errorf("%s %s goes through", b, what)
			}
		}
		check(t, os.WriteFile(b, good, 0o644))
	}
	check(t, from(m))
	// A layer that is another than the configuration says.
	other := maker{t, t.TempDir()}
	d := other.image(plain)
	b, err := os.ReadFile(filepath.Join(other.dir, "blobs/sha256", d["digest"].(string)[7:]))
	check(t, err)
	var man map[string]any
	check(t, json.Unmarshal(b, &man))
	man["layers"] = []any{other.blob(layerTar(t, file("b", "b")), "")}
	other.index(other.json(man, ""))
	if err := from(other); !errors.Is(err, ErrDamaged) {
		t.Errorf("another layer: %v", err)
	}
	// Which one?
	two := maker{t, t.TempDir()}
	first, second := two.image(plain), two.image(plain, plain)
	first["annotations"], second["annotations"] = map[string]string{"org.opencontainers.image.ref.name": "one"}, map[string]string{"org.opencontainers.image.ref.name": "two"}
	two.index(first, second)
	if err := from(two); !errors.Is(err, ErrLayout) || !strings.Contains(err.Error(), "one") {
		t.Errorf("two images: %v", err)
	}
	check(t, from(two, func(s *Source) { s.Ref = "two" }))
	first["platform"], second["platform"] = map[string]string{"os": "linux", "architecture": runtime.GOARCH}, map[string]string{"os": "linux", "architecture": "vax"}
	nested := two.json(map[string]any{"schemaVersion": 2, "manifests": []any{first, second}}, "application/vnd.oci.image.index.v1+json")
	two.index(nested)
	check(t, from(two))
	if err := from(two, func(s *Source) { s.Arch = "pdp11" }); !errors.Is(err, ErrLayout) {
		t.Errorf("no such architecture: %v", err)
	}
	// Names that would lead out stay inside.
	outside := t.TempDir()
	evil := maker{t, t.TempDir()}
	evil.index(evil.image(layerTar(t, &tar.Header{Name: "up", Typeflag: tar.TypeSymlink, Linkname: "../../../../../../../.." + outside},
		&tar.Header{Name: "abs", Typeflag: tar.TypeSymlink, Linkname: outside}, file("../../../../../../.."+outside+"/a", "x"), file("abs/b", "x"), file("up/c", "x"),
		&tar.Header{Name: "passwd", Typeflag: tar.TypeLink, Linkname: "../../../../../../../../etc/passwd"})))
	if err := from(evil); err == nil {
		t.Error("a hard link to what is not there goes through")
	}
	if entries, err := os.ReadDir(outside); err != nil || len(entries) > 0 {
		t.Errorf("written outside: %v (%v)", entries, err)
	}
	empty := maker{t, t.TempDir()}
	if err := from(empty); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no layout: %v", err)
	}
}

func TestGuest(t *testing.T) {
	need(t, "go")
	cache := t.TempDir()
	one, err := Guest(t.Context(), GuestOptions{Cache: cache})
	check(t, err)
	before, err := os.Stat(one)
	check(t, err)
	two, err := Guest(t.Context(), GuestOptions{Cache: cache})
	check(t, err)
	after, err := os.Stat(two)
	check(t, err)
	if !os.SameFile(before, after) || before.Mode().Perm()&0o111 == 0 {
		t.Errorf("%s and %s, %s", one, two, before.Mode())
	}
	if out, err := exec.Command(one, "run", "--", "sh", "-c", "exit 7").CombinedOutput(); err == nil || !strings.Contains(err.Error(), "7") {
		t.Errorf("the guest: %v: %s", err, out)
	}
	if out, _ := exec.Command("file", one).Output(); len(out) > 0 && !strings.Contains(string(out), "static") {
		t.Errorf("%s", out)
	}
	if _, err := Guest(t.Context(), GuestOptions{Cache: cache, Go: "/no/such/go"}); !errors.Is(err, ErrNotSupported) {
		t.Error(err)
	}
	if _, err := Guest(t.Context(), GuestOptions{}); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
}
