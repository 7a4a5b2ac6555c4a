package state

import "github.com/selfstead/selfstead/patchdb"

// SMTPPointer is where the whole SMTP value stands, password and all; services
// read it through their effects. The public part has it as SMTPInfo.
var SMTPPointer = PrivatePointer("smtp")

// SMTP is the outgoing mail server that the owner has set for the whole server
// (StartOS data model, SmtpValue).
type SMTP struct {
	Host     string  `json:"host"`
	Port     uint16  `json:"port"`
	From     string  `json:"from"`
	Username string  `json:"username"`
	Password *string `json:"password"`
	Security string  `json:"security"` // "starttls" or "tls"
}

// SMTPInfo is what everyone may know of SMTP.
type SMTPInfo struct {
	Host        string `json:"host"`
	Port        uint16 `json:"port"`
	From        string `json:"from"`
	Username    string `json:"username"`
	PasswordSet bool   `json:"passwordSet"`
	Security    string `json:"security"`
}

// Info is the value without its secret.
func (s SMTP) Info() SMTPInfo {
	return SMTPInfo{s.Host, s.Port, s.From, s.Username, s.Password != nil, s.Security}
}

// SMTPInfoPointer is where the public part has it; absent while there is none.
var SMTPInfoPointer = patchdb.Join(ServerInfo, "smtp")
