package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/selfstead/selfstead/s9pk/squashfs"
)

// podmanHere makes podman keep all it has in a folder of the test, needing no
// network, no cgroup and no overlay file system.
func podmanHere(t *testing.T) {
	t.Helper()
	needTool(t, "podman")
	need(t, "root", os.Geteuid() == 0) // without it podman wants subordinate ids
	dir := t.TempDir()
	conf := func(name, text string) string {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
		return filepath.Join(dir, name)
	}
	t.Setenv("CONTAINERS_STORAGE_CONF", conf("storage.conf",
		"[storage]\ndriver = \"vfs\"\ngraphroot = \""+dir+"/graph\"\nrunroot = \""+dir+"/run\"\n"))
	t.Setenv("CONTAINERS_CONF", conf("containers.conf",
		"[engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"none\"\ntmp_dir = \""+dir+"/tmp\"\n"+
			"[network]\nnetwork_config_dir = \""+dir+"/net\"\n"))
	t.Setenv("CONTAINERS_REGISTRIES_CONF", conf("registries.conf", "unqualified-search-registries = []\n"))
	t.Setenv("BUILDAH_ISOLATION", "chroot") // of RUN
}

func podman(t *testing.T, args ...string) string {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := exec.Command("podman", args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	require.NoError(t, cmd.Run(), "podman %v: %s", args, errs.String())
	return strings.TrimSpace(out.String())
}

// TestPodman builds a Dockerfile and reads an image through the real tool.
func TestPodman(t *testing.T) { // changes the environment: not parallel
	needTool(t, "mksquashfs")
	needTool(t, "busybox")
	podmanHere(t)
	dir := t.TempDir()
	exe, err := exec.LookPath("busybox")
	require.NoError(t, err)
	busybox, err := os.ReadFile(exe)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(dir+"/busybox", busybox, 0o755))
	require.NoError(t, os.WriteFile(dir+"/Dockerfile", []byte(`FROM scratch
ARG ARCH
ARG GREETING
ARG UNSET=kept
COPY busybox /bin/busybox
RUN ["/bin/busybox", "sh", "-c", "echo $GREETING $UNSET on $ARCH > /greeting; chmod 4711 /bin/busybox"]
ENV COLOUR="dark blue"
WORKDIR /srv
USER 1000:100
ENTRYPOINT ["/bin/busybox"]
CMD ["cat", "/greeting"]
`), 0o644))
	o := Options{Arch: "x86_64", Dir: dir, CacheDir: t.TempDir(), Tool: "podman", Getenv: func(string) string { return "" }}
	src := Source{DockerBuild: &DockerBuild{BuildArgs: map[string]BuildArg{"GREETING": {Value: "hello"}, "UNSET": {Env: "NOT_THERE"}}}}
	img, err := Build(context.Background(), src, o)
	require.NoError(t, err)
	require.JSONEq(t, `{"workdir":"/srv","user":"1000:100","entrypoint":["/bin/busybox"],"cmd":["cat","/greeting"]}`, string(img.Config.JSON()))
	require.Contains(t, img.Config.Env, "COLOUR=dark blue")

	f, err := os.Open(img.SquashFS)
	require.NoError(t, err)
	defer f.Close()
	fi, err := f.Stat()
	require.NoError(t, err)
	require.Zero(t, fi.Size()%4096)
	root, err := squashfs.Open(f, fi.Size())
	require.NoError(t, err)
	text, err := fs.ReadFile(root, "greeting")
	require.NoError(t, err)
	require.Equal(t, "hello kept on x86_64\n", string(text))
	bin, err := root.Lstat("bin/busybox")
	require.NoError(t, err)
	require.Equal(t, fs.FileMode(0o711)|fs.ModeSetuid, bin.Mode())
	same, err := fs.ReadFile(root, "bin/busybox")
	require.NoError(t, err)
	require.True(t, bytes.Equal(busybox, same))

	var flat bytes.Buffer // an image that is only here
	w := tar.NewWriter(&flat)
	require.NoError(t, w.WriteHeader(&tar.Header{Name: "etc/", Typeflag: tar.TypeDir, Mode: 0o755}))
	require.NoError(t, w.WriteHeader(&tar.Header{Name: "etc/motd", Typeflag: tar.TypeReg, Mode: 0o640, Uid: 7, Gid: 8, Size: 2}))
	_, err = w.Write([]byte("hi"))
	require.NoError(t, err)
	require.NoError(t, w.Close())
	require.NoError(t, os.WriteFile(dir+"/flat.tar", flat.Bytes(), 0o644))
	podman(t, "import", "--change", "ENV A=1", dir+"/flat.tar", "localhost/flat:1")
	tagged := Source{DockerTag: "localhost/flat:1"}
	img, err = Build(context.Background(), tagged, o)
	require.NoError(t, err)
	require.Contains(t, lines(t, img.SquashFS), "-rw-r----- 7/8 /etc/motd")
	require.Contains(t, img.Config.Env, "A=1")
	again, err := Build(context.Background(), tagged, o)
	require.NoError(t, err)
	require.True(t, again.Cached)
	o.CacheDir = t.TempDir()
	anew, err := Build(context.Background(), tagged, o)
	require.NoError(t, err)
	one, err := os.ReadFile(img.SquashFS)
	require.NoError(t, err)
	two, err := os.ReadFile(anew.SquashFS)
	require.NoError(t, err)
	require.True(t, bytes.Equal(one, two), "the same image, the same bytes")

	require.Equal(t, "", podman(t, "ps", "-a", "--format", "{{.ID}}"), "no container stays")
	var names []struct{ Names []string }
	require.NoError(t, json.Unmarshal([]byte(podman(t, "images", "--format", "json")), &names))
	for _, i := range names {
		for _, n := range i.Names {
			require.NotContains(t, n, "stead-pack", "no image made for a package stays")
		}
	}
}
