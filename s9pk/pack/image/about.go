package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
)

// About is what an image's configuration says of it, as far as it helps in
// describing a service.
type About struct {
	Config
	Arch    []string // of x86_64, aarch64 and riscv64, those that there are
	Ports   []Port
	Volumes []string // absolute paths
	Labels  map[string]string
}

// Port is one that an image's program listens on.
type Port struct {
	Number   int
	Protocol string // tcp or udp
}

// Describe reads the configuration of an image: of the OCI layout or archive s.OCI,
// or of s.DockerTag, which docker or podman fetches where it is not there. With
// several architectures it is that of o.Arch, else of the first.
func Describe(ctx context.Context, s Source, o Options) (*About, error) {
	work, err := os.MkdirTemp("", "stead-image-")
	if err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	defer os.RemoveAll(work)
	b := &builder{Options: o, work: work}
	if b.Progress == nil {
		b.Progress = func(Progress) {}
	}
	switch {
	case s.OCI != "":
		return b.aboutOCI(ctx, locate(o.Dir, s.OCI, o.Arch), s.Ref)
	case s.DockerTag != "":
		return b.aboutTag(ctx, s.DockerTag)
	}
	return nil, fmt.Errorf("%w: only an OCI image or a docker tag describes itself", ErrSource)
}

var arches = []string{"x86_64", "aarch64", "riscv64"}

func (b *builder) aboutOCI(ctx context.Context, name, ref string) (*About, error) {
	bl, err := openOCI(ctx, name, b.work)
	if err != nil {
		return nil, err
	}
	defer bl.Close()
	var a *About
	var has []string
	var errs []error
	for _, arch := range arches {
		img, err := findOCI(bl, arch, ref)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		has = append(has, arch)
		if a == nil || arch == b.Arch {
			a = img.whole.about()
		}
	}
	if a == nil {
		return nil, fmt.Errorf("%s: %w", name, errors.Join(errs...))
	}
	a.Arch = has
	return a, nil
}

func (b *builder) aboutTag(ctx context.Context, tag string) (*About, error) {
	if strings.HasPrefix(tag, "-") {
		return nil, fmt.Errorf("%w: %q is not an image reference", ErrSource, tag)
	}
	exe, err := b.tool(ctx)
	if err != nil {
		return nil, err
	}
	inspect := func() (string, error) {
		return b.run(ctx, exe, "image", "inspect", "--format", `{"architecture":{{json .Architecture}},"config":{{json .Config}}}`, tag)
	}
	text, err := inspect()
	if err != nil {
		if _, err := b.run(ctx, exe, "pull", "--platform=linux/"+ociArch(b.Arch), tag); err != nil {
			return nil, err
		}
		if text, err = inspect(); err != nil {
			return nil, err
		}
	}
	var c ociConfig
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		return nil, fmt.Errorf("%w: image inspect: %w", ErrTool, err)
	}
	a := c.about()
	for _, arch := range arches {
		if ociArch(arch) == c.Architecture {
			a.Arch = []string{arch}
		}
	}
	return a, nil
}

func (c ociConfig) about() *About {
	a := &About{Config: c.image(), Labels: c.Config.Labels, Volumes: slices.Sorted(maps.Keys(c.Config.Volumes))}
	for text := range c.Config.ExposedPorts {
		number, protocol, _ := strings.Cut(text, "/")
		if protocol == "" {
			protocol = "tcp"
		}
		if n, err := strconv.Atoi(number); err == nil && n > 0 && n < 1<<16 && (protocol == "tcp" || protocol == "udp") {
			a.Ports = append(a.Ports, Port{n, protocol})
		}
	}
	slices.SortFunc(a.Ports, func(a, b Port) int {
		if a.Number != b.Number {
			return a.Number - b.Number
		}
		return strings.Compare(a.Protocol, b.Protocol)
	})
	return a
}
