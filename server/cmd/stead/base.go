package main

import (
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/selfstead/selfstead/lxcrt/image"
)

// newBaseCommand is `stead base`.
func newBaseCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "base", Short: "The image that every service container starts from", Args: cobra.NoArgs}
	var o image.Options
	build := &cobra.Command{
		Use: "build", Short: "Build the base image, or check the one that is there, and print its path", Args: cobra.NoArgs,
		Long: `Build the base image from Debian's packages, as this machine's own apt gets
them, or check the one that is in the cache, and print its path. A server does
this by itself when it has none; built beforehand, its first service starts
sooner.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			errOut, phase := cmd.ErrOrStderr(), ""
			o.Progress = func(p image.Progress) {
				if p.Phase != phase {
					phase = p.Phase
					fmt.Fprintf(errOut, "base image: %s\n", phase)
				}
			}
			var err error
			if o.Cache, err = filepath.Abs(o.Cache); err != nil {
				return err
			}
			path, err := image.Build(cmd.Context(), o)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), path)
			return err
		},
	}
	build.Flags().StringVar(&o.Cache, "cache", filepath.Join(defaultDir, "base"), "folder in which images are kept")
	build.Flags().BoolVar(&o.Fresh, "fresh", false, "build even if there is one")
	cmd.AddCommand(build)
	return cmd
}
