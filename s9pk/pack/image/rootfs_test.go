package image

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestBuildRootfs(t *testing.T) {
	needTool(t, "mksquashfs")
	dir := t.TempDir()
	root := filepath.Join(dir, "root-x86_64")
	require.NoError(t, os.MkdirAll(root+"/opt/app", 0o750))
	require.NoError(t, os.WriteFile(root+"/opt/app/run", []byte("run"), 0o755))
	require.NoError(t, os.Link(root+"/opt/app/run", root+"/opt/app/again"))
	require.NoError(t, os.Symlink("/opt/app/run", root+"/run"))
	require.NoError(t, os.WriteFile(root+"/.wh.plain", nil, 0o600))
	src := Source{Rootfs: "root-{arch}"}
	o := Options{Arch: "x86_64", Dir: dir, CacheDir: t.TempDir(), SourceDate: time.Unix(1700000000, 0)}
	var last Progress
	o.Progress = func(p Progress) { last = p }
	img, err := Build(context.Background(), src, o)
	require.NoError(t, err)
	require.Equal(t, Progress{Phase: "compress", Done: 3, Total: 3}, last)
	require.ElementsMatch(t, []string{
		"-rw------- 0/0 /.wh.plain", "drwxr-xr-x 0/0 /dev", "drwxr-xr-x 0/0 /etc", "-rw-r--r-- 0/0 /etc/hostname",
		"-rw-r--r-- 0/0 /etc/hosts", "-rw-r--r-- 0/0 /etc/resolv.conf", "drwxr-x--- 0/0 /opt", "drwxr-x--- 0/0 /opt/app",
		"-rwxr-xr-x 0/0 /opt/app/again", "-rwxr-xr-x 0/0 /opt/app/run", "drwxr-xr-x 0/0 /proc",
		"lrwxrwxrwx 0/0 /run -> /opt/app/run", "drwxr-xr-x 0/0 /sys", "drwxrwxrwt 0/0 /tmp",
	}, lines(t, img.SquashFS))
	require.Equal(t, `{"workdir":"/","user":"root","entrypoint":null,"cmd":null}`, string(img.Config.JSON()))

	again, err := Build(context.Background(), src, o)
	require.NoError(t, err)
	require.True(t, again.Cached)
	require.NoError(t, os.WriteFile(root+"/opt/app/run", []byte("RUN"), 0o755))
	changed, err := Build(context.Background(), src, o)
	require.NoError(t, err)
	require.False(t, changed.Cached)
	require.NotEqual(t, img.SquashFS, changed.SquashFS)
}

// TestRootfsCopies packs two copies of a tree that were made at different times:
// the same bytes, unless the times are to count.
func TestRootfsCopies(t *testing.T) {
	needTool(t, "mksquashfs")
	copyAt := func(when time.Time) string {
		dir := t.TempDir()
		require.NoError(t, os.MkdirAll(dir+"/usr/bin", 0o755))
		require.NoError(t, os.WriteFile(dir+"/usr/bin/app", []byte("app"), 0o755))
		require.NoError(t, os.Link(dir+"/usr/bin/app", dir+"/usr/bin/same"))
		require.NoError(t, os.WriteFile(dir+"/usr/data", []byte("data"), 0o664))
		require.NoError(t, os.Symlink("usr/bin", dir+"/bin"))
		for _, name := range []string{"/usr/bin/app", "/usr/data", "/usr/bin", "/usr", ""} {
			require.NoError(t, os.Chtimes(dir+name, when, when))
		}
		return dir
	}
	build := func(dir string, keep bool, date time.Time) []byte {
		img, err := Build(context.Background(), Source{Rootfs: dir, KeepTimes: keep},
			Options{Arch: "x86_64", CacheDir: t.TempDir(), SourceDate: date})
		require.NoError(t, err)
		b, err := os.ReadFile(img.SquashFS)
		require.NoError(t, err)
		return b
	}
	one, two := copyAt(time.Unix(1e9, 0)), copyAt(time.Unix(15e8, 7))
	for _, date := range []time.Time{{}, time.Unix(12e8, 0)} {
		require.Equal(t, build(one, false, date), build(two, false, date), date)
		require.NotEqual(t, build(one, true, date), build(two, true, date), date)
	}
	require.NotEqual(t, build(one, false, time.Time{}), build(one, false, time.Unix(12e8, 0)))
}

func TestBuildStops(t *testing.T) {
	needTool(t, "mksquashfs")
	root := t.TempDir()
	require.NoError(t, os.WriteFile(root+"/big", make([]byte, 8<<20), 0o644))
	ctx, cancel := context.WithCancel(context.Background())
	o := Options{Arch: "x86_64", CacheDir: t.TempDir(), Progress: func(Progress) { cancel() }}
	_, err := Build(ctx, Source{Rootfs: root}, o)
	require.ErrorIs(t, err, context.Canceled)
	left, err := os.ReadDir(o.CacheDir)
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestSource(t *testing.T) {
	for text, want := range map[string]Source{
		"oci:a/b":      {OCI: "a/b"},
		"rootfs:/x":    {Rootfs: "/x"},
		"docker:a:b":   {DockerTag: "a:b"},
		"debian:a1,b2": {Debian: &Debian{Packages: []string{"a1", "b2"}}},
	} {
		got, err := ParseSource(text)
		require.NoError(t, err, text)
		require.Equal(t, want, got, text)
	}
	for _, text := range []string{"", "x", "oci:", "debian:-o,x", "debian:a;b", "docker:-v", "debian:UP"} {
		_, err := ParseSource(text)
		require.ErrorIs(t, err, ErrSource, text)
	}
	dir := t.TempDir()
	for text, want := range map[string]string{
		`{"debian":{"packages":["curl"],"suite":"sid"},"user":"app","cmd":["a"]}`: "",
		`{"dockerBuild":{"buildArgs":{"A":"1","B":{"env":"X"}}}}`:                 "",
		`{"oci":"x","rootfs":"y"}`:                                                "names 2",
		`{"debian":{"packages":["a b"]}}`:                                         "not a Debian package name",
		`{"debian":{"packages":["curl"],"suite":"-x"}}`:                           "not a Debian suite",
		`{"debian":{"packages":["curl"],"variant":"x"}}`:                          "not a variant",
		`{"debian":{"packages":[],"variant":"extract"}}`:                          "empty root",
		`{"debian":{"packages":["curl"],"sources":["x"]}}`:                        "not a deb line",
		`{"oci":"x","enw":[]}`:                                                    "unknown field",
		`{"oci":"x","env":["A"]}`:                                                 "not NAME=value",
		`{"dockerBuild":{"buildArgs":{"A":{"file":"/secret"}}}}`:                  "a build argument is",
	} {
		name := filepath.Join(dir, "s.json")
		require.NoError(t, os.WriteFile(name, []byte(text), 0o644))
		_, err := ParseSource(name)
		if want == "" {
			require.NoError(t, err, text)
			continue
		}
		require.ErrorContains(t, err, want, text)
	}
	_, err := Config{Env: []string{"A=1\n2"}}.EnvFile()
	require.ErrorContains(t, err, `"A" holds a line break`)
}

func TestAptSources(t *testing.T) {
	one := parseOneLine("# c\ndeb http://m/debian bookworm main contrib # x\ndeb-src http://m/debian bookworm main\n" +
		"deb [arch=amd64 signed-by=/k.gpg] http://m/s bookworm-security main\ndeb broken\n")
	require.Equal(t, []string{"deb http://m/debian bookworm main contrib", "deb [signed-by=/k.gpg] http://m/s bookworm-security main"},
		[]string{one[0].line(), one[1].line()})
	two := parseDeb822("# c\nTypes: deb deb-src\nURIs: http://m/debian\nSuites: bookworm\n bookworm-updates\nComponents: main\nSigned-By: /k.gpg\n\n" +
		"Types: deb\nEnabled: no\nURIs: http://off\nSuites: x\nComponents: main\n\nTypes: deb\nURIs: http://in\nSuites: x\nComponents: main\nSigned-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n")
	require.Len(t, two, 2)
	require.Equal(t, "deb [signed-by=/k.gpg] http://m/debian bookworm-updates main", two[1].line())

	lists, date := readRelease([]byte("Origin: Debian\nDate: Sat, 21 Nov 2026 09:15:44 UTC\nMD5Sum:\n 00 1 main/binary-amd64/Packages\n"+
		"SHA256:\n aa 10 main/binary-amd64/Packages\n bb 5 main/binary-amd64/Packages.xz\n cc 1 main/binary-all/Packages\n dd 1 contrib/binary-amd64/Packages\n"), "amd64")
	require.Equal(t, "aa cc ", lists)
	require.Equal(t, int64(1795252544), date.Unix())
}
