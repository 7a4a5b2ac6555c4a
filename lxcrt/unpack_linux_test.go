package lxcrt

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

func TestUnpacked(t *testing.T) {
	for _, p := range []string{"mksquashfs", "unsquashfs"} {
		if _, err := exec.LookPath(p); err != nil || os.Geteuid() != 0 {
			if os.Getenv("CI") == "true" {
				t.Fatalf("missing here, where nothing may be: %s, or root", p)
			}
			t.Skipf("missing: %s, or root", p)
		}
	}
	src, file := t.TempDir(), filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(filepath.Join(src, "f"), []byte("text"), 0o4755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(src, "f"), 0o755|os.ModeSetuid); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mksquashfs", src, file, "-quiet", "-no-progress", "-force-uid", "33").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	u := &unpacked{dir: filepath.Join(t.TempDir(), "images")}
	folder := func(user string) string {
		t.Helper()
		d, err := u.folder(t.Context(), file, 0, 0, user)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	d := folder("A")
	if b := folder("B"); b != d {
		t.Errorf("%s and %s", d, b)
	}
	if st, err := os.Stat(filepath.Join(d, "f")); err != nil || st.Mode() != 0o755|os.ModeSetuid {
		t.Errorf("%v %v", st, err)
	}
	there := func() bool { _, err := os.Stat(d); return err == nil }
	// While the image is there the folder stays, whoever uses it.
	if err := u.release("A"); err != nil || !there() {
		t.Error("gone with its first user", err)
	}
	folder("A")
	// Without it, it stays for those that stand on it.
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := u.release("A"); err != nil || !there() {
		t.Error("gone from below a container", err)
	}
	// One that nobody finished is no image.
	torn := filepath.Join(u.dir, "torn")
	if err := os.MkdirAll(filepath.Join(torn, "root"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := u.sweep(func(n string) bool { return n == "B" }); err != nil || !there() {
		t.Error("gone from below a container", err)
	}
	if _, err := os.Stat(torn); err == nil {
		t.Error("a torn folder stays")
	}
	if err := u.release("B"); err != nil || there() {
		t.Error("stays without image and user", err)
	}
	var none *unpacked
	if err := none.release("A"); err != nil {
		t.Error(err)
	}
}
