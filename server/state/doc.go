// Package state is the typed shape of the server's document: what GET
// /v1/state shows (below /public) and what never leaves the server (below
// /private). It holds types and pointers only; who writes a part owns its
// rules.
//
// Names and shapes of packageData and its hosts follow the data model of
// StartOS 0.4, because services read parts of it through their effects; what
// is ours alone says so in its comment.
package state

import (
	"encoding/json"
	"time"

	"github.com/selfstead/selfstead/patchdb"
)

// Pointers to the parts that more than one room uses.
const (
	Public      patchdb.Pointer = "/public"
	Private     patchdb.Pointer = "/private"
	ServerInfo  patchdb.Pointer = "/public/serverInfo"
	PackageData patchdb.Pointer = "/public/packageData"
)

// PackagePointer is where the package's public part stands.
func PackagePointer(id string, rest ...string) patchdb.Pointer {
	return patchdb.Join(PackageData, append([]string{id}, rest...)...)
}

// PrivatePointer is a pointer below the private part.
func PrivatePointer(rest ...string) patchdb.Pointer { return patchdb.Join(Private, rest...) }

// Document is the whole document as a fresh server starts with it.
type Document struct {
	Public  PublicPart  `json:"public"`
	Private PrivatePart `json:"private"`
}

// PublicPart is what every signed-in client may read.
type PublicPart struct {
	ServerInfo  Server             `json:"serverInfo"`
	PackageData map[string]Package `json:"packageData"`
}

// PrivatePart holds what no client reads: secrets and bookkeeping.
type PrivatePart struct {
	Account  Account                `json:"account"`
	Sessions map[string]Session     `json:"sessions"` // key: hex SHA-256 of the token
	Services map[string]ServiceKeep `json:"services"` // key: package id
	Ports    map[string]PortOwner   `json:"ports"`    // key: outside port, decimal
	Subnet4  string                 `json:"subnet4"`  // the containers' subnets, CIDR, chosen once
	Subnet6  string                 `json:"subnet6"`

	KeptData      map[string]time.Time `json:"keptData"`      // packages removed without their volumes, and when
	Notifications []Notification       `json:"notifications"` // oldest first

	SSHKeys map[string]SSHKey `json:"sshKeys,omitempty"` // key: hex SHA-256 of the key

	LastNotification uint32    `json:"lastNotification,omitempty"` // id that was given last
	Delivery         *Delivery `json:"delivery,omitempty"`

	SMTP *SMTP `json:"smtp,omitempty"`

	Signers    map[string]string          `json:"signers,omitempty"`    // key: package id; hex, who signed its first install, for as long as it or its data is there
	Updates    map[string]Package         `json:"updates,omitempty"`    // what packages were before the update that is under way
	Operations map[string]json.RawMessage `json:"operations,omitempty"` // long work, that of earlier processes too
}

// New is the document of a server that has just been set up.
func New() Document {
	return Document{
		Public: PublicPart{PackageData: map[string]Package{}},
		Private: PrivatePart{Sessions: map[string]Session{}, Services: map[string]ServiceKeep{}, Ports: map[string]PortOwner{},
			KeptData: map[string]time.Time{}, Notifications: []Notification{}},
	}
}
