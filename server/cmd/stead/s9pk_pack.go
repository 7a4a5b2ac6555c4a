package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/selfstead/selfstead/s9pk"
	"github.com/selfstead/selfstead/s9pk/pack"
	"github.com/selfstead/selfstead/s9pk/pack/image"
)

func newPackCommand() *cobra.Command {
	var o pack.Options
	var images []string
	var asJSON, outboard bool
	cmd := &cobra.Command{
		Use:   "pack [PROJECT]",
		Short: "Build, sign and check the package of a service project",
		Long: `Build, sign and check the package of a service project: a folder with
service.yaml, or javascript/index.js (the bundle), and icon.EXT, LICENSE,
instructions.md and, where there are any, assets/ and images/.

service.yaml describes the service as data: see stead s9pk schema.

What an image is made of is said by --image, else by service.yaml or by
images/ID.json in the project, else by the manifest (dockerTag, dockerBuild). images/ID.json is one of

  {"debian": {"packages": ["busybox"], "suite": "trixie", "variant": "essential"}}
  {"oci": "image.tar"}            an OCI layout or archive, or what docker save writes
  {"rootfs": "rootfs-{arch}"}     a folder
  {"dockerTag": "name:tag"}  or  {"dockerBuild": {"dockerfile": "Dockerfile"}}

and may add "files" (a folder laid over it), "env", "user", "workdir",
"entrypoint" and "cmd". Files that lie ready as images/ARCH/ID.squashfs, .json
and .env are taken as they are.

Equal projects give equal packages, wherever and whenever they were copied to.
The members of the package date from SOURCE_DATE_EPOCH, else from the git commit;
images made of a folder from SOURCE_DATE_EPOCH, else 1970, unless "keepTimes"
keeps the times of its files ("keepOwners" their owners); and in all others no
file is younger than SOURCE_DATE_EPOCH.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				o.Dir = args[0]
			}
			o.Images = map[string]image.Source{}
			for _, text := range images {
				id, source, ok := strings.Cut(text, "=")
				if !ok {
					return fmt.Errorf("--image %s: need ID=SOURCE", text)
				}
				s, err := image.ParseSource(source)
				if err != nil {
					return fmt.Errorf("--image %s: %w", text, err)
				}
				o.Images[id] = s
			}
			if epoch := os.Getenv("SOURCE_DATE_EPOCH"); epoch != "" {
				sec, err := strconv.ParseInt(epoch, 10, 64)
				if err != nil || sec < 0 {
					return fmt.Errorf("SOURCE_DATE_EPOCH %q is no number of seconds", epoch)
				}
				o.SourceDate = time.Unix(sec, 0)
			}
			if o.Tool == "" {
				switch os.Getenv("STARTOS_USE_PODMAN") {
				case "1", "true", "y", "yes":
					o.Tool = "podman"
				}
			}
			keyFile, err := cmd.Flags().GetString("key")
			if err != nil {
				return err
			}
			key, err := signingKey(keyFile, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			o.Key = key
			bar := newProgress(cmd.ErrOrStderr())
			defer bar.done()
			o.Logger = plainLogger(cmd.ErrOrStderr(), bar)
			o.Progress = func(p pack.Progress) {
				step := p.Step
				if p.Phase != "" {
					step += ": " + p.Phase
				}
				bar.set(step, p.Done, p.Total)
			}
			path, err := pack.Pack(cmd.Context(), o)
			if err != nil {
				return err
			}
			bar.done()
			return reportPacked(cmd, path, asJSON, outboard)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&o.Output, "output", "o", "", "write the package to `FILE` (default ID.s9pk in the project)")
	f.StringVar(&o.JavaScript, "javascript", "", "`DIR` of the bundle (default javascript)")
	f.StringVar(&o.Icon, "icon", "", "icon `FILE`")
	f.StringVar(&o.License, "license", "", "licence `FILE`")
	f.StringVar(&o.Instructions, "instructions", "", "instructions `FILE`")
	f.StringVar(&o.Assets, "assets", "", "`DIR` of the assets (default assets)")
	f.BoolVar(&o.NoAssets, "no-assets", false, "leave the assets out")
	f.StringSliceVar(&o.Arch, "arch", nil, "pack for this `ARCH` only (x86_64, aarch64, riscv64); may be repeated")
	f.StringArrayVar(&images, "image", nil, "`ID=SOURCE`: oci:PATH, rootfs:DIR, debian:PKG,PKG, docker:TAG or a FILE.json; may be repeated")
	f.BoolVar(&o.RequireGit, "require-git", false, "refuse a project without a git commit")
	f.StringVar(&o.Tool, "tool", "", "docker or podman (default: the first that works)")
	f.StringVar(&o.CacheDir, "cache", "", "`DIR` that keeps built images")
	f.BoolVar(&outboard, "outboard", false, "also write the file that proves parts of the package, beside it")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	keyFlag(cmd)
	cmd.MarkFlagsMutuallyExclusive("assets", "no-assets")
	return cmd
}

func reportPacked(cmd *cobra.Command, path string, asJSON, outboard bool) error {
	a, err := s9pk.OpenFile(path, s9pk.Options{})
	if err != nil {
		return err
	}
	defer a.Close()
	m, err := a.Manifest(cmd.Context())
	if err != nil {
		return err
	}
	if outboard {
		if err := writeOutboard(cmd, a, path+s9pk.OutboardSuffix); err != nil {
			return err
		}
	}
	return reportWritten(cmd.OutOrStdout(), path, asJSON, fmt.Sprintf("%s  %s %s, %d bytes", path, m.ID, m.Version, a.Size()))
}
