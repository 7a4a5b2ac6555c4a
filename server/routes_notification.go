package server

import (
	"context"
	"encoding/json"
	"net/http"
	"net/mail"
	"net/url"
	"strconv"

	"github.com/danielgtaylor/huma/v2"

	"github.com/selfstead/selfstead/patchdb"
	"github.com/selfstead/selfstead/server/api"
	"github.com/selfstead/selfstead/server/notification"
	"github.com/selfstead/selfstead/server/problem"
	"github.com/selfstead/selfstead/server/state"
)

type (
	notificationsInput struct {
		Limit   int    `query:"limit" minimum:"1" maximum:"500" default:"40" doc:"most items to return"`
		Before  uint32 `query:"before" minimum:"1" maximum:"2147483647" doc:"only ids below this one; the Link header names it for the next page"`
		Unread  bool   `query:"unread" doc:"only those that the owner has not seen"`
		Level   string `query:"level" enum:"success,info,warning,error" doc:"only those that are at least as urgent"`
		Package string `query:"package" maxLength:"200" doc:"only those of this package"`
	}
	notificationInput struct {
		ID uint32 `path:"id" maximum:"2147483647" doc:"id of the notification" example:"7"`
	}
	notificationEventsInput struct {
		Since       uint32 `query:"since" maximum:"2147483647" doc:"the last id that the client has; as Last-Event-ID, which goes before it"`
		LastEventID string `header:"Last-Event-ID" doc:"id of the last event that the client has seen"`
	}
	selectionInput struct{ Body api.NotificationSelection }
	marksInput     struct{ Body api.NotificationMarks }
)

func (s *Server) notificationRoutes() {
	n := s.deps.Notifications
	if n == nil {
		return
	}
	const path = "/v1/notifications"
	tags, missing := []string{tagNotifications}, []int{http.StatusNotFound}
	add(s, huma.Operation{
		OperationID: "list-notifications", Method: http.MethodGet, Path: path, Tags: tags,
		Summary: "List the messages to the owner", Description: "The newest first. The server keeps 500; how many were not seen stands in the state too.",
	}, func(ctx context.Context, in *notificationsInput) (*list[api.Notification], error) {
		found, more, err := n.List(notification.Query{Before: in.Before, Limit: in.Limit, Unread: in.Unread, Level: in.Level, Package: in.Package})
		if err != nil {
			return nil, err
		}
		out := &list[api.Notification]{Body: []api.Notification{}}
		for _, x := range found {
			out.Body = append(out.Body, notificationView(x))
		}
		if more {
			out.Link = nextLink(ctx, "before", strconv.FormatUint(uint64(found[len(found)-1].ID), 10), in.Limit)
		}
		return out, nil
	})
	type createInput struct{ Body api.NewNotification }
	type createOutput struct {
		Location string `header:"Location" doc:"path of the notification"`
		Body     api.Notification
	}
	add(s, huma.Operation{
		OperationID: "create-notification", Method: http.MethodPost, Path: path, Tags: tags, DefaultStatus: http.StatusCreated, Errors: missing,
		Summary: "Leave a message to the owner", Description: "For scripts: it goes where those of packages go.",
	}, func(ctx context.Context, in *createInput) (*createOutput, error) {
		x := state.Notification{Level: in.Body.Level, Title: in.Body.Title, Message: in.Body.Message}
		if in.Body.Package != "" {
			x.PackageID = &in.Body.Package
		}
		x, err := n.Create(ctx, x)
		return &createOutput{path + "/" + strconv.FormatUint(uint64(x.ID), 10), notificationView(x)}, err
	})
	add(s, huma.Operation{
		OperationID: "get-notification", Method: http.MethodGet, Path: path + "/{id}", Tags: tags, Errors: missing, Summary: "Read a message",
	}, func(_ context.Context, in *notificationInput) (*body[api.Notification], error) {
		x, err := n.Get(in.ID)
		return &body[api.Notification]{notificationView(x)}, err
	})
	type markInput struct {
		ID   uint32 `path:"id" maximum:"2147483647" doc:"id of the notification" example:"7"`
		Body api.NotificationMark
	}
	add(s, huma.Operation{
		OperationID: "mark-notification", Method: http.MethodPatch, Path: path + "/{id}", Tags: tags, Errors: missing, Summary: "Say whether a message was seen",
	}, func(ctx context.Context, in *markInput) (*body[api.Notification], error) {
		if _, err := n.Mark(ctx, notification.Selection{IDs: []uint32{in.ID}}, in.Body.Seen); err != nil {
			return nil, err
		}
		x, err := n.Get(in.ID)
		return &body[api.Notification]{notificationView(x)}, err
	})
	add(s, huma.Operation{
		OperationID: "delete-notification", Method: http.MethodDelete, Path: path + "/{id}", Tags: tags, Errors: missing,
		DefaultStatus: http.StatusNoContent, Summary: "Delete a message",
	}, func(ctx context.Context, in *notificationInput) (*nothing, error) {
		_, err := n.Delete(ctx, notification.Selection{IDs: []uint32{in.ID}})
		return nil, err
	})
	add(s, huma.Operation{
		OperationID: "mark-notifications", Method: http.MethodPost, Path: path + ":mark", Tags: tags, Errors: missing, Summary: "Say whether some messages were seen",
	}, func(ctx context.Context, in *marksInput) (*body[api.Changed], error) {
		count, err := n.Mark(ctx, notification.Selection{IDs: in.Body.IDs, Through: in.Body.Through}, in.Body.Seen)
		return &body[api.Changed]{api.Changed{Changed: count}}, err
	})
	add(s, huma.Operation{
		OperationID: "delete-notifications", Method: http.MethodPost, Path: path + ":delete", Tags: tags, Errors: missing, Summary: "Delete some messages",
	}, func(ctx context.Context, in *selectionInput) (*body[api.Changed], error) {
		count, err := n.Delete(ctx, notification.Selection{IDs: in.Body.IDs, Through: in.Body.Through})
		return &body[api.Changed]{api.Changed{Changed: count}}, err
	})
	addStream(s, huma.Operation{
		OperationID: "follow-notifications", Path: path + "/events", Tags: tags, Summary: "Follow the messages",
		Description: "Each message as it comes; with the last id that the client has, those since then first.",
	}, []event{{"notification", "one message", api.Notification{}}}, s.followNotifications)
	s.deliveryRoutes()
}

func (s *Server) deliveryRoutes() {
	n := s.deps.Notifications
	const path = "/v1/notification-delivery"
	tags := []string{tagNotifications}
	type deliveryInput struct{ Body api.DeliveryChange }
	add(s, huma.Operation{
		OperationID: "get-delivery", Method: http.MethodGet, Path: path, Tags: tags, Summary: "Read where messages are sent to",
	}, func(context.Context, *nothing) (*body[api.Delivery], error) {
		d, err := n.Delivery()
		return &body[api.Delivery]{s.deliveryView(d)}, err
	})
	add(s, huma.Operation{
		OperationID: "set-delivery", Method: http.MethodPut, Path: path, Tags: tags, Summary: "Set where messages are sent to",
		Description: "A webhook, a mail address, both or none: what is left out is taken back. What cannot be sent is tried again for about half an hour, across restarts; a message may then arrive twice, with the same id.",
	}, func(ctx context.Context, in *deliveryInput) (*body[api.Delivery], error) {
		var d state.Delivery
		if w := in.Body.Webhook; w != nil {
			if u, err := url.Parse(w.URL); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
				return nil, problem.New(http.StatusUnprocessableEntity, problem.CodeInvalid, "a webhook is an http or https URL without a password in it").
					WithField("body.webhook.url", "not such a URL", nil)
			}
			d.Webhook = &state.WebhookDelivery{URL: w.URL, Secret: w.Secret, Level: w.Level}
		}
		if m := in.Body.Mail; m != nil {
			if _, err := mail.ParseAddress(m.To); err != nil {
				return nil, problem.New(http.StatusUnprocessableEntity, problem.CodeInvalid, "that is no mail address").WithField("body.mail.to", "expected an address", m.To)
			}
			d.Mail = &state.MailDelivery{To: m.To, Level: m.Level}
		}
		d, err := n.SetDelivery(ctx, d)
		return &body[api.Delivery]{s.deliveryView(d)}, err
	})
}

func (s *Server) followNotifications(_ context.Context, in *notificationEventsInput) (runFunc, error) {
	from, known := in.Since, in.Since != 0
	if id := resume(in.LastEventID, ""); id != "" {
		v, err := strconv.ParseUint(id, 10, 32)
		if err != nil {
			return nil, problem.New(http.StatusUnprocessableEntity, problem.CodeInvalid, "an id is a number").WithField("header.Last-Event-ID", "not an id", id)
		}
		from, known = uint32(v), true
	}
	sub, err := s.deps.DB.Subscribe(state.PrivatePointer("notifications"), patchdb.SubscribeOptions{})
	if err != nil {
		return nil, err
	}
	if !known {
		newest, _, err := s.deps.Notifications.List(notification.Query{Limit: 1})
		if err != nil {
			sub.Close()
			return nil, err
		}
		for _, x := range newest {
			from = x.ID
		}
	}
	return func(ctx context.Context, st *stream) error {
		defer sub.Close()
		for {
			if _, err := sub.Next(ctx); err != nil {
				return err
			}
			all, _, err := s.deps.Notifications.List(notification.Query{})
			if err != nil {
				return err
			}
			for i := len(all) - 1; i >= 0; i-- {
				if all[i].ID <= from {
					continue
				}
				from = all[i].ID
				if err := st.send("notification", strconv.FormatUint(uint64(from), 10), notificationView(all[i])); err != nil {
					return err
				}
			}
		}
	}, nil
}

func notificationView(n state.Notification) api.Notification {
	out := api.Notification{ID: n.ID, Created: n.CreatedAt, Level: n.Level, Title: n.Title, Message: n.Message, Code: n.Code, Seen: n.Seen}
	if n.PackageID != nil {
		out.Package = *n.PackageID
	}
	if n.Data != nil {
		out.Data, _ = json.Marshal(n.Data) // it came from JSON
	}
	return out
}

func (s *Server) deliveryView(d state.Delivery) api.Delivery {
	var out api.Delivery
	status := func(name string) api.ChannelStatus { return api.ChannelStatus(s.deps.Notifications.Status(name)) }
	if w := d.Webhook; w != nil {
		out.Webhook = &api.Webhook{URL: w.URL, SecretSet: w.Secret != "", Level: w.Level, Status: status(notification.Webhook)}
	}
	if m := d.Mail; m != nil {
		out.Mail = &api.MailDelivery{To: m.To, Level: m.Level, Status: status(notification.SMTP)}
	}
	return out
}
