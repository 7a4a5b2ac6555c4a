package server_test

import (
	"crypto/ed25519"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/ssh"

	"github.com/selfstead/selfstead/server/api"
)

func TestMachine(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	assert.Contains(t, l.do("user", "GET", "/v1/system/identity", "").body, `"name":"stead"`)
	a := l.do("user", "PATCH", "/v1/system/identity", `{"name":"Home"}`)
	assert.Equal(t, 200, a.status, a.body)
	assert.Contains(t, a.body, `"name":"Home"`)
	a = l.do("user", "PATCH", "/v1/system/identity", `{"hostname":"attic"}`)
	assert.Equal(t, 409, a.status)
	assert.Equal(t, "not-managed", a.code())
	assert.Equal(t, 422, l.do("user", "PATCH", "/v1/system/identity", `{"hostname":"-"}`).status)
	assert.NotEmpty(t, decode[api.Clock](t, l.do("user", "GET", "/v1/system/time", "").body).Timezone)
	assert.Equal(t, 422, l.do("user", "PUT", "/v1/system/timezone", `{"timezone":"../../etc/passwd"}`).status)
	assert.Positive(t, decode[api.Device](t, l.do("user", "GET", "/v1/system/device", "").body).Memory)

	pub, err := ssh.NewPublicKey(ed25519.PublicKey(make([]byte, ed25519.PublicKeySize)))
	require.NoError(t, err)
	line := string(ssh.MarshalAuthorizedKey(pub))
	a = l.do("user", "POST", "/v1/ssh-keys", `{"key":"`+line[:len(line)-1]+`"}`)
	require.Equal(t, 201, a.status, a.body)
	text, err := os.ReadFile(l.keys)
	require.NoError(t, err)
	assert.Contains(t, string(text), line)
	at := a.header.Get("Location")
	assert.Equal(t, 200, l.do("user", "GET", at, "").status)
	assert.Len(t, decode[[]api.SSHKey](t, l.do("user", "GET", "/v1/ssh-keys", "").body), 1)
	assert.Equal(t, 204, l.do("user", "DELETE", at, "").status)
	assert.Equal(t, 404, l.do("user", "DELETE", at, "").status)
	assert.Equal(t, 422, l.do("user", "POST", "/v1/ssh-keys", `{"key":"this is not a key"}`).status)

	gateways := decode[[]api.Gateway](t, l.do("user", "GET", "/v1/gateways", "").body)
	require.Len(t, gateways, 1)
	assert.Equal(t, "eth0", gateways[0].ID)
	assert.Equal(t, 404, l.do("user", "GET", "/v1/gateways/none", "").status)
	assert.Equal(t, 200, l.do("user", "GET", "/v1/gateways/eth0", "").status)

	a = l.do("user", "GET", "/v1/system/logs?limit=5", "")
	require.Equal(t, 200, a.status, a.body)
	assert.Contains(t, a.body, "from the server")
	assert.Equal(t, 422, l.do("user", "GET", "/v1/system/logs?cursor=x", "").status)
	e := l.open("user", "/v1/system/logs/events?limit=1")
	ev, err := e.read()
	require.NoError(t, err)
	assert.Contains(t, ev.data, "from the server")
	assert.Equal(t, 401, l.do("guest", "GET", "/v1/system/logs", "").status)
}

// TestLogFilter: what is asked for is found, page by page, and downloaded.
func TestLogFilter(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	for _, line := range []string{
		`{"t":"2026-01-02T03:04:05Z","s":"stdout","m":"one"}`, `{"t":"2026-01-02T03:04:06Z","s":"stderr","m":"two"}`,
		`{"t":"2026-01-02T03:04:07Z","s":"stdout","m":"three"}`, `{"t":"2026-01-02T03:04:08Z","s":"stderr","m":"four"}`,
	} {
		require.NoError(t, l.services.log("hello-world", line))
	}
	const path = "/v1/packages/hello-world/logs"
	a := l.do("user", "GET", path+"/file?stream=stderr&since=2026-01-02T03:04:07Z", "")
	require.Equal(t, 200, a.status, a.body)
	assert.Equal(t, "2026-01-02T03:04:08Z stderr four\n", a.body)
	assert.Contains(t, a.header.Get("Content-Disposition"), "hello-world.log")
	assert.Equal(t, "2026-01-02T03:04:05Z stdout one\n2026-01-02T03:04:06Z stderr two\n", l.do("user", "GET", path+"/file?until=2026-01-02T03:04:07Z", "").body)
	assert.Contains(t, l.do("user", "GET", path+"/file?contains=hree&format=json", "").body, `"message":"three"`)
	assert.Equal(t, 422, l.do("user", "GET", path+"/file?since=yesterday", "").status)
	assert.Equal(t, 404, l.do("user", "GET", "/v1/packages/none/logs/file", "").status)
	e := l.open("user", path+"/events?limit=50&stream=stderr&contains=o")
	for _, want := range []string{"two", "four"} {
		ev, err := e.read()
		require.NoError(t, err)
		assert.Contains(t, ev.data, want)
	}
}
