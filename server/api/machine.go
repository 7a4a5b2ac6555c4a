package api

import "time"

// Identity is how the server is called.
type Identity struct {
	ID       string `json:"id" doc:"random name of this server, made once"`
	Name     string `json:"name" doc:"for people" example:"Home"`
	Hostname string `json:"hostname" doc:"of the machine" example:"attic"`
}

// IdentityChange changes names; what is left out stays.
type IdentityChange struct {
	Name     *string `json:"name,omitempty" minLength:"1" maxLength:"100" example:"Home"`
	Hostname *string `json:"hostname,omitempty" minLength:"1" maxLength:"63" pattern:"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$" doc:"only where the server manages its machine; certificates have it from the next start on" example:"attic"`
}

// Clock is the server's time.
type Clock struct {
	Now      time.Time `json:"now"`
	Timezone string    `json:"timezone" example:"Europe/Vienna"`
	Synced   bool      `json:"synced" doc:"whether a time service keeps the clock"`
	Uptime   float64   `json:"uptimeSeconds" doc:"since the server program started"`
}

// Timezone sets the time zone.
type Timezone struct {
	Timezone string `json:"timezone" minLength:"1" maxLength:"100" doc:"name in the tz database" example:"Europe/Vienna"`
}

// Device is what the server's machine is.
type Device struct {
	OS           string `json:"os" example:"Debian GNU/Linux 12 (bookworm)"`
	Kernel       string `json:"kernel" example:"6.12.0"`
	Architecture string `json:"architecture" example:"x86_64"`
	CPU          string `json:"cpu,omitempty" doc:"model, where the kernel says"`
	CPUs         int    `json:"cpus"`
	Memory       int64  `json:"memory" doc:"bytes"`
	Product      string `json:"product,omitempty" doc:"what its firmware calls it"`
}

// SSHKey is one SSH key that may come in.
type SSHKey struct {
	ID          string    `json:"id" doc:"SHA-256 of the key, hex"`
	Algorithm   string    `json:"algorithm" example:"ssh-ed25519"`
	Fingerprint string    `json:"fingerprint" doc:"as ssh-keygen -l shows it"`
	Comment     string    `json:"comment,omitempty" example:"me@laptop"`
	Added       time.Time `json:"added"`
}

// NewSSHKey lets one more SSH key in.
type NewSSHKey struct {
	Key string `json:"key" minLength:"16" maxLength:"16384" doc:"one line as ssh-keygen writes it, without options" example:"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ... me@laptop"`
}

// Gateway is a way out of the server.
type Gateway struct {
	ID           string   `json:"id" doc:"name of the interface" example:"eth0"`
	Kind         string   `json:"kind,omitempty" doc:"of the interface, such as wireguard; left out for a plain device"`
	Up           bool     `json:"up" doc:"it is up and has carrier"`
	PointToPoint bool     `json:"pointToPoint" doc:"it leads to one peer"`
	Addresses    []string `json:"addresses" doc:"the server's own there, with their prefixes" example:"[\"192.0.2.7/24\"]"`
	NextHop4     string   `json:"nextHop4,omitempty" example:"192.0.2.1"`
	NextHop6     string   `json:"nextHop6,omitempty"`
	Default4     bool     `json:"default4" doc:"IPv4 can leave by it"`
	Default6     bool     `json:"default6"`
}
