package image

import (
	"bufio"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/klauspost/compress/zstd"
)

// FromOCI returns an image of an OCI layout with its layers put together, making
// it if the cache has none that is whole, and how its maker wants it run. Every
// blob is checked against its digest and size, every layer against the
// configuration's list too. The same manifest gives the same image, byte for
// byte. Unlike FromDir it keeps the times that the layers have. It needs root and
// the program mksquashfs.
func FromOCI(ctx context.Context, s Source) (Container, error) {
	if err := s.settle(); err != nil {
		return Container{}, err
	}
	c, err := fromOCI(ctx, s)
	if err != nil {
		return Container{}, fmt.Errorf("image: from layout %s: %w", s.Path, err)
	}
	return c, nil
}

func fromOCI(ctx context.Context, s Source) (Container, error) {
	l, err := openLayout(s.Path)
	if err != nil {
		return Container{}, err
	}
	defer l.close()
	d, m, err := l.choose(s.Ref, s.Arch)
	if err != nil {
		return Container{}, err
	}
	var config struct {
		Config Config `json:"config"`
		Rootfs struct {
			DiffIDs []string `json:"diff_ids"`
		} `json:"rootfs"`
	}
	if err := l.document(m.Config, &config); err != nil {
		return Container{}, err
	}
	if len(config.Rootfs.DiffIDs) != len(m.Layers) {
		return Container{}, fmt.Errorf("%w: %d layers, and a configuration for %d", ErrLayout, len(m.Layers), len(config.Rootfs.DiffIDs))
	}
	key := sha256.Sum256([]byte("oci " + recipe + " " + d.Digest))
	file, err := keep(ctx, s.Cache, "oci-"+hex.EncodeToString(key[:10])+".squashfs", s.Progress, func(work string) (string, error) {
		if os.Geteuid() != 0 {
			return "", fmt.Errorf("%w: unpacking without root", ErrNotSupported)
		}
		u, err := newUnpacking(filepath.Join(work, "root"))
		if err != nil {
			return "", err
		}
		defer u.close()
		for i, layer := range m.Layers {
			s.Progress(Progress{Phase: "layers", Step: layer.Digest, Done: i, Total: len(m.Layers) + 1})
			if err := l.unpack(ctx, u, layer, config.Rootfs.DiffIDs[i]); err != nil {
				return "", fmt.Errorf("layer %d: %w", i+1, err)
			}
		}
		if err := u.finish(); err != nil {
			return "", err
		}
		s.Progress(Progress{Phase: "squashfs", Done: len(m.Layers), Total: len(m.Layers) + 1})
		out := filepath.Join(work, "image")
		return out, squash(ctx, u.dir, out)
	})
	if err != nil {
		return Container{}, err
	}
	return Container{Path: file, Digest: d.Digest, Config: config.Config}, nil
}

// unpack applies one layer.
func (l *layout) unpack(ctx context.Context, u *unpacking, d descriptor, diffID string) error {
	b, err := l.blob(d)
	if err != nil {
		return err
	}
	defer b.Close()
	plain, done, err := decompress(bufio.NewReaderSize(b, 1<<20))
	if err != nil {
		return err
	}
	defer done()
	sum := sha256.New()
	tee := io.TeeReader(plain, sum)
	if err := u.layer(ctx, tee); err != nil {
		return err
	}
	// Past the end of the archive there may be padding, which counts as well.
	if _, err := io.Copy(io.Discard, tee); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, b); err != nil {
		return err
	}
	if got := "sha256:" + hex.EncodeToString(sum.Sum(nil)); got != diffID {
		return fmt.Errorf("%w: layer %s is %s, not %s", ErrDamaged, d.Digest, got, diffID)
	}
	return nil
}

// decompress looks at the first bytes, since media types are not always true.
func decompress(r *bufio.Reader) (io.Reader, func(), error) {
	magic, err := r.Peek(4)
	if err != nil && err != io.EOF {
		return nil, nil, err
	}
	switch {
	case len(magic) >= 2 && magic[0] == 0x1f && magic[1] == 0x8b:
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, nil, err
		}
		return z, func() { z.Close() }, nil
	case len(magic) == 4 && string(magic) == "\x28\xb5\x2f\xfd":
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(256<<20))
		if err != nil {
			return nil, nil, err
		}
		return z, z.Close, nil
	}
	return r, func() {}, nil
}
