package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/selfstead/selfstead/s9pk/s9pktest"
)

// terminal returns the two ends of a pseudoterminal.
func terminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	t.Cleanup(func() { master.Close() })
	require.NoError(t, unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	require.NoError(t, err)
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	t.Cleanup(func() { slave.Close() })
	require.NoError(t, unix.IoctlSetWinsize(int(slave.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 100}))
	return master, slave
}

// TestS9pkProgress has long work on a terminal: a bar is drawn while it goes on,
// and is gone at the end.
func TestS9pkProgress(t *testing.T) {
	content := make([]byte, 6<<20)
	_, err := rand.Read(content)
	require.NoError(t, err)
	p := packageFile(t, s9pktest.Spec{Files: map[string][]byte{"assets.squashfs": content}})
	b, err := os.ReadFile(p)
	require.NoError(t, err)
	seen := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"x"`)
		http.ServeContent(&slowly{ResponseWriter: w, until: seen, after: 3 << 20}, r, "", time.Time{}, bytes.NewReader(b))
	}))
	defer srv.Close()

	master, slave := terminal(t)
	screen := make(chan string, 1)
	go func() {
		var all strings.Builder
		var once sync.Once
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf)
			all.Write(buf[:n])
			// half a bar, with what is done of how much
			if text := all.String(); strings.Contains(text, "verify ") && strings.Contains(text, "━─") && strings.Contains(text, " / 6.") {
				once.Do(func() { close(seen) })
			}
			if err != nil || strings.HasSuffix(all.String(), "END") {
				once.Do(func() { close(seen) })
				screen <- all.String()
				return
			}
		}
	}()
	cmd := newS9pkCommand()
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(slave)
	cmd.SetArgs([]string{"verify", srv.URL + "/p.s9pk"})
	require.NoError(t, cmd.ExecuteContext(context.Background()))
	require.Equal(t, "ok\n", out.String())
	_, err = slave.WriteString("END")
	require.NoError(t, err)
	drawn := <-screen
	require.Contains(t, drawn, "verify ")
	require.Contains(t, drawn, "━─")
	require.Contains(t, drawn, "MiB / 6.0 MiB")
}

// slowly stops in the middle of a long answer until it may go on.
type slowly struct {
	http.ResponseWriter
	until chan struct{}
	after int
	n     int
}

func (s *slowly) Write(p []byte) (int, error) {
	if s.n > s.after {
		s.ResponseWriter.(http.Flusher).Flush()
		<-s.until
	}
	s.n += len(p)
	return s.ResponseWriter.Write(p)
}
