package pack

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/selfstead/selfstead/s9pk"
	"github.com/selfstead/selfstead/s9pk/pack/image"
	"github.com/selfstead/selfstead/s9pk/pack/service"
)

// DescribeOptions says what project InitDescribed makes. Of OCI and Debian at
// most one is set; neither is a small web page by BusyBox.
type DescribeOptions struct {
	ID, Title string // as in InitOptions

	// OCI is an OCI layout folder, an archive of one or what `docker save` writes;
	// or, where there is no such file, an image that docker or podman has or pulls.
	OCI, Ref string
	Debian   []string // packages
	Command  []string // what runs; nil leaves the image's own
	Port     int      // of a web page, where the image names no port
	Arch     string   // of several, the one to look at; "" is the first
	Tool     string   // docker or podman; "" is the first that works
}

// InitDescribed writes the first version of a project that is described as data
// into dir, which must not exist or be empty. It lists the files it has written;
// Pack makes a package of them as they are.
func InitDescribed(ctx context.Context, dir string, o DescribeOptions) (files []string, err error) {
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
	if strings.ContainsAny(o.Title, "\n\r") {
		return nil, errors.New("pack: init: the title is more than one line")
	}
	if o.OCI != "" && o.Debian != nil {
		return nil, errors.New("pack: init: an image is either OCI or of Debian packages")
	}
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		return nil, fmt.Errorf("pack: init: %s is not empty: %w", dir, fs.ErrExist)
	}
	d := &service.Draft{ID: o.ID, Title: o.Title, Command: o.Command, Web: o.Port}
	page := ""
	switch {
	case o.OCI != "":
		err = fromOCI(ctx, d, abs, o)
	case o.Debian != nil:
		d.Source.Debian = &image.Debian{Packages: o.Debian}
		if d.Command == nil {
			err = errors.New("pack: init: say what the packages' command is")
		}
	default:
		d.Source.Debian = &image.Debian{Packages: []string{"busybox-static"}, Variant: "extract"}
		d.Source.Files = "files"
		d.Web = 8080
		d.Command = []string{"busybox", "httpd", "-f", "-p", "8080", "-h", "/srv"}
		page = fmt.Sprintf("<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>%[1]s</title>\n<h1>%[1]s</h1>\n", htmlEscape(titleOf(o)))
	}
	if err != nil {
		return nil, err
	}
	text, err := d.YAML()
	if err != nil {
		return nil, fmt.Errorf("pack: init: %w", err)
	}
	title := titleOf(o)
	licence, err := templates.ReadFile("template/LICENSE")
	if err != nil {
		return nil, fmt.Errorf("pack: init: %w", err)
	}
	project := []struct{ name, text string }{
		{DescriptionName, string(text)},
		{"README.md", readme(title, o.ID)},
		{"LICENSE", strings.ReplaceAll(string(licence), "[[.Title]]", "the package of "+title)},
		{"instructions.md", "# " + title + "\n\nOpen it at the service's addresses.\n"},
		{"icon.svg", icon(o.ID)},
		{".gitignore", "*.s9pk\n*.s9pk.obao\n"},
	}
	if page != "" {
		project = append(project, struct{ name, text string }{"files/srv/index.html", page})
	}
	for _, f := range project {
		to := filepath.Join(dir, filepath.FromSlash(f.name))
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return files, fmt.Errorf("pack: init: %w", err)
		}
		if err := os.WriteFile(to, []byte(f.text), 0o644); err != nil {
			return files, fmt.Errorf("pack: init: %w", err)
		}
		files = append(files, f.name)
	}
	return files, nil
}

func titleOf(o DescribeOptions) string {
	if o.Title != "" {
		return o.Title
	}
	return o.ID
}

// fromOCI fills a draft from an image's configuration. A file is named relative
// to the project, so that both may move together.
func fromOCI(ctx context.Context, d *service.Draft, dir string, o DescribeOptions) error {
	arch := o.Arch
	if arch == "" {
		arch = "x86_64"
	}
	if _, err := os.Stat(o.OCI); err == nil {
		path, err := filepath.Abs(o.OCI)
		if err != nil {
			return fmt.Errorf("pack: init: %w", err)
		}
		if rel, err := filepath.Rel(dir, path); err == nil {
			path = rel
		}
		d.Source = image.Source{OCI: filepath.ToSlash(path), Ref: o.Ref}
	} else if looksLikeFile(o.OCI) {
		return fmt.Errorf("pack: init: %w", err)
	} else {
		d.Source = image.Source{DockerTag: o.OCI}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, 30*time.Minute, errors.New("it takes more than half an hour"))
	defer cancel()
	about, err := image.Describe(ctx, d.Source, image.Options{Arch: arch, Dir: dir, Tool: o.Tool})
	if err != nil {
		return fmt.Errorf("pack: init: %w", err)
	}
	d.About = *about
	return nil
}

// looksLikeFile: image references neither begin like paths nor end like archives.
func looksLikeFile(name string) bool {
	if strings.HasPrefix(name, "/") || strings.HasPrefix(name, ".") {
		return true
	}
	for _, ext := range []string{".tar", ".tgz", ".gz", ".zst"} {
		if strings.HasSuffix(name, ext) {
			return true
		}
	}
	return false
}

func readme(title, id string) string {
	return "# " + title + `

A service package, described in service.yaml.

` + "```sh" + `
stead dev              # build, install, follow the log; again on each change
stead s9pk pack        # ` + id + `.s9pk
stead s9pk schema      # what may stand in service.yaml
` + "```" + `

` + "`version`" + ` says the program's own version, then this package's; ` + "`LICENSE`" + ` is of the package, ` + "`license`" + ` of the program.
Look over what is said of links, licence and description, and give it an icon.
`
}

var htmlEscape = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace

// icon is a placeholder: the first letter on a colour that follows from the id.
func icon(id string) string {
	hue := 0
	for _, c := range id {
		hue = (hue*31 + int(c)) % 360
	}
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64"><rect width="64" height="64" rx="14" fill="hsl(%d 45%% 35%%)"/>`+
		`<text x="32" y="44" font-family="sans-serif" font-size="36" text-anchor="middle" fill="#fff">%s</text></svg>`+"\n", hue, strings.ToUpper(id[:1]))
}
