package pack

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"

	"github.com/selfstead/selfstead/s9pk/pack/service"
)

// DescriptionName is the file that describes a service as data.
const DescriptionName = "service.yaml"

// Described says whether the project in dir is described as data.
func Described(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, DescriptionName))
	return err == nil
}

// describe makes bundle, images and instructions of a project that is described
// as data, below work; of others it leaves o as it is. The project's folder is
// not written to.
func describe(o *Options, work string) error {
	file := filepath.Join(o.Dir, DescriptionName)
	if o.JavaScript != "" || !Described(o.Dir) {
		return nil
	}
	bundle := filepath.Join(o.Dir, "javascript")
	if _, err := os.Stat(filepath.Join(bundle, "index.js")); err == nil {
		return fmt.Errorf("%w: both %s and %s/index.js say what it does; remove one, or choose by --javascript", ErrProject, file, bundle)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrProject, err)
	}
	s, err := service.Parse(file, text)
	if err != nil {
		return fmt.Errorf("%w:\n%w", ErrProject, err)
	}
	o.JavaScript = filepath.Join(work, "javascript")
	if err := s.Bundle(o.JavaScript); err != nil {
		return fmt.Errorf("pack: %w", err)
	}
	sources := s.Sources()
	maps.Copy(sources, o.Images)
	o.Images = sources
	return instructions(o, s, work)
}

// instructions writes those of the description where the project has no file.
func instructions(o *Options, s *service.Service, work string) error {
	if o.Instructions != "" {
		return nil
	}
	_, err := os.Stat(filepath.Join(o.Dir, "instructions.md"))
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return nil // findParts judges
	}
	if s.Instructions == "" {
		return fmt.Errorf("%w: neither instructions.md nor instructions in %s", ErrProject, DescriptionName)
	}
	o.Instructions = filepath.Join(work, "instructions.md")
	if err := os.WriteFile(o.Instructions, []byte(s.Instructions), 0o644); err != nil {
		return fmt.Errorf("pack: %w", err)
	}
	return nil
}
