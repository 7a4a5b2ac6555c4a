package server_test

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A connection on which nothing was ever said does not hold up the end.
func TestShutdownDoesNotWaitForSilentConnections(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	c, err := net.Dial("tcp", strings.TrimPrefix(l.url, "http://"))
	require.NoError(t, err)
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second) // net/http alone would wait for five
	defer cancel()
	require.NoError(t, l.server.Shutdown(ctx))
	require.NoError(t, c.SetReadDeadline(time.Now().Add(10*time.Second)))
	_, err = c.Read(make([]byte, 1))
	require.Error(t, err)
}
