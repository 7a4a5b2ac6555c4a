package main

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/selfstead/selfstead/s9pk/pack"
	"github.com/selfstead/selfstead/s9pk/pack/service"
)

func newInitCommand() *cobra.Command {
	var o pack.DescribeOptions
	var javascript, asJSON bool
	var shell string
	cmd := &cobra.Command{
		Use:   "init DIR",
		Short: "Start a new service project",
		Long: `Start a new service project, of which stead s9pk pack makes a package as it is.

Without more it is a web page, described as data by service.yaml. --from-oci
describes an image instead, by what its configuration says of itself: IMAGE is an
OCI layout folder, an archive of one, what docker save writes, or the name of an
image that docker or podman has or pulls. --debian makes the image of Debian
packages. --javascript writes a project of the StartOS SDK:

  stead s9pk init --javascript my-app && cd my-app
  npm install && npm run build`,
		Example: `  podman save --format oci-archive -o gitea.tar docker.io/gitea/gitea && stead s9pk init --from-oci gitea.tar gitea
  stead s9pk init --debian nginx-light --command "nginx -g 'daemon off;'" --port 80 web
  cd web && stead dev`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var files []string
			var err error
			if javascript {
				if o.OCI != "" || o.Debian != nil || shell != "" {
					return errors.New("--javascript goes with --id and --title only")
				}
				files, err = pack.Init(args[0], pack.InitOptions{ID: o.ID, Title: o.Title})
			} else {
				if shell != "" {
					o.Command = []string{"sh", "-c", "exec " + shell}
				}
				bar := newProgress(cmd.ErrOrStderr())
				bar.set("look at the image", 0, 0)
				files, err = pack.InitDescribed(cmd.Context(), args[0], o)
				bar.done()
			}
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), map[string]any{"path": args[0], "files": files})
			}
			for _, f := range files {
				fmt.Fprintln(cmd.OutOrStdout(), filepath.Join(args[0], f))
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.ID, "id", "", "package `ID` (default: the folder's name)")
	f.StringVar(&o.Title, "title", "", "`TITLE` for people (default: the image's, or the id)")
	f.StringVar(&o.OCI, "from-oci", "", "describe this `IMAGE`")
	f.StringVar(&o.Ref, "ref", "", "`NAME` of the image in a layout of several")
	f.StringSliceVar(&o.Debian, "debian", nil, "an image of these Debian `PACKAGES`")
	f.StringVar(&shell, "command", "", "`COMMAND` that runs, for a shell (default: the image's own)")
	f.IntVar(&o.Port, "port", 0, "`PORT` of its web page, where the image says none")
	f.StringVar(&o.Tool, "tool", "", "docker or podman (default: the first that works)")
	f.BoolVar(&javascript, "javascript", false, "a project of the StartOS SDK")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	cmd.MarkFlagsMutuallyExclusive("from-oci", "debian", "javascript")
	return cmd
}

func newSchemaCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of service.yaml",
		Long: `Print the JSON Schema (draft 2020-12) of service.yaml, which describes each member.
Editors that know YAML complete and check by it.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := cmd.OutOrStdout().Write(service.Schema)
			return err
		},
	}
}
