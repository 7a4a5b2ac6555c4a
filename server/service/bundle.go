package service

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/selfstead/selfstead/s9pk"
	"github.com/selfstead/selfstead/server/problem"
)

// region is a squashfs inside the archive.
type region struct{ Offset, Size int64 }

func (r region) present() bool { return r.Size > 0 }

// image is one image of the package for this machine.
type image struct {
	Arch      string
	FS        region
	Env, JSON []byte
}

// bundle is what the server knows of one archive. It is read once and never
// changes.
type bundle struct {
	Path       string // of the archive
	Manifest   *s9pk.Manifest
	Raw        json.RawMessage // the manifest with every field, as services read it
	Signer     string          // hex
	JS, Assets region
	Images     map[string]image
	Icon       string // data URL, "" when there is none

	dependencies map[string]dependencyInfo
}

type dependencyInfo struct {
	Title json.RawMessage
	Icon  *string
}

// Limits of the small members that are held in memory.
const (
	maxSideFile = 1 << 20
	maxIcon     = 2 << 20
)

// openBundle reads the archive at file; its tables are proven on the way.
func openBundle(ctx context.Context, file, arch string) (*bundle, error) {
	a, err := s9pk.OpenFile(file, s9pk.Options{Package: true})
	if err != nil {
		return nil, err
	}
	defer a.Close()
	return readBundle(ctx, a, file, arch)
}

func readBundle(ctx context.Context, a *s9pk.Archive, file, arch string) (*bundle, error) {
	b := &bundle{Path: file, Signer: fmt.Sprintf("%x", []byte(a.Signer())), Images: map[string]image{}, dependencies: map[string]dependencyInfo{}}
	var err error
	if b.Manifest, err = a.Manifest(ctx); err != nil {
		return nil, missing(s9pk.ManifestPath, err)
	}
	if b.Raw, err = json.Marshal(b.Manifest); err != nil {
		return nil, err
	}
	if err := checkMachine(b.Manifest, arch); err != nil {
		return nil, err
	}
	js, err := a.File(s9pk.JavascriptPath)
	if err != nil {
		return nil, missing(s9pk.JavascriptPath, err)
	}
	b.JS = region{js.Position, js.Size}
	if assets, err := a.File(s9pk.AssetsPath); err == nil {
		b.Assets = region{assets.Position, assets.Size}
	}
	for id := range b.Manifest.Images {
		if b.Images[id], err = readImage(a, b.Manifest, id, arch); err != nil {
			return nil, err
		}
	}
	if f, kind, err := a.Icon(); err == nil {
		b.Icon = dataURL(f, kind)
	}
	for id := range b.Manifest.Dependencies {
		b.dependencies[id] = readDependency(a, id)
	}
	return b, nil
}

// checkMachine refuses a package that cannot run on this machine.
func checkMachine(m *s9pk.Manifest, arch string) error {
	if h := m.HardwareRequirements.Arch; h != nil && !slices.Contains(h, arch) {
		return problem.Newf(422, problem.CodeArchitecture, "package %s runs on %s, this server is %s", m.ID, strings.Join(h, ", "), arch).
			At(s9pk.ManifestPath, -1)
	}
	for _, id := range sortedKeys(m.Images) {
		img := m.Images[id]
		if slices.Contains(img.Arch, arch) || img.EmulateMissingAs != nil && slices.Contains(img.Arch, *img.EmulateMissingAs) {
			continue
		}
		return problem.Newf(422, problem.CodeArchitecture, "image %s of package %s is there for %s, this server is %s and the image may not be emulated",
			id, m.ID, strings.Join(img.Arch, ", "), arch).At(s9pk.ManifestPath, -1)
	}
	return nil
}

// readImage finds an image for the machine, or the one that is emulated.
func readImage(a *s9pk.Archive, m *s9pk.Manifest, id, arch string) (image, error) {
	use, err := a.ImageArch(m, id, arch)
	if err != nil {
		return image{}, problem.Newf(422, problem.CodeArchitecture, "the file has no image %s of package %s that runs on %s", id, m.ID, arch).
			At(s9pk.ImagePath(arch, id, ".squashfs"), -1).Because(err)
	}
	root, err := a.File(s9pk.ImagePath(use, id, ".squashfs"))
	if err != nil {
		return image{}, err
	}
	img := image{Arch: use, FS: region{root.Position, root.Size}}
	for ext, into := range map[string]*[]byte{".env": &img.Env, ".json": &img.JSON} {
		f, err := a.File(s9pk.ImagePath(use, id, ext))
		if err != nil {
			return image{}, missing(s9pk.ImagePath(use, id, ext), err)
		}
		if *into, err = f.ReadAll(maxSideFile); err != nil {
			return image{}, err
		}
	}
	return img, nil
}

func missing(name string, err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, s9pk.ErrMissing) {
		return problem.Newf(422, problem.CodeManifest, "the package has no %s", name).At(name, -1).Because(err)
	}
	return err
}

// dataURL is a small picture as a URL, "" when it is too large.
func dataURL(f *s9pk.File, kind string) string {
	body, err := f.ReadAll(maxIcon)
	if err != nil {
		return ""
	}
	return "data:" + kind + ";base64," + base64.StdEncoding.EncodeToString(body)
}

func readDependency(a *s9pk.Archive, id string) dependencyInfo {
	info := dependencyInfo{Title: json.RawMessage("null")}
	d, err := a.Dependency(id)
	if err != nil {
		return info
	}
	if d.Title != nil {
		if text, err := json.Marshal(d.Title); err == nil {
			info.Title = text
		}
	}
	if d.Icon != nil {
		if icon := dataURL(d.Icon, d.IconType); icon != "" {
			info.Icon = &icon
		}
	}
	return info
}

// heading is what lists show of a manifest that stands in the document.
type heading struct {
	Title       string `json:"title"`
	Version     string `json:"version"`
	Description struct {
		Short s9pk.LocaleString `json:"short"`
	} `json:"description"`
	Volumes []string `json:"volumes"`
}
