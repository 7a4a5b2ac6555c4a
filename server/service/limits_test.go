package service_test

import (
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/selfstead/selfstead/server/api"
	"github.com/stretchr/testify/require"
)

// Limits change while the service runs, hold inside, and outlive restarts.
func TestLimitsOfARunningService(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.start()
	l.install(build(t, testPackage{ID: "alpha", Port: 18080}))
	l.healthy("alpha")
	page := "http://" + serverAddr + ":18080"
	born := l.get(page + "/born")

	var limits api.PackageLimits
	l.json("GET", "/v1/packages/alpha/limits", "", 200, &limits)
	require.Equal(t, limits.Default, limits.Effective)
	require.Equal(t, api.Limits{}, limits.Set)
	require.GreaterOrEqual(t, *limits.Default.Memory, int64(512<<20), "no service is without a limit")
	require.Equal(t, int64(1<<14), *limits.Default.PIDs)
	require.Equal(t, 100, *limits.Default.CPUWeight)
	require.Equal(t, *limits.Default.Memory, l.limit("memory", "memory.limit_in_bytes", "memory.max"))
	require.Equal(t, int64(1<<14), l.limit("pids", "pids.max", "pids.max"))
	require.Equal(t, "314572800\n", l.get(page+"/eat?mb=300"))

	lower := `{"memory":201326592,"pids":500}`
	l.json("PUT", "/v1/packages/alpha/limits", lower, 200, &limits)
	require.Equal(t, int64(201326592), *limits.Effective.Memory)
	require.Equal(t, int64(500), *limits.Set.PIDs)
	require.Nil(t, limits.Set.CPUWeight)
	inForce := func() {
		t.Helper()
		require.Equal(t, int64(201326592), l.limit("memory", "memory.limit_in_bytes", "memory.max"))
		require.Equal(t, int64(500), l.limit("pids", "pids.max", "pids.max"))
	}
	inForce()
	require.Equal(t, born, l.get(page+"/born"), "nothing was restarted for it")
	l.json("PUT", "/v1/packages/alpha/limits", `{"memory":1}`, 422, nil)
	inForce()

	// The next server knows, a new container has them, and a server that died
	// between the document and the container catches up.
	l.kill()
	l.start()
	l.healthy("alpha")
	inForce()
	require.Equal(t, born, l.get(page+"/born"))
	l.json("POST", "/v1/packages/alpha:restart", "", 202, nil)
	l.await("a restart", 20*time.Second, func() bool {
		now, err := l.fetch(l.lan, page+"/born")
		return err == nil && now != born
	})
	require.Equal(t, "install\n", l.get(page+"/file?path=/data/inits"), "other limits are no other making")
	l.json("POST", "/v1/packages/alpha:rebuild", "", 202, nil)
	l.await("a new container", 20*time.Second, func() bool {
		inits, err := l.fetch(l.lan, page+"/file?path=/data/inits")
		return err == nil && inits == "install\nnull\n"
	})
	inForce()
	l.stop(syscall.SIGINT)
	l.start()
	l.healthy("alpha")
	inForce()

	// It is the service that pays, and it comes back.
	_, err := l.fetch(l.lan, page+"/eat?mb=300")
	require.Error(t, err, "more than it may have")
	l.json("PUT", "/v1/packages/alpha/limits", `{}`, 200, &limits)
	require.Equal(t, limits.Default, limits.Effective)
	l.json("POST", "/v1/packages/alpha:rebuild", "", 202, nil)
	l.await("all it may have by default", 30*time.Second, func() bool {
		body, err := l.fetch(l.lan, page+"/eat?mb=300")
		return err == nil && body == "314572800\n"
	})
	var doc struct{ Value map[string]any }
	l.json("GET", "/v1/state?pointer=/packageData/alpha", "", 200, &doc)
	require.NotContains(t, doc.Value, "limits")
	l.json("GET", "/v1/packages/nix/limits", "", 404, nil)
}

// The owner's mail server reaches services, and so does each change of it, after
// an adoption too.
func TestSystemSMTP(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.start()
	l.install(build(t, testPackage{ID: "alpha", Port: 18080, Code: map[string]any{"smtp": true}}))
	l.healthy("alpha")
	told := func(lines ...string) {
		t.Helper()
		l.await("the news", 10*time.Second, func() bool {
			text, _ := os.ReadFile(l.dir + "/volumes/alpha/data/main/smtp")
			return strings.HasSuffix(string(text), strings.Join(lines, "\n")+"\n")
		})
	}
	told("null")
	one := `{"host":"one.example","port":587,"from":"me@example.org","username":"me","password":"mail secret","security":"starttls"}`
	l.json("PUT", "/v1/system/smtp", one, 200, nil)
	told("null", one)
	l.kill()
	l.start()
	l.healthy("alpha")
	l.json("PUT", "/v1/system/smtp", strings.Replace(one, "587", "465", 1), 200, nil)
	told(strings.Replace(one, "587", "465", 1))
	l.json("DELETE", "/v1/system/smtp", "", 204, nil)
	told("null")
	text, err := os.ReadFile(l.log.Name())
	require.NoError(t, err)
	require.NotContains(t, string(text), "mail secret")
}

// limit reads a limit as the lab's one container sees it.
func (l *lab) limit(controller, v1, v2 string) int64 {
	l.t.Helper()
	pids := l.inits()
	require.Len(l.t, pids, 1)
	root := "/proc/" + strconv.Itoa(pids[0]) + "/root/sys/fs/cgroup/"
	text, err := os.ReadFile(root + controller + "/" + v1)
	if err != nil {
		text, err = os.ReadFile(root + v2)
	}
	require.NoError(l.t, err)
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	require.NoError(l.t, err)
	return n
}
