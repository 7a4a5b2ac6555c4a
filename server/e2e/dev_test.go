package e2e

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// terminal is a run of stead whose output is looked at while it runs.
type terminal struct {
	cmd *exec.Cmd
	end chan error

	mu   sync.Mutex
	text bytes.Buffer
}

func (r *terminal) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(p)
}

func (r *terminal) String() string { r.mu.Lock(); defer r.mu.Unlock(); return r.text.String() }

// stead runs the program in a folder with a home of its own.
func stead(t *testing.T, dir, home string, args ...string) *terminal {
	t.Helper()
	r := &terminal{cmd: exec.Command(os.Getenv("STEAD_BIN"), args...), end: make(chan error, 1)}
	r.cmd.Dir = dir
	r.cmd.Env = append(os.Environ(), "XDG_CONFIG_HOME="+home, "XDG_CACHE_HOME="+home, "STEAD_DIR=", "STEAD_CONTEXT=", "TMPDIR="+filepath.Join(home, "tmp"))
	require.NoError(t, os.MkdirAll(filepath.Join(home, "tmp"), 0o755))
	r.cmd.Stdout, r.cmd.Stderr = r, r
	r.cmd.WaitDelay = 10 * time.Second
	require.NoError(t, r.cmd.Start())
	ended := make(chan struct{})
	go func() { r.end <- r.cmd.Wait(); close(ended) }()
	t.Cleanup(func() {
		r.cmd.Process.Kill() //nolint:errcheck // it has ended
		<-ended
		if t.Failed() {
			t.Logf("stead %s:\n%s", strings.Join(args, " "), r)
		}
	})
	return r
}

// says waits until the output holds text n times.
func (r *terminal) says(t *testing.T, text string, n int) {
	t.Helper()
	eventually(t, 120*time.Second, fmt.Sprintf("it says %q", text), func() error {
		if got := strings.Count(r.String(), text); got < n {
			return fmt.Errorf("said %d times", got)
		}
		return nil
	})
}

func (r *terminal) ends(t *testing.T) error {
	t.Helper()
	select {
	case err := <-r.end:
		return err
	case <-time.After(120 * time.Second):
		t.Fatalf("it does not end:\n%s", r)
		return nil
	}
}

// rootfs makes a root of BusyBox alone that serves /www.
func rootfs(t *testing.T, dir, page string) {
	t.Helper()
	exe, err := exec.LookPath("busybox")
	need(t, err == nil, "busybox-static")
	text, err := os.ReadFile(exe)
	require.NoError(t, err)
	put(t, dir, "bin/busybox", string(text))
	require.NoError(t, os.Symlink("busybox", filepath.Join(dir, "bin/sh")))
	require.NoError(t, os.Symlink("busybox", filepath.Join(dir, "bin/chown")))
	put(t, dir, "www/index.html", page)
}

func put(t *testing.T, dir, name, text string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755))
}

func replace(t *testing.T, file, from, to string) {
	t.Helper()
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Contains(t, string(text), from)
	require.NoError(t, os.WriteFile(file, []byte(strings.Replace(string(text), from, to, 1)), 0o644))
}

// serves waits until the page of a service holds text.
func (a *api) serves(t *testing.T, id, text string) {
	t.Helper()
	eventually(t, 60*time.Second, "the page says "+text, func() error {
		body, err := get(client(a.s.lab.lan), a.page(t, id, serverAddr))
		if err == nil && !strings.Contains(body, text) {
			err = fmt.Errorf("page is %q", body)
		}
		return err
	})
}

// TestDev works on a package that is described as data: its page is changed, its
// description broken and mended, its version raised.
func TestDev(t *testing.T) {
	l := newLab(t)
	s := startServer(t, l, filepath.Join(t.TempDir(), "state"))
	a := claim(t, s)
	dir, home := filepath.Join(t.TempDir(), "page"), t.TempDir()
	require.NoError(t, stead(t, ".", home, "s9pk", "init", dir).ends(t))
	rootfs(t, filepath.Join(dir, "root"), "the first page")
	yaml := filepath.Join(dir, "service.yaml")
	text, err := os.ReadFile(yaml)
	require.NoError(t, err)
	kept := string(text)
	for _, line := range strings.Split(kept, "\n") {
		if strings.HasPrefix(line, "  main: {") {
			kept = strings.Replace(kept, line, "  main: { rootfs: root, arch: [x86_64, aarch64] }\nvolumes: [main]", 1)
		}
	}
	kept = strings.Replace(kept, "/srv", "/www", 1)
	require.NoError(t, os.WriteFile(yaml, []byte(kept), 0o644))

	d := stead(t, dir, home, "dev", "--dir", s.dir)
	d.says(t, "page runs: ", 1)
	require.Contains(t, d.String(), "made a key for packages in the making")
	a.serves(t, "page", "the first page")
	volume := filepath.Join(s.dir, "volumes/page/data/main/kept")
	require.NoError(t, os.WriteFile(volume, []byte("data"), 0o644))

	replace(t, filepath.Join(dir, "root/www/index.html"), "first", "second")
	d.says(t, "page runs: ", 2)
	require.Contains(t, d.String(), "index.html changed")
	a.serves(t, "page", "the second page")

	replace(t, yaml, "\nprocesses:", "\nprocess:")
	d.says(t, ": process: unknown key; here may stand", 1)
	a.serves(t, "page", "the second page")
	replace(t, yaml, "\nprocess:", "\nprocesses:")
	d.says(t, "page runs: ", 3)
	replace(t, yaml, "version: 0.1.0:0", "version: 0.2.0:0")
	d.says(t, "page runs: ", 4)
	var p pkg
	a.want(t, 200, "GET", "/v1/packages/page", nil, &p)
	require.Equal(t, "0.2.0:0", p.Version)
	require.FileExists(t, volume)

	require.NoError(t, d.cmd.Process.Signal(syscall.SIGINT))
	require.NoError(t, d.ends(t), "%s", d)
	require.Contains(t, d.String(), "page stays installed")
	left, err := filepath.Glob(filepath.Join(home, "tmp", "*"))
	require.NoError(t, err)
	require.Empty(t, left, "temporary files")
	a.serves(t, "page", "the second page")
}

// TestDevJavaScript does the same with a project of the SDK, which is built first.
func TestDevJavaScript(t *testing.T) {
	const source = "../../examples/services/hello-world"
	modules, err := filepath.Abs(filepath.Join(source, "node_modules"))
	require.NoError(t, err)
	_, err = os.Stat(modules)
	need(t, err == nil, "the modules of hello-world (make example)")
	l := newLab(t)
	s := startServer(t, l, filepath.Join(t.TempDir(), "state"))
	a := claim(t, s)
	dir, home := filepath.Join(t.TempDir(), "hello"), t.TempDir()
	for _, name := range []string{"package.json", "tsconfig.json", "icon.svg", "LICENSE", "instructions.md"} {
		text, err := os.ReadFile(filepath.Join(source, name))
		require.NoError(t, err)
		put(t, dir, name, string(text))
	}
	require.NoError(t, os.CopyFS(filepath.Join(dir, "startos"), os.DirFS(filepath.Join(source, "startos"))))
	require.NoError(t, os.Symlink(modules, filepath.Join(dir, "node_modules")))
	rootfs(t, filepath.Join(dir, "root"), "")
	put(t, dir, "images/web.json", `{"rootfs": "root"}`)

	d := stead(t, ".", home, "dev", "--dir", s.dir, dir)
	d.says(t, "hello-world runs: ", 1)
	require.Contains(t, d.String(), "npm run -s build")
	a.serves(t, example, "Hello World!")
	d.says(t, "Starting Hello World", 1) // the log
	replace(t, filepath.Join(dir, "startos/versions.ts"), "1.0.0:0", "1.0.1:0")
	d.says(t, "hello-world runs: ", 2)
	var p pkg
	a.want(t, 200, "GET", "/v1/packages/"+example, nil, &p)
	require.Equal(t, "1.0.1:0", p.Version)
	a.serves(t, example, "Hello World!")
	require.NoError(t, d.cmd.Process.Signal(syscall.SIGINT))
	require.NoError(t, d.ends(t), "%s", d)
}

// TestFromOCI goes from an OCI archive to a service that runs, without a line by
// hand: its port is served, its volume is its user's.
func TestFromOCI(t *testing.T) {
	l := newLab(t)
	s := startServer(t, l, filepath.Join(t.TempDir(), "state"))
	a := claim(t, s)
	work, home := t.TempDir(), t.TempDir()
	root := filepath.Join(work, "root")
	rootfs(t, root, "")
	archive(t, root, filepath.Join(work, "app.tar"))

	start := time.Now()
	require.NoError(t, stead(t, work, home, "s9pk", "init", "--from-oci", "app.tar", "app").ends(t))
	d := stead(t, filepath.Join(work, "app"), home, "dev", "--once", "--dir", s.dir)
	require.NoError(t, d.ends(t))
	a.serves(t, "app", "written by 7")
	t.Logf("from an OCI archive to a page that is served: %.1f s", time.Since(start).Seconds())
	var p pkg
	a.want(t, 200, "GET", "/v1/packages/app", nil, &p)
	require.Equal(t, "4.2:0", p.Version)
}

// archive writes an OCI archive whose program writes a page to its volume, as a
// user that is not root, and serves it.
func archive(t *testing.T, root, to string) {
	t.Helper()
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	require.NoError(t, w.AddFS(os.DirFS(root)))
	require.NoError(t, w.Close())
	f, err := os.Create(to)
	require.NoError(t, err)
	defer f.Close()
	out := tar.NewWriter(f)
	file := func(name string, b []byte) {
		require.NoError(t, out.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(b))}))
		_, err := io.Copy(out, bytes.NewReader(b))
		require.NoError(t, err)
	}
	blob := func(b []byte) map[string]any {
		sum := sha256.Sum256(b)
		name := hex.EncodeToString(sum[:])
		file("blobs/sha256/"+name, b)
		return map[string]any{"digest": "sha256:" + name, "size": len(b)}
	}
	doc := func(v any) []byte {
		b, err := json.Marshal(v)
		require.NoError(t, err)
		return b
	}
	arch := map[string]string{"x86_64": "amd64", "aarch64": "arm64"}[machine(t)]
	config := blob(doc(map[string]any{"architecture": arch, "config": map[string]any{
		"User": "7", "Entrypoint": []string{"/bin/sh", "-c"}, "Cmd": []string{`echo "written by $(busybox id -u)" >/data/index.html && exec busybox httpd -f -p 8080 -h /data`},
		"Env": []string{"PATH=/bin"}, "ExposedPorts": map[string]any{"8080/tcp": map[string]any{}}, "Volumes": map[string]any{"/data": map[string]any{}},
		"Labels": map[string]string{"org.opencontainers.image.version": "4.2"},
	}}))
	m := blob(doc(map[string]any{"config": config, "layers": []any{blob(layer.Bytes())}}))
	m["platform"] = map[string]any{"architecture": arch, "os": "linux"}
	file("index.json", doc(map[string]any{"manifests": []any{m}}))
	require.NoError(t, out.Close())
}

func machine(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("uname", "-m").Output()
	require.NoError(t, err)
	return strings.TrimSpace(string(out))
}
