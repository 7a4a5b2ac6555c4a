package pack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/selfstead/selfstead/s9pk"
	"github.com/selfstead/selfstead/s9pk/merkle"
	"github.com/selfstead/selfstead/s9pk/pack/image"
)

// images builds every image for every architecture and marks it as packed.
func (p *packer) images(ctx context.Context) error {
	for id := range p.Options.Images {
		if _, ok := p.manifest.Images[id]; !ok {
			return fmt.Errorf("%w: image %s is not in the manifest, which has %v", ErrProject, id, ids(p.manifest.Images))
		}
	}
	for _, id := range ids(p.manifest.Images) {
		img := p.manifest.Images[id]
		for _, arch := range archesOf(&img) {
			if err := p.image(ctx, id, arch, &img); err != nil {
				return fmt.Errorf("image %s for %s: %w", id, arch, err)
			}
		}
		img.Source = s9pk.ImageSource{}
		p.manifest.Images[id] = img
	}
	return nil
}

func (p *packer) image(ctx context.Context, id, arch string, img *s9pk.Image) error {
	src, err := p.source(id, img)
	if err != nil {
		return err
	}
	if src == nil {
		return p.readyImage(id, arch)
	}
	return addImage(ctx, p.root, id, arch, *src, image.Options{
		Arch: arch, Dir: p.Dir, CacheDir: p.CacheDir, SourceDate: p.SourceDate, Tool: p.Tool, Level: p.Level,
		Logger: p.Logger, Getenv: p.Getenv, Progress: imageProgress(p.Progress, id, arch),
	})
}

// ImageOptions tunes AddImage; fields are as in Options.
type ImageOptions struct {
	Dir, CacheDir, Tool string
	SourceDate          time.Time
	Level               int
	Logger              *slog.Logger
	Progress            func(p Progress)
	Getenv              func(string) string
}

// AddImage builds the image that src describes for every architecture of img and
// puts its files into a package's tree, whose manifest is the caller's affair.
func AddImage(ctx context.Context, root *merkle.Directory, id string, img s9pk.Image, src image.Source, o ImageOptions) error {
	cache, err := cacheDir(o.CacheDir)
	if err != nil {
		return err
	}
	for _, arch := range archesOf(&img) {
		err := addImage(ctx, root, id, arch, src, image.Options{
			Arch: arch, Dir: o.Dir, CacheDir: cache, SourceDate: o.SourceDate, Tool: o.Tool, Level: o.Level,
			Logger: o.Logger, Getenv: o.Getenv, Progress: imageProgress(o.Progress, id, arch),
		})
		if err != nil {
			return fmt.Errorf("image %s for %s: %w", id, arch, err)
		}
	}
	return nil
}

func imageProgress(to func(Progress), id, arch string) func(image.Progress) {
	if to == nil {
		return nil
	}
	return func(g image.Progress) {
		to(Progress{Step: "image " + id + " " + arch, Phase: g.Phase, Done: g.Done, Total: g.Total})
	}
}

// archesOf is what an image has to be built for: its own architectures and the
// one that stands in for those that are missing.
func archesOf(img *s9pk.Image) []string {
	arches := slices.Clone(img.Arch)
	if e := img.EmulateMissingAs; e != nil {
		arches = append(arches, *e)
	}
	slices.Sort(arches)
	return slices.Compact(arches)
}

func addImage(ctx context.Context, root *merkle.Directory, id, arch string, src image.Source, o image.Options) error {
	built, err := image.Build(ctx, src, o)
	if err != nil {
		return err
	}
	env, err := built.Config.EnvFile()
	if err != nil {
		return err
	}
	rootfs, err := s9pk.FileSource(built.SquashFS)
	if err != nil {
		return fmt.Errorf("pack: %w", err)
	}
	for ext, content := range map[string]merkle.Source{
		".squashfs": rootfs, ".json": s9pk.Bytes(built.Config.JSON()), ".env": s9pk.Bytes(env),
	} {
		if _, err := root.Put(s9pk.ImagePath(arch, id, ext), content); err != nil {
			return fmt.Errorf("pack: %w", err)
		}
	}
	return nil
}

// source says what image id is made of; nil where files lie ready.
func (p *packer) source(id string, img *s9pk.Image) (*image.Source, error) {
	if s, ok := p.Options.Images[id]; ok {
		return &s, nil
	}
	file := filepath.Join(p.Dir, "images", id+".json")
	s, err := image.ReadSource(file)
	if err == nil {
		return &s, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	switch from := img.Source; {
	case from.DockerTag != "":
		return &image.Source{DockerTag: from.DockerTag}, nil
	case from.DockerBuild != nil:
		b := &image.DockerBuild{BuildArgs: map[string]image.BuildArg{}}
		if from.DockerBuild.Workdir != nil {
			b.Workdir = *from.DockerBuild.Workdir
		}
		if from.DockerBuild.Dockerfile != nil {
			b.Dockerfile = *from.DockerBuild.Dockerfile
		}
		for k, v := range from.DockerBuild.BuildArgs {
			arg := image.BuildArg{Value: v.Value}
			if v.Env != nil {
				arg.Env = *v.Env
			}
			b.BuildArgs[k] = arg
		}
		return &image.Source{DockerBuild: b}, nil
	}
	return nil, nil
}

// readyImage takes the three files that lie in the project.
func (p *packer) readyImage(id, arch string) error {
	base := filepath.Join(p.Dir, "images", arch, id)
	rootfs, err := p.padded(base+".squashfs", id+"-"+arch)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: the manifest says that it is packed, but there is neither %s nor %s.squashfs, and no source is given",
			ErrProject, filepath.Join(p.Dir, "images", id+".json"), base)
	}
	if err != nil {
		return err
	}
	if err := p.putFile(s9pk.ImagePath(arch, id, ".squashfs"), rootfs); err != nil {
		return err
	}
	for _, ext := range []string{".json", ".env"} {
		if err := p.putFile(s9pk.ImagePath(arch, id, ext), base+ext); err != nil {
			return err
		}
	}
	return nil
}

// padded makes sure that the file is a squashfs and its length a multiple of
// 4 KiB, which loop devices ask for, in a copy where it is not.
func (p *packer) padded(path, name string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrProject, err)
	}
	defer f.Close()
	var magic [4]byte
	if _, err := io.ReadFull(f, magic[:]); err != nil || string(magic[:]) != "hsqs" {
		return "", fmt.Errorf("%w: %s is no squashfs", ErrProject, path)
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrProject, err)
	}
	if size%4096 == 0 {
		return path, nil
	}
	out, err := os.Create(filepath.Join(p.work, name))
	if err != nil {
		return "", fmt.Errorf("pack: %w", err)
	}
	defer out.Close()
	if _, err := io.Copy(out, io.NewSectionReader(f, 0, size)); err != nil {
		return "", fmt.Errorf("pack: %w", err)
	}
	if err := out.Truncate((size + 4095) / 4096 * 4096); err != nil {
		return "", fmt.Errorf("pack: %w", err)
	}
	return out.Name(), nil
}
