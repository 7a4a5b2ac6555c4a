package client

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"github.com/coder/websocket"

	"github.com/selfstead/selfstead/server/api"
	"github.com/selfstead/selfstead/server/journal"
)

// NotificationQuery chooses notifications.
type NotificationQuery struct {
	Limit   int // 0 means 40
	Before  uint32
	Unread  bool
	Level   string
	Package string
}

// Notifications lists messages to the owner, the newest first.
func (c *Client) Notifications(ctx context.Context, q NotificationQuery) ([]api.Notification, error) {
	v := url.Values{}
	set := func(name, value string, is bool) {
		if is {
			v.Set(name, value)
		}
	}
	set("limit", strconv.Itoa(q.Limit), q.Limit > 0)
	set("before", strconv.FormatUint(uint64(q.Before), 10), q.Before > 0)
	set("unread", "true", q.Unread)
	set("level", q.Level, q.Level != "")
	set("package", q.Package, q.Package != "")
	return get[[]api.Notification](ctx, c, "/v1/notifications?"+v.Encode())
}

func notification(id uint32, rest string) string {
	return "/v1/notifications/" + strconv.FormatUint(uint64(id), 10) + rest
}

// Notification reads one.
func (c *Client) Notification(ctx context.Context, id uint32) (api.Notification, error) {
	return get[api.Notification](ctx, c, notification(id, ""))
}

// Notify leaves a message to the owner.
func (c *Client) Notify(ctx context.Context, in api.NewNotification) (api.Notification, error) {
	return post[api.Notification](ctx, c, http.MethodPost, "/v1/notifications", in)
}

// MarkNotifications says whether the owner has seen some.
func (c *Client) MarkNotifications(ctx context.Context, in api.NotificationMarks) (int, error) {
	out, err := post[api.Changed](ctx, c, http.MethodPost, "/v1/notifications:mark", in)
	return out.Changed, err
}

// DeleteNotifications deletes some.
func (c *Client) DeleteNotifications(ctx context.Context, in api.NotificationSelection) (int, error) {
	out, err := post[api.Changed](ctx, c, http.MethodPost, "/v1/notifications:delete", in)
	return out.Changed, err
}

// FollowNotifications gives fn each message that comes.
func (c *Client) FollowNotifications(ctx context.Context, fn func(api.Notification) error) error {
	return c.follow(ctx, "/v1/notifications/events", func(ev event) error {
		n, err := as[api.Notification](ev)
		if err != nil {
			return err
		}
		return fn(n)
	})
}

// Delivery reads where messages are sent to.
func (c *Client) Delivery(ctx context.Context) (api.Delivery, error) {
	return get[api.Delivery](ctx, c, "/v1/notification-delivery")
}

// SetDelivery sets it.
func (c *Client) SetDelivery(ctx context.Context, in api.DeliveryChange) (api.Delivery, error) {
	return post[api.Delivery](ctx, c, http.MethodPut, "/v1/notification-delivery", in)
}

// TestSMTP sends one mail.
func (c *Client) TestSMTP(ctx context.Context, in api.SMTPTest) error {
	return c.Call(ctx, http.MethodPost, "/v1/system/smtp:test", in, nil)
}

// Metrics says how busy the server is.
func (c *Client) Metrics(ctx context.Context) (api.Metrics, error) {
	return get[api.Metrics](ctx, c, "/v1/metrics")
}

// Stats says what a package uses.
func (c *Client) Stats(ctx context.Context, id string) (api.PackageStats, error) {
	return get[api.PackageStats](ctx, c, pkg(id, "/stats"))
}

// Subcontainers lists what a package runs beside its own program.
func (c *Client) Subcontainers(ctx context.Context, id string) ([]api.Subcontainer, error) {
	return every[api.Subcontainer](ctx, c, pkg(id, "/subcontainers"))
}

// Identity reads how the server is called.
func (c *Client) Identity(ctx context.Context) (api.Identity, error) {
	return get[api.Identity](ctx, c, "/v1/system/identity")
}

// ChangeIdentity changes how the server is called.
func (c *Client) ChangeIdentity(ctx context.Context, in api.IdentityChange) (api.Identity, error) {
	return post[api.Identity](ctx, c, http.MethodPatch, "/v1/system/identity", in)
}

// Time reads the server's clock.
func (c *Client) Time(ctx context.Context) (api.Clock, error) {
	return get[api.Clock](ctx, c, "/v1/system/time")
}

// SetTimezone sets the machine's time zone.
func (c *Client) SetTimezone(ctx context.Context, name string) (api.Clock, error) {
	return post[api.Clock](ctx, c, http.MethodPut, "/v1/system/timezone", api.Timezone{Timezone: name})
}

// Device says what the machine is.
func (c *Client) Device(ctx context.Context) (api.Device, error) {
	return get[api.Device](ctx, c, "/v1/system/device")
}

// SSHKeys lists the SSH keys that may come in.
func (c *Client) SSHKeys(ctx context.Context) ([]api.SSHKey, error) {
	return every[api.SSHKey](ctx, c, "/v1/ssh-keys")
}

// AddSSHKey lets one more in.
func (c *Client) AddSSHKey(ctx context.Context, line string) (api.SSHKey, error) {
	return post[api.SSHKey](ctx, c, http.MethodPost, "/v1/ssh-keys", api.NewSSHKey{Key: line})
}

// DeleteSSHKey lets one in no more.
func (c *Client) DeleteSSHKey(ctx context.Context, id string) error {
	return c.Call(ctx, http.MethodDelete, "/v1/ssh-keys/"+url.PathEscape(id), nil, nil)
}

// Gateways lists the ways out of the server.
func (c *Client) Gateways(ctx context.Context) ([]api.Gateway, error) {
	return every[api.Gateway](ctx, c, "/v1/gateways")
}

// ServerLog reads one page of the server's own log.
func (c *Client) ServerLog(ctx context.Context, limit int) (journal.Page, error) {
	return get[journal.Page](ctx, c, "/v1/system/logs?limit="+strconv.Itoa(limit))
}

// FollowServerLog gives fn the last entries of the server's own log, and then
// each as it is written.
func (c *Client) FollowServerLog(ctx context.Context, limit int, fn func(journal.Entry) error) error {
	return c.follow(ctx, "/v1/system/logs/events?limit="+strconv.Itoa(limit), func(ev event) error {
		e, err := as[journal.Entry](ev)
		if err != nil {
			return err
		}
		return fn(e)
	})
}

// DownloadLog copies a package's whole log, or the server's own for "".
func (c *Client) DownloadLog(ctx context.Context, id string, w io.Writer) error {
	path := "/v1/system/logs/file"
	if id != "" {
		path = pkg(id, "/logs/file")
	}
	req, err := c.request(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	res, err := c.send(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if _, err := io.Copy(w, res.Body); err != nil {
		return fmt.Errorf("client: log: %w", err)
	}
	return nil
}

// Shell opens a terminal inside a package; see api.ShellMessage for what goes
// over it.
func (c *Client) Shell(ctx context.Context, id string, o api.ShellOptions) (*websocket.Conn, error) {
	v := url.Values{"command": o.Command, "rows": {strconv.Itoa(int(o.Rows))}, "cols": {strconv.Itoa(int(o.Cols))}}
	for name, value := range map[string]string{"user": o.User, "subcontainer": o.Subcontainer, "term": o.Term} {
		if value != "" {
			v.Set(name, value)
		}
	}
	h := http.Header{}
	if c.token != "" {
		h.Set("Authorization", "Bearer "+c.token)
	}
	conn, res, err := websocket.Dial(ctx, c.base+pkg(id, "/shell?"+v.Encode()), &websocket.DialOptions{HTTPClient: c.http, HTTPHeader: h})
	if err != nil {
		if res != nil && res.StatusCode >= 400 {
			return nil, failure(res)
		}
		return nil, fmt.Errorf("client: %w", err)
	}
	conn.SetReadLimit(1 << 20)
	return conn, nil
}
