package api

import (
	"encoding/json"
	"time"
)

// Ping answers that the server is there.
type Ping struct {
	OK bool `json:"ok"`
}

// Mode says what the server can be used for now.
type Mode struct {
	Mode    string `json:"mode" enum:"setup,running" doc:"setup: it waits for its owner's claim; running: it has an owner"`
	Version string `json:"version" doc:"of the server program"`
}

// Claim makes the caller the owner of a new server.
type Claim struct {
	Code     string `json:"code" minLength:"1" maxLength:"64" doc:"the one-time code from the server's console or its claim-code file" example:"MFRA-2QKX-NB4T-WLCE"`
	Password string `json:"password" minLength:"8" maxLength:"1024" doc:"the owner's password from now on"`
}

// SignIn asks for a session.
type SignIn struct {
	Password  string `json:"password" minLength:"1" maxLength:"1024"`
	Name      string `json:"name,omitempty" maxLength:"100" doc:"what to call the session in the list; the user agent otherwise"`
	Ephemeral bool   `json:"ephemeral,omitempty" doc:"the session ends when the server does"`
}

// NewSession is a session that has just been made.
type NewSession struct {
	Token   string    `json:"token" doc:"bearer token; also the value of the cookie. It is told only here"`
	ID      string    `json:"id" doc:"name of the session in the list"`
	Expires time.Time `json:"expires" doc:"when it ends unless it is used"`
}

// Session is one sign-in.
type Session struct {
	ID         string    `json:"id"`
	Name       string    `json:"name,omitempty"`
	LoggedIn   time.Time `json:"loggedIn"`
	LastActive time.Time `json:"lastActive"`
	Current    bool      `json:"current" doc:"whether it is the caller's own"`
}

// PasswordChange replaces the owner's password. Other sessions end.
type PasswordChange struct {
	OldPassword string `json:"oldPassword,omitempty" maxLength:"1024" doc:"needed everywhere but on the server's own socket"`
	NewPassword string `json:"newPassword" minLength:"8" maxLength:"1024"`
}

// Dump is the state at one revision.
type Dump struct {
	ID    uint64          `json:"id" doc:"revision"`
	Value json.RawMessage `json:"value" doc:"the state, or the part of it that pointer names"`
}

// Revision is one change of the state.
type Revision struct {
	ID    uint64          `json:"id" doc:"revision after the change"`
	Patch json.RawMessage `json:"patch" doc:"JSON Patch (RFC 6902) from the revision before"`
}

// System is what the server knows of itself and its machine.
type System struct {
	ID           string    `json:"id" doc:"random name of this server, made once"`
	Version      string    `json:"version" doc:"of the server program"`
	Hostname     string    `json:"hostname"`
	Architecture string    `json:"architecture" example:"x86_64"`
	Kernel       string    `json:"kernel" example:"6.12.0"`
	Started      time.Time `json:"started" doc:"when the server program started"`
	Claimed      bool      `json:"claimed"`
}

// Power ends the server program.
type Power struct {
	Action string `json:"action" enum:"shutdown,hand-over" doc:"shutdown: services stop first; hand-over: services go on and the next start takes them over"`
}

// Forward is one published port as the kernel has it now.
type Forward struct {
	Name      string `json:"name" doc:"what it belongs to" example:"hello-world/ui-multi/80"`
	Source    string `json:"source" doc:"outside address" example:"192.0.2.7:49152"`
	Target    string `json:"target" doc:"address inside" example:"10.43.0.2:80"`
	Count     int    `json:"count" doc:"ports, from source's on"`
	Protocols string `json:"protocols" example:"tcp+udp"`
}
