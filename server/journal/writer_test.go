package journal

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/selfstead/selfstead/lxcrt/logs"
)

// TestWriter: what is written is read, after a death in the middle of a line
// too, and takes bounded room.
func TestWriter(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "server.log")
	w, err := NewWriter(dir, "server.log")
	require.NoError(t, err)
	fmt.Fprintln(w, "one\ttwo")
	require.NoError(t, w.Close())
	require.NoError(t, w.Close())
	_, err = fmt.Fprintln(w, "late")
	require.ErrorIs(t, err, os.ErrClosed)
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = f.WriteString(`{"t":"2026`)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	w, err = NewWriter(dir, "server.log")
	require.NoError(t, err)
	fmt.Fprintln(w, "three")
	page, err := logs.Open(dir, "server.log").Read(Query{})
	require.NoError(t, err)
	require.Len(t, page.Entries, 2)
	assert.Equal(t, "one\ttwo", page.Entries[0].Message)
	assert.Equal(t, "three", page.Entries[1].Message)

	w.max = 1000
	for i := range 200 {
		fmt.Fprintf(w, "%d %s\n", i, strings.Repeat("x", 50))
	}
	files, err := filepath.Glob(path + "*")
	require.NoError(t, err)
	assert.Len(t, files, oldFiles+1)
	for _, file := range files {
		info, err := os.Stat(file)
		require.NoError(t, err)
		assert.LessOrEqual(t, info.Size(), int64(1000))
	}
	page, err = logs.Open(dir, "server.log").Read(Query{Limit: 1})
	require.NoError(t, err)
	assert.True(t, strings.HasPrefix(page.Entries[0].Message, "199 "))
	require.NoError(t, w.Close())
}
