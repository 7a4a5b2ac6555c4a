package s9pk

import (
	"fmt"
	"slices"
	"strings"

	"github.com/selfstead/selfstead/s9pk/merkle"
)

// Breach is one way in which an archive is not a good package.
type Breach struct {
	Path    string // of the file or directory; "" for the archive as a whole
	Field   string // of the manifest, where Path is manifest.json
	Reason  string
	Warning bool // StartOS installs it all the same
}

func (b Breach) Error() string {
	text := "s9pk: "
	if b.Path != "" {
		text += printable(b.Path) + ": "
	}
	if b.Field != "" {
		text += printable(b.Field) + ": "
	}
	return text + b.Reason
}

// Selection is the part of a package that some device needs.
type Selection struct {
	files map[string]bool
	trees []string // directories kept with all they hold
}

// Keeps says whether a path belongs to the selection; a directory does when
// anything in it does. It suits merkle.Directory.Filter.
func (s *Selection) Keeps(path string, _ *merkle.Entry) bool {
	if s.files[path] {
		return true
	}
	return slices.ContainsFunc(s.trees, func(t string) bool { return path == t || strings.HasPrefix(path, t+"/") })
}

func (s *Selection) add(path string) {
	for {
		s.files[path] = true
		i := strings.LastIndexByte(path, '/')
		if i < 0 {
			return
		}
		path = path[:i]
	}
}

// Files lists the selected files and the directories above them.
func (s *Selection) Files() []string { return sortedKeys(s.files) }

// requirer collects what a manifest asks for.
type requirer struct {
	root     *merkle.Directory
	sel      *Selection
	breaches []Breach
}

// Require finds the files that StartOS asks a package for, by its manifest: for
// one architecture, or with arch "" for all that the package is made for. It
// returns what to keep of the tree, and every breach. The tree may be signed
// already or about to be packed; contents are not looked at.
func Require(root *merkle.Directory, m *Manifest, arch string) (*Selection, []Breach) {
	r := &requirer{root: root, sel: &Selection{files: map[string]bool{}}}
	r.file(ManifestPath)
	r.icon()
	r.file(LicensePath)
	if !r.optional(InstructionsPath) {
		r.warn(InstructionsPath, "is missing")
	}
	r.file(JavascriptPath)
	for _, id := range sortedKeys(m.Dependencies) {
		r.dependency(id)
	}
	if !r.optional(AssetsPath) {
		if e, err := root.Lookup("assets"); err == nil && e.Kind == merkle.KindDirectory {
			r.sel.trees = append(r.sel.trees, "assets")
		} else {
			r.warn(AssetsPath, "is missing")
		}
	}
	for _, id := range sortedKeys(m.Images) {
		r.image(id, m.Images[id], m.HardwareRequirements.Arch, arch)
	}
	return r.sel, r.breaches
}

func (r *requirer) fail(path, format string, args ...any) {
	r.breaches = append(r.breaches, Breach{Path: path, Reason: fmt.Sprintf(format, args...)})
}

func (r *requirer) warn(path, reason string) {
	r.breaches = append(r.breaches, Breach{Path: path, Reason: reason, Warning: true})
}

// problem says what keeps a path from being a file that is present.
func (r *requirer) problem(path string) string {
	e, err := r.root.Lookup(path)
	switch {
	case err != nil:
		return "is missing"
	case e.Kind == merkle.KindMissing:
		return "was left out of this copy"
	case e.Kind == merkle.KindDirectory:
		return "is a directory, need a file"
	}
	return ""
}

func (r *requirer) optional(path string) bool {
	ok := r.problem(path) == ""
	if ok {
		r.sel.add(path)
	}
	return ok
}

func (r *requirer) file(path string) bool {
	if problem := r.problem(path); problem != "" {
		r.fail(path, "%s", problem)
		return false
	}
	r.sel.add(path)
	return true
}

// icons lists the present icon files of a directory.
func (r *requirer) icons(prefix string, d *merkle.Directory) []string {
	return slices.DeleteFunc(IconNames(d), func(name string) bool { return r.problem(prefix+name) != "" })
}

func (r *requirer) icon() {
	names := r.icons("", r.root)
	switch len(names) {
	case 0:
		r.fail("icon", "no icon with the extension of an image type")
	case 1:
		r.sel.add(names[0])
	default:
		r.fail(names[1], "is one of %d icons, need one", len(names))
	}
}

func (r *requirer) dependency(id string) {
	prefix := DependenciesPath + "/" + id + "/"
	r.optional(prefix + "metadata.json")
	if e, err := r.root.Lookup(prefix); err == nil && e.Kind == merkle.KindDirectory {
		if names := r.icons(prefix, e.Dir); len(names) == 1 {
			r.sel.add(prefix + names[0])
		}
	}
}

func (r *requirer) image(id string, img Image, required []string, arch string) {
	var arches []string
	switch {
	case arch != "":
		arches = []string{arch}
	case required != nil:
		arches = required
	case img.EmulateMissingAs == nil:
		r.breaches = append(r.breaches, Breach{Path: ManifestPath, Field: "images." + id + ".emulateMissingAs",
			Reason: "is needed where hardwareRequirements.arch is not given"})
		return
	case !slices.Contains(img.Arch, *img.EmulateMissingAs):
		r.breaches = append(r.breaches, Breach{Path: ManifestPath, Field: "images." + id + ".emulateMissingAs",
			Reason: fmt.Sprintf("is %s, which is not one of the image's architectures", quote(*img.EmulateMissingAs))})
		return
	default:
		arches = img.Arch
	}
	for _, a := range arches {
		use := a
		if img.EmulateMissingAs != nil && r.problem(ImagePath(a, id, ".squashfs")) != "" {
			use = *img.EmulateMissingAs
		}
		if !r.file(ImagePath(use, id, ".squashfs")) {
			continue
		}
		r.file(ImagePath(use, id, ".json"))
		r.file(ImagePath(use, id, ".env"))
	}
}
