package state

// DeliveryPointer is where Delivery stands; absent while there is none.
var DeliveryPointer = PrivatePointer("delivery")

// Delivery is how notifications leave the server.
type Delivery struct {
	Webhook *WebhookDelivery `json:"webhook,omitempty"`
	Mail    *MailDelivery    `json:"mail,omitempty"`
}

// WebhookDelivery posts them to a URL.
type WebhookDelivery struct {
	URL    string `json:"url"`
	Secret string `json:"secret"` // signs them; "" for none
	Level  string `json:"level"`  // the least urgent that is sent
	Sent   uint32 `json:"sent"`   // id of the last one that is done with
}

// MailDelivery mails them by the outgoing mail server.
type MailDelivery struct {
	To    string `json:"to"`
	Level string `json:"level"`
	Sent  uint32 `json:"sent"`
}
