package api

import (
	"encoding/json"
	"time"
)

// Notification is one message to the owner.
type Notification struct {
	ID      uint32          `json:"id" doc:"never given twice; later ones are higher" example:"7"`
	Package string          `json:"package,omitempty" doc:"the package that speaks; left out where the server itself does" example:"hello-world"`
	Created time.Time       `json:"created"`
	Level   string          `json:"level" enum:"success,info,warning,error"`
	Title   string          `json:"title" example:"Disk is nearly full"`
	Message string          `json:"message" example:"94 % of the data disk are in use."`
	Code    uint32          `json:"code" doc:"what data is: 0 nothing, 2 text in Markdown"`
	Data    json.RawMessage `json:"data,omitempty" doc:"more of it, as code says"`
	Seen    bool            `json:"seen" doc:"whether the owner has seen it"`
}

// NewNotification is a message of the owner's own, of a script for example.
type NewNotification struct {
	Package string `json:"package,omitempty" maxLength:"200" doc:"an installed package that it is about" example:"hello-world"`
	Level   string `json:"level" enum:"success,info,warning,error" example:"info"`
	Title   string `json:"title" minLength:"1" maxLength:"200" example:"Backup"`
	Message string `json:"message" maxLength:"16384" example:"The backup of tonight is done."`
}

// NotificationMark says whether the owner has seen a notification.
type NotificationMark struct {
	Seen bool `json:"seen" example:"true"`
}

// NotificationSelection names notifications.
type NotificationSelection struct {
	IDs     []uint32 `json:"ids,omitempty" maxItems:"500" doc:"these; one that is not there fails the call"`
	Through uint32   `json:"through,omitempty" maximum:"2147483647" doc:"and every one up to this id" example:"7"`
}

// NotificationMarks says whether the owner has seen some notifications.
type NotificationMarks struct {
	NotificationSelection
	Seen bool `json:"seen" example:"true"`
}

// Changed counts.
type Changed struct {
	Changed int `json:"changed" doc:"how many the call changed"`
}

// Delivery is how notifications leave the server.
type Delivery struct {
	Webhook *Webhook      `json:"webhook,omitempty" doc:"left out while there is none"`
	Mail    *MailDelivery `json:"mail,omitempty" doc:"left out while there is none"`
}

// Webhook is a URL that notifications are posted to.
type Webhook struct {
	URL       string        `json:"url" example:"https://hooks.example.org/stead"`
	SecretSet bool          `json:"secretSet" doc:"whether they are signed; the secret is never told"`
	Level     string        `json:"level" enum:"success,info,warning,error" doc:"the least urgent that is sent"`
	Status    ChannelStatus `json:"status"`
}

// MailDelivery is an address that notifications are mailed to, by the outgoing
// mail server.
type MailDelivery struct {
	To     string        `json:"to" example:"owner@example.org"`
	Level  string        `json:"level" enum:"success,info,warning,error" doc:"the least urgent that is sent"`
	Status ChannelStatus `json:"status"`
}

// ChannelStatus is how sending goes.
type ChannelStatus struct {
	Waiting  int        `json:"waiting" doc:"notifications still to be sent"`
	Sent     *time.Time `json:"sent,omitempty" doc:"when the last one was taken, since the server started"`
	Failed   *time.Time `json:"failed,omitempty" doc:"when the last attempt failed; left out once one succeeds"`
	Error    string     `json:"error,omitempty" doc:"why"`
	Attempts int        `json:"attempts" doc:"attempts in a row that failed"`
	Dropped  int        `json:"dropped" doc:"notifications that were given up since the server started"`
}

// DeliveryChange sets how notifications leave the server; what is left out is
// taken back.
type DeliveryChange struct {
	Webhook *WebhookChange      `json:"webhook,omitempty"`
	Mail    *MailDeliveryChange `json:"mail,omitempty"`
}

// WebhookChange sets the webhook.
type WebhookChange struct {
	URL    string `json:"url" maxLength:"2000" format:"uri" doc:"http or https" example:"https://hooks.example.org/stead"`
	Secret string `json:"secret,omitempty" maxLength:"256" doc:"signs what is sent as Standard Webhooks 1.0 says; left out: the one that is set, as long as the URL stays" example:"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"`
	Level  string `json:"level,omitempty" enum:"success,info,warning,error" default:"warning" doc:"the least urgent that is sent"`
}

// MailDeliveryChange sets the mail address.
type MailDeliveryChange struct {
	To    string `json:"to" minLength:"3" maxLength:"320" example:"owner@example.org"`
	Level string `json:"level,omitempty" enum:"success,info,warning,error" default:"warning" doc:"the least urgent that is sent"`
}

// SMTPTest sends a mail to try an outgoing mail server.
type SMTPTest struct {
	To     string      `json:"to" minLength:"3" maxLength:"320" doc:"who gets it" example:"owner@example.org"`
	Server *SMTPChange `json:"server,omitempty" doc:"the mail server to try; left out: the one that is set"`
}
