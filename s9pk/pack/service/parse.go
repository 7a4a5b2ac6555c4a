package service

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Parse reads a service.yaml; file names it in errors, which are a Faults or a
// Fault, both of which wrap ErrService.
func Parse(file string, text []byte) (*Service, error) {
	root, err := readYAML(file, text)
	if err != nil {
		return nil, err
	}
	breaches := schema().check(root.value())
	s := &Service{}
	if len(breaches) == 0 {
		var b bytes.Buffer
		root.json(&b)
		if err := json.Unmarshal(b.Bytes(), s); err != nil {
			return nil, &Fault{File: file, Reason: err.Error()}
		}
		s.complete()
		breaches = check(s)
	}
	if len(breaches) == 0 {
		return s, nil
	}
	var faults Faults
	for _, b := range breaches {
		at := root.find(b.path)
		faults = append(faults, &Fault{file, at.line, at.column, strings.Join(b.path, "."), b.reason})
	}
	slices.SortStableFunc(faults, func(a, b *Fault) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
	return nil, slices.CompactFunc(faults, func(a, b *Fault) bool { return a.Path == b.Path && a.Reason == b.Reason })
}

// complete fills in what follows from the rest.
func (s *Service) complete() {
	or := func(s *string, value string) {
		if *s == "" {
			*s = value
		}
	}
	first := ""
	if len(s.Volumes) > 0 {
		first = s.Volumes[0]
	}
	if len(s.ReleaseNotes) == 0 {
		s.ReleaseNotes, _ = json.Marshal("Version " + s.Version)
	}
	or(&s.Links.Package, s.Links.Upstream)
	for i := range s.Images {
		if img := &s.Images[i].Value; img.Arch == nil {
			img.Arch = []string{"x86_64", "aarch64"}
		}
	}
	only := ""
	if len(s.Images) == 1 {
		only = s.Images[0].ID
	}
	if c := s.Config; c != nil {
		or(&c.Name, "Settings")
		or(&c.Description, "What you can choose")
		or(&c.Volume, first)
		or(&c.Path, "config.json")
	}
	for i := range s.Files {
		or(&s.Files[i].Volume, first)
		or(&s.Files[i].Mode, "0644")
	}
	for i := range s.Processes {
		or(&s.Processes[i].Value.Image, only)
	}
	for i := range s.Health {
		or(&s.Health[i].Value.Process, s.Processes[0].ID)
	}
	for i := range s.Interfaces {
		or(&s.Interfaces[i].Value.Protocol, "http")
	}
	for i := range s.Actions {
		a := &s.Actions[i].Value
		or(&a.Process, s.Processes[0].ID)
		or(&a.When, "any")
		or(&a.Access, "user")
		or(&a.Result.Kind, "none")
		or(&a.Result.Title, a.Name)
		p, _ := s.Processes.Get(a.Process)
		if a.Image == "" || a.Image == p.Image { // of another image, other things are there
			or(&a.User, p.User)
			or(&a.WorkDir, p.WorkDir)
		}
		or(&a.Image, p.Image)
		if a.Mounts == nil {
			a.Mounts = &p.Mounts
		}
		for _, e := range p.Env {
			if _, own := a.Env.Get(e.ID); !own {
				a.Env = append(a.Env, e)
			}
		}
	}
	for i := range s.Tasks {
		or(&s.Tasks[i].Severity, "important")
	}
	for i := range s.Dependencies {
		or(&s.Dependencies[i].Value.Kind, "running")
		or(&s.Dependencies[i].Value.Version, "*")
	}
	if s.Backup.Volumes == nil {
		s.Backup.Volumes = s.Volumes
	}
}

// order sorts processes so that each comes after those it requires; ok is false
// when they wait for each other, and the first of those is last.
func (s *Service) order() (sorted []Entry[Process], ok bool) {
	done, doing := map[string]bool{}, map[string]bool{}
	var visit func(id string) bool
	visit = func(id string) bool {
		if done[id] {
			return true
		}
		p, known := s.Processes.Get(id)
		if doing[id] || !known {
			return false
		}
		doing[id] = true
		for _, r := range p.Requires {
			if !visit(r) {
				return false
			}
		}
		done[id] = true
		sorted = append(sorted, Entry[Process]{id, p})
		return true
	}
	for _, id := range s.Processes.IDs() {
		if !visit(id) {
			return sorted, false
		}
	}
	return sorted, true
}

// names joins what may stand somewhere.
func names(list []string) string {
	if len(list) == 0 {
		return "there are none"
	}
	return fmt.Sprintf("there are %s", strings.Join(list, ", "))
}
