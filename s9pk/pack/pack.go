package pack

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/selfstead/selfstead/s9pk"
	"github.com/selfstead/selfstead/s9pk/merkle"
	"github.com/selfstead/selfstead/s9pk/pack/image"
	"github.com/selfstead/selfstead/s9pk/validate"
)

// Options tunes Pack. Key is required.
type Options struct {
	Dir    string      // the project; "" is the working directory
	Output string      // the package; "" is ID.s9pk in Dir
	Key    s9pk.Signer // signs the package

	// Parts that lie elsewhere than doc.go says.
	JavaScript, Icon, License, Instructions, Assets string
	// NoAssets leaves assets/ out; it also may simply not be there.
	NoAssets bool

	// Arch is what to pack for, of what the project is made for; nil is all.
	Arch []string
	// Images says what images are made of, by id, instead of the project.
	Images map[string]image.Source

	// SourceDate is the time of all files in the package's members; zero is the
	// time of the git commit, or 1970 without one. Files of images keep their own,
	// none later than this; see image.Options.
	SourceDate time.Time
	RequireGit bool // no git commit is ErrGit, as with the reference packer

	CacheDir string              // for images; "" is selfstead/images in os.UserCacheDir
	Level    int                 // zstd level of all members; 0 means squashfs.DefaultLevel
	Tool     string              // docker or podman; "" is the first that works
	Node     string              // "" is the one on PATH
	Order    s9pk.Order          // of the root table
	Client   *http.Client        // for icons and packages of dependencies; nil means the default
	Logger   *slog.Logger        // nil means silent
	Progress func(p Progress)    // nil means none
	Getenv   func(string) string // for build arguments; nil means os.Getenv
}

// Progress says how far Pack is. Total is 0 where it is not known.
type Progress struct {
	Step        string // "manifest", "javascript", "assets", "image ID ARCH", "dependency ID", "write"
	Phase       string // within the step, where it has any
	Done, Total int64  // bytes
}

// packer is one run.
type packer struct {
	Options
	parts    *parts
	manifest *s9pk.Manifest
	work     string // scratch folder
	date     time.Time
	root     *merkle.Directory
}

// Pack builds, validates, signs and writes the package of a project and returns
// its path. On an error nothing is left of it, an older package at the same path
// included as it was.
func Pack(ctx context.Context, o Options) (path string, err error) {
	if o.Key == nil {
		return "", errors.New("pack: a key to sign with must be given")
	}
	if o.Dir == "" {
		o.Dir = "."
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Progress == nil {
		o.Progress = func(Progress) {}
	}
	if o.CacheDir, err = cacheDir(o.CacheDir); err != nil {
		return "", err
	}
	work, err := os.MkdirTemp("", "stead-pack-")
	if err != nil {
		return "", fmt.Errorf("pack: %w", err)
	}
	defer os.RemoveAll(work)
	if err := describe(&o, work); err != nil {
		return "", err
	}
	p := &packer{Options: o, root: merkle.NewDirectory(), work: work}
	if p.parts, err = findParts(&o); err != nil {
		return "", err
	}
	for _, step := range []func(context.Context) error{
		p.readManifest, p.revision, p.architectures, p.files, p.members, p.images, p.dependencies, p.putManifest,
	} {
		if err := step(ctx); err != nil {
			return "", err
		}
	}
	if p.Output == "" {
		p.Output = filepath.Join(o.Dir, p.manifest.ID+".s9pk")
	}
	return p.Output, p.write(ctx)
}

func (p *packer) readManifest(ctx context.Context) error {
	p.Progress(Progress{Step: "manifest"})
	text, err := evaluateManifest(ctx, p.Node, p.parts.javascript)
	if err != nil {
		return err
	}
	if p.manifest, err = s9pk.ParseManifest(text); err != nil {
		return fmt.Errorf("%w: manifest of %s: %w", ErrProject, p.parts.javascript, err)
	}
	return nil
}

// revision fills gitHash, and the date of the package's files.
func (p *packer) revision(ctx context.Context) error {
	rev, err := gitRevision(ctx, p.Dir)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil && p.RequireGit:
		return err
	case err != nil:
		p.Logger.Warn("no git commit: the package says nothing of its source", "err", err)
		p.manifest.GitHash = nil
		p.date = time.Unix(0, 0)
	default:
		p.manifest.GitHash, p.date = &rev.hash, rev.date
	}
	if !p.SourceDate.IsZero() {
		p.date = p.SourceDate
	}
	return nil
}

// architectures narrows the manifest to what is packed for.
func (p *packer) architectures(context.Context) error {
	hw := &p.manifest.HardwareRequirements
	effective := hw.Arch
	if len(p.Arch) > 0 {
		effective = nil
		for _, a := range p.Arch {
			if hw.Arch == nil || slices.Contains(hw.Arch, a) {
				effective = append(effective, a)
			}
		}
		slices.Sort(effective)
		effective = slices.Compact(effective)
		if len(effective) == 0 {
			return fmt.Errorf("%w: packed for %s, but the package runs only on %s", ErrArch,
				strings.Join(p.Arch, ", "), strings.Join(hw.Arch, ", "))
		}
	}
	if effective == nil {
		return nil
	}
	hw.Arch = effective
	for _, id := range ids(p.manifest.Images) {
		img := p.manifest.Images[id]
		var kept []string
		for _, a := range img.Arch {
			if slices.Contains(effective, a) {
				kept = append(kept, a)
			}
		}
		if len(kept) == 0 {
			if img.EmulateMissingAs == nil {
				return fmt.Errorf("%w: image %s exists for %s only and is not emulated", ErrArch, id, strings.Join(img.Arch, ", "))
			}
			p.Logger.Warn("an image will be emulated", "image", id, "arch", *img.EmulateMissingAs)
			kept = []string{*img.EmulateMissingAs}
		}
		img.Arch = kept
		p.manifest.Images[id] = img
	}
	return nil
}

// files puts icon, licence and instructions.
func (p *packer) files(context.Context) error {
	if s9pk.ImageType(p.parts.iconName) == "" {
		return fmt.Errorf("%w: %s is no type of image that can be an icon", ErrProject, p.parts.icon)
	}
	for name, path := range map[string]string{
		p.parts.iconName: p.parts.icon, s9pk.LicensePath: p.parts.license, s9pk.InstructionsPath: p.parts.instructions,
	} {
		if err := p.putFile(name, path); err != nil {
			return err
		}
	}
	return nil
}

func (p *packer) putFile(name, path string) error {
	src, err := s9pk.FileSource(path)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrProject, err)
	}
	return p.put(name, src)
}

func (p *packer) put(name string, src merkle.Source) error {
	if _, err := p.root.Put(name, src); err != nil {
		return fmt.Errorf("pack: %w", err)
	}
	return nil
}

// members builds the squashfs files of bundle and assets.
func (p *packer) members(ctx context.Context) error {
	build := func(step, dir, name string) error {
		p.Progress(Progress{Step: step})
		out := filepath.Join(p.work, name)
		if err := image.Folder(ctx, dir, out, p.date, p.Level); err != nil {
			return fmt.Errorf("%w: %s: %w", ErrProject, step, err)
		}
		return p.putFile(name, out)
	}
	if err := build("javascript", p.parts.javascript, s9pk.JavascriptPath); err != nil {
		return err
	}
	if p.NoAssets {
		return nil
	}
	if _, err := os.Stat(p.parts.assets); errors.Is(err, fs.ErrNotExist) && p.Assets == "" {
		return nil // validation says so
	}
	return build("assets", p.parts.assets, s9pk.AssetsPath)
}

func (p *packer) putManifest(context.Context) error {
	text, err := p.manifest.MarshalJSON() // json.Marshal would escape what the reference does not
	if err != nil {
		return fmt.Errorf("pack: manifest: %w", err)
	}
	return p.put(s9pk.ManifestPath, s9pk.Bytes(text))
}

// write signs the tree into a file beside the output, has it validated as a
// device would, and puts it in place.
func (p *packer) write(ctx context.Context) (err error) {
	f, err := os.CreateTemp(filepath.Dir(p.Output), "."+filepath.Base(p.Output)+"-*.tmp")
	if err != nil {
		return fmt.Errorf("pack: %w", err)
	}
	defer func() {
		f.Close()
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	err = s9pk.WriteAt(ctx, f, p.root, p.Key, s9pk.WriteOptions{Order: p.Order, Progress: func(done, total int64) {
		p.Progress(Progress{Step: "write", Done: done, Total: total})
	}})
	if err != nil {
		return fmt.Errorf("pack: %w", err)
	}
	if err := check(f, p.Logger); err != nil {
		return err
	}
	if err := f.Chmod(0o644); err != nil {
		return fmt.Errorf("pack: %w", err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("pack: %w", err)
	}
	if err := os.Rename(f.Name(), p.Output); err != nil {
		return fmt.Errorf("pack: %w", err)
	}
	return nil
}

// check opens what was written and judges it.
func check(f *os.File, logger *slog.Logger) error {
	fi, err := f.Stat()
	if err != nil {
		return fmt.Errorf("pack: %w", err)
	}
	a, err := s9pk.Open(f, fi.Size(), s9pk.Options{})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	breaches := validate.Package(a, "")
	for _, b := range breaches {
		if b.Warning {
			logger.Warn(b.Error())
		}
	}
	if err := validate.Err(breaches); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return nil
}

// cacheDir is where images are kept unless the caller says otherwise.
func cacheDir(dir string) (string, error) {
	if dir != "" {
		return dir, nil
	}
	base, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("pack: no cache folder: %w", err)
	}
	return filepath.Join(base, "selfstead", "images"), nil
}

func ids[V any](m map[string]V) []string {
	var list []string
	for id := range m {
		list = append(list, id)
	}
	slices.Sort(list)
	return list
}
