package effect

import (
	"context"
	"encoding/json"

	"github.com/selfstead/selfstead/patchdb"
	"github.com/selfstead/selfstead/s9pk/exver"
	"github.com/selfstead/selfstead/server/service/task"
	"github.com/selfstead/selfstead/server/state"
)

var _ = register(map[string]method{
	"set-dependencies":       typed(setDependencies, "dependencies"),
	"get-dependencies":       typed(getDependencies),
	"check-dependencies":     typed(checkDependencies),
	"get-installed-packages": typed(getInstalledPackages),
	"get-service-manifest":   typed(getServiceManifest),
})

func setDependencies(ctx context.Context, h *Handler, p struct {
	Dependencies []state.DependencyRequirement `json:"dependencies"`
}) (any, error) {
	next := map[string]state.Dependency{}
	if len(p.Dependencies) > maxMembers {
		return nil, invalid("%d dependencies, at most %d are taken", len(p.Dependencies), maxMembers)
	}
	for _, d := range p.Dependencies {
		if err := ID(d.ID).check(); err != nil {
			return nil, err
		}
		if d.Kind != "running" && d.Kind != "exists" {
			return nil, invalid("dependency %s: kind is %q, not running or exists", d.ID, d.Kind)
		}
		if d.VersionRange == "" {
			return nil, invalid("dependency %s: versionRange is missing", d.ID)
		}
		if _, err := exver.ParseRange(d.VersionRange); err != nil {
			return nil, invalid("dependency %s: versionRange: %s", d.ID, err)
		}
		for _, c := range d.HealthChecks {
			if err := ID(c).check(); err != nil {
				return nil, err
			}
		}
		entry := state.Dependency{Kind: d.Kind, VersionRange: d.VersionRange}
		if d.Kind == "running" {
			entry.HealthChecks = append([]string{}, d.HealthChecks...)
		}
		entry.Title, entry.Icon = h.Host.Dependency(ctx, d.ID)
		next[d.ID] = entry
	}
	return nil, h.update(ctx, func(tx *patchdb.Tx) error { return tx.Put(h.own("currentDependencies"), next) })
}

func getDependencies(_ context.Context, h *Handler, _ none) (any, error) {
	list := []state.DependencyRequirement{}
	err := h.DB.View(func(tx *patchdb.Tx) error {
		ids, err := tx.Keys(h.own("currentDependencies"))
		if err != nil {
			return err
		}
		for _, id := range ids {
			d, err := patchdb.TxGet[state.Dependency](tx, h.own("currentDependencies", id))
			if err != nil {
				return err
			}
			list = append(list, state.DependencyRequirement{Kind: d.Kind, ID: id, VersionRange: d.VersionRange, HealthChecks: d.HealthChecks})
		}
		return nil
	})
	return list, err
}

// checkResult is what is known of one dependency; whether that is enough is
// decided by the caller's own rules.
type checkResult struct {
	PackageID        string                        `json:"packageId"`
	Title            *string                       `json:"title"`
	InstalledVersion *string                       `json:"installedVersion"`
	Satisfies        []string                      `json:"satisfies"`
	IsRunning        bool                          `json:"isRunning"`
	Tasks            map[string]task.Entry         `json:"tasks"`
	HealthChecks     map[string]state.HealthResult `json:"healthChecks"`
}

func checkDependencies(_ context.Context, h *Handler, p struct {
	PackageIDs []ID `json:"packageIds"`
}) (any, error) {
	if err := checkIDs(p.PackageIDs...); err != nil {
		return nil, err
	}
	results := []checkResult{}
	err := h.DB.View(func(tx *patchdb.Tx) error {
		ids, err := tx.Keys(h.own("currentDependencies"))
		if err != nil {
			return err
		}
		wanted := set(p.PackageIDs)
		tasks := map[string]task.Entry{}
		if err := tx.Get(h.own("tasks"), &tasks); err != nil {
			return err
		}
		for _, id := range ids {
			if p.PackageIDs != nil && !wanted[ID(id)] {
				continue
			}
			r, err := check(tx, h.own("currentDependencies", id), id)
			if err != nil {
				return err
			}
			for replay, entry := range tasks {
				if entry.Task.PackageID == id {
					r.Tasks[replay] = entry
				}
			}
			results = append(results, r)
		}
		return nil
	})
	return results, err
}

func check(tx *patchdb.Tx, at patchdb.Pointer, id string) (checkResult, error) {
	r := checkResult{PackageID: id, Satisfies: []string{}, Tasks: map[string]task.Entry{}, HealthChecks: map[string]state.HealthResult{}}
	d, err := patchdb.TxGet[state.Dependency](tx, at)
	if err != nil {
		return r, err
	}
	r.Title = localise(d.Title)
	if !tx.Exists(state.PackagePointer(id)) {
		return r, nil
	}
	var m struct {
		Version   string   `json:"version"`
		Satisfies []string `json:"satisfies"`
	}
	manifest := state.PackagePointer(id, "stateInfo", "manifest")
	if next := state.PackagePointer(id, "stateInfo", "installingInfo", "newManifest"); tx.Exists(next) {
		manifest = next // it is being updated to that
	}
	if err := tx.Get(manifest, &m); err == nil && m.Version != "" {
		r.InstalledVersion = &m.Version
		r.Satisfies = append(r.Satisfies, m.Satisfies...)
	}
	s, err := patchdb.TxGet[state.StatusInfo](tx, state.PackagePointer(id, "statusInfo"))
	if err != nil {
		return r, err
	}
	r.IsRunning = s.Started != nil
	for k, v := range s.Health {
		r.HealthChecks[k] = v
	}
	return r, nil
}

// localise picks the text of a title: it is a text, or an object of texts by
// locale of which the English one, else the first, is taken.
func localise(title json.RawMessage) *string {
	var s string
	if json.Unmarshal(title, &s) == nil && string(title) != "null" {
		return &s
	}
	var byLocale map[string]string
	if json.Unmarshal(title, &byLocale) != nil || len(byLocale) == 0 {
		return nil
	}
	if s, ok := byLocale["en_US"]; ok {
		return &s
	}
	first := ""
	for k := range byLocale {
		if first == "" || k < first {
			first = k
		}
	}
	s = byLocale[first]
	return &s
}

func getInstalledPackages(_ context.Context, h *Handler, _ none) (any, error) {
	ids := []string{}
	err := h.DB.View(func(tx *patchdb.Tx) error {
		keys, err := tx.Keys(state.PackageData)
		ids = append(ids, keys...)
		return err
	})
	return ids, err
}

func getServiceManifest(_ context.Context, h *Handler, p struct {
	PackageID *ID    `json:"packageId"`
	Callback  *int64 `json:"callback"`
}) (any, error) {
	pkg, err := h.pkg(p.PackageID)
	if err != nil {
		return nil, err
	}
	at := state.PackagePointer(pkg, "stateInfo", "manifest")
	h.watch(p.Callback, at)
	manifest, err := patchdb.Get[json.RawMessage](h.DB, at)
	if err != nil {
		return nil, Fail(KindNotFound, "package %s is not installed", pkg)
	}
	return manifest, nil
}
