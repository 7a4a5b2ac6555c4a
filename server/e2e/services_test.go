package e2e

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/selfstead/selfstead/server/service/effect"
	"github.com/stretchr/testify/require"
)

// The pair of example services: a store, and one that keeps its accounts in it.
const (
	vault  = "vault"
	ledger = "ledger"
)

// selfTest runs the tests inside a service and shows each as a test here.
func (a *api) selfTest(t *testing.T, id string) {
	t.Helper()
	var result struct {
		Message string
		Result  struct {
			Type  string
			Value []struct{ Name, Value string }
		}
	}
	a.want(t, 200, "POST", "/v1/packages/"+id+"/actions/self-test/runs", map[string]any{}, &result)
	require.Equal(t, "group", result.Result.Type)
	require.Greater(t, len(result.Result.Value), 8)
	for _, r := range result.Result.Value {
		t.Run(id+": "+r.Name, func(t *testing.T) { require.Equal(t, "ok", r.Value) })
	}
	require.Contains(t, result.Message, "passed")
}

// TestServices installs the pair and lets both test themselves: on a fresh
// server, and on one that took them over. Together they use every effect that
// the SDK offers.
func TestServices(t *testing.T) {
	testPackage(t, "vault")
	l := newLab(t)
	first := startServer(t, l, filepath.Join(t.TempDir(), "state"), "--log-level", "debug")
	a := claim(t, first)
	a.install(t, "vault", vault)
	a.install(t, "ledger", ledger)
	a.selfTest(t, vault)
	a.selfTest(t, ledger)

	// What only the owner does: heed the task, which is done then.
	type taskEntry struct {
		ID     string
		Active bool
	}
	active := func() bool {
		t.Helper()
		var list []taskEntry
		a.want(t, 200, "GET", "/v1/packages/"+ledger+"/tasks", nil, &list)
		i := slices.IndexFunc(list, func(e taskEntry) bool { return e.ID == "vault:configure" })
		return i >= 0 && list[i].Active
	}
	require.True(t, active(), "the vault is smaller than the ledger wants")
	configure := func(id string, input map[string]any) {
		t.Helper()
		a.want(t, 200, "POST", "/v1/packages/"+id+"/actions/configure/runs", map[string]any{"input": input}, nil)
	}
	configure(vault, map[string]any{"title": "Lab", "limit": 10_000})
	eventually(t, 20*time.Second, "the task is done", func() error {
		if active() {
			return fmt.Errorf("still active")
		}
		return nil
	})
	// The page, from another host.
	eventually(t, 30*time.Second, "the report", func() error {
		body, err := get(client(l.lan), a.page(t, ledger, serverAddr))
		if err == nil && !strings.Contains(body, "<dt>welcome</dt>") {
			err = fmt.Errorf("%s", body)
		}
		return err
	})
	// What is read with const restarts the service.
	var before, after struct{ Started string }
	a.want(t, 200, "GET", "/v1/packages/"+ledger, nil, &before)
	configure(ledger, map[string]any{"every": 1, "mail": map[string]any{"selection": "off", "value": map[string]any{}}})
	eventually(t, 30*time.Second, "a restart", func() error {
		a.want(t, 200, "GET", "/v1/packages/"+ledger, nil, &after)
		if after.Started == "" || after.Started == before.Started {
			return fmt.Errorf("started %q", after.Started)
		}
		return nil
	})

	// So does what an action's own description was made from.
	described := func(want string) {
		t.Helper()
		eventually(t, 20*time.Second, "the action says "+want, func() error {
			var list []struct{ ID, Description string }
			a.want(t, 200, "GET", "/v1/packages/"+ledger+"/actions", nil, &list)
			i := slices.IndexFunc(list, func(e struct{ ID, Description string }) bool { return e.ID == "configure" })
			if i < 0 || list[i].Description != want {
				return fmt.Errorf("%+v", list)
			}
			return nil
		})
	}
	described("The report; the server has no outgoing mail yet")
	a.want(t, 200, "PUT", "/v1/system/smtp", map[string]any{"host": "mail.example.org", "port": 587, "from": "me@example.org", "username": "me", "password": "secret"}, nil)
	described("The report, and who gets it")

	// A server that took both over.
	held := containers(t, first.dir)
	first.kill(t)
	a.s = startServer(t, l, first.dir, "--log-level", "debug")
	a.waitState(t, vault, "running")
	a.waitState(t, ledger, "running")
	require.Equal(t, held, containers(t, first.dir))
	a.selfTest(t, vault)
	a.selfTest(t, ledger)

	a.want(t, 200, "POST", "/v1/packages/"+ledger+"/actions/close/runs", map[string]any{}, nil)
	a.waitState(t, ledger, "stopped")

	// Every effect was used, but for those that the SDK has no name for.
	called := map[string]bool{}
	for _, s := range []*server{first, a.s} {
		for _, m := range regexp.MustCompile(`msg=effect .*method=(\S+)`).FindAllStringSubmatch(s.log.String(), -1) {
			called[m[1]] = true
		}
	}
	unnamed := []string{"echo", "git-info", "rebuild", "selfstead.bind-mount"}
	for _, m := range effect.Methods() {
		if !slices.Contains(unnamed, m) {
			require.True(t, called[m], "neither service uses %s", m)
		}
	}
}
