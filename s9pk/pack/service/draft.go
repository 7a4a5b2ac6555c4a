package service

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"text/template"

	"github.com/selfstead/selfstead/s9pk/exver"
	"github.com/selfstead/selfstead/s9pk/pack/image"
)

// Draft is what the first version of a service.yaml is made from.
type Draft struct {
	ID, Title string
	Source    image.Source // of the one image
	About     image.About  // what is known of it
	Command   []string     // "" leaves the image's own
	Web       int          // port of a page, where About has no ports
}

const draft = `# yaml-language-server: $schema=https://github.com/selfstead/selfstead/raw/main/s9pk/pack/service/schema.json
# What may stand here: stead s9pk schema. What it becomes: stead s9pk pack, or stead dev.
id: [[y .ID]]
title: [[y .Title]]
version: [[.Version]] # of the program, then of this package
license: [[y .License]]
description:
  short: [[y .Short]]
  long: [[y .Long]]
links:
  upstream: [[y .Upstream]]

images:
  main: [[y .Source]]
[[if .Volumes]]
volumes: [main]
[[end]]
processes:
[[- if .Owner]]
  # The image's user is not root: folders on a new volume are made its own.
  own:
    oneshot: true
    user: root
    command: [[y .OwnCommand]]
    mounts:
[[- range .Volumes]]
      - { volume: main, path: [[y .Path]], at: [[y .At]] }
[[- end]]
[[- end]]
  main:
[[- if .Command]]
    command: [[y .Command]]
[[- else]]
    # The image runs [[y .Own]]. To run something else: command: [...]
[[- end]]
[[- if .Volumes]]
    mounts:
[[- range .Volumes]]
      - { volume: main, path: [[y .Path]], at: [[y .At]] }
[[- end]]
[[- end]]
[[- if .Owner]]
    requires: [own]
[[- end]]
[[- if .Ready]]
    ready:
      name: [[y .Title]]
      port: [[.Ready]] # or http: { port: [[.Ready]], path: / }
      grace: 1m
[[- end]]
[[if .Interfaces]]
interfaces:
[[- range .Interfaces]]
  [[.ID]]: { name: [[y .Name]], type: [[.Type]], port: [[.Port]], protocol: [[.Protocol]] }
[[- end]]
[[end]]
# Settings that the owner sees as a form; {{config.KEY}} stands for them in
# command, env and files:
# config:
#   form:
#     name: { type: text, name: Name, required: true, default: Home }
#
# Commands that the owner can run, with a form of their own:
# actions:
#   hello:
#     name: Hello
#     description: Says hello
#     form: { who: { type: text, name: Who, required: true } }
#     command: [echo, "Hello {{input.who}}"]
#     result: { kind: text }
`

type draftInterface struct {
	ID, Name, Type, Protocol string
	Port                     int
}

type draftVolume struct{ Path, At string }

// YAML writes the description, which Parse accepts.
func (d *Draft) YAML() ([]byte, error) {
	label := func(names ...string) string {
		for _, n := range names {
			if v := strings.Join(strings.Fields(d.About.Labels["org.opencontainers.image."+n]), " "); v != "" {
				return v
			}
		}
		return ""
	}
	or := func(values ...string) string {
		for _, v := range values {
			if v != "" {
				return v
			}
		}
		return ""
	}
	own := slices.Concat(d.About.Entrypoint, d.About.Cmd)
	if len(d.Command) == 0 && len(own) == 0 {
		return nil, fmt.Errorf("service: the image says no command: give one")
	}
	v := map[string]any{
		"ID": d.ID, "Title": or(d.Title, label("title"), d.ID), "Version": version(label("version")),
		"License": or(label("licenses"), "LicenseRef-unknown"), "Short": or(label("description", "title"), d.ID), "Long": or(label("description", "title"), d.ID),
		"Upstream": upstream(label("source"), label("url"), label("documentation")),
		"Command":  d.Command, "Own": own,
	}
	source, err := json.Marshal(struct {
		Arch []string `json:"arch,omitempty"`
		image.Source
	}{d.About.Arch, d.Source})
	if err != nil {
		return nil, fmt.Errorf("service: %w", err)
	}
	v["Source"] = json.RawMessage(source)
	volumes := []draftVolume{}
	paths := []string{}
	for _, at := range d.About.Volumes {
		if at = path.Clean(at); path.IsAbs(at) && at != "/" {
			volumes = append(volumes, draftVolume{strings.ReplaceAll(strings.Trim(at, "/"), "/", "-"), at})
			paths = append(paths, at)
		}
	}
	v["Volumes"] = volumes
	user, _, _ := strings.Cut(d.About.User, ":")
	v["Owner"] = len(volumes) > 0 && user != "" && user != "root" && user != "0"
	v["OwnCommand"] = append([]string{"chown", d.About.User}, paths...)
	interfaces := d.interfaces()
	v["Interfaces"], v["Ready"] = interfaces, 0
	for _, i := range interfaces {
		if i.Protocol != "udp" {
			v["Ready"] = i.Port
			break
		}
	}
	t := template.Must(template.New("draft").Delims("[[", "]]").Funcs(template.FuncMap{"y": inline}).Parse(draft))
	var b bytes.Buffer
	if err := t.Execute(&b, v); err != nil {
		return nil, fmt.Errorf("service: %w", err)
	}
	if _, err := Parse(d.ID+"/service.yaml", b.Bytes()); err != nil {
		return nil, fmt.Errorf("service: what the image says makes no good description: %w", err)
	}
	return b.Bytes(), nil
}

func (d *Draft) interfaces() (list []draftInterface) {
	ports := d.About.Ports
	if len(ports) == 0 && d.Web > 0 {
		ports = []image.Port{{Number: d.Web, Protocol: "tcp"}}
	}
	known := map[int]string{22: "ssh", 53: "dns", 443: "https", 8443: "https"}
	seen := map[int]bool{}
	page := false
	for _, p := range ports {
		if seen[p.Number] { // a forward is for both TCP and UDP
			continue
		}
		seen[p.Number] = true
		i := draftInterface{ID: fmt.Sprintf("port-%d", p.Number), Name: fmt.Sprintf("Port %d", p.Number), Type: "api", Protocol: "tcp", Port: p.Number}
		switch {
		case p.Protocol == "udp":
			i.Protocol = "udp"
		case known[p.Number] == "ssh" || known[p.Number] == "dns":
			i.Protocol = known[p.Number]
		case !page && known[p.Number] != "https":
			i.ID, i.Name, i.Type, i.Protocol, page = "ui", "Web page", "ui", "http", true
		case known[p.Number] == "https":
			i.Protocol = "https"
		}
		list = append(list, i)
	}
	return list
}

// inline is a value on one line: plain words without quotes, else as JSON, which
// is YAML too.
func inline(v any) (string, error) {
	switch v := v.(type) {
	case string:
		if word.MatchString(v) && !reserved[strings.ToLower(v)] || address.MatchString(v) {
			return v, nil
		}
	case []string:
		list := make([]string, len(v))
		for i, s := range v {
			text, err := inline(s)
			if err != nil {
				return "", err
			}
			list[i] = text
		}
		return "[" + strings.Join(list, ", ") + "]", nil
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	text := strings.TrimSpace(b.String())
	if _, ok := v.(json.RawMessage); ok {
		text = strings.NewReplacer(`":`, `": `, `,"`, `, "`).Replace(text)
	}
	return text, err
}

var (
	word     = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9./-]*( [A-Za-z0-9./-]+)*$`)
	address  = regexp.MustCompile(`^https?://[A-Za-z0-9./_~%?&=+-]+$`)
	reserved = map[string]bool{"true": true, "false": true, "null": true, "yes": true, "no": true, "on": true, "off": true, "inf": true, "nan": true}
	number   = regexp.MustCompile(`^[0-9]+(\.[0-9]+)*`)
)

// version makes a version of a label's, whose beginning is a number.
func version(label string) string {
	n := number.FindString(strings.TrimPrefix(label, "v"))
	if _, err := exver.ParseExtended(n + ":0"); n == "" || err != nil {
		return "0.1.0:0"
	}
	return n + ":0"
}

var url = regexp.MustCompile(`^https?://[^\s]+$`)

func upstream(labels ...string) string {
	for _, l := range labels {
		if url.MatchString(l) {
			return l
		}
	}
	return "https://example.org"
}
