package embedded

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/selfstead/selfstead/lxcrt/image"
)

// BaseOptions says where the base image comes from.
type BaseOptions struct {
	Dir    string       // the server's own cache of base images; made if missing
	Given  string       // an image to use as it is; "" means the cached one, or a new one
	Beside []string     // other caches to take a finished image from
	Logger *slog.Logger // nil means silent
}

// Base provides the image that every container starts from. It is safe for
// concurrent use.
type Base struct {
	o   BaseOptions
	log *slog.Logger

	mu   sync.Mutex // held while an image is looked for or built
	path string     // set once it is found
}

// NewBase makes a Base; nothing is looked for before the first Image.
func NewBase(o BaseOptions) *Base {
	log := o.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Base{o: o, log: log}
}

// Image returns the path of the base image. The first caller verifies or builds
// it, which takes half a minute at worst; others wait. An error is not kept:
// the next call tries again.
func (b *Base) Image(ctx context.Context) (string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.path != "" {
		return b.path, nil
	}
	if b.o.Given != "" {
		path, err := filepath.Abs(b.o.Given)
		if err == nil {
			_, err = os.Stat(path)
		}
		if err != nil {
			return "", fmt.Errorf("embedded: base image: %w", err)
		}
		b.path = path
		return path, nil
	}
	dir, err := filepath.Abs(b.o.Dir)
	if err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	if err != nil {
		return "", fmt.Errorf("embedded: base image: %w", err)
	}
	for _, cache := range b.o.Beside {
		if err := adopt(cache, dir); err != nil {
			b.log.Warn("a finished base image is not taken over", "cache", cache, "err", err)
		}
	}
	phase := ""
	path, err := image.Build(ctx, image.Options{Cache: dir, Progress: func(p image.Progress) {
		if p.Phase != phase {
			phase = p.Phase
			b.log.Info("base image", "phase", p.Phase)
		}
	}})
	if err != nil {
		return "", fmt.Errorf("embedded: base image: %w", err)
	}
	b.path = path
	return path, nil
}

// adopt brings the images of another cache into dir, those that it lacks: by a
// hard link where both are on one file system, else as a copy. The hash beside
// an image comes last and is checked before use.
func adopt(cache, dir string) error {
	hashes, err := filepath.Glob(filepath.Join(cache, "*.squashfs.sha256"))
	if err != nil {
		return err
	}
	for _, hash := range hashes {
		for _, from := range []string{strings.TrimSuffix(hash, ".sha256"), hash} {
			to := filepath.Join(dir, filepath.Base(from))
			err := os.Link(from, to)
			if err != nil && !errors.Is(err, fs.ErrExist) {
				err = copyFile(from, to)
			}
			if err != nil && !errors.Is(err, fs.ErrExist) {
				return err
			}
		}
	}
	return nil
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.CreateTemp(filepath.Dir(to), ".part-")
	if err != nil {
		return err
	}
	defer os.Remove(out.Name())
	_, err = io.Copy(out, in)
	if err = errors.Join(err, out.Chmod(0o644), out.Close()); err != nil {
		return err
	}
	return os.Rename(out.Name(), to)
}
