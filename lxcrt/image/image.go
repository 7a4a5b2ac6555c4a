package image

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Errors that callers branch on.
var (
	// ErrInvalid: an option is wrong by itself.
	ErrInvalid = errors.New("image: invalid option")
	// ErrNotSupported is always wrapped with the name of what is missing.
	ErrNotSupported = errors.New("image: not supported here")
	// ErrDamaged: a kept image does not have the hash it was stored with.
	ErrDamaged = errors.New("image: content does not match its hash")
)

// DefaultPackages are what a service's base image has beside Debian's minimal
// system.
var DefaultPackages = []string{"ca-certificates", "curl", "mount", "nodejs", "procps", "rsync", "util-linux"}

// Options tune Build. Cache has to be set.
type Options struct {
	// Cache is the folder in which images are kept. It is made if missing.
	Cache string
	// Suite is the Debian release; empty means "trixie".
	Suite string
	// Arch is Debian's name of the architecture; empty is the host's.
	Arch string
	// Packages are installed beside Debian's minimal system; nil means
	// DefaultPackages.
	Packages []string
	// Exclude are further paths that packages do not bring along, in dpkg's pattern
	// language: "*" matches slashes too.
	Exclude []string
	// Fresh builds even if there is an image.
	Fresh bool
	// Progress is told, from one goroutine, what goes on.
	Progress func(Progress)

	etc string // where apt's sources stand; tests have another than /etc/apt
}

// Progress says what a build is at.
type Progress struct {
	Phase string // "verify", "packages", "squashfs"
	Step  string // what mmdebstrap says, in its own words
	Done  int    // steps
	Total int    // steps, as far as known
}

var (
	suiteName   = regexp.MustCompile(`^[a-z][a-z0-9-]*$`)
	packageName = regexp.MustCompile(`^[a-z0-9][a-z0-9.+-]+$`)
)

func (o *Options) settle() error {
	if !filepath.IsAbs(o.Cache) {
		return fmt.Errorf("%w: cache folder %q", ErrInvalid, o.Cache)
	}
	if o.Suite == "" {
		o.Suite = "trixie"
	}
	if o.Arch == "" {
		o.Arch = hostArch()
	}
	if o.Packages == nil {
		o.Packages = DefaultPackages
	}
	o.Packages = slices.Compact(slices.Sorted(slices.Values(o.Packages)))
	for _, p := range o.Packages {
		if !packageName.MatchString(p) {
			return fmt.Errorf("%w: package %q", ErrInvalid, p)
		}
	}
	for _, e := range o.Exclude {
		if !strings.HasPrefix(e, "/") || strings.ContainsAny(e, "\n,\"") {
			return fmt.Errorf("%w: excluded path %q", ErrInvalid, e)
		}
	}
	if !suiteName.MatchString(o.Suite) || !suiteName.MatchString(o.Arch) {
		return fmt.Errorf("%w: suite %q for %q", ErrInvalid, o.Suite, o.Arch)
	}
	if o.Progress == nil {
		o.Progress = func(Progress) {}
	}
	return nil
}

// recipe changes whenever what Build does to an image changes.
const recipe = "2"

// key names an image by everything that goes into it but package versions.
func (o Options) key() string {
	h := sha256.New()
	for _, s := range slices.Concat([]string{recipe, o.Suite, o.Arch, tidy, strings.Join(excluded, " ")}, o.Packages, o.Exclude) {
		fmt.Fprintf(h, "%d %s\n", len(s), s)
	}
	return hex.EncodeToString(h.Sum(nil)[:10])
}

func hashFile(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// Verify compares an image with the hash beside it. A missing image or hash is
// fs.ErrNotExist, a wrong one ErrDamaged.
func Verify(file string) error {
	want, err := os.ReadFile(file + ".sha256")
	if err != nil {
		return err
	}
	got, err := hashFile(file)
	if err != nil {
		return err
	}
	if strings.TrimSpace(string(want)) != got {
		return fmt.Errorf("%w: %s", ErrDamaged, file)
	}
	return nil
}
