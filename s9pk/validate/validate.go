package validate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/selfstead/selfstead/s9pk"
	"github.com/selfstead/selfstead/s9pk/merkle"
)

// Breach is one way in which an archive is not a good package.
type Breach = s9pk.Breach

// Documented sizes that nothing enforces.
const (
	maxShort = 160
	maxLong  = 5000
	maxIcon  = 40 << 10
)

// Package judges an archive as a package for one architecture, or with arch ""
// for all that it is made for. It reads manifest.json and the small files, but
// no large body; Archive.Verify does that.
func Package(a *s9pk.Archive, arch string) []Breach {
	m, err := a.Manifest(context.Background())
	if err != nil {
		// What every package needs is judged all the same.
		breaches := manifestBreaches(err)
		_, rest := s9pk.Require(a.Root(), &s9pk.Manifest{}, arch)
		return append(breaches, slices.DeleteFunc(rest, func(b Breach) bool { return b.Path == s9pk.ManifestPath })...)
	}
	_, breaches := s9pk.Require(a.Root(), m, arch)
	breaches = append(breaches, Manifest(m)...)
	breaches = append(breaches, unused(a, m)...)
	breaches = append(breaches, contents(a, m)...)
	return breaches
}

// OK says that no breach is more than a warning.
func OK(breaches []Breach) bool {
	return !slices.ContainsFunc(breaches, func(b Breach) bool { return !b.Warning })
}

// Err joins the breaches that are more than warnings; nil when there are none.
func Err(breaches []Breach) error {
	var errs []error
	for _, b := range breaches {
		if !b.Warning {
			errs = append(errs, b)
		}
	}
	return errors.Join(errs...)
}

func manifestBreaches(err error) []Breach {
	fields := s9pk.FieldErrors(errors.Unwrap(err))
	if len(fields) == 0 {
		reason := err.Error()
		var ee *s9pk.EntryError
		switch {
		case errors.Is(err, fs.ErrNotExist):
			reason = "is missing"
		case errors.Is(err, s9pk.ErrMissing):
			reason = "was left out of this copy"
		case errors.Is(err, s9pk.ErrKind):
			reason = "is a directory, need a file"
		case errors.As(err, &ee):
			reason = ee.Err.Error()
		}
		return []Breach{{Path: s9pk.ManifestPath, Reason: plain(reason)}}
	}
	var breaches []Breach
	for _, f := range fields {
		breaches = append(breaches, Breach{Path: s9pk.ManifestPath, Field: f.Field, Reason: f.Reason})
	}
	return breaches
}

func plain(text string) string {
	return strings.TrimPrefix(strings.TrimPrefix(text, "s9pk: "), "merkle: ")
}

// Manifest judges what a manifest says, beyond what reading it demands. All of
// it is warnings: StartOS checks none of this.
func Manifest(m *s9pk.Manifest) []Breach {
	var breaches []Breach
	warn := func(field, format string, args ...any) {
		breaches = append(breaches, Breach{Path: s9pk.ManifestPath, Field: field, Reason: fmt.Sprintf(format, args...), Warning: true})
	}
	each := func(field string, l s9pk.LocaleString, limit int) {
		if l.Localized == nil && len(l.Plain) > limit {
			warn(field, "has %d bytes, at most %d are documented", len(l.Plain), limit)
		}
		for _, t := range l.Localized {
			if len(t.Text) > limit {
				warn(field+"."+t.Locale, "has %d bytes, at most %d are documented", len(t.Text), limit)
			}
		}
	}
	each("description.short", m.Description.Short, maxShort)
	each("description.long", m.Description.Long, maxLong)
	for id, img := range m.Images {
		if !img.Source.Packed() {
			warn("images."+id+".source", "is not packed")
		}
		if img.EmulateMissingAs != nil && !slices.Contains(img.Arch, *img.EmulateMissingAs) {
			warn("images."+id+".emulateMissingAs", "is not one of the image's architectures")
		}
	}
	for id, dep := range m.Dependencies {
		if dep.Metadata != nil || dep.Package != nil {
			warn("dependencies."+id, "still says where its title and icon come from")
		}
	}
	if !m.CanMigrateFrom.Satisfiable() {
		warn("canMigrateFrom", "no version can be updated to this one")
	}
	slices.SortFunc(breaches, func(a, b Breach) int { return strings.Compare(a.Field, b.Field) })
	return breaches
}

// unused finds what no part of the manifest asks for.
func unused(a *s9pk.Archive, m *s9pk.Manifest) []Breach {
	all, _ := s9pk.Require(a.Root(), m, "")
	var breaches []Breach
	err := a.Root().Walk(func(path string, e *merkle.Entry) error {
		if e.Kind == merkle.KindMissing || all.Keeps(path, e) || strings.HasPrefix(path+"/", s9pk.ImagesPath+"/") {
			return nil
		}
		if e.Kind == merkle.KindDirectory && e.Dir.Len() > 0 {
			return nil // its content is named
		}
		breaches = append(breaches, Breach{Path: path, Reason: "is not used and will be left out", Warning: true})
		return nil
	})
	if err != nil {
		breaches = append(breaches, Breach{Reason: err.Error()})
	}
	return breaches
}

// contents looks into the small files, and at the first bytes of the images.
func contents(a *s9pk.Archive, m *s9pk.Manifest) []Breach {
	var breaches []Breach
	warn := func(path, format string, args ...any) {
		breaches = append(breaches, Breach{Path: path, Reason: fmt.Sprintf(format, args...), Warning: true})
	}
	if icon, _, err := a.Icon(); err == nil && icon.Size > maxIcon {
		warn(icon.Path, "has %d bytes, at most %d are documented", icon.Size, maxIcon)
	}
	for _, path := range []string{s9pk.LicensePath, s9pk.InstructionsPath} {
		f, err := a.File(path)
		if err != nil {
			continue // Require reported it
		}
		b, err := f.ReadAll(4 << 20)
		switch {
		case err != nil:
			warn(path, "%s", plain(err.Error()))
		case !utf8.Valid(b):
			warn(path, "is not UTF-8")
		}
	}
	for _, f := range a.Files() {
		switch {
		case strings.HasSuffix(f.Path, ".squashfs"):
			var magic [4]byte
			if n, _ := f.Section().ReadAt(magic[:], 0); n < 4 || string(magic[:]) != "hsqs" {
				warn(f.Path, "is no squashfs image")
			}
		case strings.HasPrefix(f.Path, s9pk.ImagesPath+"/") && strings.HasSuffix(f.Path, ".json"):
			var config s9pk.ImageConfig
			b, err := f.ReadAll(1 << 20)
			if err == nil {
				err = json.Unmarshal(b, &config)
			}
			if err != nil {
				warn(f.Path, "%s", plain(err.Error()))
			}
		}
	}
	return breaches
}
