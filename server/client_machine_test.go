package server_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/selfstead/selfstead/server/api"
	"github.com/selfstead/selfstead/server/client"
	"github.com/selfstead/selfstead/server/journal"
	"github.com/selfstead/selfstead/server/problem"
)

// TestClientOfTheMachine: messages, the machine and a terminal by the Go client,
// and lists longer than a page.
func TestClientOfTheMachine(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	ctx := t.Context()
	c, err := client.New(client.Options{URL: l.url, Token: l.token})
	require.NoError(t, err)
	defer c.Close()

	n, err := c.Notify(ctx, api.NewNotification{Level: "warning", Title: "t"})
	require.NoError(t, err)
	list, err := c.Notifications(ctx, client.NotificationQuery{Unread: true, Level: "warning", Limit: 5})
	require.NoError(t, err)
	require.Len(t, list, 1)
	changed, err := c.MarkNotifications(ctx, api.NotificationMarks{NotificationSelection: api.NotificationSelection{IDs: []uint32{n.ID}}, Seen: true})
	require.NoError(t, err)
	assert.Equal(t, 1, changed)
	changed, err = c.DeleteNotifications(ctx, api.NotificationSelection{Through: n.ID})
	require.NoError(t, err)
	assert.Equal(t, 1, changed)
	_, err = c.Notification(ctx, n.ID)
	assert.ErrorIs(t, err, problem.New(0, "not-found", ""))
	d, err := c.SetDelivery(ctx, api.DeliveryChange{Mail: &api.MailDeliveryChange{To: "a@example.org"}})
	require.NoError(t, err)
	assert.Equal(t, "warning", d.Mail.Level)
	assert.ErrorIs(t, c.TestSMTP(ctx, api.SMTPTest{To: "a@example.org"}), problem.New(0, "not-found", ""))

	m, err := c.Metrics(ctx)
	require.NoError(t, err)
	assert.Positive(t, m.Host.CPUs)
	id, err := c.Identity(ctx)
	require.NoError(t, err)
	assert.Equal(t, "stead", id.Hostname)
	gateways, err := c.Gateways(ctx)
	require.NoError(t, err)
	assert.Len(t, gateways, 1)
	var text strings.Builder
	require.NoError(t, c.DownloadLog(ctx, "", &text))
	assert.Contains(t, text.String(), "from the server")
	_, err = c.Shell(ctx, "none", api.ShellOptions{Rows: 1, Cols: 1})
	assert.ErrorIs(t, err, problem.New(0, "not-found", ""))
	conn, err := c.Shell(ctx, "hello-world", api.ShellOptions{Command: []string{"echo", "a b"}, Rows: 5, Cols: 50})
	require.NoError(t, err)
	shown, end := until(t, conn, "")
	assert.Contains(t, shown, "a b")
	assert.Equal(t, &api.ShellExit{}, end.Exit)
	enough := errors.New("enough")
	assert.ErrorIs(t, c.FollowServerLog(ctx, 1, func(journal.Entry) error { return enough }), enough)

	for i := range 250 {
		p := helloWorld
		p.ID = fmt.Sprintf("p%03d", i)
		l.services.mu.Lock()
		l.services.packages[p.ID] = p
		l.services.mu.Unlock()
	}
	packages, err := c.Packages(ctx)
	require.NoError(t, err)
	assert.Len(t, packages, 251, "the client reads every page")
}
