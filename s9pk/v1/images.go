package v1

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fxamacker/cbor/v2"

	"github.com/selfstead/selfstead/s9pk"
	"github.com/selfstead/selfstead/s9pk/pack"
	"github.com/selfstead/selfstead/s9pk/pack/image"
)

// images takes every image out of docker_images: one archive as `docker save`
// writes it, or one for each architecture beside multiarch.cbor.
func (c *converter) images(ctx context.Context) error {
	r, err := c.a.Reader(SectionImages)
	if err != nil {
		return err
	}
	archives, err := c.imageArchives(ctx, r)
	if err != nil {
		return fail(SectionImages, -1, err)
	}
	for _, ref := range c.old.Images() {
		img := s9pk.Image{Arch: slices.Sorted(maps.Keys(archives))}
		for arch, file := range archives {
			if err := c.image(ctx, ref, arch, file); err != nil {
				return fmt.Errorf("s9pk: version 1: image %s for %s: %w", ref.ID, arch, err)
			}
		}
		c.m.Images[ref.ID] = img
	}
	if c.m.HardwareRequirements.Arch == nil {
		c.m.HardwareRequirements.Arch = slices.Sorted(maps.Keys(archives))
	}
	return nil
}

func (c *converter) image(ctx context.Context, ref ImageRef, arch, file string) error {
	var errs []error
	for _, prefix := range []string{"", "docker.io/"} {
		src := image.Source{OCI: file, Ref: prefix + c.old.Tag(ref)}
		err := pack.AddImage(ctx, c.root, ref.ID, s9pk.Image{Arch: []string{arch}}, src, pack.ImageOptions{CacheDir: c.o.CacheDir, Logger: c.o.Logger})
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	return errs[0]
}

// imageArchives unpacks docker_images where it holds several archives, and
// returns the file for each architecture.
func (c *converter) imageArchives(ctx context.Context, r *io.SectionReader) (map[string]string, error) {
	multi, err := findMultiarch(r)
	if err != nil {
		return nil, err
	}
	if multi == nil {
		arch, err := singleArch(r)
		if err != nil {
			return nil, err
		}
		file := filepath.Join(c.o.Scratch, "docker_images.tar")
		return map[string]string{arch: file}, copyFile(file, io.NewSectionReader(r, 0, r.Size()))
	}
	files := map[string]string{}
	tr := tar.NewReader(io.NewSectionReader(r, 0, r.Size()))
	for {
		if err := ctx.Err(); err != nil {
			return nil, context.Cause(ctx)
		}
		hdr, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", s9pk.ErrFormat, err)
		}
		arch, ok := strings.CutSuffix(path.Clean(hdr.Name), ".tar")
		if !ok || !slices.Contains(multi, arch) || files[arch] != "" {
			continue
		}
		files[arch] = filepath.Join(c.o.Scratch, "docker_images."+arch+".tar")
		if err := copyFile(files[arch], tr); err != nil {
			return nil, err
		}
	}
	for _, arch := range multi {
		if files[arch] == "" {
			return nil, fmt.Errorf("%w: no images for %s", s9pk.ErrFormat, arch)
		}
	}
	return files, nil
}

// archNames are the architectures there are packages for, as Docker calls them.
var archNames = map[string]string{"amd64": "x86_64", "arm64": "aarch64", "riscv64": "riscv64"}

// findMultiarch reads multiarch.cbor; nil where there is none.
func findMultiarch(r *io.SectionReader) ([]string, error) {
	b, err := tarMember(r, "multiarch.cbor")
	if err != nil || b == nil {
		return nil, err
	}
	var v struct {
		Available []string `cbor:"available"`
	}
	if err := cbor.Unmarshal(b, &v); err != nil {
		return nil, fmt.Errorf("%w: multiarch.cbor: %w", s9pk.ErrFormat, err)
	}
	known := slices.Collect(maps.Values(archNames))
	for _, arch := range v.Available {
		if !slices.Contains(known, arch) {
			return nil, fmt.Errorf("%w: multiarch.cbor: unknown architecture %.40q", s9pk.ErrFormat, arch)
		}
	}
	if len(v.Available) == 0 {
		return nil, fmt.Errorf("%w: multiarch.cbor names no architecture", s9pk.ErrFormat)
	}
	return v.Available, nil
}

// singleArch finds out what machine the images of one archive are for.
func singleArch(r *io.SectionReader) (string, error) {
	b, err := tarMember(r, "manifest.json")
	if err != nil {
		return "", err
	}
	var list []struct{ Config string }
	if err := json.Unmarshal(b, &list); err != nil || len(list) == 0 {
		return "", fmt.Errorf("%w: docker_images holds no image", s9pk.ErrFormat)
	}
	if b, err = tarMember(r, path.Clean(list[0].Config)); err != nil {
		return "", err
	}
	var config struct{ Architecture string }
	if err := json.Unmarshal(b, &config); err != nil || archNames[config.Architecture] == "" {
		return "", fmt.Errorf("%w: images are for %.40q", s9pk.ErrFormat, config.Architecture)
	}
	return archNames[config.Architecture], nil
}

// tarMember reads one small file of an archive; nil where it is not there.
func tarMember(r *io.SectionReader, name string) ([]byte, error) {
	tr := tar.NewReader(io.NewSectionReader(r, 0, r.Size()))
	for {
		hdr, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", s9pk.ErrFormat, err)
		}
		if path.Clean(hdr.Name) != name || hdr.Typeflag != tar.TypeReg {
			continue
		}
		if hdr.Size > maxText {
			return nil, fmt.Errorf("%w: %s of %d bytes", s9pk.ErrLimit, name, hdr.Size)
		}
		var b bytes.Buffer
		_, err = io.Copy(&b, tr)
		return b.Bytes(), err
	}
}
