package guest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

type entry struct {
	T time.Time `json:"t"`
	S string    `json:"s"`
	M string    `json:"m"`
}

func readLog(t *testing.T, path string) []entry {
	t.Helper()
	data, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		return nil
	}
	require.NoError(t, err)
	var list []entry
	for line := range bytes.Lines(data) {
		if !bytes.HasSuffix(line, []byte("\n")) {
			break // being written
		}
		var e entry
		require.NoError(t, json.Unmarshal(line, &e), "%s", line)
		list = append(list, e)
	}
	return list
}

func messages(list []entry) string {
	var b strings.Builder
	for _, e := range list {
		b.WriteString(e.S + ": " + e.M + "\n")
	}
	return b.String()
}

func TestLogRotation(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l, err := openLog(dir)
	require.NoError(t, err)
	l.limit = 400
	l.now = func() time.Time { return time.Unix(1, 5).UTC() }
	for i := range 40 {
		l.write("stdout", []byte(strings.Repeat("x", 20)+string(rune('a'+i%26))))
	}
	require.NoError(t, l.close())
	for _, name := range []string{logName, logName + ".1", logName + ".2", logName + ".3"} {
		st, err := os.Stat(filepath.Join(dir, name))
		require.NoError(t, err, name)
		assert.LessOrEqual(t, st.Size(), int64(400))
		readLog(t, filepath.Join(dir, name))
	}
	list, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Len(t, list, 4)
	b, err := os.ReadFile(filepath.Join(dir, logName))
	require.NoError(t, err)
	assert.True(t, bytes.HasPrefix(b, []byte(`{"t":"1970-01-01T00:00:01.000000005Z","s":"stdout","m":"xxxx`)), "%s", b)
}

// Both streams write at once; every line stays whole.
func TestLogConcurrent(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l, err := openLog(dir)
	require.NoError(t, err)
	ending := make(chan struct{})
	var writers sync.WaitGroup
	dones := map[string]chan struct{}{"stdout": make(chan struct{}), "stderr": make(chan struct{})}
	for stream, done := range dones {
		r, w, err := openPipe()
		require.NoError(t, err)
		go l.carry(stream, r, done, ending)
		writers.Go(func() {
			defer w.Close()
			for i := range 500 {
				fmt.Fprintf(w, "%s %d\n", stream, i)
			}
			fmt.Fprint(w, stream+" ends")
		})
	}
	writers.Wait()
	for _, done := range dones {
		<-done
	}
	require.NoError(t, l.close())
	list := readLog(t, filepath.Join(dir, logName))
	assert.Len(t, list, 2*501)
	for _, e := range list {
		assert.True(t, strings.HasPrefix(e.M, e.S), "%+v", e)
	}
	assert.Contains(t, messages(list), "stdout ends\n")
}

// A line torn by a kill is closed; later lines stay readable.
func TestLogTornTail(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, logName), []byte(`{"t":"20`), 0o600))
	l, err := openLog(dir)
	require.NoError(t, err)
	l.write("stderr", []byte("after \"quoted\" \xff"))
	require.NoError(t, l.close())
	b, err := os.ReadFile(filepath.Join(dir, logName))
	require.NoError(t, err)
	torn, rest, _ := strings.Cut(string(b), "\n")
	assert.Equal(t, `{"t":"20`, torn)
	assert.Contains(t, rest, `"m":"after \"quoted\" \ufffd"`)
}

// What cannot be written is counted and reported once writing works again.
func TestLogLoses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l, err := openLog(dir)
	require.NoError(t, err)
	good := l.f
	bad, err := os.Open(filepath.Join(dir, logName)) // read-only: writes fail
	require.NoError(t, err)
	defer bad.Close()
	l.f = bad
	l.write("stdout", []byte("one"), []byte("two"))
	l.write("stdout", []byte("three"))
	l.f = good
	l.write("stdout", []byte("four"))
	require.NoError(t, l.close())
	list := readLog(t, filepath.Join(dir, logName))
	require.Len(t, list, 2)
	assert.Equal(t, "guest: 3 log lines could not be written", list[0].M)
	assert.Equal(t, "four", list[1].M)
}

func TestLineSplitter(t *testing.T) {
	t.Parallel()
	var s lineSplitter
	var got []string
	feed := func(p string) {
		for _, l := range s.feed([]byte(p)) {
			got = append(got, string(l))
		}
	}
	feed("a\nb\r\n\nc")
	feed("d\n")
	feed("tail")
	assert.Equal(t, []string{"a", "b", "", "cd"}, got)
	assert.Equal(t, "tail", string(s.flush()))
	assert.Nil(t, s.flush())

	got = nil
	long := strings.Repeat("x", maxLine-1) + "é" + "rest" // é straddles the limit
	feed(long + "\n")
	assert.Equal(t, []string{strings.Repeat("x", maxLine-1), "érest"}, got)

	got = nil
	feed(strings.Repeat("\xff", 3*maxLine) + "\n")
	total := 0
	for _, l := range got {
		assert.LessOrEqual(t, len(l), maxLine)
		total += len(l)
	}
	assert.Equal(t, 3*maxLine, total)

	// However a text is cut into chunks, the lines are the same.
	text := "α\nβγ\n\nδ" + strings.Repeat("é", maxLine) + "\nend\n"
	var want []string
	var w lineSplitter
	for _, l := range w.feed([]byte(text)) {
		want = append(want, string(l))
	}
	for _, size := range []int{1, 2, 3, 7, 1000} {
		s, got = lineSplitter{}, nil
		for i := 0; i < len(text); i += size {
			feed(text[i:min(i+size, len(text))])
		}
		assert.Equal(t, want, got, size)
	}
}
