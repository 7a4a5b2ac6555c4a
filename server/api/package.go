package api

import (
	"encoding/json"
	"time"
)

// Package is an installed package, or one that is being installed or removed.
type Package struct {
	ID           string                   `json:"id" example:"hello-world"`
	Title        string                   `json:"title" example:"Hello World"`
	Version      string                   `json:"version" doc:"exver version of the package" example:"1.0.0:0"`
	Summary      string                   `json:"summary,omitempty" doc:"the short description of its manifest"`
	State        string                   `json:"state" enum:"installing,updating,stopped,starting,running,stopping,restarting,removing,failed" doc:"what the package is doing"`
	DesiredState string                   `json:"desiredState" enum:"running,stopped" doc:"what its owner wants"`
	Health       map[string]Health        `json:"health" doc:"each health check, by check id: a failure right after a start still counts as starting, and a change between success and failure once it has lasted some seconds"`
	Failures     map[string]HealthFailure `json:"failures,omitempty" doc:"what each health check said when it last failed, by check id; it stays"`
	Error        *PackageError            `json:"error,omitempty" doc:"why the package is in its state, when that is a fault"`
	Started      *time.Time               `json:"started,omitempty" doc:"when the service last started"`
	Disk         map[string]int64         `json:"disk,omitempty" doc:"what each of its volumes takes on the disk, in bytes; counted now and then"`
	Signer       string                   `json:"signer,omitempty" doc:"Ed25519 public key that signed the package, hex"`
	Manifest     json.RawMessage          `json:"manifest,omitempty" doc:"the manifest as the package carries it; not in lists"`
}

// SideloadOptions are an owner's decisions about one upload.
type SideloadOptions struct {
	Reinstall    bool   // install the installed version once more
	AcceptSigner string // hex; the new signer that the owner lets take the package over
}

// Health is the last word of one health check.
type Health struct {
	Name    string `json:"name" example:"Web interface"`
	Result  string `json:"result" enum:"success,disabled,starting,waiting,loading,failure"`
	Message string `json:"message,omitempty"`
}

// HealthFailure is what a health check said when it last failed.
type HealthFailure struct {
	Message string    `json:"message"`
	At      time.Time `json:"at"`
}

// PackageError is a fault of a package.
type PackageError struct {
	Message string `json:"message"`
	Details string `json:"details,omitempty"`
}

// Host is a set of bindings of a package.
type Host struct {
	HostID   string    `json:"hostId" example:"ui-multi"`
	Bindings []Binding `json:"bindings"`
}

// Binding is one internal port that a package publishes.
type Binding struct {
	InternalPort uint16      `json:"internalPort" example:"80"`
	SSL          bool        `json:"ssl" doc:"whether the addresses speak TLS"`
	Enabled      bool        `json:"enabled" doc:"false once the package no longer binds the port"`
	Count        int         `json:"count" doc:"ports from internalPort on: 1, or the length of a range"`
	Addresses    []Address   `json:"addresses" doc:"every address that reaches it"`
	Interfaces   []Interface `json:"interfaces,omitempty" doc:"what the package says of it to its users"`
}

// Address is a place where a binding can be reached.
type Address struct {
	IP   string `json:"ip" example:"192.0.2.7"`
	Port uint16 `json:"port" example:"49152"`
	URL  string `json:"url" example:"http://192.0.2.7:49152"`
}

// Interface is what a package tells its users of a binding.
type Interface struct {
	ID          string `json:"id" example:"ui"`
	Name        string `json:"name" example:"Web UI"`
	Description string `json:"description"`
	Type        string `json:"type" enum:"ui,p2p,api"`
	Masked      bool   `json:"masked" doc:"its address is a secret"`
}

// Action is one thing that a package offers to do.
type Action struct {
	ID              string          `json:"id"`
	Name            string          `json:"name"`
	Description     string          `json:"description"`
	Warning         *string         `json:"warning"`
	Visibility      json.RawMessage `json:"visibility" doc:"\"enabled\", \"hidden\" or {\"disabled\": reason}"`
	AllowedStatuses string          `json:"allowedStatuses" enum:"any,only-running,only-stopped"`
	HasInput        bool            `json:"hasInput"`
	Group           *string         `json:"group"`
}

// ActionInput is the form of an action, ready to be filled in.
type ActionInput struct {
	EventID string          `json:"eventId" doc:"pass it on to the run"`
	Spec    json.RawMessage `json:"spec" doc:"the form"`
	Value   json.RawMessage `json:"value" doc:"its current values; null when there are none"`
}

// ActionInputRequest asks for the form of an action.
type ActionInputRequest struct {
	Prefill json.RawMessage `json:"prefill,omitempty" doc:"values to fill in beforehand"`
}

// ActionRunRequest runs an action.
type ActionRunRequest struct {
	EventID string          `json:"eventId,omitempty" doc:"of the form that was filled in"`
	Input   json.RawMessage `json:"input,omitempty" doc:"the filled-in form"`
}

// DesiredState is what an owner wants of a package.
type DesiredState struct {
	State string `json:"state" enum:"running,stopped"`
	Force bool   `json:"force,omitempty" doc:"stop even while other packages need it"`
}

// Task is one action that a package, or another one for it, asks its owner to
// run.
type Task struct {
	ID     string          `json:"id" doc:"replay id of the task"`
	Active bool            `json:"active" doc:"whether it is still to be done"`
	Task   json.RawMessage `json:"task" doc:"packageId, actionId, severity, reason, when and input"`
}
