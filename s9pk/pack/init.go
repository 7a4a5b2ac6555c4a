package pack

import (
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"text/template"

	"github.com/selfstead/selfstead/s9pk"
)

//go:embed template
var templates embed.FS

// InitOptions says what project Init makes.
type InitOptions struct {
	ID    string // of the package; "" is the name of the folder
	Title string // "" is the id
}

// Init writes a new service project into dir, which must not exist or be empty:
// a web page served by BusyBox, to be changed into what is wanted. It lists the
// files it has written. `npm install && npm run build` makes its bundle.
func Init(dir string, o InitOptions) (files []string, err error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("pack: init: %w", err)
	}
	if o.ID == "" {
		o.ID = filepath.Base(abs)
	}
	if !s9pk.ValidID(o.ID) {
		return nil, fmt.Errorf("pack: init: %q is no package id: lower-case letters and digits, joined by single hyphens", o.ID)
	}
	if o.Title == "" {
		o.Title = o.ID
	}
	if strings.ContainsAny(o.Title, "\n\r") {
		return nil, errors.New("pack: init: the title is more than one line")
	}
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		return nil, fmt.Errorf("pack: init: %s is not empty: %w", dir, fs.ErrExist)
	}
	functions := template.FuncMap{"js": func(s string) (string, error) { b, err := json.Marshal(s); return string(b), err }}
	err = fs.WalkDir(templates, "template", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := templates.ReadFile(name)
		if err != nil {
			return err
		}
		t, err := template.New(name).Delims("[[", "]]").Funcs(functions).Parse(string(text))
		if err != nil {
			return err
		}
		var out bytes.Buffer
		if err := t.Execute(&out, o); err != nil {
			return err
		}
		to := strings.TrimPrefix(name, "template/")
		if path.Base(to) == "gitignore" { // the dot would have kept it out of the embedded files
			to = path.Join(path.Dir(to), ".gitignore")
		}
		files = append(files, to)
		to = filepath.Join(dir, filepath.FromSlash(to))
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		return os.WriteFile(to, out.Bytes(), 0o644)
	})
	if err != nil {
		return files, fmt.Errorf("pack: init: %w", err)
	}
	return files, nil
}
