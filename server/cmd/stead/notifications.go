package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/selfstead/selfstead/server/api"
	"github.com/selfstead/selfstead/server/client"
)

// newNotificationsCommand is `stead notifications`.
func newNotificationsCommand() *cobra.Command {
	t := &target{}
	var q client.NotificationQuery
	follow := false
	cmd := t.api("notifications", "List the messages to the owner", cobra.NoArgs, func(cmd *cobra.Command, c *client.Client, _ []string) error {
		list, err := c.Notifications(cmd.Context(), q)
		if err != nil {
			return err
		}
		w := cmd.OutOrStdout()
		if err := t.print(w, list, func(w io.Writer) { notificationTable(w, list) }); err != nil || !follow {
			return err
		}
		return c.FollowNotifications(cmd.Context(), func(n api.Notification) error {
			if t.json {
				return json.NewEncoder(w).Encode(n)
			}
			_, err := fmt.Fprintf(w, "%d  %s  %s  %s: %s\n", n.ID, n.Level, plain(n.Package), plain(n.Title), plain(n.Message))
			return err
		})
	})
	t.bind(cmd)
	cmd.Flags().IntVarP(&q.Limit, "lines", "n", 40, "most messages to list")
	cmd.Flags().BoolVar(&q.Unread, "unread", false, "only those not seen")
	cmd.Flags().StringVar(&q.Level, "level", "", "only those at least as urgent: success, info, warning, error")
	cmd.Flags().StringVar(&q.Package, "package", "", "only those of this package")
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with those that come")
	var through uint32
	mark := func(name, short string, seen bool) *cobra.Command {
		sub := t.api(name+" [NUMBER...]", short, cobra.ArbitraryArgs, func(cmd *cobra.Command, c *client.Client, args []string) error {
			ids, err := numbers(args)
			if err != nil {
				return err
			}
			n, err := c.MarkNotifications(cmd.Context(), api.NotificationMarks{NotificationSelection: api.NotificationSelection{IDs: ids, Through: through}, Seen: seen})
			return t.changed(cmd, n, err)
		})
		sub.Flags().Uint32Var(&through, "through", 0, "and every one up to this number")
		return sub
	}
	remove := t.api("delete [NUMBER...]", "Delete messages", cobra.ArbitraryArgs, func(cmd *cobra.Command, c *client.Client, args []string) error {
		ids, err := numbers(args)
		if err != nil {
			return err
		}
		n, err := c.DeleteNotifications(cmd.Context(), api.NotificationSelection{IDs: ids, Through: through})
		return t.changed(cmd, n, err)
	})
	remove.Flags().Uint32Var(&through, "through", 0, "and every one up to this number")
	cmd.AddCommand(
		t.api("show NUMBER", "Show a message whole", cobra.ExactArgs(1), func(cmd *cobra.Command, c *client.Client, args []string) error {
			ids, err := numbers(args)
			if err != nil {
				return err
			}
			n, err := c.Notification(cmd.Context(), ids[0])
			if err != nil {
				return err
			}
			return t.print(cmd.OutOrStdout(), n, func(w io.Writer) {
				notificationTable(w, []api.Notification{n})
				fmt.Fprintf(w, "\n%s\n", plain(n.Message))
			})
		}),
		mark("read", "Mark messages as seen", true), mark("unread", "Mark messages as not seen", false), remove,
		t.notifyCommand(), t.deliveryCommand(),
	)
	return cmd
}

func (t *target) changed(cmd *cobra.Command, n int, err error) error {
	if err != nil {
		return err
	}
	return t.print(cmd.OutOrStdout(), api.Changed{Changed: n}, func(w io.Writer) { fmt.Fprintf(w, "%d changed\n", n) })
}

func numbers(args []string) ([]uint32, error) {
	var out []uint32
	for _, a := range args {
		n, err := strconv.ParseUint(a, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("%q is not the number of a message", a)
		}
		out = append(out, uint32(n))
	}
	return out, nil
}

func notificationTable(w io.Writer, list []api.Notification) {
	rows := [][]string{{"no", "level", "package", "when", "seen", "title"}}
	for _, n := range list {
		seen := "no"
		if n.Seen {
			seen = "yes"
		}
		rows = append(rows, []string{strconv.FormatUint(uint64(n.ID), 10), n.Level, n.Package, ago(n.Created), seen, n.Title})
	}
	table(w, rows...)
}

func (t *target) notifyCommand() *cobra.Command {
	var in api.NewNotification
	cmd := t.api("send TITLE [MESSAGE]", "Leave a message to the owner", cobra.RangeArgs(1, 2), func(cmd *cobra.Command, c *client.Client, args []string) error {
		if in.Title = args[0]; len(args) > 1 {
			in.Message = args[1]
		}
		n, err := c.Notify(cmd.Context(), in)
		if err != nil {
			return err
		}
		return t.print(cmd.OutOrStdout(), n, func(w io.Writer) { notificationTable(w, []api.Notification{n}) })
	})
	cmd.Flags().StringVar(&in.Level, "level", "info", "success, info, warning or error")
	cmd.Flags().StringVar(&in.Package, "package", "", "an installed package that it is about")
	return cmd
}

// deliveryCommand is `stead notifications delivery`.
func (t *target) deliveryCommand() *cobra.Command {
	show := func(cmd *cobra.Command, d api.Delivery, err error) error {
		if err != nil {
			return err
		}
		return t.print(cmd.OutOrStdout(), d, func(w io.Writer) {
			rows := [][]string{{"channel", "to", "level", "waiting", "trouble"}}
			if d.Webhook != nil {
				rows = append(rows, []string{"webhook", d.Webhook.URL, d.Webhook.Level, strconv.Itoa(d.Webhook.Status.Waiting), d.Webhook.Status.Error})
			}
			if d.Mail != nil {
				rows = append(rows, []string{"mail", d.Mail.To, d.Mail.Level, strconv.Itoa(d.Mail.Status.Waiting), d.Mail.Status.Error})
			}
			table(w, rows...)
		})
	}
	cmd := t.api("delivery", "Show where messages are sent to", cobra.NoArgs, func(cmd *cobra.Command, c *client.Client, _ []string) error {
		d, err := c.Delivery(cmd.Context())
		return show(cmd, d, err)
	})
	var hook, to, level string
	secret := false
	set := t.api("set", "Set where messages are sent to; what no flag names is taken back", cobra.NoArgs, func(cmd *cobra.Command, c *client.Client, _ []string) error {
		var in api.DeliveryChange
		if hook != "" {
			in.Webhook = &api.WebhookChange{URL: hook, Level: level}
			if secret {
				text, err := newAsker(cmd).password("Secret: ")
				if err != nil {
					return err
				}
				in.Webhook.Secret = text
			}
		}
		if to != "" {
			in.Mail = &api.MailDeliveryChange{To: to, Level: level}
		}
		d, err := c.SetDelivery(cmd.Context(), in)
		return show(cmd, d, err)
	})
	set.Flags().StringVar(&hook, "webhook", "", "URL that messages are posted to")
	set.Flags().BoolVar(&secret, "secret", false, "ask for the secret that signs them (Standard Webhooks); without, the one that is set stays")
	set.Flags().StringVar(&to, "mail", "", "address that messages are mailed to, by the outgoing mail server")
	set.Flags().StringVar(&level, "level", "warning", "the least urgent that is sent: success, info, warning, error")
	cmd.AddCommand(set)
	return cmd
}
