package service

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"time"

	"github.com/selfstead/selfstead/s9pk/pack/image"
)

//go:embed program/dist/index.js
var program []byte

//go:embed program/dist/licences.txt
var licences []byte

// Names of what Bundle writes.
const (
	ProgramName     = "index.js"
	DescriptionName = "service.json"
	LicencesName    = "licences.txt"
)

// Bundle writes the package's javascript folder: the program that does what a
// description says, the description, and the licences of what is in the program.
func (s *Service) Bundle(dir string) error {
	text, err := s.describe()
	if err != nil {
		return fmt.Errorf("service: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("service: %w", err)
	}
	for name, content := range map[string][]byte{ProgramName: program, DescriptionName: text, LicencesName: licences} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			return fmt.Errorf("service: %w", err)
		}
	}
	return nil
}

// Sources are what the images are made of, by id; those that a file in images/
// describes are not among them.
func (s *Service) Sources() map[string]image.Source {
	sources := map[string]image.Source{}
	for _, e := range s.Images {
		if e.Value.Kind() != "" {
			sources[e.ID] = e.Value.Source
		}
	}
	return sources
}

type object = map[string]any

// text is null for the empty one.
func text(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func millis(d *Duration, missing any) any {
	if d == nil {
		return missing
	}
	return time.Duration(*d).Milliseconds()
}

// list is never null.
func list[T any](l []T) []T {
	if l == nil {
		return []T{}
	}
	return l
}

// describe is service.json: see program/src/description.ts.
func (s *Service) describe() ([]byte, error) {
	order, _ := s.order()
	d := object{
		"id": s.ID, "title": s.Title, "version": s.Version, "releaseNotes": s.ReleaseNotes, "license": s.License,
		"description": object{"short": s.Description.Short, "long": s.Description.Long},
		"links": object{"package": s.Links.Package, "upstream": s.Links.Upstream,
			"marketing": text(s.Links.Marketing), "donation": text(s.Links.Donation)},
		"volumes":  list(s.Volumes),
		"hardware": object{"ram": s.Hardware.RAM, "gpu": s.Hardware.GPU, "fuse": s.Hardware.Fuse, "tun": s.Hardware.Tun},
		"alerts":   object{"install": s.Alerts.Install, "update": s.Alerts.Update, "restore": s.Alerts.Restore},
		"backup":   object{"volumes": list(s.Backup.Volumes), "exclude": list(s.Backup.Exclude)},
		"config":   nil,
	}
	if c := s.Config; c != nil {
		d["config"] = object{"name": c.Name, "description": c.Description, "volume": c.Volume, "path": c.Path, "form": form(c.Form)}
	}
	images, dependencies := object{}, object{}
	for _, e := range s.Images {
		images[e.ID] = object{"arch": e.Value.Arch, "emulateMissingAs": e.Value.EmulateMissingAs, "nvidia": e.Value.NVIDIA}
	}
	for _, e := range s.Dependencies {
		v := e.Value
		dependencies[e.ID] = object{"description": text(v.Description), "optional": v.Optional, "running": v.Kind == "running",
			"version": v.Version, "healthChecks": list(v.HealthChecks), "title": text(v.Title), "icon": text(v.Icon)}
	}
	files, tasks, processes, health, interfaces, actions := []object{}, []object{}, []object{}, []object{}, []object{}, []object{}
	for _, f := range s.Files {
		files = append(files, object{"volume": f.Volume, "path": f.Path, "content": f.Content, "mode": f.Mode, "keep": f.Keep})
	}
	for _, t := range s.Tasks {
		tasks = append(tasks, object{"action": t.Action, "severity": t.Severity, "reason": t.Reason})
	}
	for _, e := range order {
		processes = append(processes, process(e.ID, e.Value))
	}
	for _, e := range s.Health {
		h := probe(e.Value.Check, e.Value.Name)
		h["id"], h["name"], h["process"], h["requires"] = e.ID, e.Value.Name, e.Value.Process, list(e.Value.Requires)
		health = append(health, h)
	}
	hosts := map[int]string{}
	for _, e := range s.Interfaces {
		v := e.Value
		if hosts[v.Port] == "" {
			hosts[v.Port] = e.ID
		}
		interfaces = append(interfaces, object{"id": e.ID, "host": hosts[v.Port], "name": v.Name, "description": v.Description, "type": v.Type,
			"port": v.Port, "protocol": v.Protocol, "externalPort": v.ExternalPort, "path": v.Path, "username": text(v.Username), "masked": v.Masked})
	}
	for _, e := range s.Actions {
		actions = append(actions, action(e.ID, e.Value))
	}
	d["images"], d["dependencies"], d["files"], d["tasks"] = images, dependencies, files, tasks
	d["processes"], d["health"], d["interfaces"], d["actions"] = processes, health, interfaces, actions
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", " ")
	err := enc.Encode(d)
	return b.Bytes(), err
}

func surroundings(image, user, workdir string, env Ordered[Text], mounts []Mount) object {
	variables, at := object{}, []object{}
	for _, e := range env {
		variables[e.ID] = string(e.Value)
	}
	for _, m := range mounts {
		at = append(at, object{"volume": text(m.Volume), "assets": m.Assets, "dependency": text(m.Dependency), "path": text(m.Path),
			"at": m.At, "readonly": m.ReadOnly, "file": m.File})
	}
	return object{"image": image, "user": text(user), "workdir": text(workdir), "env": variables, "mounts": at}
}

func process(id string, p Process) object {
	o := surroundings(p.Image, p.User, p.WorkDir, p.Env, p.Mounts)
	o["id"], o["oneshot"], o["init"], o["command"], o["args"] = id, p.Oneshot, p.Init, p.Command, p.Args
	o["requires"], o["stopTimeout"], o["ready"] = list(p.Requires), millis(p.StopTimeout, 60_000), nil
	if p.Ready != nil {
		ready := probe(p.Ready.Check, p.Ready.Name)
		ready["name"] = text(p.Ready.Name)
		o["ready"] = ready
	}
	return o
}

func probe(c Check, name string) object {
	success, failure := c.Success, c.Failure
	if name == "" {
		name = "It"
	}
	if success == "" {
		success = name + " is well"
	}
	if failure == "" {
		failure = name + " is not well"
	}
	o := object{"port": c.Port, "http": nil, "exec": nil, "success": success, "failure": failure,
		"grace": millis(c.Grace, nil), "interval": millis(c.Interval, nil), "timeout": millis(c.Timeout, 10_000)}
	if c.HTTP != nil {
		h := *c.HTTP
		if h.Path == "" {
			h.Path = "/"
		}
		h.Status = list(h.Status)
		o["http"] = h
	}
	if c.Exec != nil {
		o["exec"] = c.Exec
	}
	return o
}

func action(id string, a Action) object {
	o := surroundings(a.Image, a.User, a.WorkDir, a.Env, *a.Mounts)
	when := a.When
	if when != "any" {
		when = "only-" + when
	}
	copyable := a.Result.Copyable == nil || *a.Result.Copyable
	more := object{"id": id, "name": a.Name, "description": a.Description, "warning": text(a.Warning), "group": text(a.Group),
		"when": when, "hidden": a.Hidden, "access": a.Access, "form": form(a.Form), "command": a.Command, "stdin": a.Stdin,
		"timeout": millis(a.Timeout, maxAction.Milliseconds()), "restart": a.Restart,
		"result": object{"kind": a.Result.Kind, "title": a.Result.Title, "message": text(a.Result.Message),
			"copyable": copyable, "qr": a.Result.QR, "masked": a.Result.Masked}}
	maps.Copy(o, more)
	return o
}

func form(f Ordered[Field]) []object {
	fields := []object{}
	for _, e := range f {
		v := e.Value
		o := object{"id": e.ID, "type": v.Type, "name": v.Name, "description": text(v.Description), "warning": text(v.Warning),
			"required": v.Required, "default": nil, "placeholder": text(v.Placeholder), "minLength": v.MinLength, "maxLength": v.MaxLength,
			"patterns": list(v.Patterns), "masked": v.Masked, "inputmode": v.InputMode, "generate": v.Generate,
			"min": v.Min, "max": v.Max, "integer": v.Integer, "step": v.Step, "units": text(v.Units), "values": v.Values}
		if v.InputMode == "" {
			o["inputmode"] = "text"
		}
		if len(v.Default) > 0 {
			o["default"] = v.Default
		}
		fields = append(fields, o)
	}
	return fields
}
