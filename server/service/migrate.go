package service

import (
	"encoding/json"
	"fmt"

	"github.com/selfstead/selfstead/s9pk"
	"github.com/selfstead/selfstead/s9pk/exver"
	"github.com/selfstead/selfstead/server/problem"
)

// leap is how the data of a package gets from one version to another.
type leap struct {
	target string // what the old version's exit is told: a version or a range
	byOld  bool   // the old version has to move the data before it goes
}

// versions is what a leap depends on, as an installed manifest has it.
type versions struct {
	ID           string                `json:"id"`
	Version      exver.ExtendedVersion `json:"version"`
	CanMigrateTo exver.Range           `json:"canMigrateTo"`
}

func readVersions(raw json.RawMessage) (v versions, err error) {
	if err := json.Unmarshal(raw, &v); err != nil {
		return v, fmt.Errorf("service: installed manifest: %w", err)
	}
	return v, nil
}

// planLeap decides who moves the data (StartOS install pipeline, update and
// migration): the new version where it takes over what is there, else the old
// one where it can get to the new version, else each half of the way where they
// have versions in common. A downgrade is no other case: it is for the packages
// to say what they can. Data of no known version is taken to have the old
// package's.
func planLeap(old versions, data *string, next *s9pk.Manifest) (leap, error) {
	at := old.Version.String()
	if data != nil {
		at = *data
	}
	if at == next.Version.String() || takesOver(next.CanMigrateFrom, at) {
		return leap{target: at}, nil
	}
	if next.Version.Satisfies(old.CanMigrateTo) {
		return leap{target: next.Version.String(), byOld: true}, nil
	}
	if both := exver.And(old.CanMigrateTo, next.CanMigrateFrom); both.Satisfiable() {
		return leap{target: both.String(), byOld: true}, nil
	}
	return leap{}, problem.Newf(422, problem.CodeIncompatible,
		"package %s cannot go from %s to %s: its data has version %s, the new version takes over data of %s, and the installed one can bring it to %s",
		old.ID, old.Version, next.Version, at, next.CanMigrateFrom, old.CanMigrateTo).At(s9pk.ManifestPath, -1)
}

// takesOver reports whether a version, or some version of a range, is in r.
func takesOver(r exver.Range, data string) bool {
	if v, err := exver.ParseExtended(data); err == nil {
		return v.Satisfies(r)
	}
	at, err := exver.ParseRange(data)
	return err == nil && at.Intersects(r)
}

// checkKept refuses an install over data that was kept and that the package
// says it cannot take over.
func checkKept(data *string, next *s9pk.Manifest) error {
	if data == nil || takesOver(next.CanMigrateFrom, *data) || *data == next.Version.String() {
		return nil
	}
	return problem.Newf(422, problem.CodeIncompatible, "the kept data of package %s has version %s, and %s takes over data of %s only",
		next.ID, *data, next.Version, next.CanMigrateFrom).At(s9pk.ManifestPath, -1)
}
