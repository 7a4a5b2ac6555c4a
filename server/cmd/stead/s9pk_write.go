package main

import (
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/selfstead/selfstead/s9pk"
	"github.com/selfstead/selfstead/s9pk/merkle"
)

func newExtractCommand() *cobra.Command {
	var dir string
	var asJSON bool
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
			return printPath(cmd.OutOrStdout(), dir, asJSON)
		},
	}
	cmd.Flags().StringVarP(&dir, "dir", "d", "", "`DIR` to write to (default: the package's id)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// rewriting is what commands that write a package again have in common.
type rewriting struct {
	output string
	key    *string
	asJSON bool
}

func (r *rewriting) flags(cmd *cobra.Command, signs bool) {
	cmd.Flags().StringVarP(&r.output, "output", "o", "", "write to `FILE` (default: in place)")
	cmd.Flags().BoolVar(&r.asJSON, "json", false, "print JSON")
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
	return reportWritten(cmd.OutOrStdout(), out, r.asJSON, out)
}

// printPath says where something was written.
func printPath(w io.Writer, path string, asJSON bool) error {
	if asJSON {
		return printJSON(w, map[string]string{"path": path})
	}
	_, err := fmt.Fprintln(w, path)
	return err
}

// reportWritten says of a package that was written what it is, or prints text.
func reportWritten(w io.Writer, path string, asJSON bool, text string) error {
	if !asJSON {
		_, err := fmt.Fprintln(w, text)
		return err
	}
	a, err := s9pk.OpenFile(path, s9pk.Options{})
	if err != nil {
		return err
	}
	defer a.Close()
	fields := map[string]any{"path": path, "size": a.Size(), "commitment": a.Commitment(), "signer": hex.EncodeToString(a.Signer())}
	if text, err := a.RawManifest(); err == nil { // any archive can be written again
		if m, err := s9pk.ParseManifest(text); err == nil {
			fields["id"], fields["version"] = m.ID, m.Version
		}
	}
	return printJSON(w, fields)
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
	var asJSON bool
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
			return printPath(cmd.OutOrStdout(), output, asJSON)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "write to `FILE` (default: beside the package)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
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
