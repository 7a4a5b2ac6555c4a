package image

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
)

// Config is how a container starts from an image: the part of an OCI image
// configuration that packages keep.
type Config struct {
	WorkDir    string
	User       string
	Entrypoint []string
	Cmd        []string
	Env        []string
}

// JSON is the content of images/ARCH/ID.json: working directory and user with
// their defaults filled in, null for what the image leaves open.
func (c Config) JSON() []byte {
	v := struct {
		WorkDir    string   `json:"workdir"`
		User       string   `json:"user"`
		Entrypoint []string `json:"entrypoint"`
		Cmd        []string `json:"cmd"`
	}{c.WorkDir, c.User, c.Entrypoint, c.Cmd}
	if v.WorkDir == "" {
		v.WorkDir = "/"
	}
	if v.User == "" {
		v.User = "root"
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic(err) // strings and lists of strings always do
	}
	return bytes.TrimSpace(b.Bytes())
}

// EnvFile is the content of images/ARCH/ID.env: one NAME=value a line, without a
// newline at the end. The form has no way to carry a newline inside a value, so
// such a value is an error rather than two lines.
func (c Config) EnvFile() ([]byte, error) {
	for _, e := range c.Env {
		if strings.ContainsAny(e, "\n\r\x00") {
			name, _, _ := strings.Cut(e, "=")
			return nil, fmt.Errorf("image: environment variable %q holds a line break, which a package cannot carry", name)
		}
	}
	return []byte(strings.Join(c.Env, "\n")), nil
}

// with applies what a source says on top of the image's own configuration.
func (c Config) with(s *Source) Config {
	if s.WorkDir != nil {
		c.WorkDir = *s.WorkDir
	}
	if s.User != nil {
		c.User = *s.User
	}
	if s.Entrypoint != nil {
		c.Entrypoint = *s.Entrypoint
	}
	if s.Cmd != nil {
		c.Cmd = *s.Cmd
	}
	env := append([]string(nil), c.Env...)
	for _, e := range s.Env {
		name, _, _ := strings.Cut(e, "=")
		replaced := false
		for i, old := range env {
			if n, _, _ := strings.Cut(old, "="); n == name {
				env[i], replaced = e, true
			}
		}
		if !replaced {
			env = append(env, e)
		}
	}
	c.Env = env
	return c
}
