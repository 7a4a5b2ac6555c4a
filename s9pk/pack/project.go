package pack

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// parts are the files of a project, found and named.
type parts struct {
	javascript, icon, license, instructions, assets string
	iconName                                        string // in the package: icon.EXT
}

// findParts looks up what Options leaves open. Whether assets and bundle are there
// is seen when they are read.
func findParts(o *Options) (*parts, error) {
	p := &parts{javascript: o.JavaScript, icon: o.Icon, license: o.License, instructions: o.Instructions, assets: o.Assets}
	var err error
	if p.javascript == "" {
		p.javascript = filepath.Join(o.Dir, "javascript")
	}
	if p.assets == "" {
		p.assets = filepath.Join(o.Dir, "assets")
	}
	if p.icon == "" {
		if p.icon, err = only(o.Dir, "icon"); err != nil {
			return nil, err
		}
	}
	ext := filepath.Ext(p.icon)
	if len(ext) < 2 {
		return nil, fmt.Errorf("%w: icon %s has no extension", ErrProject, p.icon)
	}
	p.iconName = "icon" + ext
	if p.license == "" {
		if p.license, err = only(o.Dir, "license"); err != nil {
			return nil, err
		}
	}
	if p.instructions == "" {
		p.instructions = filepath.Join(o.Dir, "instructions.md")
	}
	for _, f := range []string{p.icon, p.license, p.instructions} {
		fi, err := os.Stat(f)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrProject, err)
		}
		if !fi.Mode().IsRegular() {
			return nil, fmt.Errorf("%w: %s is not a file", ErrProject, f)
		}
	}
	return p, nil
}

// only finds the one entry of dir whose name without extension is stem, in any
// case.
func only(dir, stem string) (string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrProject, err)
	}
	var found []string
	for _, e := range entries {
		name := e.Name()
		if strings.EqualFold(strings.TrimSuffix(name, filepath.Ext(name)), stem) {
			found = append(found, filepath.Join(dir, name))
		}
	}
	switch len(found) {
	case 0:
		return "", fmt.Errorf("%w: no %s in %s", ErrProject, stem, dir)
	case 1:
		return found[0], nil
	}
	return "", fmt.Errorf("%w: more than one %s in %s: %s", ErrProject, stem, dir, strings.Join(found, ", "))
}
