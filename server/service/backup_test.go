package service_test

import (
	"bytes"
	"context"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/selfstead/selfstead/server/operation"
	"github.com/selfstead/selfstead/server/problem"
	"github.com/stretchr/testify/require"
)

// backup asks for one and returns the problem, nil when there is none.
func (l *lab) backup(ctx context.Context, id, dir string) (*problem.Problem, int) {
	l.t.Helper()
	var answer struct {
		problem.Problem
		Told int
	}
	status, err := l.engine(ctx, "/backup?id="+id+"&dir="+url.QueryEscape(dir), nil, &answer)
	require.NoError(l.t, err)
	if status != 200 {
		return &answer.Problem, answer.Told
	}
	return nil, answer.Told
}

func (l *lab) restore(file []byte, dir string) (op operation.Operation, status int) {
	l.t.Helper()
	status, err := l.engine(l.t.Context(), "/restore?dir="+url.QueryEscape(dir), bytes.NewReader(file), &op)
	if status == 200 {
		require.NoError(l.t, err)
		return l.finish(op.ID), status
	}
	return op, status
}

// A package writes its backup while its service is down, and comes back from it.
func TestBackup(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.start()
	file := first(t, "alpha", 18080)
	l.install(file)
	l.healthy("alpha")
	page := "http://" + serverAddr + ":18080"
	born := l.get(page + "/born")
	dir := t.TempDir()
	p, told := l.backup(t.Context(), "alpha", dir)
	require.Nil(t, p)
	require.Equal(t, 1, told)
	l.healthy("alpha")
	require.NotEqual(t, born, l.get(page+"/born"))
	text, err := os.ReadFile(filepath.Join(dir, "main/ledger"))
	require.NoError(t, err)
	require.Equal(t, ledger, string(text))
	info, err := os.Stat(filepath.Join(dir, "main/ledger"))
	require.NoError(t, err)
	require.Equal(t, [2]uint32{}, ids(info), "ids are the container's own")

	// One that is stopped stays stopped.
	l.json("PUT", "/v1/packages/alpha/desired-state", `{"state":"stopped"}`, 200, nil)
	l.reach("alpha", "stopped")
	second := t.TempDir()
	p, _ = l.backup(t.Context(), "alpha", second)
	require.Nil(t, p)
	l.reach("alpha", "stopped")
	require.FileExists(t, second+"/main/ledger")

	_, status := l.restore(file, dir)
	require.Equal(t, 409, status, "not over what is installed")
	var op operation.Operation
	l.json("DELETE", "/v1/packages/alpha", "", 202, &op)
	require.Equal(t, operation.Succeeded, l.finish(op.ID).Status)

	// A restore that fails leaves nothing.
	op, _ = l.restore(build(t, testPackage{ID: "alpha", Port: 18080, Code: map[string]any{"failRestore": true}}), dir)
	require.Equal(t, "init-failed", op.Problem.Code)
	l.nothingLeft("alpha")
	op, status = l.restore(file, dir)
	require.Equal(t, 200, status)
	require.Equal(t, operation.Succeeded, op.Status, "%+v", op.Problem)
	require.Equal(t, "restore", op.Kind)
	require.Equal(t, "stopped", l.reach("alpha", "stopped").DesiredState)
	require.Equal(t, ledger, l.volume("alpha", "ledger"))
	require.NoFileExists(t, dir+"/trace", "a backup is only read")
	require.Contains(t, l.volume("alpha", "inits"), "install\nrestore\n")
	l.json("PUT", "/v1/packages/alpha/desired-state", `{"state":"running"}`, 200, nil)
	l.healthy("alpha")
}

// A backup that fails, is given up or cut off leaves the service as it was, and
// nobody writing.
func TestFailedBackup(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.start()
	l.install(build(t, testPackage{ID: "alpha", Port: 18080, Code: map[string]any{"failBackup": true}}))
	l.install(build(t, testPackage{ID: "beta", Port: 18081, Code: map[string]any{"hangBackup": true}}))
	l.healthy("alpha")
	l.healthy("beta")
	p, _ := l.backup(t.Context(), "alpha", t.TempDir())
	require.Equal(t, "backup-failed", p.Code)
	require.Contains(t, p.Detail, "backup says no")
	l.healthy("alpha")

	ticks := func(dir string) int64 {
		info, err := os.Stat(dir + "/ticks")
		if err != nil {
			return 0
		}
		return info.Size()
	}
	for _, end := range []string{"cancel", "kill"} {
		dir := t.TempDir()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			var v any
			l.engine(ctx, "/backup?id=beta&dir="+url.QueryEscape(dir), nil, &v)
		}()
		l.await("the backup", 20*time.Second, func() bool { return ticks(dir) > 0 })
		busy, _ := l.backup(t.Context(), "alpha", t.TempDir())
		require.Equal(t, "backup-failed", busy.Code, "others go on")
		if end == "kill" {
			l.kill()
			l.start()
		}
		cancel()
		<-done
		l.healthy("beta")
		before := ticks(dir)
		l.healthy("beta")
		<-time.After(200 * time.Millisecond) // ten ticks
		require.Equal(t, before, ticks(dir), "nobody writes to it any more")
	}
}
