package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
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
	remote *remote.Package // nil for a file
	closes []func() error
}

func isURL(name string) bool {
	return strings.HasPrefix(name, "http://") || strings.HasPrefix(name, "https://")
}

// openPackage opens and proves all but the bodies.
func openPackage(ctx context.Context, name string, o s9pk.Options) (*opened, error) {
	if !isURL(name) {
		a, err := s9pk.OpenFile(name, o)
		if err != nil {
			return nil, err
		}
		return &opened{Archive: a, name: name, closes: []func() error{a.Close}}, nil
	}
	p, err := remote.OpenPackage(ctx, name, remote.Options{}, o)
	if err != nil {
		return nil, err
	}
	return &opened{Archive: p.Archive, name: name, remote: p, closes: []func() error{p.Close}}, nil
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
		o.remote.Reader.Expect(off, n)
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
	ob, err := o.openOutboard(ctx, f)
	if err != nil || ob == nil || ob.Root() != o.Commitment().RootSighash {
		return nil, err
	}
	p, err := ob.Proof(f.Hash, f.Size)
	if err != nil {
		return nil, nil // it helps or it does not; nothing is taken on its word
	}
	return p, nil
}

func (o *opened) openOutboard(ctx context.Context, f *s9pk.File) (*s9pk.Outboard, error) {
	if o.remote != nil {
		if f.Size <= inMemory {
			return nil, nil // reading it whole is as cheap
		}
		ob, err := o.remote.Outboard(ctx)
		if err != nil {
			return nil, ctx.Err() // a server need not have one
		}
		return ob, nil
	}
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
	ob, err := s9pk.OpenOutboard(file, fi.Size())
	if err != nil {
		return nil, nil
	}
	return ob, nil
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
