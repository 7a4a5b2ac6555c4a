package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/itchyny/gojq"
	"github.com/spf13/cobra"

	"github.com/selfstead/selfstead/s9pk"
	"github.com/selfstead/selfstead/s9pk/merkle"
	"github.com/selfstead/selfstead/s9pk/pack"
	"github.com/selfstead/selfstead/s9pk/pack/image"
	"github.com/selfstead/selfstead/s9pk/validate"
)

func newEditCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "edit", Short: "Change a package and sign it anew", Args: cobra.NoArgs}
	cmd.AddCommand(newEditManifestCommand(), newEditPutCommand(), newEditRemoveCommand(), newEditImageCommand(), newEditFilterCommand())
	return cmd
}

func newEditManifestCommand() *cobra.Command {
	var r rewriting
	cmd := &cobra.Command{
		Use:     "manifest PACKAGE EXPRESSION",
		Short:   "Change the manifest by a jq expression",
		Example: `  stead s9pk edit manifest app.s9pk '.title = "My app" | .releaseNotes = {"en_US": "Faster."}'`,
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			query, err := gojq.Parse(args[1])
			if err != nil {
				return fmt.Errorf("jq: %w", err)
			}
			return r.run(cmd, args[0], func(a *opened, root *merkle.Directory) (*merkle.Directory, error) {
				text, err := a.RawManifest()
				if err != nil {
					return nil, err
				}
				m, err := jqManifest(query, text)
				if err != nil {
					return nil, err
				}
				return root, putManifest(root, m)
			})
		},
	}
	r.flags(cmd, true)
	return cmd
}

// jqManifest runs a query over a manifest and reads what it gives as one.
func jqManifest(query *gojq.Query, text []byte) (*s9pk.Manifest, error) {
	var v any
	if err := json.Unmarshal(text, &v); err != nil {
		return nil, fmt.Errorf("manifest.json: %w", err)
	}
	it := query.Run(v)
	got, ok := it.Next()
	if !ok {
		return nil, errors.New("jq: the expression gives nothing")
	}
	if err, bad := got.(error); bad {
		return nil, fmt.Errorf("jq: %w", err)
	}
	if _, more := it.Next(); more {
		return nil, errors.New("jq: the expression gives more than one result")
	}
	changed, err := json.Marshal(got)
	if err != nil {
		return nil, fmt.Errorf("jq: %w", err)
	}
	m, err := s9pk.ParseManifest(changed)
	if err != nil {
		return nil, fmt.Errorf("the changed manifest: %s", oneLine{err})
	}
	return m, nil
}

// putManifest replaces the manifest and refuses a package that no device takes.
func putManifest(root *merkle.Directory, m *s9pk.Manifest) error {
	text, err := m.MarshalJSON() // json.Marshal would escape what the reference does not
	if err != nil {
		return err
	}
	if _, err := root.Put(s9pk.ManifestPath, s9pk.Bytes(text)); err != nil {
		return err
	}
	_, breaches := s9pk.Require(root, m, "")
	if err := validate.Err(breaches); err != nil {
		return fmt.Errorf("the changed package: %s", oneLine{err})
	}
	return nil
}

func newEditPutCommand() *cobra.Command {
	var r rewriting
	cmd := &cobra.Command{
		Use:   "put PACKAGE PATH=FILE...",
		Short: "Put files in, or in the place of others",
		Args:  cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return r.run(cmd, args[0], func(_ *opened, root *merkle.Directory) (*merkle.Directory, error) {
				for _, arg := range args[1:] {
					path, file, ok := strings.Cut(arg, "=")
					if !ok {
						return nil, fmt.Errorf("%s: need PATH=FILE", arg)
					}
					if path == s9pk.ManifestPath {
						text, err := os.ReadFile(file)
						if err != nil {
							return nil, err
						}
						if _, err := s9pk.ParseManifest(text); err != nil {
							return nil, fmt.Errorf("%s: %s", file, oneLine{err})
						}
					}
					src, err := s9pk.FileSource(file)
					if err != nil {
						return nil, err
					}
					if _, err := root.Put(path, src); err != nil {
						return nil, errors.New(err.Error()) // it is the argument that is wrong, not the package
					}
				}
				return root, nil
			})
		},
	}
	r.flags(cmd, true)
	return cmd
}

func newEditRemoveCommand() *cobra.Command {
	var r rewriting
	cmd := &cobra.Command{
		Use:   "remove PACKAGE PATH...",
		Short: "Take files and directories out",
		Args:  cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return r.run(cmd, args[0], func(_ *opened, root *merkle.Directory) (*merkle.Directory, error) {
				for _, path := range args[1:] {
					if err := root.Remove(path); err != nil {
						return nil, err
					}
				}
				return root, nil
			})
		},
	}
	r.flags(cmd, true)
	return cmd
}

func newEditImageCommand() *cobra.Command {
	var r rewriting
	var o pack.ImageOptions
	var emulate string
	var arches []string
	cmd := &cobra.Command{
		Use:   "add-image PACKAGE ID SOURCE",
		Short: "Build an image and put it in, or in the place of another",
		Long: `Build an image and put it in, or in the place of another. SOURCE is as for
pack --image.`,
		Args: cobra.ExactArgs(3),
		RunE: func(cmd *cobra.Command, args []string) error {
			src, err := image.ParseSource(args[2])
			if err != nil {
				return err
			}
			bar := newProgress(cmd.ErrOrStderr())
			defer bar.done()
			o.Logger = plainLogger(cmd.ErrOrStderr(), bar)
			o.Progress = func(p pack.Progress) { bar.set(p.Step+": "+p.Phase, p.Done, p.Total) }
			return r.run(cmd, args[0], func(a *opened, root *merkle.Directory) (*merkle.Directory, error) {
				defer bar.done()
				m, err := a.Manifest(cmd.Context())
				if err != nil {
					return nil, err
				}
				img := s9pk.Image{Arch: slices.Clone(arches)}
				if old, ok := m.Images[args[1]]; ok {
					if img = old; len(arches) > 0 {
						img.Arch = slices.Clone(arches)
					}
				}
				if emulate != "" {
					img.EmulateMissingAs = &emulate
				}
				if len(img.Arch) == 0 {
					return nil, errors.New("name the architectures with --arch")
				}
				slices.Sort(img.Arch)
				if err := pack.AddImage(cmd.Context(), root, args[1], img, src, o); err != nil {
					return nil, err
				}
				img.Source = s9pk.ImageSource{}
				if m.Images == nil {
					m.Images = map[string]s9pk.Image{}
				}
				m.Images[args[1]] = img
				return root, putManifest(root, m)
			})
		},
	}
	f := cmd.Flags()
	f.StringSliceVar(&arches, "arch", nil, "build for this `ARCH`; may be repeated (default: those of the image in its place)")
	f.StringVar(&emulate, "emulate-missing-as", "", "`ARCH` that stands in where there is no image for the device's own")
	f.StringVar(&o.Tool, "tool", "", "docker or podman (default: the first that works)")
	r.flags(cmd, true)
	return cmd
}

func newEditFilterCommand() *cobra.Command {
	var r rewriting
	var arch string
	cmd := &cobra.Command{
		Use:   "filter PACKAGE --arch ARCH",
		Short: "Leave out what a device does not need; the signature stays",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return r.run(cmd, args[0], func(a *opened, _ *merkle.Directory) (*merkle.Directory, error) {
				root, err := a.ForArch(cmd.Context(), arch)
				if b := (s9pk.Breach{}); errors.As(err, &b) {
					err = fmt.Errorf("%w: %w", errBreaches, err)
				}
				return root, err
			})
		},
	}
	cmd.Flags().StringVar(&arch, "arch", "", "the device's `ARCH`: x86_64, aarch64 or riscv64")
	if err := cmd.MarkFlagRequired("arch"); err != nil {
		panic(err) // the flag stands one line above
	}
	r.flags(cmd, false)
	return cmd
}
