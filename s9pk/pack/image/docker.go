package image

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// tool finds docker or podman; docker only where its engine answers.
func (b *builder) tool(ctx context.Context) (string, error) {
	names := []string{"docker", "podman"}
	if b.Tool != "" {
		names = []string{b.Tool}
	}
	var why []string
	for _, n := range names {
		exe, err := exec.LookPath(n)
		if err != nil {
			why = append(why, n+" is not installed")
			continue
		}
		cmd := exec.CommandContext(ctx, exe, "info", "--format", "{{json .}}")
		var errs bytes.Buffer
		cmd.Stderr = &errs // what it prints besides is long and says nothing
		if err := cmd.Run(); err != nil {
			if errs.Len() == 0 {
				errs.WriteString(err.Error())
			}
			why = append(why, n+" does not work: "+lastLines(errs.Bytes()))
			continue
		}
		return exe, nil
	}
	return "", fmt.Errorf("%w: a docker image needs docker or podman: %s", ErrTool, strings.Join(why, "; "))
}

func isPodman(exe string) bool { return strings.HasPrefix(filepath.Base(exe), "podman") }

// run is one call of the tool; what it prints on standard output comes back.
func (b *builder) run(ctx context.Context, exe string, args ...string) (string, error) {
	b.Progress(Progress{Phase: filepath.Base(exe) + " " + args[0]})
	cmd := exec.CommandContext(ctx, exe, args...)
	cmd.Dir = b.Dir
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		return "", fmt.Errorf("%w: %s %s: %w: %s", ErrTool, filepath.Base(exe), args[0], err, lastLines([]byte(errs.String())))
	}
	return strings.TrimSpace(out.String()), nil
}

// fromDockerTag has the tool fetch the image, then reads what it saves. Saving
// instead of exporting a container, as the reference does, leaves out the files
// that the tool makes for the container, with the time of the moment; mountPoints
// puts their equals back.
func (b *builder) fromDockerTag(ctx context.Context, tag string) (*origin, error) {
	exe, err := b.tool(ctx)
	if err != nil {
		return nil, err
	}
	// create rather than pull: an image that is only here needs no registry. The
	// command is for images that name none.
	id, err := b.run(ctx, exe, "create", "--platform=linux/"+ociArch(b.Arch), tag, "true")
	if err != nil {
		return nil, err
	}
	img, err := b.run(ctx, exe, "container", "inspect", "--format", "{{json .Image}}", id)
	if _, rmErr := b.run(context.WithoutCancel(ctx), exe, "rm", id); rmErr != nil {
		b.Logger.Warn("the container made to look at an image stays", "container", id, "err", rmErr)
	}
	if err != nil {
		return nil, err
	}
	var imageID string
	if err := json.Unmarshal([]byte(img), &imageID); err != nil {
		return nil, fmt.Errorf("%w: container inspect: %w", ErrTool, err)
	}
	return b.saved(ctx, exe, "docker:"+tag, imageID)
}

func (b *builder) saved(ctx context.Context, exe, spec, imageID string) (*origin, error) {
	name := filepath.Join(b.work, "saved.tar")
	if _, err := b.run(ctx, exe, "save", "-o", name, imageID); err != nil {
		return nil, err
	}
	from, err := b.fromOCI(ctx, name, "")
	if err != nil {
		return nil, err
	}
	from.spec = spec
	return from, nil
}

// fromDockerBuild builds a Dockerfile and reads the image.
func (b *builder) fromDockerBuild(ctx context.Context, d *DockerBuild) (*origin, error) {
	exe, err := b.tool(ctx)
	if err != nil {
		return nil, err
	}
	dir := locate(b.Dir, d.Workdir, b.Arch)
	file := filepath.Join(dir, "Dockerfile")
	if d.Dockerfile != "" {
		file = locate(b.Dir, d.Dockerfile, b.Arch)
	}
	if _, err := os.Stat(file); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSource, err)
	}
	args := []string{"build", dir, "-f", file, "--platform=linux/" + ociArch(b.Arch), "--build-arg", "ARCH=" + b.Arch}
	for _, k := range slices.Sorted(maps.Keys(d.BuildArgs)) {
		v := d.BuildArgs[k]
		value := v.Value
		if v.Env != "" {
			if value = b.Getenv(v.Env); value == "" {
				continue
			}
		}
		args = append(args, "--build-arg", k+"="+value)
	}
	spec := "dockerBuild:" + file
	if !isPodman(exe) {
		name := filepath.Join(b.work, "built.tar")
		args = append([]string{"buildx"}, append(args, "-o", "type=docker,dest="+name)...)
		if _, err := b.run(ctx, exe, args...); err != nil {
			return nil, err
		}
		from, err := b.fromOCI(ctx, name, "")
		if err != nil {
			return nil, err
		}
		from.spec = spec
		return from, nil
	}
	tag := "localhost/stead-pack:" + strings.ToLower(rand.Text())
	if _, err := b.run(ctx, exe, append(args, "-t", tag)...); err != nil {
		return nil, err
	}
	from, err := b.saved(ctx, exe, spec, tag)
	if _, rmErr := b.run(context.WithoutCancel(ctx), exe, "rmi", "-f", tag); rmErr != nil {
		b.Logger.Warn("the image made for a package stays", "image", tag, "err", rmErr)
	}
	return from, err
}
