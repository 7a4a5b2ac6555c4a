package api

// SMTP is the outgoing mail server that services may use.
type SMTP struct {
	Host        string `json:"host" example:"mail.example.org"`
	Port        uint16 `json:"port" example:"587"`
	From        string `json:"from" doc:"sender of the mail" example:"Server <server@example.org>"`
	Username    string `json:"username"`
	PasswordSet bool   `json:"passwordSet" doc:"whether there is a password; it is never told"`
	Security    string `json:"security" enum:"starttls,tls"`
}

// SMTPChange sets the outgoing mail server.
type SMTPChange struct {
	Host     string  `json:"host" minLength:"1" maxLength:"253" example:"mail.example.org"`
	Port     uint16  `json:"port" minimum:"1" example:"587"`
	From     string  `json:"from" minLength:"3" maxLength:"320" doc:"sender of the mail" example:"Server <server@example.org>"`
	Username string  `json:"username" maxLength:"320"`
	Password *string `json:"password,omitempty" maxLength:"1024" doc:"left out: the one that is set, as long as host, port and user name stay; empty: none"`
	Security string  `json:"security,omitempty" enum:"starttls,tls" default:"starttls" doc:"starttls: TLS after the greeting; tls: from the first byte"`
}
