package main

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"github.com/selfstead/selfstead/s9pk"
	"github.com/selfstead/selfstead/s9pk/merkle"
	"github.com/selfstead/selfstead/s9pk/validate"
)

// judge prints every breach and fails where one is more than a warning.
func judge(w io.Writer, a *opened, arch string) error {
	breaches := validate.Package(a.Archive, arch)
	bad := 0
	for _, b := range breaches {
		text := oneLine{b}.Error()
		if b.Warning {
			text = "warning: " + text
		} else {
			bad++
		}
		fmt.Fprintln(w, text)
	}
	if bad == 0 {
		return nil
	}
	i := slices.IndexFunc(breaches, func(b validate.Breach) bool { return !b.Warning })
	return fmt.Errorf("%w: %d breaches, the first: %w", errBreaches, bad, breaches[i])
}

func newExtractCommand() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "extract PACKAGE [PATH...]",
		Short: "Write the files of a package, or some of them, to a folder",
		Long: `Write the files of a package, or some of them, to a folder that must not exist or
be empty. It appears only when everything in it has been proven.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			a, err := openPackage(cmd.Context(), args[0], s9pk.Options{})
			if err != nil {
				return err
			}
			defer a.Close()
			if len(args) == 1 {
				a.expect(0, a.Size())
			}
			if dir == "" {
				m, err := a.Manifest(cmd.Context())
				if err != nil {
					return fmt.Errorf("name a folder with --dir: %w", err)
				}
				dir = m.ID
			}
			bar := newProgress(cmd.ErrOrStderr())
			defer bar.done()
			var paths []string // nil is everything
			if len(args) > 1 {
				paths = args[1:]
			}
			err = a.Extract(cmd.Context(), dir, s9pk.ExtractOptions{Paths: paths,
				Progress: func(done, total int64) { bar.set("extract", done, total) }})
			if err != nil {
				return err
			}
			bar.done()
			_, err = fmt.Fprintln(cmd.OutOrStdout(), dir)
			return err
		},
	}
	cmd.Flags().StringVarP(&dir, "dir", "d", "", "`DIR` to write to (default: the package's id)")
	return cmd
}

// rewriting is what commands that write a package again have in common.
type rewriting struct {
	output string
	key    *string
}

func (r *rewriting) flags(cmd *cobra.Command, signs bool) {
	cmd.Flags().StringVarP(&r.output, "output", "o", "", "write to `FILE` (default: in place)")
	if signs {
		r.key = keyFlag(cmd)
	}
}

// run opens the package, has change make another tree of it, and writes that,
// signed anew or with the signature it had.
func (r *rewriting) run(cmd *cobra.Command, name string, change func(a *opened, root *merkle.Directory) (*merkle.Directory, error)) error {
	a, err := openPackage(cmd.Context(), name, s9pk.Options{})
	if err != nil {
		return err
	}
	defer a.Close()
	out := r.output
	if out == "" {
		if a.remote != nil {
			return errors.New("name the file to write with --output")
		}
		out = name
	}
	root := a.Root().Clone()
	if change != nil {
		if root, err = change(a, root); err != nil {
			return err
		}
	}
	o := s9pk.WriteOptions{}
	var key s9pk.Signer
	if r.key == nil {
		h := a.Header()
		o.Header = &h
	} else {
		var k ed25519.PrivateKey
		if k, err = signingKey(*r.key, cmd.ErrOrStderr()); err != nil {
			return err
		}
		key = k
	}
	a.expect(0, a.Size())
	bar := newProgress(cmd.ErrOrStderr())
	defer bar.done()
	o.Progress = func(done, total int64) { bar.set("write", done, total) }
	if err := s9pk.WriteFile(cmd.Context(), out, root, key, o); err != nil {
		return err
	}
	bar.done()
	_, err = fmt.Fprintln(cmd.OutOrStdout(), out)
	return err
}

func newSignCommand() *cobra.Command {
	var r rewriting
	cmd := &cobra.Command{
		Use:   "sign PACKAGE",
		Short: "Sign a package anew with your key, its content unchanged",
		Args:  cobra.ExactArgs(1),
		RunE:  func(cmd *cobra.Command, args []string) error { return r.run(cmd, args[0], nil) },
	}
	r.flags(cmd, true)
	return cmd
}

func newOutboardCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "outboard PACKAGE",
		Short: "Write the file that proves parts of a package's bodies",
		Long: `Write the file that proves parts of a package's bodies without the rest. Beside a
package, or served beside its URL, it lets readers trust each piece as it comes.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			a, err := openPackage(cmd.Context(), args[0], s9pk.Options{})
			if err != nil {
				return err
			}
			defer a.Close()
			if output == "" {
				if a.remote != nil {
					return errors.New("name the file to write with --output")
				}
				output = args[0] + s9pk.OutboardSuffix
			}
			a.expect(0, a.Size())
			if err := writeOutboard(cmd, a.Archive, output); err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), output)
			return err
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "write to `FILE` (default: beside the package)")
	return cmd
}

// writeOutboard writes the outboard of a package to path, whole or not at all.
func writeOutboard(cmd *cobra.Command, a *s9pk.Archive, path string) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".outboard-")
	if err != nil {
		return err
	}
	defer func() {
		f.Close()
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	bar := newProgress(cmd.ErrOrStderr())
	defer bar.done()
	err = a.WriteOutboard(cmd.Context(), f, merkle.DefaultGroup, func(done, total int64) { bar.set("outboard", done, total) })
	if err != nil {
		return err
	}
	if err := errors.Join(f.Chmod(0o644), f.Sync()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
