package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"strings"

	"github.com/selfstead/selfstead/s9pk"
	"github.com/selfstead/selfstead/s9pk/merkle"
	"github.com/selfstead/selfstead/s9pk/remote"
	"github.com/selfstead/selfstead/s9pk/squashfs"
)

// opened is a package at a path or URL.
type opened struct {
	*s9pk.Archive
	name   string
	remote *remote.Reader // nil for a file
	closes []func() error
}

func isURL(name string) bool {
	return strings.HasPrefix(name, "http://") || strings.HasPrefix(name, "https://")
}

// openPackage opens and proves all but the bodies. A URL may carry the commitment
// that the package must have, as registries write it.
func openPackage(ctx context.Context, name string, o s9pk.Options) (*opened, error) {
	if !isURL(name) {
		a, err := s9pk.OpenFile(name, o)
		if err != nil {
			return nil, err
		}
		return &opened{Archive: a, name: name, closes: []func() error{a.Close}}, nil
	}
	u, err := url.Parse(name)
	if err != nil {
		return nil, err
	}
	if o.Commitment, err = merkle.CommitmentFromQuery(u.Query()); err != nil {
		return nil, err
	}
	r, err := remote.Open(ctx, name, remote.Options{})
	if err != nil {
		return nil, err
	}
	a, err := s9pk.Open(r, r.Size(), o)
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return &opened{Archive: a, name: name, remote: r, closes: []func() error{r.Close}}, nil
}

// Close ends what was opened, last first.
func (o *opened) Close() error {
	var err error
	for i := len(o.closes) - 1; i >= 0; i-- {
		err = errors.Join(err, o.closes[i]())
	}
	o.closes = nil
	return err
}

// expect tells the reader of a URL that the whole of a part will be read.
func (o *opened) expect(off, n int64) {
	if o.remote != nil {
		o.remote.Expect(off, n)
	}
}

// inMemory is how much of a member at a URL is held rather than fetched twice.
const inMemory = 16 << 20

// member opens a body for reading at any offset, every byte proven before it is
// handed on: by the package's outboard where there is one, else by reading all of
// the body first.
func (o *opened) member(ctx context.Context, f *s9pk.File) (io.ReaderAt, error) {
	if p, err := o.outboard(ctx, f); err != nil || p != nil {
		if err != nil {
			return nil, err
		}
		return s9pk.NewReader(f, p), nil
	}
	if o.remote == nil {
		return f.Open(ctx)
	}
	o.expect(f.Position, f.Size)
	if f.Size <= inMemory {
		b, err := f.ReadAll(0)
		if err != nil {
			return nil, err
		}
		return strings.NewReader(string(b)), nil
	}
	tmp, err := os.CreateTemp("", "stead-member-")
	if err != nil {
		return nil, err
	}
	o.closes = append(o.closes, tmp.Close)
	if err := os.Remove(tmp.Name()); err != nil { // gone with the process
		return nil, err
	}
	r, err := f.Stream()
	if err != nil {
		return nil, err
	}
	if _, err := io.Copy(tmp, r); err != nil {
		return nil, err
	}
	return tmp, r.Close()
}

// outboard finds what proves parts of a body in the file beside the package; nil
// where there is none, or where it belongs to another package.
func (o *opened) outboard(ctx context.Context, f *s9pk.File) (*merkle.Proof, error) {
	var r io.ReaderAt
	var size int64
	if o.remote == nil {
		file, err := os.Open(o.name + s9pk.OutboardSuffix)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		o.closes = append(o.closes, file.Close)
		fi, err := file.Stat()
		if err != nil {
			return nil, err
		}
		r, size = file, fi.Size()
	} else {
		if f.Size <= inMemory {
			return nil, nil // reading it whole is as cheap
		}
		u, err := url.Parse(o.name)
		if err != nil {
			return nil, err
		}
		u.Path += s9pk.OutboardSuffix
		rr, err := remote.Open(ctx, u.String(), remote.Options{Attempts: 2})
		if err != nil {
			return nil, nil // a server need not have one
		}
		o.closes = append(o.closes, rr.Close)
		r, size = rr, rr.Size()
	}
	ob, err := s9pk.OpenOutboard(r, size)
	if err != nil || ob.Root() != o.Commitment().RootSighash {
		return nil, nil // it helps or it does not; nothing is taken on its word
	}
	p, err := ob.Proof(f.Hash, f.Size)
	if err != nil {
		return nil, nil
	}
	return p, nil
}

// inside is a path within a package, perhaps within a squashfs member of it.
type inside struct {
	entry *merkle.Entry // nil: the root
	path  string        // of the entry
	image *squashfs.FS  // nil: not within a member
	inner string        // path within the image
}

// splitPackage takes "PACKAGE!/PATH" apart.
func splitPackage(arg string) (name, path string) {
	name, path, _ = strings.Cut(arg, "!/")
	return name, path
}

// locate finds path. A path that goes on behind a squashfs member goes into it.
func (o *opened) locate(ctx context.Context, path string) (*inside, error) {
	parts := strings.FieldsFunc(path, func(r rune) bool { return r == '/' })
	if len(parts) == 0 {
		return &inside{}, nil
	}
	for i := range parts {
		head := strings.Join(parts[:i+1], "/")
		e, err := o.Root().Lookup(head)
		if err != nil {
			return nil, err
		}
		if i == len(parts)-1 && !strings.HasSuffix(path, "/") {
			return &inside{entry: e, path: head}, nil
		}
		if e.Kind != merkle.KindFile || !strings.HasSuffix(head, ".squashfs") {
			if i == len(parts)-1 {
				return &inside{entry: e, path: head}, nil
			}
			continue
		}
		f, err := o.File(head)
		if err != nil {
			return nil, err
		}
		r, err := o.member(ctx, f)
		if err != nil {
			return nil, err
		}
		image, err := squashfs.Open(r, f.Size)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", head, err)
		}
		inner := strings.Join(parts[i+1:], "/")
		if inner == "" {
			inner = "."
		}
		return &inside{entry: e, path: head, image: image, inner: inner}, nil
	}
	panic("unreachable: the last part returns")
}
