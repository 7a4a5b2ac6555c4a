package service

import (
	"encoding/json"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/selfstead/selfstead/s9pk/exver"
)

// checker collects what a schema cannot say.
type checker struct {
	s     *Service
	found []breach
}

// check judges a completed service.
func check(s *Service) []breach {
	c := &checker{s: s}
	if _, err := exver.ParseExtended(s.Version); err != nil {
		c.add(at("version"), "%v; such as 1.0.0:0", err)
	}
	c.images()
	c.data()
	c.processes()
	c.health()
	c.interfaces()
	c.actions()
	c.others()
	return c.found
}

func at(path ...string) []string { return path }

func (c *checker) add(path []string, format string, args ...any) {
	c.found = append(c.found, breach{slices.Clone(path), fmt.Sprintf(format, args...)})
}

func (c *checker) images() {
	for _, e := range c.s.Images {
		here := at("images", e.ID)
		if e.Value.Kind() != "" {
			if err := e.Value.Validate(); err != nil {
				c.add(here, "%s", strings.TrimPrefix(err.Error(), "image: "))
			}
		}
		if as := e.Value.EmulateMissingAs; as != nil && !slices.Contains(e.Value.Arch, *as) {
			c.add(append(here, "emulateMissingAs"), "%s is not one of arch", *as)
		}
	}
}

func (c *checker) image(path []string, id string) {
	if _, ok := c.s.Images.Get(id); !ok {
		if id == "" {
			c.add(path, "must name an image; %s", names(c.s.Images.IDs()))
		} else {
			c.add(path, "no image %s; %s", id, names(c.s.Images.IDs()))
		}
	}
}

func (c *checker) volume(path []string, id string) {
	if !slices.Contains(c.s.Volumes, id) {
		if id == "" {
			c.add(path, "needs a volume, and volumes has none")
		} else {
			c.add(path, "no volume %s; %s", id, names(c.s.Volumes))
		}
	}
}

// inside refuses paths that lead out of where they start.
func (c *checker) inside(where []string, p string) {
	if p != "" && (path.Clean(p) != p || p == ".." || strings.HasPrefix(p, "../") || strings.ContainsRune(p, 0)) {
		c.add(where, "%q is not a plain path below it", p)
	}
}

func (c *checker) data() {
	if cfg := c.s.Config; cfg != nil {
		c.volume(at("config", "volume"), cfg.Volume)
		c.inside(at("config", "path"), cfg.Path)
		c.form(at("config", "form"), cfg.Form)
	}
	for i, f := range c.s.Files {
		here := at("files", strconv.Itoa(i))
		c.volume(append(here, "volume"), f.Volume)
		c.inside(append(here, "path"), f.Path)
		c.template(append(here, "content"), f.Content, nil)
	}
	for i, v := range c.s.Backup.Volumes {
		c.volume(at("backup", "volumes", strconv.Itoa(i)), v)
	}
}

func (c *checker) processes() {
	ids := c.s.Processes.IDs()
	for _, e := range c.s.Processes {
		here, p := at("processes", e.ID), e.Value
		in := func(more ...string) []string { return append(slices.Clone(here), more...) }
		c.image(in("image"), p.Image)
		if p.Command != nil {
			if p.Args != nil {
				c.add(in("args"), "belong to the image's entrypoint, and command is given")
			}
			c.command(in("command"), *p.Command, nil)
		}
		if p.Args != nil {
			for i, a := range *p.Args {
				c.template(in("args", strconv.Itoa(i)), a, nil)
			}
		}
		for _, v := range p.Env {
			c.template(in("env", v.ID), string(v.Value), nil)
		}
		c.mounts(in("mounts"), p.Mounts)
		for i, r := range p.Requires {
			if !slices.Contains(ids, r) {
				c.add(in("requires", strconv.Itoa(i)), "no process %s; %s", r, names(ids))
			}
		}
		if p.Ready != nil {
			if p.Oneshot {
				c.add(in("ready"), "a oneshot is ready when it has ended")
			}
			c.check(in("ready"), p.Ready.Check)
		}
	}
	if sorted, ok := c.s.order(); !ok && len(c.found) == 0 {
		for _, e := range c.s.Processes {
			if !slices.ContainsFunc(sorted, func(s Entry[Process]) bool { return s.ID == e.ID }) {
				c.add(at("processes", e.ID, "requires"), "%s waits for itself", e.ID)
				break
			}
		}
	}
}

func (c *checker) check(here []string, k Check) {
	n := 0
	for _, set := range []bool{k.Port != nil, k.HTTP != nil, k.Exec != nil} {
		if set {
			n++
		}
	}
	if n != 1 {
		c.add(here, "needs exactly one of port, http and exec, and has %d", n)
	}
}

func (c *checker) mounts(here []string, list []Mount) {
	for i, m := range list {
		in := append(slices.Clone(here), strconv.Itoa(i))
		c.inside(append(slices.Clone(in), "path"), m.Path)
		if path.Clean(m.At) != m.At || m.At == "/" {
			c.add(append(slices.Clone(in), "at"), "%q is not a plain path below /", m.At)
		}
		switch {
		case (m.Volume != "") == m.Assets:
			c.add(in, "needs either volume or assets")
		case m.Dependency != "":
			d, ok := c.s.Dependencies.Get(m.Dependency)
			if !ok {
				c.add(append(in, "dependency"), "no dependency %s; %s", m.Dependency, names(c.s.Dependencies.IDs()))
			} else if d.Optional {
				c.add(append(in, "dependency"), "%s is optional: its volume may not be there", m.Dependency)
			}
		case m.Volume != "":
			c.volume(append(in, "volume"), m.Volume)
		}
	}
}

func (c *checker) health() {
	ids := c.s.Processes.IDs()
	for _, e := range c.s.Health {
		here := at("health", e.ID)
		if slices.Contains(ids, e.ID) {
			c.add(here, "a process has this id")
		}
		if !slices.Contains(ids, e.Value.Process) {
			c.add(append(here, "process"), "no process %s; %s", e.Value.Process, names(ids))
		}
		for i, r := range e.Value.Requires {
			if !slices.Contains(ids, r) {
				c.add(at("health", e.ID, "requires", strconv.Itoa(i)), "no process %s; %s", r, names(ids))
			}
		}
		c.check(here, e.Value.Check)
	}
}

func (c *checker) interfaces() {
	for i, e := range c.s.Interfaces {
		for _, before := range c.s.Interfaces[:i] {
			if a, b := e.Value, before.Value; a.Port == b.Port && (a.Protocol != b.Protocol || (a.ExternalPort == nil) != (b.ExternalPort == nil) ||
				a.ExternalPort != nil && *a.ExternalPort != *b.ExternalPort) {
				c.add(at("interfaces", e.ID, "port"), "%d is also the port of %s, by another protocol or external port", a.Port, before.ID)
			}
		}
	}
}

func (c *checker) actions() {
	for _, e := range c.s.Actions {
		a := e.Value
		in := func(more ...string) []string { return append(at("actions", e.ID), more...) }
		if e.ID == "config" && c.s.Config != nil {
			c.add(in(), "config is the action of the settings")
		}
		if ids := c.s.Processes.IDs(); !slices.Contains(ids, a.Process) {
			c.add(in("process"), "no process %s; %s", a.Process, names(ids))
			continue
		}
		c.image(in("image"), a.Image)
		c.form(in("form"), a.Form)
		form := a.Form
		if form == nil {
			form = Ordered[Field]{}
		}
		c.command(in("command"), a.Command, form)
		for _, v := range a.Env {
			c.template(in("env", v.ID), string(v.Value), form)
		}
		c.mounts(in("mounts"), *a.Mounts)
		if a.Stdin != nil {
			c.template(in("stdin"), *a.Stdin, form)
		}
		c.template(in("result", "message"), a.Result.Message, form)
		if a.Timeout != nil && time.Duration(*a.Timeout) > maxAction {
			c.add(in("timeout"), "longer than %s, after which nobody waits for it", maxAction)
		}
	}
}

// maxAction is a little less than what hosts wait for an action.
const maxAction = 100 * time.Second

func (c *checker) others() {
	for i, t := range c.s.Tasks {
		if _, ok := c.s.Actions.Get(t.Action); !ok && (t.Action != "config" || c.s.Config == nil) {
			c.add(at("tasks", strconv.Itoa(i), "action"), "no action %s; %s", t.Action, names(c.s.Actions.IDs()))
		}
	}
	for _, e := range c.s.Dependencies {
		if e.ID == c.s.ID {
			c.add(at("dependencies", e.ID), "is this service")
		}
		if _, err := exver.ParseRange(e.Value.Version); err != nil {
			c.add(at("dependencies", e.ID, "version"), "%v", err)
		}
	}
}

func (c *checker) form(here []string, form Ordered[Field]) {
	for _, e := range form {
		f := e.Value
		in := func(more ...string) []string { return append(slices.Clone(here), append([]string{e.ID}, more...)...) }
		if f.MinLength != nil && f.MaxLength != nil && *f.MinLength > *f.MaxLength {
			c.add(in("minLength"), "more than maxLength")
		}
		if f.Min != nil && f.Max != nil {
			low, err1 := f.Min.Float64()
			high, err2 := f.Max.Float64()
			if err1 == nil && err2 == nil && low > high {
				c.add(in("min"), "more than max")
			}
		}
		var chosen []string
		switch f.Type {
		case "select":
			chosen = make([]string, 1)
			if json.Unmarshal(f.Default, &chosen[0]) != nil {
				chosen = nil
			}
		case "multiselect":
			if len(f.Default) > 0 && json.Unmarshal(f.Default, &chosen) != nil {
				chosen = nil
			}
		}
		for _, v := range chosen {
			if _, ok := f.Values.Get(v); !ok {
				c.add(in("default"), "%q is not one of values; %s", v, names(f.Values.IDs()))
			}
		}
	}
}

func (c *checker) command(here []string, cmd Command, form Ordered[Field]) {
	c.template(here, cmd.Shell, form)
	if cmd.Shell != "" && shellInput.MatchString(cmd.Shell) {
		c.add(here, "a shell would run what is typed into the form: give input by env or stdin")
	}
	if len(cmd.Args) > 0 && cmd.Args[0] == "" {
		c.add(append(slices.Clone(here), "0"), "no program")
	}
	for i, a := range cmd.Args {
		c.template(append(slices.Clone(here), strconv.Itoa(i)), a, form)
	}
}

var (
	shellInput = regexp.MustCompile(`(?:^|[^\\])\{\{\s*input\b`)
	opening    = regexp.MustCompile(`\\\{\{|\{\{`)
	expression = regexp.MustCompile(`^\{\{\s*([A-Za-z0-9_.-]+)\s*(?:\|\s*(json)\s*)?\}\}`)
)

// template proves that what a text speaks of is there; form is nil where there is
// no input.
func (c *checker) template(here []string, text string, form Ordered[Field]) {
	for _, loc := range opening.FindAllStringIndex(text, -1) {
		if text[loc[0]] == '\\' {
			continue
		}
		m := expression.FindStringSubmatch(text[loc[0]:])
		if m == nil {
			c.add(here, "%q is neither {{NAME}} nor {{NAME | json}}; \\{{ stands for two braces", cut(text[loc[0]:]))
			continue
		}
		keys := strings.Split(m[1], ".")
		var may []string
		switch {
		case keys[0] == "config" && c.s.Config != nil:
			may = c.s.Config.Form.IDs()
		case keys[0] == "input" && form != nil:
			may = form.IDs()
		case keys[0] == "service":
			may = []string{"id", "title", "version"}
		default:
			c.add(here, "{{%s}}: there is no %s here", m[1], keys[0])
			continue
		}
		if len(keys) == 1 && m[2] == "json" {
			continue
		}
		if len(keys) != 2 || !slices.Contains(may, keys[1]) {
			c.add(here, "{{%s}} is not there; in %s %s", m[1], keys[0], names(may))
		}
	}
}

func cut(s string) string {
	if len(s) > 20 {
		return s[:20] + "…"
	}
	return s
}
