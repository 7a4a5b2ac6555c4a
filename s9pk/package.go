package s9pk

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/selfstead/selfstead/s9pk/merkle"
)

// maxText bounds icon, licence and instructions when they are read into memory.
const maxText = 4 << 20

// Manifest reads and proves manifest.json. The error wraps fs.ErrNotExist where
// the archive has none, ErrKind or ErrMissing where it is no file,
// ErrHashMismatch, or ErrManifest.
func (a *Archive) Manifest(ctx context.Context) (*Manifest, error) {
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	return a.readManifest()
}

func (a *Archive) readManifest() (*Manifest, error) {
	b, err := a.RawManifest()
	if err != nil {
		return nil, err
	}
	m, err := ParseManifest(b)
	if err != nil {
		return nil, &EntryError{Op: "read", Path: ManifestPath, Offset: -1, Err: err}
	}
	return m, nil
}

// RawManifest reads and proves the text of manifest.json.
func (a *Archive) RawManifest() ([]byte, error) {
	f, err := a.File(ManifestPath)
	if err != nil {
		return nil, &EntryError{Op: "read", Path: ManifestPath, Offset: -1, Err: err}
	}
	return f.ReadAll(a.l.Manifest)
}

// imageTypes maps file extensions to the image types that StartOS takes as
// icons; they are compared as they are, so "PNG" is none.
var imageTypes = map[string]string{
	"apng": "image/apng", "avif": "image/avif", "flif": "image/flif", "gif": "image/gif", "jxl": "image/jxl",
	"png": "image/png", "svg": "image/svg+xml", "webp": "image/webp",
	"jpg": "image/jpeg", "jpeg": "image/jpeg", "jfif": "image/jpeg", "pjpeg": "image/jpeg", "pjp": "image/jpeg",
	"mng": "image/x-mng", "x-mng": "image/x-mng",
}

// ImageType is the media type that an icon's name stands for, "" for none.
func ImageType(name string) string { return imageTypes[extension(name)] }

// IconNames lists what could be the icon in a directory: names with the stem
// "icon" and the extension of an image, in byte order. Like StartOS it looks
// from "icon" on and stops at the first name with another stem, so that
// "icon-dark.svg" hides "icon.svg".
func IconNames(d *merkle.Directory) []string {
	entries := d.Entries()
	from, _ := slices.BinarySearchFunc(entries, "icon", func(e *merkle.Entry, s string) int { return strings.Compare(e.Name, s) })
	var names []string
	for _, e := range entries[from:] {
		if stem(e.Name) != "icon" {
			break
		}
		if ImageType(e.Name) != "" {
			names = append(names, e.Name)
		}
	}
	return names
}

// Icon returns the package's icon file and its media type: of several the
// largest. The error wraps fs.ErrNotExist.
func (a *Archive) Icon() (*File, string, error) { return a.icon("", a.root) }

func (a *Archive) icon(prefix string, d *merkle.Directory) (*File, string, error) {
	var best *File
	for _, name := range IconNames(d) {
		if f, err := a.File(prefix + name); err == nil && (best == nil || f.Size >= best.Size) {
			best = f
		}
	}
	if best == nil {
		return nil, "", fmt.Errorf("s9pk: %sicon: %w", prefix, fs.ErrNotExist)
	}
	return best, ImageType(best.Path), nil
}

// License reads LICENSE.md.
func (a *Archive) License() (string, error) { return a.text(LicensePath) }

// Instructions reads instructions.md; the error wraps fs.ErrNotExist where the
// package has none.
func (a *Archive) Instructions() (string, error) { return a.text(InstructionsPath) }

func (a *Archive) text(path string) (string, error) {
	f, err := a.File(path)
	if err != nil {
		return "", err
	}
	b, err := f.ReadAll(maxText)
	return string(b), err
}

// DependencyFiles is what a package brings along to show of a dependency.
type DependencyFiles struct {
	Title    *LocaleString // nil where there is no metadata
	Icon     *File         // nil where there is none
	IconType string
}

// Dependency reads the files about one dependency; both may be absent.
func (a *Archive) Dependency(id string) (DependencyFiles, error) {
	var d DependencyFiles
	prefix := DependenciesPath + "/" + id + "/"
	if f, err := a.File(prefix + "metadata.json"); err == nil {
		b, err := f.ReadAll(a.l.Manifest)
		if err != nil {
			return d, err
		}
		var meta struct {
			Title *LocaleString `json:"title"`
		}
		if err := json.Unmarshal(b, &meta); err != nil {
			return d, f.fail("read", fmt.Errorf("%w: %w", ErrManifest, err))
		}
		d.Title = meta.Title
	}
	if e, err := a.root.Lookup(DependenciesPath + "/" + id); err == nil && e.Kind == merkle.KindDirectory {
		if f, kind, err := a.icon(prefix, e.Dir); err == nil {
			d.Icon, d.IconType = f, kind
		}
	}
	return d, nil
}

// ImageFiles is one image for one architecture.
type ImageFiles struct {
	Arch   string // the one it was built for
	Rootfs *File  // squashfs
	Config ImageConfig
	Env    []string // NAME=value
}

// ImageConfig is how programs of an image are started.
type ImageConfig struct {
	Workdir    string   `json:"workdir"`
	User       string   `json:"user"`
	Entrypoint []string `json:"entrypoint"`
	Cmd        []string `json:"cmd"`
}

// ImageArch chooses the architecture whose files serve image id on arch: its
// own, or the one that is emulated. The error wraps fs.ErrNotExist.
func (a *Archive) ImageArch(m *Manifest, id, arch string) (string, error) {
	img, ok := m.Images[id]
	if !ok {
		return "", fmt.Errorf("s9pk: image %s: %w", printable(id), fs.ErrNotExist)
	}
	choices := []string{arch}
	if img.EmulateMissingAs != nil {
		choices = append(choices, *img.EmulateMissingAs)
	}
	for _, c := range choices {
		if f, err := a.File(ImagePath(c, id, ".squashfs")); err == nil && f != nil {
			return c, nil
		}
	}
	return "", fmt.Errorf("s9pk: image %s for %s: %w", printable(id), printable(arch), fs.ErrNotExist)
}

// ImagePath is the path of one of an image's files; ext is ".squashfs", ".json"
// or ".env".
func ImagePath(arch, id, ext string) string { return ImagesPath + "/" + arch + "/" + id + ext }

// Image finds an image's files for a device of the given architecture and reads
// the two small ones.
func (a *Archive) Image(m *Manifest, id, arch string) (*ImageFiles, error) {
	use, err := a.ImageArch(m, id, arch)
	if err != nil {
		return nil, err
	}
	img := &ImageFiles{Arch: use}
	if img.Rootfs, err = a.File(ImagePath(use, id, ".squashfs")); err != nil {
		return nil, err
	}
	config, err := a.File(ImagePath(use, id, ".json"))
	if err != nil {
		return nil, err
	}
	b, err := config.ReadAll(maxText)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, &img.Config); err != nil {
		return nil, config.fail("read", fmt.Errorf("%w: %w", ErrManifest, err))
	}
	if img.Config.Workdir == "" {
		img.Config.Workdir = "/"
	}
	if img.Config.User == "" {
		img.Config.User = "root"
	}
	env, err := a.File(ImagePath(use, id, ".env"))
	if err != nil {
		return nil, err
	}
	if b, err = env.ReadAll(maxText); err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(b)) {
		if line = strings.TrimRight(line, "\r\n"); strings.Contains(line, "=") {
			img.Env = append(img.Env, line)
		}
	}
	return img, nil
}
