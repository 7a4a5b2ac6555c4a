package state

import "encoding/json"

// ActionMetadata is what a package tells of one of its actions.
type ActionMetadata struct {
	Name            string          `json:"name"`
	Description     string          `json:"description"`
	Warning         *string         `json:"warning"`
	Visibility      json.RawMessage `json:"visibility"`      // "enabled", "hidden" or {"disabled": reason}
	AllowedStatuses string          `json:"allowedStatuses"` // only-running, only-stopped, any
	HasInput        bool            `json:"hasInput"`
	Group           *string         `json:"group"`
	Access          string          `json:"access,omitempty"` // who may run it through effects: public, dependent, user (the default)
}

// Disabled returns the reason why the action cannot be run now.
func (a ActionMetadata) Disabled() (reason string, disabled bool) {
	var v struct {
		Disabled *string `json:"disabled"`
	}
	if json.Unmarshal(a.Visibility, &v) == nil && v.Disabled != nil {
		return *v.Disabled, true
	}
	return "", false
}
