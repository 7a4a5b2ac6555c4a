package image

import (
	"fmt"
	"path/filepath"
	"runtime"
)

// Source is what FromDir and FromOCI make an image of. Cache and Path have to be
// set.
type Source struct {
	// Cache is the folder in which images are kept, which may be Build's. It is
	// made if missing.
	Cache string
	// Path is the folder, or the OCI layout: a folder too, or a tar of it.
	Path string
	// Ref chooses among the images of a layout, by name. Empty takes the only one
	// for Arch.
	Ref string
	// Arch is Go's name of the architecture wanted of a layout; empty is the host's.
	Arch string
	// Progress is told, from one goroutine, what goes on.
	Progress func(Progress)
}

func (s *Source) settle() error {
	if !filepath.IsAbs(s.Cache) {
		return fmt.Errorf("%w: cache folder %q", ErrInvalid, s.Cache)
	}
	if !filepath.IsAbs(s.Path) {
		return fmt.Errorf("%w: path %q", ErrInvalid, s.Path)
	}
	if s.Arch == "" {
		s.Arch = runtime.GOARCH
	}
	if s.Progress == nil {
		s.Progress = func(Progress) {}
	}
	return nil
}

// Container is an image that FromOCI made, and how its maker wants it run.
type Container struct {
	Path   string // of the squashfs
	Digest string // of its manifest
	Config Config
}

// Config is the part of an image's configuration that says how to run it, as in
// the OCI image specification ("OCI Image Configuration").
type Config struct {
	Env        []string `json:"Env,omitempty"`
	Entrypoint []string `json:"Entrypoint,omitempty"`
	Cmd        []string `json:"Cmd,omitempty"`
	User       string   `json:"User,omitempty"`
	WorkingDir string   `json:"WorkingDir,omitempty"`
	StopSignal string   `json:"StopSignal,omitempty"`
}
