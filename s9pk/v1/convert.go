package v1

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/selfstead/selfstead/s9pk"
	"github.com/selfstead/selfstead/s9pk/exver"
	"github.com/selfstead/selfstead/s9pk/merkle"
	"github.com/selfstead/selfstead/s9pk/pack/image"
	"github.com/selfstead/selfstead/s9pk/validate"
)

// renamed gives packages whose name now belongs to a newer one another id.
var renamed = map[string]string{
	"nostr": "nostr-rs-relay", "ghost": "ghost-legacy", "synapse": "synapse-legacy", "monerod": "monerod-legacy", "fedimintd": "fedimint-guardian",
}

// prerelease marks packages whose upstream is one but whose version did not say so.
var prerelease = map[string]string{
	"lnd": "beta", "ride-the-lightning": "beta", "datum": "beta", "lightning-terminal": "alpha", "robosats": "alpha",
}

func sortedRefs(set map[ImageRef]bool) []ImageRef {
	return slices.SortedFunc(maps.Keys(set), func(a, b ImageRef) int {
		if a.System != b.System && a.ID == b.ID {
			return map[bool]int{true: 1, false: -1}[a.System]
		}
		return strings.Compare(a.ID, b.ID)
	})
}

// Convert makes the version 2 manifest of a version 1 manifest, as StartOS does.
// Images are added by Archive.Convert, which knows their architectures.
func (m *Manifest) Convert() (*s9pk.Manifest, error) {
	v, err := ConvertVersion(m.Version)
	if err != nil {
		return nil, err
	}
	if m.ID == "bitcoind" && strings.Contains(strings.ToLower(m.Title), "knots") {
		v.Flavor, v.Flavored = "knots", true
	}
	if p := prerelease[m.ID]; p != "" {
		v.Upstream.Prerelease = []exver.Segment{{Text: p}}
	}
	vs, err := exver.ParseVersionString(v.String())
	if err != nil {
		return nil, fmt.Errorf("s9pk: version 1: %w", err)
	}
	osVersion, err := exver.ParseVersion(m.EosVersion)
	if err != nil {
		return nil, fmt.Errorf("s9pk: version 1: eos-version: %w", err)
	}
	n := &s9pk.Manifest{
		ID: m.ID, Version: vs, CanMigrateTo: exver.None(), CanMigrateFrom: exver.Any(), Title: m.Title + " (Legacy)",
		Description: s9pk.Description{Short: m.Description.Short, Long: m.Description.Long}, ReleaseNotes: m.ReleaseNotes,
		GitHash: m.GitHash, License: m.License, OSVersion: osVersion,
		HardwareAcceleration: m.Main.Type == "docker" && m.Main.GPUAcceleration,
		Plugins:              []string{}, Satisfies: []exver.VersionString{}, Images: map[string]s9pk.Image{},
		Dependencies:         map[string]s9pk.Dependency{},
		HardwareRequirements: s9pk.HardwareRequirements{Devices: []s9pk.DeviceFilter{}, RAM: m.Hardware.RAM, Arch: slices.Sorted(slices.Values(m.Hardware.Arch))},
	}
	if id := renamed[m.ID]; id != "" {
		n.ID = id
	}
	if err := m.convertURLs(n); err != nil {
		return nil, err
	}
	n.Volumes = []string{"embassy"}
	for id, vol := range m.Volumes {
		if vol.Type == "data" && id != "embassy" {
			n.Volumes = append(n.Volumes, id)
		}
	}
	slices.Sort(n.Volumes)
	for id, dep := range m.Dependencies {
		n.Dependencies[id] = s9pk.Dependency{Description: dep.Description, Optional: dep.Requirement.Type != "required"}
	}
	for _, class := range slices.Sorted(maps.Keys(m.Hardware.Device)) {
		if class != s9pk.ClassProcessor && class != s9pk.ClassDisplay {
			return nil, fmt.Errorf("s9pk: version 1: %w: hardware-requirements.device: unknown class %.40q", s9pk.ErrManifest, class)
		}
		pattern := m.Hardware.Device[class]
		n.HardwareRequirements.Devices = append(n.HardwareRequirements.Devices, s9pk.DeviceFilter{
			Description: fmt.Sprintf("%s matching %q", class, pattern), Class: class, Product: &pattern})
	}
	return n, nil
}

func (m *Manifest) convertURLs(n *s9pk.Manifest) (err error) {
	if n.PackageRepo, err = s9pk.NormalizeURL(m.WrapperRepo); err != nil {
		return fmt.Errorf("s9pk: version 1: wrapper-repo: %w", err)
	}
	if n.UpstreamRepo, err = s9pk.NormalizeURL(m.UpstreamRepo); err != nil {
		return fmt.Errorf("s9pk: version 1: upstream-repo: %w", err)
	}
	marketing := n.UpstreamRepo
	if m.MarketingSite != nil {
		if marketing, err = s9pk.NormalizeURL(*m.MarketingSite); err != nil {
			return fmt.Errorf("s9pk: version 1: marketing-site: %w", err)
		}
	}
	n.MarketingURL = &marketing
	if m.DonationURL != nil {
		donation, err := s9pk.NormalizeURL(*m.DonationURL)
		if err != nil {
			return fmt.Errorf("s9pk: version 1: donation-url: %w", err)
		}
		n.DonationURL = &donation
	}
	return nil
}

// ConvertOptions tunes Convert.
type ConvertOptions struct {
	// Scratch is a directory for what is unpacked; the tree that Convert returns
	// reads from it, so it must stay until that is written. Required.
	Scratch string
	// CacheDir is where finished images are kept; "" means in Scratch.
	CacheDir string
	Logger   *slog.Logger // nil means silent
	NoSync   bool         // ConvertFile leaves it to the kernel when its file reaches the disk
}

// Convert checks the signature and makes the tree of the version 2 package; sign
// and write it with s9pk.WriteFile. It needs mksquashfs.
func (a *Archive) Convert(ctx context.Context, o ConvertOptions) (*merkle.Directory, *s9pk.Manifest, error) {
	if o.CacheDir == "" {
		o.CacheDir = filepath.Join(o.Scratch, "cache")
	}
	if err := a.Verify(ctx); err != nil {
		return nil, nil, err
	}
	old, err := a.Manifest()
	if err != nil {
		return nil, nil, err
	}
	m, err := old.Convert()
	if err != nil {
		return nil, nil, err
	}
	root := merkle.NewDirectory()
	c := &converter{a: a, o: o, old: old, m: m, root: root}
	for _, step := range []func(context.Context) error{c.texts, c.assets, c.javascript, c.images} {
		if err := step(ctx); err != nil {
			return nil, nil, err
		}
	}
	text, err := m.MarshalJSON()
	if err != nil {
		return nil, nil, err
	}
	if _, err := root.Put(s9pk.ManifestPath, s9pk.Bytes(text)); err != nil {
		return nil, nil, err
	}
	return root, m, nil
}

// ConvertFile converts the package, signs it with key and writes it to path, which
// appears only when it is complete. Scratch, where it is not given, is a directory
// beside path that is gone afterwards. The result is checked as a package.
func (a *Archive) ConvertFile(ctx context.Context, path string, key s9pk.Signer, o ConvertOptions) (m *s9pk.Manifest, err error) {
	if o.Scratch == "" {
		if o.Scratch, err = os.MkdirTemp(filepath.Dir(path), ".convert-*"); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(o.Scratch)) }()
	}
	root, m, err := a.Convert(ctx, o)
	if err != nil {
		return nil, err
	}
	if _, breaches := s9pk.Require(root, m, ""); validate.Err(breaches) != nil {
		return nil, validate.Err(breaches)
	}
	return m, s9pk.WriteFile(ctx, path, root, key, s9pk.WriteOptions{NoSync: o.NoSync})
}

type converter struct {
	a    *Archive
	o    ConvertOptions
	old  *Manifest
	m    *s9pk.Manifest
	root *merkle.Directory
}

func (c *converter) texts(context.Context) error {
	for label, name := range map[string]string{SectionLicense: s9pk.LicensePath, SectionInstructions: s9pk.InstructionsPath, SectionIcon: c.old.IconName()} {
		b, err := c.a.read(label, maxText)
		if err != nil {
			return err
		}
		if _, err := c.root.Put(name, s9pk.Bytes(b)); err != nil {
			return err
		}
	}
	return nil
}

// folder packs a folder as a member of the package.
func (c *converter) folder(ctx context.Context, dir, name string) error {
	file := filepath.Join(c.o.Scratch, name)
	if err := image.Folder(ctx, dir, file, time.Time{}, 0); err != nil {
		return err
	}
	src, err := s9pk.FileSource(file)
	if err != nil {
		return err
	}
	_, err = c.root.Put(name, src)
	return err
}

func (c *converter) assets(ctx context.Context) error {
	r, err := c.a.Reader(SectionAssets)
	if err != nil {
		return err
	}
	dir := filepath.Join(c.o.Scratch, "assets")
	if err := unpack(ctx, r, dir); err != nil {
		return fail(SectionAssets, -1, err)
	}
	return c.folder(ctx, dir, s9pk.AssetsPath)
}

func (c *converter) javascript(ctx context.Context) error {
	dir := filepath.Join(c.o.Scratch, "javascript")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if r, err := c.a.Reader(SectionScripts); err == nil && r.Size() > 0 {
		if err := copyFile(filepath.Join(dir, "embassy.js"), r); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "embassyManifest.json"), c.old.Raw, 0o644); err != nil {
		return err
	}
	return c.folder(ctx, dir, s9pk.JavascriptPath)
}

func copyFile(name string, r io.Reader) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}
