package state

import "encoding/json"

// Dependency is one entry of a package's currentDependencies.
type Dependency struct {
	Title        json.RawMessage `json:"title"` // text, or texts by locale
	Icon         *string         `json:"icon"`  // data URL
	Kind         string          `json:"kind"`  // "exists" or "running"
	VersionRange string          `json:"versionRange"`
	HealthChecks []string        `json:"healthChecks,omitempty"` // kind running: those that must succeed
}

// MarshalJSON always writes healthChecks of a running dependency.
func (d Dependency) MarshalJSON() ([]byte, error) {
	type plain Dependency
	if d.Kind != "running" {
		d.HealthChecks = nil
		return json.Marshal(plain(d))
	}
	checks := d.HealthChecks
	if checks == nil {
		checks = []string{}
	}
	return json.Marshal(struct {
		plain
		HealthChecks []string `json:"healthChecks"`
	}{plain(d), checks})
}

// DependencyRequirement is a dependency as services declare and read it.
type DependencyRequirement struct {
	Kind         string   `json:"kind"`
	ID           string   `json:"id"`
	VersionRange string   `json:"versionRange"`
	HealthChecks []string `json:"healthChecks,omitempty"`
}

// MarshalJSON always writes healthChecks of a running dependency.
func (r DependencyRequirement) MarshalJSON() ([]byte, error) {
	if r.Kind != "running" {
		return json.Marshal(struct {
			Kind         string `json:"kind"`
			ID           string `json:"id"`
			VersionRange string `json:"versionRange"`
		}{r.Kind, r.ID, r.VersionRange})
	}
	checks := r.HealthChecks
	if checks == nil {
		checks = []string{}
	}
	return json.Marshal(struct {
		Kind         string   `json:"kind"`
		ID           string   `json:"id"`
		VersionRange string   `json:"versionRange"`
		HealthChecks []string `json:"healthChecks"`
	}{r.Kind, r.ID, r.VersionRange, checks})
}
