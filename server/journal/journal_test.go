package journal

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// The name is the guest program's; reading has its tests in package logs.
func TestOpenReadsWhatTheGuestWrites(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "service.log"), []byte(`{"t":"2026-01-02T03:04:05.000000006Z","s":"stderr","m":"new"}`+"\n"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "service.log.1"), []byte(`{"t":"2026-01-02T03:04:04Z","s":"stdout","m":"old"}`+"\n"), 0o600))
	p, err := Open(dir).Read(Query{})
	require.NoError(t, err)
	require.Len(t, p.Entries, 2)
	require.Equal(t, "old", p.Entries[0].Message)
	require.Equal(t, "stderr", p.Entries[1].Stream)
}
