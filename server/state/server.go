package state

import "time"

// Server is the public part about the server itself.
type Server struct {
	ID       string  `json:"id"`             // random, made once
	Version  string  `json:"version"`        // of the program that runs
	Hostname string  `json:"hostname"`       // the machine's
	Name     string  `json:"name,omitempty"` // for people; the host name where it is left out
	Claimed  bool    `json:"claimed"`        // false until POST /v1/setup:claim succeeded
	Network  Network `json:"network"`

	UnreadNotificationCount int `json:"unreadNotificationCount"`

	SMTP *SMTPInfo `json:"smtp,omitempty"` // without its password; absent while there is none
}

// Network is what the server knows of its own addresses.
type Network struct {
	Gateways map[string]Gateway `json:"gateways"` // key: interface name
	Outside  string             `json:"outside"`  // the address of the default route's interface, "" when there is none
}

// Gateway is one interface of the server that has addresses.
type Gateway struct {
	Name      string   `json:"name"`
	Subnets   []string `json:"subnets"`   // CIDR with the server's own address, v4 first
	IsDefault bool     `json:"isDefault"` // a default route leaves by it
}

// Account is the owner's secret part.
type Account struct {
	PasswordHash string `json:"passwordHash"` // Argon2id, PHC string; "" before the claim
}

// Session is one sign-in; the token itself is never stored.
type Session struct {
	ID         string    `json:"id"` // public name of the session
	LoggedIn   time.Time `json:"loggedIn"`
	LastActive time.Time `json:"lastActive"`
	UserAgent  string    `json:"userAgent,omitempty"`
}

// ServiceKeep is what the server keeps of a package from its first install.
type ServiceKeep struct {
	IDBase    uint32 `json:"idBase"`    // first host id of the 65,536 that are the package's own
	Container string `json:"container"` // LXC name of the current container, "" when none
	Spec      string `json:"spec"`      // fingerprint of what that container was made from
	Addr4     string `json:"addr4"`     // the container's addresses
	Addr6     string `json:"addr6"`
	KeepData  bool   `json:"keepData"` // while removing: volumes and logs stay

	Done string `json:"done,omitempty"` // the operation that brought the version that is installed
}

// Notification is one message to the owner (StartOS data model).
type Notification struct {
	ID        uint32    `json:"id"`
	PackageID *string   `json:"packageId"`
	CreatedAt time.Time `json:"createdAt"`
	Code      uint32    `json:"code"`  // 0 no data, 1 backup report, 2 data is markdown
	Level     string    `json:"level"` // success, info, warning, error
	Title     string    `json:"title"`
	Message   string    `json:"message"`
	Data      any       `json:"data"`
	Seen      bool      `json:"seen"`
}

// PortOwner says who holds an outside port.
type PortOwner struct {
	Package string `json:"package"`
	Host    string `json:"host"`
	Port    uint16 `json:"port"` // internal port of the binding
	SSL     bool   `json:"ssl"`
}
