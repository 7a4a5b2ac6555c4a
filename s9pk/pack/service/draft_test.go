package service

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/selfstead/selfstead/s9pk/pack/image"
)

func TestDraft(t *testing.T) {
	t.Parallel()
	d := Draft{ID: "app", Source: image.Source{OCI: "../app.tar"}, About: image.About{
		Config: image.Config{User: "1000:1000", Entrypoint: []string{"/app"}, Cmd: []string{"serve", "--x=y z"}},
		Arch:   []string{"x86_64", "aarch64"},
		Ports: []image.Port{{Number: 22, Protocol: "tcp"}, {Number: 53, Protocol: "tcp"}, {Number: 53, Protocol: "udp"}, {Number: 443, Protocol: "tcp"},
			{Number: 3000, Protocol: "tcp"}, {Number: 4000, Protocol: "tcp"}, {Number: 5000, Protocol: "udp"}},
		Volumes: []string{"/data", "/var/lib/app", "/"},
		Labels: map[string]string{"org.opencontainers.image.title": `The "App"`, "org.opencontainers.image.version": "v1.22.3-rootless",
			"org.opencontainers.image.licenses": "MIT", "org.opencontainers.image.description": "Does: it\nall # and more", "org.opencontainers.image.source": "https://example.org/app"},
	}}
	text, err := d.YAML()
	require.NoError(t, err)
	s, err := Parse("service.yaml", text)
	require.NoError(t, err, "%s", text)
	require.Equal(t, `The "App"`, s.Title)
	require.Equal(t, "1.22.3:0", s.Version)
	require.Equal(t, "MIT", s.License)
	require.Equal(t, `"Does: it all # and more"`, string(s.Description.Long))
	require.Equal(t, "https://example.org/app", s.Links.Upstream)
	require.Equal(t, image.Source{OCI: "../app.tar"}, s.Sources()["main"])
	require.Equal(t, []string{"x86_64", "aarch64"}, s.Images[0].Value.Arch)
	require.Equal(t, []string{"port-22", "port-53", "port-443", "ui", "port-4000", "port-5000"}, s.Interfaces.IDs())
	protocols := []string{}
	for _, e := range s.Interfaces {
		protocols = append(protocols, e.Value.Protocol)
	}
	require.Equal(t, []string{"ssh", "dns", "https", "http", "tcp", "udp"}, protocols)
	p, _ := s.Processes.Get("main")
	require.Nil(t, p.Command, "the image's own")
	require.Equal(t, []Mount{{At: "/data", Volume: "main", Path: "data"}, {At: "/var/lib/app", Volume: "main", Path: "var-lib-app"}}, p.Mounts)
	own, _ := s.Processes.Get("own")
	require.Equal(t, []string{"chown", "1000:1000", "/data", "/var/lib/app"}, own.Command.Args)
	require.Equal(t, "root", own.User)

	// What says nothing of itself.
	_, err = (&Draft{ID: "app", Source: image.Source{OCI: "x"}}).YAML()
	require.ErrorContains(t, err, "the image says no command")
	for _, word := range []string{"true", "1.0", "a: b", "null", "- x", "{}", "ü", "x\ty", "@x", "`x`", "*x", "&x", "!x", "yes no", "#"} {
		text, err := (&Draft{ID: "app", Title: word, Source: image.Source{OCI: word}, Command: []string{word}, Web: 80}).YAML()
		require.NoError(t, err)
		s, err := Parse("service.yaml", text)
		require.NoError(t, err)
		require.Equal(t, word, s.Title)
		require.Equal(t, []string{word}, s.Processes[0].Value.Command.Args)
		require.Equal(t, word, s.Sources()["main"].OCI)
	}
}
