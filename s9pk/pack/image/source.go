package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// ErrSource is wrapped by errors about a Source that says too little, too much
// or nonsense.
var ErrSource = errors.New("image: unusable source")

// Source says what an image is made of; exactly one of OCI, Rootfs, Debian,
// DockerTag and DockerBuild is set. In JSON it is the content of a project's
// images/ID.json. Relative paths start at the project's folder, and {arch} in
// them stands for the architecture that is built (x86_64, aarch64, riscv64).
type Source struct {
	// OCI is an image layout folder, or an archive of one (tar, gzip or zstd
	// around it allowed), or what `docker save` writes.
	OCI string `json:"oci,omitempty"`
	// Ref chooses among the images that a layout holds for one architecture.
	Ref string `json:"ref,omitempty"`
	// Rootfs is a folder holding the root file system.
	Rootfs string `json:"rootfs,omitempty"`
	// Keep leaves the owners of Rootfs and of Files as they are on disk instead
	// of giving everything to root.
	Keep bool `json:"keepOwners,omitempty"`
	// KeepTimes leaves the times of Rootfs as they are on disk, none later than
	// the image's date. Without it all its files have that date, so that copies of
	// a folder make the same image whenever they were made.
	KeepTimes bool `json:"keepTimes,omitempty"`
	// Debian is a root of Debian packages.
	Debian *Debian `json:"debian,omitempty"`
	// DockerTag is pulled, DockerBuild is built, by docker or podman.
	DockerTag   string       `json:"dockerTag,omitempty"`
	DockerBuild *DockerBuild `json:"dockerBuild,omitempty"`

	// Files is a folder laid over the result, whatever the source is.
	Files string `json:"files,omitempty"`

	// The following replace what the image itself says.
	WorkDir    *string   `json:"workdir,omitempty"`
	User       *string   `json:"user,omitempty"`
	Entrypoint *[]string `json:"entrypoint,omitempty"`
	Cmd        *[]string `json:"cmd,omitempty"`
	// Env is added to the image's own, later ones winning; "NAME=value".
	Env []string `json:"env,omitempty"`
}

// Debian describes a root file system of Debian packages. The archives are the
// machine's own (its apt sources with their mirrors and keys, the suite replaced),
// so a build works wherever apt-get does.
type Debian struct {
	Packages []string `json:"packages"`
	// Suite is a release; "" means trixie.
	Suite string `json:"suite,omitempty"`
	// Variant is what is there beside Packages, as mmdebstrap names it:
	// "essential" (the default), "minbase", "apt", or "extract": nothing else,
	// and the packages are unpacked without running their scripts, which makes
	// the smallest images and suits programs that need no set-up.
	Variant string `json:"variant,omitempty"`
	// Docs keeps manual pages, documentation and translations.
	Docs bool `json:"docs,omitempty"`
	// Sources replaces the machine's own archives by lines of apt's sources.list.
	Sources []string `json:"sources,omitempty"`
}

// DockerBuild describes a Dockerfile. Its args may name a variable of the
// environment; one that is not set is left out.
type DockerBuild struct {
	Workdir    string              `json:"workdir,omitempty"`    // the context; "" is the project's folder
	Dockerfile string              `json:"dockerfile,omitempty"` // "" is Dockerfile in Workdir
	BuildArgs  map[string]BuildArg `json:"buildArgs,omitempty"`
}

// BuildArg is a value, or the name of an environment variable that holds it.
type BuildArg struct {
	Value string
	Env   string
}

// UnmarshalJSON reads "value" or {"env": "NAME"}.
func (a *BuildArg) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		return json.Unmarshal(b, &a.Value)
	}
	var v struct {
		Env string `json:"env"`
	}
	if err := json.Unmarshal(b, &v); err != nil || v.Env == "" {
		return fmt.Errorf("%w: a build argument is a string or {\"env\": NAME}", ErrSource)
	}
	a.Env = v.Env
	return nil
}

// MarshalJSON writes what UnmarshalJSON reads.
func (a BuildArg) MarshalJSON() ([]byte, error) {
	if a.Env != "" {
		return json.Marshal(map[string]string{"env": a.Env})
	}
	return json.Marshal(a.Value)
}

// Kind is the one word for what the source is made of.
func (s *Source) Kind() string {
	switch {
	case s.OCI != "":
		return "oci"
	case s.Rootfs != "":
		return "rootfs"
	case s.Debian != nil:
		return "debian"
	case s.DockerTag != "":
		return "dockerTag"
	case s.DockerBuild != nil:
		return "dockerBuild"
	}
	return ""
}

var (
	// Debian Policy 5.6.1 and 5.6.12; a version may be asked for as NAME=VERSION,
	// another architecture as NAME:ARCH.
	debianPackage = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]+(:[a-z0-9-]+)?(=[A-Za-z0-9.+:~-]+)?$`)
	debianSuite   = regexp.MustCompile(`^[a-z][a-z0-9-]*$`)
	debianVariant = map[string]bool{"": true, "essential": true, "minbase": true, "apt": true, "extract": true}
)

// Validate refuses a source that names no content or two, and what no tool would
// take.
func (s *Source) Validate() error {
	n := 0
	for _, set := range []bool{s.OCI != "", s.Rootfs != "", s.Debian != nil, s.DockerTag != "", s.DockerBuild != nil} {
		if set {
			n++
		}
	}
	if n != 1 {
		return fmt.Errorf("%w: it must name exactly one of oci, rootfs, debian, dockerTag and dockerBuild, and names %d", ErrSource, n)
	}
	if strings.HasPrefix(s.DockerTag, "-") {
		return fmt.Errorf("%w: %q is not an image reference", ErrSource, s.DockerTag)
	}
	for _, e := range s.Env {
		if name, _, ok := strings.Cut(e, "="); !ok || name == "" {
			return fmt.Errorf("%w: env %q is not NAME=value", ErrSource, e)
		}
	}
	if d := s.Debian; d != nil {
		if len(d.Packages) == 0 && d.Variant == "extract" {
			return fmt.Errorf("%w: debian variant extract without packages is an empty root", ErrSource)
		}
		for _, p := range d.Packages {
			if !debianPackage.MatchString(p) {
				return fmt.Errorf("%w: %q is not a Debian package name", ErrSource, p)
			}
		}
		if d.Suite != "" && !debianSuite.MatchString(d.Suite) {
			return fmt.Errorf("%w: %q is not a Debian suite", ErrSource, d.Suite)
		}
		if !debianVariant[d.Variant] {
			return fmt.Errorf("%w: %q is not a variant (essential, minbase, apt, extract)", ErrSource, d.Variant)
		}
		for _, l := range d.Sources {
			if !strings.HasPrefix(l, "deb ") || strings.ContainsAny(l, "\n\r") {
				return fmt.Errorf("%w: %q is not a deb line of apt's sources.list", ErrSource, l)
			}
		}
	}
	return nil
}

// ParseSource reads the short form of a command line: oci:PATH, rootfs:DIR,
// debian:PKG,PKG…, docker:TAG, or a file of the JSON form.
func ParseSource(text string) (Source, error) {
	kind, rest, ok := strings.Cut(text, ":")
	var s Source
	switch {
	case ok && kind == "oci":
		s.OCI = rest
	case ok && kind == "rootfs":
		s.Rootfs = rest
	case ok && kind == "docker":
		s.DockerTag = rest
	case ok && kind == "debian":
		s.Debian = &Debian{Packages: strings.FieldsFunc(rest, func(r rune) bool { return r == ',' })}
	case strings.HasSuffix(text, ".json"):
		return ReadSource(text)
	default:
		return s, fmt.Errorf("%w: %q is none of oci:PATH, rootfs:DIR, debian:PKG,PKG, docker:TAG and FILE.json", ErrSource, text)
	}
	return s, s.Validate()
}

// ReadSource reads a file of the JSON form.
func ReadSource(path string) (Source, error) {
	var s Source
	f, err := os.Open(path)
	if err != nil {
		return s, fmt.Errorf("image: %w", err)
	}
	defer f.Close()
	dec := json.NewDecoder(io.LimitReader(f, 1<<20))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&s); err != nil {
		return s, fmt.Errorf("%w: %s: %w", ErrSource, path, err)
	}
	if err := s.Validate(); err != nil {
		return s, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

// locate turns a path of the source into one of the machine.
func locate(base, path, arch string) string {
	path = strings.ReplaceAll(path, "{arch}", arch)
	if !filepath.IsAbs(path) {
		path = filepath.Join(base, path)
	}
	return path
}
