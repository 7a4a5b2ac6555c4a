package image

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// blobs gives the files of a layout by their slash-separated name.
type blobs interface {
	open(name string) (io.ReadCloser, error)
	Close() error
}

type dirBlobs struct{ root *os.Root }

func (d dirBlobs) open(name string) (io.ReadCloser, error) { return d.root.Open(name) }
func (d dirBlobs) Close() error                            { return d.root.Close() }

// tarBlobs reads members of an uncompressed archive in place.
type tarBlobs struct {
	f       *os.File
	members map[string][2]int64 // offset, size
	links   map[string]string
}

func (t *tarBlobs) open(name string) (io.ReadCloser, error) {
	if to, ok := t.links[name]; ok { // old `docker save` links equal layers
		name = to
	}
	at, ok := t.members[name]
	if !ok {
		return nil, fmt.Errorf("%s: %w", name, os.ErrNotExist)
	}
	return io.NopCloser(io.NewSectionReader(t.f, at[0], at[1])), nil
}

func (t *tarBlobs) Close() error { return t.f.Close() }

// openOCI opens a layout folder or an archive, which is uncompressed into dir
// first where it must be.
func openOCI(ctx context.Context, name, dir string) (blobs, error) {
	fi, err := os.Stat(name)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrOCI, err)
	}
	if fi.IsDir() {
		root, err := os.OpenRoot(name)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrOCI, err)
		}
		return dirBlobs{root}, nil
	}
	in, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrOCI, err)
	}
	r, packed, err := decompress(in)
	if err != nil {
		in.Close()
		return nil, fmt.Errorf("%w: %s: %w", ErrOCI, name, err)
	}
	f := in
	if packed {
		f, err = spool(ctx, r, dir, nil)
		in.Close()
		if err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrOCI, name, err)
		}
	}
	t := &tarBlobs{f: f, members: map[string][2]int64{}, links: map[string]string{}}
	if err := t.index(); err != nil {
		f.Close()
		return nil, fmt.Errorf("%w: %s: %w", ErrOCI, name, err)
	}
	return t, nil
}

func (t *tarBlobs) index() error {
	if _, err := t.f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	tr := tar.NewReader(t.f)
	for {
		hdr, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		name := path.Clean(strings.TrimPrefix(hdr.Name, "/"))
		switch hdr.Typeflag {
		case tar.TypeReg:
			at, err := t.f.Seek(0, io.SeekCurrent)
			if err != nil {
				return err
			}
			t.members[name] = [2]int64{at, hdr.Size}
		case tar.TypeSymlink:
			t.links[name] = path.Join(path.Dir(name), hdr.Linkname)
		case tar.TypeLink:
			t.links[name] = path.Clean(hdr.Linkname)
		}
	}
}

// decompress looks at the first bytes: gzip, zstd or neither.
func decompress(r io.Reader) (io.Reader, bool, error) {
	br := bufio.NewReaderSize(r, 64<<10)
	magic, err := br.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, false, err
	}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(br)
		return z, true, err
	case bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(br, zstd.WithDecoderMaxMemory(256<<20))
		if err != nil {
			return nil, false, err
		}
		return z.IOReadCloser(), true, nil
	}
	return br, false, nil
}

// spool copies r to an unnamed-to-be file in dir and rewinds it.
func spool(ctx context.Context, r io.Reader, dir string, moved func(int64)) (*os.File, error) {
	f, err := os.CreateTemp(dir, "spool-")
	if err != nil {
		return nil, err
	}
	buf := make([]byte, 256<<10)
	for {
		if err := context.Cause(ctx); err != nil {
			f.Close()
			return nil, err
		}
		n, err := r.Read(buf)
		if n > 0 {
			if _, werr := f.Write(buf[:n]); werr != nil {
				f.Close()
				return nil, werr
			}
			if moved != nil {
				moved(int64(n))
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			f.Close()
			return nil, err
		}
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
