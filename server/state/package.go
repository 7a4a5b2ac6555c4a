package state

import (
	"encoding/json"
	"time"
)

// Package is one entry of packageData.
type Package struct {
	StateInfo           StateInfo                  `json:"stateInfo"`
	StatusInfo          StatusInfo                 `json:"statusInfo"`
	State               string                     `json:"state"`        // ours: what the package is doing, see the States
	DesiredState        string                     `json:"desiredState"` // ours: "running" or "stopped"
	S9pk                string                     `json:"s9pk"`         // file name below DIR/packages
	Registry            *string                    `json:"registry"`
	DeveloperKey        string                     `json:"developerKey"` // hex, the archive's signer
	Icon                string                     `json:"icon"`         // data URL
	LastBackup          *time.Time                 `json:"lastBackup"`
	CurrentDependencies map[string]json.RawMessage `json:"currentDependencies"`
	Actions             map[string]json.RawMessage `json:"actions"`
	Tasks               map[string]json.RawMessage `json:"tasks"`
	Hosts               map[string]Host            `json:"hosts"`
	OutboundGateway     *string                    `json:"outboundGateway"`
	Plugin              map[string]any             `json:"plugin"`
	Grants              map[string]time.Time       `json:"grants,omitempty"`   // ours: packages that its owner lets in beside declared dependents, and since when
	Disk                map[string]int64           `json:"disk,omitempty"`     // ours: what each volume takes on the disk, in bytes, at the last count
	Failures            map[string]HealthFailure   `json:"failures,omitempty"` // ours: the last words of health checks that failed, by check id
	Limits              *Limits                    `json:"limits,omitempty"`   // ours: what its owner lets it take of the machine, where not the default
}

// Limits bound what a package takes of the machine; nil is the default.
type Limits struct {
	Memory    *int64   `json:"memory,omitempty"`    // bytes
	CPUs      *float64 `json:"cpus,omitempty"`      // 1.5 is one and a half
	CPUWeight *int     `json:"cpuWeight,omitempty"` // its share while the processor is short, against 100
	PIDs      *int64   `json:"pids,omitempty"`      // tasks, threads included
}

// What a package is doing (Package.State). A package that is being installed
// is listed with StateInstalling from the first proven byte of its manifest.
const (
	StateInstalling = "installing"
	StateStopped    = "stopped"
	StateStarting   = "starting"
	StateRunning    = "running"
	StateStopping   = "stopping"
	StateRestarting = "restarting"
	StateUpdating   = "updating" // to another version; the old one comes back if that fails
	StateRemoving   = "removing"
	StateFailed     = "failed" // its code does not load; statusInfo.error says why; restart tries again
)

// StateInfo is the install state of StartOS's model: "installing", "updating",
// "installed", "removing". While updating, Manifest is the old version's.
type StateInfo struct {
	State          string          `json:"state"`
	Manifest       json.RawMessage `json:"manifest"`
	S9pk           string          `json:"s9pk,omitempty"`           // while updating: the new archive's file name
	InstallingInfo *InstallingInfo `json:"installingInfo,omitempty"` // while updating
}

// InstallingInfo is what is on its way in.
type InstallingInfo struct {
	NewManifest json.RawMessage `json:"newManifest"`
}

// StatusInfo is what effects read and write of a service's run state.
type StatusInfo struct {
	Health  map[string]HealthResult `json:"health"`
	Error   *ErrorData              `json:"error"`
	Started *time.Time              `json:"started"`
	Desired DesiredStatus           `json:"desired"`
}

// HealthResult is the last word of one health check.
type HealthResult struct {
	Name    string  `json:"name"`
	Result  string  `json:"result"` // success, disabled, starting, waiting, loading, failure
	Message *string `json:"message"`
}

// HealthFailure is what a health check said when it last failed.
type HealthFailure struct {
	Message string    `json:"message"`
	At      time.Time `json:"at"`
}

// DesiredStatus is the tagged desired status of StartOS's model.
type DesiredStatus struct {
	Main         string `json:"main"` // stopped, running, restarting, backing-up
	RestartAgain *bool  `json:"restartAgain,omitempty"`
	OnComplete   string `json:"onComplete,omitempty"`
}

// ErrorData is an error as it stands in the document.
type ErrorData struct {
	Details string `json:"details"`
	Debug   string `json:"debug"`
	Info    any    `json:"info"`
}
