package service

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const small = `id: demo
title: Demo
version: 1.0.0:0
license: MIT
description: {short: A demo, long: A longer demo}
links: {upstream: "https://example.org"}
images: {main: {rootfs: root}}
volumes: [main, other]
config:
  form:
    name: {type: text, name: Name, default: x}
    pick: {type: select, name: Pick, default: b, values: {b: Bee, a: Ay}}
processes:
  web:
    command: [web]
    mounts: [{volume: main, at: /data}]
    ready: {port: 80}
`

// The published schema is one of the draft it says, and every example passes.
func TestExamples(t *testing.T) {
	t.Parallel()
	var doc struct {
		Schema string `json:"$schema"`
	}
	require.NoError(t, json.Unmarshal(Schema, &doc))
	require.Equal(t, "https://json-schema.org/draft/2020-12/schema", doc.Schema)
	require.NotNil(t, schema().compiled)

	files, err := filepath.Glob("../../../examples/services/*/service.yaml")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	more, err := filepath.Glob("testdata/*.yaml")
	require.NoError(t, err)
	require.NotEmpty(t, more)
	for _, name := range append(files, more...) {
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		_, err = Parse(name, text)
		require.NoError(t, err)
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	s, err := Parse("service.yaml", []byte(small))
	require.NoError(t, err)
	require.Equal(t, "main", s.Processes[0].Value.Image, "the only image")
	require.Equal(t, "config.json", s.Config.Path)
	require.Equal(t, []string{"b", "a"}, s.Config.Form[1].Value.Values.IDs(), "in the order of the file")
	require.Equal(t, "root", s.Sources()["main"].Rootfs)
	require.Equal(t, []string{"main", "other"}, s.Backup.Volumes)

	// What a process has goes for the actions that run in its surroundings.
	s, err = Parse("service.yaml", []byte(small+"    user: app\n    env: {PORT: 8080, SHARED: \"1\"}\n"+`actions:
  hello:
    name: Hello
    description: Says it
    form: {who: {type: text, name: Who}}
    env: {SHARED: "{{input.who}}"}
    command: echo "$SHARED"
`))
	require.NoError(t, err)
	a, ok := s.Actions.Get("hello")
	require.True(t, ok)
	require.Equal(t, "app", a.User)
	require.Equal(t, Ordered[Text]{{"SHARED", "{{input.who}}"}, {"PORT", "8080"}}, a.Env)
	require.Equal(t, []Mount{{At: "/data", Volume: "main"}}, *a.Mounts)
	require.Equal(t, `echo "$SHARED"`, a.Command.Shell)
}

// Processes come after those that they require, whatever the file's order.
func TestOrder(t *testing.T) {
	t.Parallel()
	s, err := Parse("service.yaml", []byte(strings.Replace(small, "    command: [web]", "    command: [web]\n    requires: [second]", 1)+`  second: {command: [b], requires: [first]}
  first: {command: [a], oneshot: true}
`))
	require.NoError(t, err)
	sorted, ok := s.order()
	require.True(t, ok)
	require.Equal(t, []string{"first", "second", "web"}, Ordered[Process](sorted).IDs())
}

// TestRefusals: each fault is found, and said with its place. The text after
// "->" replaces what is before it in a good description.
func TestRefusals(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ from, to, want string }{
		// Not YAML, or more of it than is used.
		{"id: demo", "id: [demo", "service.yaml:"},
		{"id: demo", "id: demo\nid: two", "already defined"},
		{"id: demo", "id: *nowhere", "service.yaml:1:5: no anchor nowhere"},
		{"id: demo", "id: !!str demo", "tags are not used here"},
		{small, "", "service.yaml: empty"},
		{small, "- a\n", "is a list, must be a mapping"},
		{"processes:", "---\nprocesses:", "a second document"},
		{"  web:\n", "  web: &web\n    <<: *web\n", "service.yaml:1"},
		// The shape.
		{"title: Demo\n", "", "service.yaml:1:1: missing: title"},
		{"title: Demo", "title: 7", "service.yaml:2:1: title: is a number, must be a text"},
		{"title: Demo", "title: ''", "service.yaml:2:1: title: empty"},
		{"title: Demo", "titel: Demo", "service.yaml:2:1: titel: unknown key; here may stand"},
		{"id: demo", "id: My Demo", `service.yaml:1:1: id: "My Demo" must be lower-case letters`},
		{"    ready: {port: 80}", "    ready: {port: 80000}", "service.yaml:17:13: processes.web.ready.port: is more than 65535"},
		{"    command: [web]", "    comand: [web]", "service.yaml:15:5: processes.web.comand: unknown key; here may stand args, command"},
		{"  web:", "  We_b:", "service.yaml:14:3: processes.We_b: not a name"},
		{"{upstream: \"https://example.org\"}", "{upstream: example.org}", "must be an http or https URL"},
		{"volumes: [main, other]", "volumes: [main, main]", "service.yaml:8:1: volumes: "},
		{"type: text, name: Name, default: x", "type: text, name: Name, values: {a: b}", "config.form.name.values: unknown key"},
		{"type: text, name: Name, default: x", "type: words, name: Name", "must be one of text, textarea"},
		{"default: b, values: {b: Bee, a: Ay}", "values: {b: Bee}", "service.yaml:12:5: config.form.pick: missing: default"},
		{"    ready: {port: 80}", "    stopTimeout: 10", "is a number, must be a text"},
		{"    ready: {port: 80}", "    stopTimeout: ten", "must be a duration such as"},
		{"    mounts: [{volume: main, at: /data}]", "    mounts: [{volume: main, at: data}]", "must be an absolute path"},
		{"    ready: {port: 80}", "actions: {a: {name: A, description: B}}", "actions.a: missing: command"},
		{"    command: [web]", "    command: []", "processes.web.command: empty"},
		{"    ready: {port: 80}", "dependencies: {peer: {title: Peer}}", "title also needs icon"},
		{"description: {short: A demo, long: A longer demo}", "description: {short: {german: Eine}, long: {de_DE: Lang}}", "description.short.german: not a name"},
		// What a schema cannot say.
		{"version: 1.0.0:0", "version: one", "service.yaml:3:1: version: "},
		{"images: {main: {rootfs: root}}", "images: {main: {rootfs: root, oci: x}}", "names 2"},
		{"images: {main: {rootfs: root}}", "images: {main: {rootfs: root, arch: [x86_64], emulateMissingAs: aarch64}}", "images.main.emulateMissingAs: aarch64 is not one of arch"},
		{"images: {main: {rootfs: root}}", "images: {main: {rootfs: root}, b: {}}", "processes.web.image: must name an image; there are main, b"},
		{"    command: [web]", "    command: [web]\n    image: nope", "service.yaml:16:5: processes.web.image: no image nope; there are main"},
		{"{volume: main, at: /data}", "{volume: nope, at: /data}", "service.yaml:16:15: processes.web.mounts.0.volume: no volume nope; there are main, other"},
		{"{volume: main, at: /data}", "{volume: main, path: a/../../b, at: /data}", "not a plain path below it"},
		{"{volume: main, at: /data}", "{volume: main, assets: true, at: /data}", "needs either volume or assets"},
		{"{volume: main, at: /data}", "{dependency: peer, volume: main, at: /data}", "no dependency peer; there are none"},
		{"{volume: main, at: /data}", "{volume: main, at: /}", "not a plain path below /"},
		{"    ready: {port: 80}", "    ready: {port: 80, exec: [a]}", "processes.web.ready: needs exactly one of port, http and exec, and has 2"},
		{"    ready: {port: 80}", "    ready: {port: 80}\n    oneshot: true", "a oneshot is ready when it has ended"},
		{"    ready: {port: 80}", "    requires: [db]", "processes.web.requires.0: no process db; there are web"},
		{"    ready: {port: 80}", "    requires: [web]", "processes.web.requires: web waits for itself"},
		{"    ready: {port: 80}", "    requires: [b]\n  b: {requires: [web]}", "waits for itself"},
		{"    command: [web]", "    command: [web]\n    args: [x]", "belong to the image's entrypoint"},
		{"    command: [web]", "    command: [web, '{{config.nam}}']", "processes.web.command.1: {{config.nam}} is not there; in config there are name, pick"},
		{"    command: [web]", "    command: [web, '{{input.nam}}']", "there is no input here"},
		{"    command: [web]", "    command: [web, '{{config.name']", "is neither {{NAME}} nor"},
		{"    command: [web]", "    command: [web]\n    env: {A: '{{service.secret}}'}", "in service there are id, title, version"},
		{"    ready: {port: 80}", "health: {web: {name: Web, port: 1}}", "health.web: a process has this id"},
		{"    ready: {port: 80}", "health: {h: {name: H, process: x, port: 1}}", "health.h.process: no process x"},
		{"    ready: {port: 80}", "health: {h: {name: H, requires: [x], port: 1}}", "health.h.requires.0: no process x"},
		{"    ready: {port: 80}", "health: {h: {name: H}}", "needs exactly one of port, http and exec, and has 0"},
		{"    ready: {port: 80}", "interfaces: {a: {name: A, type: ui, port: 1}, b: {name: B, type: ui, port: 1, protocol: tcp}}", "1 is also the port of a"},
		{"    ready: {port: 80}", "actions: {config: {name: A, description: B, command: [a]}}", "config is the action of the settings"},
		{"    ready: {port: 80}", "actions: {a: {name: A, description: B, command: [a], process: x}}", "actions.a.process: no process x"},
		{"    ready: {port: 80}", "actions: {a: {name: A, description: B, command: [a], timeout: 10m}}", "longer than 1m40s"},
		{"    ready: {port: 80}", "actions: {a: {name: A, description: B, command: 'echo {{input.x}}', form: {x: {type: text, name: X}}}}", "a shell would run what is typed"},
		{"    ready: {port: 80}", "actions: {a: {name: A, description: B, command: [a], form: {x: {type: text, name: X, minLength: 3, maxLength: 2}}}}", "more than maxLength"},
		{"    ready: {port: 80}", "actions: {a: {name: A, description: B, command: [a], form: {x: {type: number, name: X, min: 3, max: 2}}}}", "more than max"},
		{"default: b, values", "default: c, values", `config.form.pick.default: "c" is not one of values; there are b, a`},
		{"    ready: {port: 80}", "tasks: [{action: x, reason: y}]", "tasks.0.action: no action x"},
		{"    ready: {port: 80}", "dependencies: {demo: {}}", "dependencies.demo: is this service"},
		{"    ready: {port: 80}", "dependencies: {peer: {version: '>>1'}}", "dependencies.peer.version: "},
		{"    ready: {port: 80}", "backup: {volumes: [x]}", "backup.volumes.0: no volume x"},
		{"    ready: {port: 80}", "files: [{path: ../x, content: ''}]", "files.0.path: "},
		{"volumes: [main, other]\n", "", "needs a volume, and volumes has none"},
	} {
		require.Contains(t, small, c.from)
		text := strings.Replace(small, c.from, c.to, 1)
		_, err := Parse("service.yaml", []byte(text))
		if !errors.Is(err, ErrService) {
			t.Errorf("%s: accepted, or of another kind: %v", c.to, err)
			continue
		}
		if !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s:\n have %s\n want %s", c.to, err, c.want)
		}
	}
}

// A file that stands for very much is refused in time.
func TestAliases(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n")
	for _, n := range []string{"1", "2", "3", "4", "5", "6", "7", "8", "9"} {
		last := string(n[0] - 1)
		b.WriteString("a" + n + ": &a" + n + " [" + strings.Repeat("*a"+last+", ", 9) + "*a" + last + "]\n")
	}
	_, err := Parse("service.yaml", []byte(b.String()))
	require.ErrorContains(t, err, "too much")
	_, err = Parse("service.yaml", []byte(strings.Repeat("[", 5000)))
	require.ErrorIs(t, err, ErrService)
	_, err = Parse("service.yaml", make([]byte, maxText+1))
	require.ErrorContains(t, err, "larger than")
}

func FuzzParse(f *testing.F) {
	schema() // once, lest its coverage be taken for that of a text
	f.Add([]byte(small))
	text, err := os.ReadFile("testdata/everything.yaml")
	require.NoError(f, err)
	f.Add(text)
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := Parse("service.yaml", text)
		if err == nil {
			if _, err := s.describe(); err != nil {
				t.Fatal(err)
			}
		} else if !errors.Is(err, ErrService) {
			t.Fatal(err)
		}
	})
}
