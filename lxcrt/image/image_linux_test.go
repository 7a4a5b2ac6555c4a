package image

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// need skips for want of something, and fails in CI.
func need(t *testing.T, programs ...string) {
	t.Helper()
	missing := ""
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			missing = "the program " + p
		}
	}
	if os.Geteuid() != 0 {
		missing = "root"
	}
	if missing == "" {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("missing here, where nothing may be: %s", missing)
	}
	t.Skipf("missing: %s", missing)
}

func TestOptions(t *testing.T) {
	for what, o := range map[string]Options{
		"cache":   {Cache: "relative"},
		"suite":   {Cache: "/x", Suite: "../x"},
		"arch":    {Cache: "/x", Arch: "amd64 --evil"},
		"package": {Cache: "/x", Packages: []string{"nodejs,evil"}},
		"exclude": {Cache: "/x", Exclude: []string{"lib/modules"}},
	} {
		if _, err := Build(t.Context(), o); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestKey(t *testing.T) {
	key := func(edit func(*Options)) string {
		o := Options{Cache: "/x", Arch: "amd64"}
		edit(&o)
		if err := o.settle(); err != nil {
			t.Fatal(err)
		}
		return o.key()
	}
	same := key(func(o *Options) { o.Packages = []string{"b0", "a0", "b0"} })
	if got := key(func(o *Options) { o.Packages = []string{"a0", "b0"} }); got != same {
		t.Error("order and repetition of packages make another image")
	}
	seen := map[string]string{}
	for what, edit := range map[string]func(*Options){
		"default": func(o *Options) {},
		"suite":   func(o *Options) { o.Suite = "bookworm" },
		"arch":    func(o *Options) { o.Arch = "arm64" },
		"more": func(o *Options) {
			o.Packages = append(DefaultPackages[:len(DefaultPackages):len(DefaultPackages)], "vim")
		},
		"none":    func(o *Options) { o.Packages = []string{} },
		"exclude": func(o *Options) { o.Exclude = []string{"/lib/modules/*"} },
	} {
		k := key(edit)
		if other, ok := seen[k]; ok {
			t.Errorf("%s and %s have the same key", what, other)
		}
		seen[k] = what
	}
}

// TestKept: a whole image is used as it is, a damaged one never, and a build that
// cannot be done leaves nothing.
func TestKept(t *testing.T) {
	need(t, "mmdebstrap", "mksquashfs", "apt-get")
	o := Options{Cache: t.TempDir(), Arch: "amd64", etc: t.TempDir()}
	if _, err := Build(t.Context(), o); !errors.Is(err, ErrNotSupported) || !strings.Contains(err.Error(), "package source") {
		t.Errorf("without a source: %v", err)
	}
	if err := o.settle(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(o.Cache, "debian-trixie-amd64-"+o.key()+".squashfs")
	if err := Verify(file); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no image: %v", err)
	}
	made := filepath.Join(o.Cache, "made")
	if err := os.WriteFile(made, bytes.Repeat([]byte("image"), 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := store(made, file); err != nil {
		t.Fatal(err)
	}
	if got, err := Build(t.Context(), o); err != nil || got != file {
		t.Errorf("a whole image: %s, %v", got, err)
	}
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("X"), 2500); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if err := Verify(file); !errors.Is(err, ErrDamaged) {
		t.Errorf("a flipped byte: %v", err)
	}
	if got, err := Build(t.Context(), o); err == nil {
		t.Errorf("a damaged image was given out: %s", got)
	}
	if err := os.Remove(file + ".sha256"); err != nil {
		t.Fatal(err)
	}
	if _, err := Build(t.Context(), o); err == nil {
		t.Error("an image without hash was given out")
	}
}

// TestCalledOff ends a real build on its way.
func TestCalledOff(t *testing.T) {
	need(t, "mmdebstrap", "mksquashfs", "apt-get")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cache := t.TempDir()
	_, err := Build(ctx, Options{Cache: cache, Packages: []string{}, Progress: func(p Progress) {
		if strings.Contains(p.Step, "tempdir") {
			cancel()
		}
	}})
	if err == nil {
		t.Fatal("it went through")
	}
	left, err := filepath.Glob(filepath.Join(cache, ".build-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left: %v %v", left, err)
	}
	if b, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(b), cache) {
		t.Errorf("mounted still (%v)", err)
	}
}

// TestReal builds the default image twice; LXCRT_IMAGE asks for it, since it takes
// a minute.
func TestReal(t *testing.T) {
	if os.Getenv("LXCRT_IMAGE") == "" {
		t.Log("set LXCRT_IMAGE to build the real image twice")
		return
	}
	need(t, "mmdebstrap", "mksquashfs", "unsquashfs", "apt-get")
	lists, err := os.ReadDir("/var/lib/apt/lists")
	if err != nil {
		t.Fatal(err)
	}
	var sums []string
	for range 2 {
		file, err := Build(t.Context(), Options{Cache: t.TempDir(), Progress: func(p Progress) { t.Log(p) }})
		if err != nil {
			t.Fatal(err)
		}
		sum, err := hashFile(file)
		if err != nil {
			t.Fatal(err)
		}
		sums = append(sums, sum)
		for path, want := range map[string]string{"etc/machine-id": "", "etc/resolv.conf": "", "etc/hosts": "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"} {
			out, err := exec.Command("unsquashfs", "-cat", file, path).Output()
			if err != nil || string(out) != want {
				t.Errorf("%s: %q %v", path, out, err)
			}
		}
		list, err := exec.Command("unsquashfs", "-l", file).Output()
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"/usr/bin/node", "/usr/bin/rsync", "/usr/bin/curl", "/usr/bin/mount", "/usr/bin/unshare", "/usr/bin/free", "/etc/ssl/certs/ca-certificates.crt"} {
			if !strings.Contains(string(list), "squashfs-root"+want+"\n") {
				t.Errorf("the image lacks %s", want)
			}
		}
	}
	if sums[0] != sums[1] {
		t.Error("the same packages made two images")
	}
	after, err := os.ReadDir("/var/lib/apt/lists")
	if err != nil || len(after) != len(lists) {
		t.Errorf("the host's package lists were touched: %d, %d (%v)", len(lists), len(after), err)
	}
}
