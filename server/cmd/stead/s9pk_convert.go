package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/selfstead/selfstead/s9pk"
	"github.com/selfstead/selfstead/s9pk/merkle"
	"github.com/selfstead/selfstead/s9pk/remote"
	"github.com/selfstead/selfstead/s9pk/v1"
)

func newConvertCommand() *cobra.Command {
	var r rewriting
	cmd := &cobra.Command{
		Use:   "convert PACKAGE",
		Short: "Make a version 2 package of one of version 1",
		Long: `Make a version 2 package of one of version 1, signed with your key. A package
of version 2 is written again in the usual order, and keeps its signature.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			old, err := openVersion1(cmd, args[0])
			if err != nil {
				return err
			}
			if old == nil {
				keep := rewriting{output: r.output, asJSON: r.asJSON}
				return keep.run(cmd, args[0], func(_ *opened, root *merkle.Directory) (*merkle.Directory, error) { return root, nil })
			}
			defer old.close()
			out := r.output
			if out == "" {
				if isURL(args[0]) {
					return errors.New("name the file to write with --output")
				}
				out = args[0]
			}
			key, err := signingKey(*r.key, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			bar := newProgress(cmd.ErrOrStderr())
			defer bar.done()
			bar.set("convert", 0, 0)
			m, err := old.ConvertFile(cmd.Context(), out, key, v1.ConvertOptions{Logger: plainLogger(cmd.ErrOrStderr(), bar)})
			if err != nil {
				return err
			}
			bar.done()
			return reportWritten(cmd.OutOrStdout(), out, r.asJSON, fmt.Sprintf("%s  %s %s", out, m.ID, m.Version))
		},
	}
	r.flags(cmd, true)
	return cmd
}

// version1 is an opened package of version 1.
type version1 struct {
	*v1.Archive
	close func() error
}

// openVersion1 opens a package if it is of version 1; else it returns nil.
func openVersion1(cmd *cobra.Command, name string) (*version1, error) {
	var r io.ReaderAt
	var size int64
	var done func() error
	if isURL(name) {
		rr, err := remote.Open(cmd.Context(), name, remote.Options{})
		if err != nil {
			return nil, err
		}
		r, size, done = rr, rr.Size(), rr.Close
	} else {
		f, err := os.Open(filepath.Clean(name))
		if err != nil {
			return nil, err
		}
		fi, err := f.Stat()
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		r, size, done = f, fi.Size(), f.Close
	}
	head := make([]byte, 3)
	if n, err := r.ReadAt(head, 0); n < len(head) && !errors.Is(err, io.EOF) {
		return nil, errors.Join(err, done())
	} else if !v1.Is(head[:n]) {
		return nil, done()
	}
	a, err := v1.Open(r, size)
	if err != nil {
		return nil, errors.Join(err, done())
	}
	return &version1{a, done}, nil
}

// hint tells what to do about a package that is too old to be read.
func hint(err error) error {
	if errors.Is(err, s9pk.ErrVersion1) {
		return fmt.Errorf("%w; `stead s9pk convert` makes one of version 2 of it", err)
	}
	return err
}
