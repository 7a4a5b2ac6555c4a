package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/selfstead/selfstead/s9pk/squashfs"
)

// Options tunes Build. Arch and CacheDir are required.
type Options struct {
	Arch     string // x86_64, aarch64 or riscv64
	Dir      string // where relative paths of a Source start; "" is the working directory
	CacheDir string // finished images stand here; made if missing

	// SourceDate is the latest time that a file of an image carries; zero means
	// the latest of the source's own files, for Debian packages the date of the
	// release, and for a folder whose times do not count 1970.
	SourceDate time.Time

	Tool     string              // docker or podman; "" is the first on PATH that works
	Level    int                 // zstd level; 0 means squashfs.DefaultLevel
	Logger   *slog.Logger        // nil means silent
	Progress func(p Progress)    // nil means none; called from one goroutine
	Getenv   func(string) string // for build arguments taken from the environment; nil means os.Getenv
}

// Progress says how far a build is. Total is 0 where it is not known.
type Progress struct {
	Phase       string // "download", "unpack", "compress", or a step of the tool at work
	Done, Total int64  // bytes
}

// Image is a finished image.
type Image struct {
	SquashFS string // path of the file, in the cache: link or copy it, do not change it
	Config   Config
	Cached   bool // nothing had to be built
}

const (
	keepUnused  = 30 * 24 * time.Hour // an image that no build asks for stays in the cache this long
	keepScratch = 24 * time.Hour      // and the scratch folder of a build that may still run
)

// defaultEnv is what images that bring no configuration start with.
var defaultEnv = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}

// origin is a source made ready: what names its content, and how to lay it out.
type origin struct {
	spec    string // names the request: entries of one spec replace each other
	key     string // names the content; "" when it cannot be known beforehand
	config  Config
	date    time.Time                                // for files without a time of their own; zero: the latest of the others
	offline bool                                     // an older image of the same spec will do
	fill    func(ctx context.Context, t *tree) error // lays the files over an empty tree
	close   func()
}

type builder struct {
	Options
	work string // scratch folder, removed at the end
}

// Build makes the image that s describes, or finds it in the cache.
func Build(ctx context.Context, s Source, o Options) (_ *Image, err error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	if o.Arch == "" || o.CacheDir == "" {
		return nil, fmt.Errorf("%w: an architecture and a cache folder must be given", ErrSource)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Progress == nil {
		o.Progress = func(Progress) {}
	}
	if o.Getenv == nil {
		o.Getenv = os.Getenv
	}
	if err := os.MkdirAll(o.CacheDir, 0o755); err != nil {
		return nil, fmt.Errorf("image: cache: %w", err)
	}
	b := &builder{Options: o}
	if b.work, err = os.MkdirTemp(o.CacheDir, "work-"); err != nil {
		return nil, fmt.Errorf("image: cache: %w", err)
	}
	defer os.RemoveAll(b.work)
	b.prune()

	from, err := b.origin(ctx, &s)
	if err != nil {
		return nil, err
	}
	if from.close != nil {
		defer from.close()
	}
	img := &Image{Config: from.config.with(&s)}
	overlay := ""
	if s.Files != "" {
		if overlay, err = b.folderKey(ctx, locate(o.Dir, s.Files, o.Arch), s.Keep); err != nil {
			return nil, err
		}
	}
	prefix := short(from.spec, o.Arch, overlay, o.SourceDate.UTC().Format(time.RFC3339), fmt.Sprint(o.Level))
	if from.key != "" {
		img.SquashFS = filepath.Join(o.CacheDir, prefix+"-"+short(squashfs.Version, from.key)+".squashfs")
		if touch(img.SquashFS) {
			img.Cached = true
			return img, nil
		}
	} else {
		img.SquashFS = filepath.Join(o.CacheDir, prefix+"-latest.squashfs")
	}
	err = b.make(ctx, &s, from, img.SquashFS)
	if older := b.newest(prefix); err != nil && from.offline && older != "" && ctx.Err() == nil {
		o.Logger.Warn("the package archives do not answer; using the image built before", "image", older, "err", err)
		img.SquashFS, img.Cached = older, true
		return img, nil
	}
	if err != nil {
		return nil, err
	}
	return img, nil
}

func (b *builder) origin(ctx context.Context, s *Source) (*origin, error) {
	switch s.Kind() {
	case "oci":
		return b.fromOCI(ctx, locate(b.Dir, s.OCI, b.Arch), s.Ref)
	case "rootfs":
		return b.fromFolder(ctx, locate(b.Dir, s.Rootfs, b.Arch), s)
	case "debian":
		return b.fromDebian(ctx, s.Debian)
	case "dockerTag":
		return b.fromDockerTag(ctx, s.DockerTag)
	default:
		return b.fromDockerBuild(ctx, s.DockerBuild)
	}
}

// make builds the file at path.
func (b *builder) make(ctx context.Context, s *Source, from *origin, path string) error {
	t := newTree()
	if err := from.fill(ctx, t); err != nil {
		return err
	}
	if s.Files != "" {
		if err := t.addDir(ctx, locate(b.Dir, s.Files, b.Arch), dirOptions{owners: s.Keep, shared: true}); err != nil {
			return err
		}
	}
	if err := t.mountPoints(); err != nil {
		return err
	}
	total, date := t.stat()
	switch {
	case !b.SourceDate.IsZero():
		date = b.SourceDate
	case !from.date.IsZero():
		date = from.date
	}
	if date.Unix() < 0 {
		date = time.Unix(0, 0)
	}
	var done int64
	root := t.root.hdr
	return squashfs.Create(ctx, path, squashfs.CreateOptions{Level: b.Level, Time: date, RootMode: os.FileMode(root.Mode).Perm()},
		func(w io.Writer) error {
			return t.writeTar(ctx, w, date, func(n int64) {
				done += n
				b.Progress(Progress{Phase: "compress", Done: done, Total: total})
			})
		})
}

func (b *builder) fromFolder(ctx context.Context, dir string, s *Source) (*origin, error) {
	t := newTree()
	if err := t.addDir(ctx, dir, dirOptions{owners: s.Keep, times: s.KeepTimes}); err != nil {
		return nil, err
	}
	key, err := t.key(ctx)
	if err != nil {
		return nil, err
	}
	return &origin{spec: "rootfs:" + dir, key: key, config: Config{Env: defaultEnv},
		fill: func(_ context.Context, into *tree) error { *into = *t; return nil }}, nil
}

func (b *builder) fromOCI(ctx context.Context, name, ref string) (*origin, error) {
	bl, err := openOCI(ctx, name, b.work)
	if err != nil {
		return nil, err
	}
	from, err := b.fromBlobs(bl, ref)
	if err != nil {
		bl.Close()
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	from.spec = "oci:" + name
	return from, nil
}

func (b *builder) fromBlobs(bl blobs, ref string) (*origin, error) {
	img, err := findOCI(bl, b.Arch, ref)
	if err != nil {
		return nil, err
	}
	key, err := img.contentKey()
	if err != nil {
		return nil, err
	}
	var open []*os.File
	return &origin{key: key, config: img.config,
		fill: func(ctx context.Context, t *tree) error {
			var done int64
			files, err := img.addTo(ctx, t, b.work, func(n int64) {
				done += n
				b.Progress(Progress{Phase: "unpack", Done: done})
			})
			open = files
			return err
		},
		close: func() {
			for _, f := range open {
				f.Close()
			}
			bl.Close()
		}}, nil
}

// folderKey names the content of a folder that is laid over an image.
func (b *builder) folderKey(ctx context.Context, dir string, keep bool) (string, error) {
	t := newTree()
	if err := t.addDir(ctx, dir, dirOptions{owners: keep, shared: true}); err != nil {
		return "", err
	}
	return t.key(ctx)
}

// key names the tree's content: the digest of the tar stream that it makes.
func (t *tree) key(ctx context.Context) (string, error) {
	sum := sha256.New()
	fmt.Fprintf(sum, "%o %d\n", t.root.hdr.Mode, t.root.hdr.ModTime.Unix())
	if err := t.writeTar(ctx, sum, time.Unix(1<<40, 0), nil); err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// short is a name for the cache made of what is given.
func short(parts ...string) string {
	text, err := json.Marshal(parts)
	if err != nil {
		panic(err) // strings always marshal
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:12])
}

// touch says whether a cached image is there, and keeps it from being pruned.
func touch(path string) bool {
	fi, err := os.Stat(path)
	if err != nil || fi.Size() == 0 {
		return false
	}
	now := time.Now()
	return os.Chtimes(path, now, now) == nil || errors.Is(err, os.ErrPermission)
}

// newest is the image last used among those of one request; "" if there is none.
func (b *builder) newest(prefix string) string {
	names, err := filepath.Glob(filepath.Join(b.CacheDir, prefix+"-*.squashfs"))
	if err != nil {
		return ""
	}
	best, at := "", time.Time{}
	for _, n := range names {
		if fi, err := os.Stat(n); err == nil && fi.ModTime().After(at) {
			best, at = n, fi.ModTime()
		}
	}
	if best != "" && !touch(best) {
		return ""
	}
	return best
}

// prune removes images that nothing has asked for in a long time, and scratch
// folders that a dead process left. What cannot be removed stays.
func (b *builder) prune() {
	entries, err := os.ReadDir(b.CacheDir)
	if err != nil {
		return
	}
	for _, e := range entries {
		fi, err := e.Info()
		keep := keepUnused
		if e.IsDir() {
			keep = keepScratch
		}
		if err != nil || time.Since(fi.ModTime()) < keep {
			continue
		}
		if p := filepath.Join(b.CacheDir, e.Name()); filepath.Ext(p) == ".squashfs" || e.IsDir() {
			if err := os.RemoveAll(p); err != nil {
				b.Logger.Warn("image cache", "err", err)
			}
		}
	}
}
