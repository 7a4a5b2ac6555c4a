package main

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestWatched(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]bool{
		"service.yaml": true, "files/usr/bin/app": true, "startos/main.ts": true, "assets/javascript/x.js": true, ".": true,
		"app.s9pk": false, "node_modules/x/y": false, "javascript/index.js": false, ".git/HEAD": false, "a/.cache/b": false,
		"service.yaml~": false, ".service.yaml.swp": false, "4913": false, "package-lock.json": false,
	} {
		require.Equal(t, want, watched(path, true), path)
	}
	require.True(t, watched("javascript/index.js", false), "a bundle that is not built here")
}

// Many changes are one, new folders are watched, and what does not count wakes
// nobody.
func TestWatch(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	put := func(name string) {
		t.Helper()
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(name), 0o600))
	}
	put("service.yaml")
	ctx, cancel := context.WithCancel(t.Context())
	changes, err := watch(ctx, dir, time.Second)
	require.NoError(t, err)
	next := func() (string, bool) {
		t.Helper()
		select {
		case name, ok := <-changes:
			return name, ok
		case <-time.After(30 * time.Second):
			t.Fatal("no change heard of")
			return "", false
		}
	}
	for range 20 {
		put("service.yaml")
	}
	name, _ := next()
	require.Equal(t, "service.yaml", name)
	put("app.s9pk")
	put("files/etc/conf") // the folder may be new when the file is there already
	name, _ = next()
	require.Contains(t, []string{"files", "files/etc", "files/etc/conf"}, name)
	put("files/etc/conf")
	name, _ = next()
	require.Equal(t, "files/etc/conf", name)
	require.Empty(t, changes, "one change for many writes, none for the package")
	cancel()
	for ok := true; ok; {
		_, ok = next()
	}
}
