package image

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// What an image that podman has says of itself.
func TestDescribeTag(t *testing.T) { // changes the environment: not parallel
	needTool(t, "busybox")
	podmanHere(t)
	dir := t.TempDir()
	exe, err := exec.LookPath("busybox")
	require.NoError(t, err)
	busybox, err := os.ReadFile(exe)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "busybox"), busybox, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(`FROM scratch
COPY busybox /bin/busybox
ENV A=b
USER 7
WORKDIR /srv
EXPOSE 8080 53/udp 53/tcp
VOLUME /data /cache
LABEL org.opencontainers.image.version=1.2
ENTRYPOINT ["/bin/busybox"]
CMD ["httpd", "-f"]
`), 0o644))
	podman(t, "build", "-q", "-t", "localhost/describe:1", dir)
	a, err := Describe(context.Background(), Source{DockerTag: "localhost/describe:1"}, Options{Arch: "x86_64", Tool: "podman"})
	require.NoError(t, err)
	require.Equal(t, []string{"/bin/busybox"}, a.Entrypoint)
	require.Equal(t, []string{"httpd", "-f"}, a.Cmd)
	require.Equal(t, "7", a.User)
	require.Equal(t, "/srv", a.WorkDir)
	require.Contains(t, a.Env, "A=b")
	require.Equal(t, []Port{{53, "tcp"}, {53, "udp"}, {8080, "tcp"}}, a.Ports)
	require.Equal(t, []string{"/cache", "/data"}, a.Volumes)
	require.Equal(t, "1.2", a.Labels["org.opencontainers.image.version"])
	require.Len(t, a.Arch, 1)

	_, err = Describe(context.Background(), Source{DockerTag: "-v"}, Options{Arch: "x86_64"})
	require.ErrorIs(t, err, ErrSource)
	_, err = Describe(context.Background(), Source{Rootfs: "x"}, Options{Arch: "x86_64"})
	require.ErrorIs(t, err, ErrSource)
}

// Of several architectures the one that is asked for, else the first.
func TestDescribeLayout(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	layout(t, dir, []string{"arm64", "amd64"}, layerTar(t, entry{name: "a", body: "b"}))
	a, err := Describe(context.Background(), Source{OCI: dir}, Options{})
	require.NoError(t, err)
	require.Equal(t, []string{"x86_64", "aarch64"}, a.Arch)
	_, err = Describe(context.Background(), Source{OCI: filepath.Join(dir, "blobs")}, Options{})
	require.ErrorIs(t, err, ErrOCI)
	_, err = Describe(context.Background(), Source{OCI: dir, Ref: "none"}, Options{})
	require.ErrorContains(t, err, "no image for x86_64 called none")
}
