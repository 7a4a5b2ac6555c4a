package image

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// standIn puts a program of the tool's name on PATH that answers the calls we
// make from a saved archive, and writes down what it was asked.
func standIn(t *testing.T, name, archive string) (log string) {
	t.Helper()
	bin := t.TempDir()
	log = filepath.Join(bin, "log")
	script := `#!/bin/sh
echo "$*" >> ` + log + `
case "$1 $2" in
"info --format") [ "$BROKEN" ] && { echo '{"Client":{}}'; echo "no engine" >&2; exit 1; }; echo '{}';;
"create "*) echo container1;;
"container inspect") echo '"sha256:1234"';;
"rm "*|"rmi "*) ;;
"save -o") cp ` + archive + ` "$3";;
"buildx build"|"build "*)
  for a; do case "$a" in type=docker,dest=*) cp ` + archive + ` "${a#type=docker,dest=}";; esac; done;;
*) echo "unexpected $*" >&2; exit 9;;
esac
`
	require.NoError(t, os.WriteFile(filepath.Join(bin, name), []byte(script), 0o755))
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	return log
}

func TestDocker(t *testing.T) { // changes PATH: not parallel
	needTool(t, "mksquashfs")
	dir := t.TempDir()
	layout(t, dir+"/l", []string{"amd64"}, layerTar(t, lowerLayer...), layerTar(t, upperLayer...))
	archive := dir + "/saved.tar"
	require.NoError(t, os.WriteFile(archive, tarDir(t, dir+"/l"), 0o644))
	require.NoError(t, os.WriteFile(dir+"/Dockerfile", []byte("FROM scratch\n"), 0o644))
	build := Source{DockerBuild: &DockerBuild{BuildArgs: map[string]BuildArg{
		"V": {Value: "1"}, "SET": {Env: "SET"}, "UNSET": {Env: "UNSET"}}}}
	for _, tool := range []string{"docker", "podman"} {
		log := standIn(t, tool, archive)
		o := Options{Arch: "x86_64", Dir: dir, CacheDir: t.TempDir(), Tool: tool, Getenv: func(n string) string {
			return map[string]string{"SET": "yes"}[n]
		}}
		img, err := Build(context.Background(), Source{DockerTag: "me/app:1"}, o)
		require.NoError(t, err)
		require.ElementsMatch(t, wantMerged, lines(t, img.SquashFS))
		again, err := Build(context.Background(), build, o)
		require.NoError(t, err)
		require.NotEqual(t, img.SquashFS, again.SquashFS)

		said, err := os.ReadFile(log)
		require.NoError(t, err)
		require.Contains(t, string(said), "create --platform=linux/amd64 me/app:1 true\n")
		require.Contains(t, string(said), "rm container1\n")
		require.Contains(t, string(said), "--build-arg ARCH=x86_64 --build-arg SET=yes --build-arg V=1")
		require.NotContains(t, string(said), "UNSET")
		require.Equal(t, tool == "docker", strings.Contains(string(said), "buildx"))
		require.Equal(t, tool == "podman", strings.Contains(string(said), "rmi -f"))
	}

	t.Setenv("BROKEN", "1")
	_, err := Build(context.Background(), build, Options{Arch: "x86_64", Dir: dir, CacheDir: t.TempDir(), Tool: "docker"})
	require.ErrorIs(t, err, ErrTool)
	require.ErrorContains(t, err, "docker does not work: no engine")
	require.NotContains(t, err.Error(), "Client")
}
