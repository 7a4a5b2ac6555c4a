package logs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func write(t *testing.T, path string, from, n int) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	require.NoError(t, err)
	defer f.Close()
	for i := from; i < from+n; i++ {
		b, err := json.Marshal(map[string]any{"t": start.Add(time.Duration(i) * time.Second), "s": "stdout", "m": fmt.Sprintf("line %d ä", i)})
		require.NoError(t, err)
		_, err = f.Write(append(b, '\n'))
		require.NoError(t, err)
	}
}

func messages(p Page) (out []string) {
	for _, e := range p.Entries {
		out = append(out, strings.TrimSuffix(strings.TrimPrefix(e.Message, "line "), " ä"))
	}
	return out
}

// three files of 10 lines each: 0-9, 10-19, 20-29.
func rotated(t *testing.T) (*Log, string) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "service.log.2"), 0, 10)
	write(t, filepath.Join(dir, "service.log.1"), 10, 10)
	write(t, filepath.Join(dir, "service.log"), 20, 10)
	return Open(dir, "service.log"), dir
}

func TestReadPagesAcrossFilesInBothDirections(t *testing.T) {
	t.Parallel()
	l, _ := rotated(t)
	p, err := l.Read(Query{Limit: 7})
	require.NoError(t, err)
	require.Equal(t, []string{"23", "24", "25", "26", "27", "28", "29"}, messages(p))
	var back []string
	for cursor := p.StartCursor; ; {
		q, err := l.Read(Query{Limit: 7, Cursor: cursor, Before: true})
		require.NoError(t, err)
		if len(q.Entries) == 0 {
			break
		}
		back = append(messages(q), back...)
		cursor = q.StartCursor
	}
	require.Len(t, back, 23)
	require.Equal(t, "0", back[0])
	require.Equal(t, "22", back[22])

	first, err := l.Read(Query{Limit: 1, Cursor: "0.0"})
	require.NoError(t, err)
	require.Equal(t, []string{"0"}, messages(first))
	all := 1
	for cursor := first.EndCursor; ; {
		q, err := l.Read(Query{Limit: 4, Cursor: cursor})
		require.NoError(t, err)
		if len(q.Entries) == 0 {
			break
		}
		require.Equal(t, fmt.Sprint(all), messages(q)[0])
		all += len(q.Entries)
		cursor = q.EndCursor
	}
	require.Equal(t, 30, all)
}

func TestCursorSurvivesRotation(t *testing.T) {
	t.Parallel()
	l, dir := rotated(t)
	p, err := l.Read(Query{Limit: 3})
	require.NoError(t, err)
	require.NoError(t, os.Rename(filepath.Join(dir, "service.log.1"), filepath.Join(dir, "service.log.3")))
	require.NoError(t, os.Rename(filepath.Join(dir, "service.log"), filepath.Join(dir, "service.log.1")))
	write(t, filepath.Join(dir, "service.log"), 30, 2)
	q, err := l.Read(Query{Cursor: p.EndCursor})
	require.NoError(t, err)
	require.Equal(t, []string{"30", "31"}, messages(q))
}

// A writer that rotates after every line, while a reader looks: each line is seen
// once and in order, whatever the two meet in.
func TestReadWhileRotating(t *testing.T) {
	t.Parallel()
	const lines = 2000
	dir := t.TempDir()
	name := func(i int) string {
		if i == 0 {
			return filepath.Join(dir, "service.log")
		}
		return filepath.Join(dir, fmt.Sprintf("service.log.%d", i))
	}
	write(t, name(0), 0, 1)
	wrote := make(chan struct{})
	go func() {
		defer close(wrote)
		for n := 1; n < lines; n++ {
			for i := min(n, 4); i > 0; i-- {
				if err := os.Rename(name(i-1), name(i)); err != nil {
					t.Error(err)
					return
				}
			}
			write(t, name(0), n, 1)
		}
	}()
	l := Open(dir, "service.log")
	for looks := 0; ; looks++ {
		over := false
		select {
		case <-wrote:
			over = true
		default:
		}
		p, err := l.Read(Query{Limit: 10})
		require.NoError(t, err)
		last := -1
		for _, m := range messages(p) {
			var n int
			_, err := fmt.Sscan(m, &n)
			require.NoError(t, err)
			require.Greater(t, n, last, "look %d: %v", looks, messages(p))
			last = n
		}
		if over {
			require.Equal(t, lines-1, last)
			return
		}
	}
}

func TestHostileFilesArePassedOver(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	secret := filepath.Join(t.TempDir(), "secret")
	write(t, secret, 0, 1)
	require.NoError(t, os.Symlink(secret, filepath.Join(dir, "service.log.1")))
	require.NoError(t, syscall.Mkfifo(filepath.Join(dir, "service.log.2"), 0o644))
	bad := []byte("no json\n{\"t\":\"never\"}\n" + `{"t":"2026-01-01T00:00:00Z","m":"` + strings.Repeat("x", MaxLine) + "\"}\n")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "service.log"), bad, 0o644))
	write(t, filepath.Join(dir, "service.log"), 5, 1)
	p, err := Open(dir, "service.log").Read(Query{})
	require.NoError(t, err)
	require.Equal(t, []string{"5"}, messages(p))
	p, err = Open(dir, "service.log").Read(Query{Cursor: "0.0"})
	require.NoError(t, err)
	require.Equal(t, []string{"5"}, messages(p))
	_, err = Open(dir, "service.log").Read(Query{Cursor: "x"})
	require.ErrorIs(t, err, ErrCursor)
}

func TestEmptyLog(t *testing.T) {
	t.Parallel()
	p, err := Open(filepath.Join(t.TempDir(), "none"), "x").Read(Query{})
	require.NoError(t, err)
	require.Equal(t, Page{Entries: []Entry{}}, p)
}

func TestFollowHearsEachLineOnceAcrossRotation(t *testing.T) {
	t.Parallel()
	l, dir := rotated(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	heard := make(chan string)
	done := make(chan error, 1)
	go func() {
		done <- l.Follow(ctx, "", 2, func(e Entry) error {
			select {
			case heard <- messages(Page{Entries: []Entry{e}})[0]:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	expect := func(want ...string) {
		t.Helper()
		for _, w := range want {
			select {
			case got := <-heard:
				require.Equal(t, w, got)
			case err := <-done:
				t.Fatalf("follow ended: %v", err)
			}
		}
	}
	expect("28", "29")
	write(t, filepath.Join(dir, "service.log"), 30, 2)
	expect("30", "31")
	for _, mv := range [][2]string{{".2", ".3"}, {".1", ".2"}, {"", ".1"}} {
		require.NoError(t, os.Rename(filepath.Join(dir, "service.log"+mv[0]), filepath.Join(dir, "service.log"+mv[1])))
	}
	write(t, filepath.Join(dir, "service.log"), 32, 3)
	expect("32", "33", "34")
	cancel()
	require.True(t, errors.Is(<-done, context.Canceled))
}
