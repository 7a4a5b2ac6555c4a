package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"regexp"
	"strings"
)

// ErrOCI is wrapped by errors about an image layout or archive.
var ErrOCI = errors.New("image: unusable OCI image")

// goArch gives the names that OCI and Debian use to the ones of packages.
var goArch = map[string]string{"x86_64": "amd64", "aarch64": "arm64"}

func ociArch(arch string) string {
	if a := goArch[arch]; a != "" {
		return a
	}
	return arch
}

const (
	maxDocument = 4 << 20 // of an index, a manifest or a configuration
	refName     = "org.opencontainers.image.ref.name"
)

var digestPattern = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Annotations map[string]string `json:"annotations"`
	Platform    *struct {
		Architecture string `json:"architecture"`
		OS           string `json:"os"`
	} `json:"platform"`
}

type ociIndex struct {
	Manifests []descriptor `json:"manifests"`
}

type ociManifest struct {
	Config descriptor   `json:"config"`
	Layers []descriptor `json:"layers"`
}

type ociConfig struct {
	Architecture string `json:"architecture"`
	Config       struct {
		WorkingDir string
		User       string
		Entrypoint []string
		Cmd        []string
		Env        []string

		// For About alone.
		ExposedPorts map[string]struct{}
		Volumes      map[string]struct{}
		Labels       map[string]string
	} `json:"config"`
}

func (c ociConfig) image() Config {
	return Config{WorkDir: c.Config.WorkingDir, User: c.Config.User,
		Entrypoint: c.Config.Entrypoint, Cmd: c.Config.Cmd, Env: c.Config.Env}
}

// ociImage is one image of a layout, its layers still packed.
type ociImage struct {
	blobs  blobs
	key    string // names its content
	config Config
	whole  ociConfig
	layers []ociLayer
}

type ociLayer struct {
	name string
	desc descriptor // Digest "" in what an old `docker save` writes
}

// findOCI picks the image for arch.
func findOCI(b blobs, arch, ref string) (*ociImage, error) {
	index, err := document(b, "index.json", "")
	if errors.Is(err, os.ErrNotExist) {
		return findDockerSave(b, arch, ref)
	}
	if err != nil {
		return nil, err
	}
	found, seen, err := candidates(b, index, arch, ref, "", 0)
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%w: no image for %s%s; it holds %s", ErrOCI, arch, forRef(ref), orNothing(seen))
	}
	for _, d := range found[1:] {
		if d.Digest != found[0].Digest {
			return nil, fmt.Errorf("%w: several images for %s (%s); say which by ref", ErrOCI, arch, orNothing(seen))
		}
	}
	raw, err := document(b, blobName(found[0].Digest), found[0].Digest)
	if err != nil {
		return nil, err
	}
	var m ociManifest
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, fmt.Errorf("%w: manifest %s: %w", ErrOCI, found[0].Digest, err)
	}
	img := &ociImage{blobs: b, key: "oci:" + found[0].Digest}
	for _, l := range m.Layers {
		if !digestPattern.MatchString(l.Digest) {
			return nil, fmt.Errorf("%w: layer digest %q", ErrOCI, l.Digest)
		}
		img.layers = append(img.layers, ociLayer{name: blobName(l.Digest), desc: l})
	}
	c, err := readConfig(b, blobName(m.Config.Digest), m.Config.Digest)
	if err != nil {
		return nil, err
	}
	img.config, img.whole = c.image(), c
	return img, nil
}

// candidates collects the manifests below an index whose platform is arch; one
// without a platform counts by its configuration.
func candidates(b blobs, index []byte, arch, ref, name string, depth int) (found []descriptor, seen []string, err error) {
	var ix ociIndex
	if err := json.Unmarshal(index, &ix); err != nil {
		return nil, nil, fmt.Errorf("%w: index: %w", ErrOCI, err)
	}
	if depth > 4 {
		return nil, nil, fmt.Errorf("%w: indexes nested too deep", ErrOCI)
	}
	for _, d := range ix.Manifests {
		if !digestPattern.MatchString(d.Digest) {
			return nil, nil, fmt.Errorf("%w: digest %q", ErrOCI, d.Digest)
		}
		called := name
		if r := d.Annotations[refName]; r != "" {
			called = r
		}
		raw, err := document(b, blobName(d.Digest), d.Digest)
		if err != nil {
			if errors.Is(err, os.ErrNotExist) && d.Platform != nil && d.Platform.Architecture != ociArch(arch) {
				continue // a layout may hold only one platform of its index
			}
			return nil, nil, err
		}
		var kind struct {
			ociIndex
			ociManifest
		}
		if err := json.Unmarshal(raw, &kind); err != nil {
			return nil, nil, fmt.Errorf("%w: %s: %w", ErrOCI, d.Digest, err)
		}
		if kind.Manifests != nil {
			f, s, err := candidates(b, raw, arch, ref, called, depth+1)
			if err != nil {
				return nil, nil, err
			}
			found, seen = append(found, f...), append(seen, s...)
			continue
		}
		has := ""
		if d.Platform != nil {
			has = d.Platform.Architecture
		} else if c, err := readConfig(b, blobName(kind.Config.Digest), kind.Config.Digest); err == nil {
			has = c.Architecture
		}
		seen = append(seen, strings.TrimSpace(called+" "+has))
		if has == ociArch(arch) && (ref == "" || ref == called) {
			found = append(found, d)
		}
	}
	return found, seen, nil
}

// findDockerSave reads the older form, which has manifest.json alone.
func findDockerSave(b blobs, arch, ref string) (*ociImage, error) {
	raw, err := document(b, "manifest.json", "")
	if err != nil {
		return nil, fmt.Errorf("%w: neither index.json nor manifest.json in it", ErrOCI)
	}
	var list []struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, fmt.Errorf("%w: manifest.json: %w", ErrOCI, err)
	}
	var seen []string
	for _, m := range list {
		c, err := readConfig(b, path.Clean(m.Config), "")
		if err != nil {
			return nil, err
		}
		seen = append(seen, strings.TrimSpace(strings.Join(m.RepoTags, ",")+" "+c.Architecture))
		match := ref == ""
		for _, tag := range m.RepoTags {
			match = match || tag == ref
		}
		if !match || c.Architecture != ociArch(arch) {
			continue
		}
		img := &ociImage{blobs: b, config: c.image(), whole: c}
		for _, l := range m.Layers {
			img.layers = append(img.layers, ociLayer{name: path.Clean(l)})
		}
		return img, nil
	}
	return nil, fmt.Errorf("%w: no image for %s%s; it holds %s", ErrOCI, arch, forRef(ref), orNothing(seen))
}

func forRef(ref string) string {
	if ref == "" {
		return ""
	}
	return " called " + ref
}

func orNothing(seen []string) string {
	if len(seen) == 0 {
		return "none"
	}
	return strings.Join(seen, ", ")
}

func blobName(digest string) string {
	return "blobs/sha256/" + strings.TrimPrefix(digest, "sha256:")
}

func readConfig(b blobs, name, digest string) (ociConfig, error) {
	var c ociConfig
	raw, err := document(b, name, digest)
	if err != nil {
		return c, err
	}
	if err := json.Unmarshal(raw, &c); err != nil {
		return c, fmt.Errorf("%w: configuration %s: %w", ErrOCI, name, err)
	}
	return c, nil
}

// document reads a small blob and, where digest says what it must be, proves it.
func document(b blobs, name, digest string) ([]byte, error) {
	if digest != "" && !digestPattern.MatchString(digest) {
		return nil, fmt.Errorf("%w: digest %q", ErrOCI, digest)
	}
	r, err := b.open(name)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrOCI, err)
	}
	defer r.Close()
	raw, err := io.ReadAll(io.LimitReader(r, maxDocument+1))
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrOCI, name, err)
	}
	if len(raw) > maxDocument {
		return nil, fmt.Errorf("%w: %s is larger than %d bytes", ErrOCI, name, maxDocument)
	}
	if sum := sha256.Sum256(raw); digest != "" && "sha256:"+hex.EncodeToString(sum[:]) != digest {
		return nil, fmt.Errorf("%w: %s does not have the digest it is named by", ErrOCI, name)
	}
	return raw, nil
}

// addTo unpacks the layers into dir and lays them over t, proving digests.
func (img *ociImage) addTo(ctx context.Context, t *tree, dir string, moved func(int64)) (files []*os.File, err error) {
	for _, l := range img.layers {
		f, err := img.layer(ctx, l, dir, moved)
		if err != nil {
			return files, fmt.Errorf("%w: layer %s: %w", ErrOCI, l.name, err)
		}
		files = append(files, f)
		if err := t.addTar(ctx, f, dir, true); err != nil {
			return files, fmt.Errorf("%w: layer %s: %w", ErrOCI, l.name, err)
		}
	}
	return files, nil
}

func (img *ociImage) layer(ctx context.Context, l ociLayer, dir string, moved func(int64)) (*os.File, error) {
	if strings.Contains(l.desc.MediaType, "encrypted") {
		return nil, fmt.Errorf("media type %s is not supported", l.desc.MediaType)
	}
	r, err := img.blobs.open(l.name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	sum := sha256.New()
	hashed := io.TeeReader(r, sum)
	plain, _, err := decompress(hashed)
	if err != nil {
		return nil, err
	}
	f, err := spool(ctx, plain, dir, moved)
	if err != nil {
		return nil, err
	}
	if _, err := io.Copy(io.Discard, hashed); err != nil { // what follows the compressed stream
		f.Close()
		return nil, err
	}
	if got := "sha256:" + hex.EncodeToString(sum.Sum(nil)); l.desc.Digest != "" && got != l.desc.Digest {
		f.Close()
		return nil, fmt.Errorf("content has digest %s", got)
	}
	return f, nil
}

// key of an old `docker save`, whose layers have no digest: of its content.
func (img *ociImage) contentKey() (string, error) {
	if img.key != "" {
		return img.key, nil
	}
	sum := sha256.New()
	for _, l := range img.layers {
		r, err := img.blobs.open(l.name)
		if err != nil {
			return "", fmt.Errorf("%w: %w", ErrOCI, err)
		}
		layer := sha256.New()
		_, err = io.Copy(layer, r)
		r.Close()
		if err != nil {
			return "", fmt.Errorf("%w: layer %s: %w", ErrOCI, l.name, err)
		}
		sum.Write(layer.Sum(nil))
	}
	return "save:" + hex.EncodeToString(sum.Sum(nil)), nil
}
