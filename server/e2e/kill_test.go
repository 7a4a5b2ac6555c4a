package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestKilledAnywhere ends the server by SIGKILL during each step of a life and
// starts it again: the package is installed and as desired, or not there at all.
func TestKilledAnywhere(t *testing.T) {
	owner := t // of every server: one outlives the step that starts it
	l := newLab(t)
	dir := filepath.Join(t.TempDir(), "state")
	s := startServer(owner, l, dir)
	a := claim(t, s)
	restart := func(t *testing.T) {
		t.Helper()
		s.kill(t)
		s = startServer(owner, l, dir)
		a.s = s // the session outlives the server
	}
	exists := func(t *testing.T) bool {
		r, err := a.do(context.Background(), "GET", "/v1/packages/"+example, nil)
		require.NoError(t, err)
		drain(r.Body)
		require.Contains(t, []int{200, 404}, r.StatusCode)
		return r.StatusCode == 200
	}
	clean := func(t *testing.T) {
		t.Helper()
		require.Empty(t, leftovers(t, l, dir, example))
		requireEmpty(t, dir, "after the end")
	}

	t.Run("half-way through an upload", func(t *testing.T) {
		f, err := os.Open(os.Getenv("STEAD_EXAMPLE"))
		require.NoError(t, err)
		defer f.Close()
		gate := &gatedReader{f: f, at: fileSize(t, f.Name()) / 2, open: make(chan struct{})}
		done := make(chan struct{})
		go func() {
			defer close(done)
			if r, err := a.do(context.Background(), "POST", "/v1/packages:sideload", gate); err == nil {
				drain(r.Body)
			}
		}()
		eventually(t, 20*time.Second, "bytes have come", func() error {
			list, err := os.ReadDir(filepath.Join(dir, "uploads"))
			if err == nil && len(list) == 0 {
				err = fmt.Errorf("no upload")
			}
			return err
		})
		s.kill(t)
		close(gate.open)
		<-done
		s = startServer(owner, l, dir)
		a.s = s
		require.False(t, exists(t))
		clean(t)
	})

	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	for round := range 3 {
		t.Run(fmt.Sprintf("while it installs, %d", round), func(t *testing.T) {
			f, err := os.Open(os.Getenv("STEAD_EXAMPLE"))
			require.NoError(t, err)
			defer f.Close()
			var o operation
			a.want(t, 202, "POST", "/v1/packages:sideload", f, &o)
			<-time.After(time.Duration(rnd.IntN(1200)) * time.Millisecond) // the moment is what is random here
			restart(t)
			if exists(t) {
				a.waitState(t, example, "running")
				var o operation
				a.want(t, 202, "DELETE", "/v1/packages/"+example, nil, &o)
				_, last := a.follow(t, o.ID)
				require.Equal(t, "succeeded", last.Status)
			}
			clean(t)
		})
	}

	_, last := a.sideload(t, os.Getenv("STEAD_EXAMPLE"))
	require.Equal(t, "succeeded", last.Status, "%+v", last.Problem)
	a.waitState(t, example, "running")
	page := func(t *testing.T) {
		t.Helper()
		eventually(t, 20*time.Second, "the page", func() error {
			_, err := get(client(l.lan), a.page(t, example, serverAddr))
			return err
		})
	}

	t.Run("while it runs", func(t *testing.T) {
		url := a.page(t, example, serverAddr)
		_, before := inside(t, l, dir)
		s.kill(t)
		_, err := get(client(l.lan), url)
		require.NoError(t, err, "the service goes on without the server")
		s = startServer(owner, l, dir)
		a.s = s
		a.waitState(t, example, "running")
		_, after := inside(t, l, dir)
		require.Equal(t, before, after, "the container was taken over")
		page(t)
	})

	t.Run("while it stops", func(t *testing.T) {
		a.want(t, 200, "PUT", "/v1/packages/"+example+"/desired-state", map[string]string{"state": "stopped"}, nil)
		restart(t)
		a.waitState(t, example, "stopped")
	})

	t.Run("while it starts", func(t *testing.T) {
		a.want(t, 200, "PUT", "/v1/packages/"+example+"/desired-state", map[string]string{"state": "running"}, nil)
		restart(t)
		a.waitState(t, example, "running")
		page(t)
	})

	t.Run("while it restarts", func(t *testing.T) {
		a.want(t, 202, "POST", "/v1/packages/"+example+":restart", nil, nil)
		restart(t)
		a.waitState(t, example, "running")
		page(t)
	})

	t.Run("handed over by SIGTERM", func(t *testing.T) {
		url := a.page(t, example, serverAddr)
		s.signal(syscall.SIGTERM)
		require.True(t, s.ended(30*time.Second))
		_, err := get(client(l.lan), url)
		require.NoError(t, err)
		s = startServer(owner, l, dir)
		a.s = s
		a.waitState(t, example, "running")
		page(t)
	})

	t.Run("stopped by SIGINT and started again", func(t *testing.T) {
		_, name := inside(t, l, dir)
		s.stop(t)
		for _, line := range leftovers(t, l, filepath.Join(dir, "none"), name) {
			t.Error(line)
		}
		s = startServer(owner, l, dir)
		a.s = s
		a.waitState(t, example, "running")
		page(t)
	})

	t.Run("while it is removed", func(t *testing.T) {
		_, name := inside(t, l, dir)
		var o json.RawMessage
		a.want(t, 202, "DELETE", "/v1/packages/"+example, nil, &o)
		restart(t)
		eventually(t, 60*time.Second, "the removal is finished", func() error {
			if exists(t) {
				return fmt.Errorf("still there")
			}
			return nil
		})
		clean(t)
		require.Empty(t, leftovers(t, l, dir, name))
	})
}
