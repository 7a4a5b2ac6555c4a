package remote

import (
	"context"
	"errors"
	"fmt"
	"net/url"

	"github.com/selfstead/selfstead/s9pk"
	"github.com/selfstead/selfstead/s9pk/merkle"
)

// Package is a package at a URL: proven as one in a file, fetched as far as it is
// needed.
type Package struct {
	*s9pk.Archive
	Reader *Reader

	o        Options
	url      *url.URL
	outboard *Reader
}

// OpenPackage opens the package at a URL. Where the URL carries a commitment, as
// registries write it (rootSighash and rootMaxsize), and ao has none, another
// package is refused.
func OpenPackage(ctx context.Context, rawURL string, o Options, ao s9pk.Options) (*Package, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, fmt.Errorf("remote: %w", err)
	}
	if ao.Commitment == nil {
		if ao.Commitment, err = merkle.CommitmentFromQuery(u.Query()); err != nil {
			return nil, fmt.Errorf("remote: %s: %w", bare(u), err)
		}
	}
	r, err := Open(ctx, rawURL, o)
	if err != nil {
		return nil, err
	}
	a, err := s9pk.Open(r, r.Size(), ao)
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return &Package{Archive: a, Reader: r, o: o, url: u}, nil
}

// Outboard opens the outboard file that is served beside the package. There need
// not be one; the error then says what the server answered.
func (p *Package) Outboard(ctx context.Context) (*s9pk.Outboard, error) {
	u := *p.url
	u.Path += s9pk.OutboardSuffix
	u.RawPath = ""
	r, err := Open(ctx, u.String(), p.o)
	if err != nil {
		return nil, err
	}
	ob, err := s9pk.OpenOutboard(r, r.Size())
	if err == nil && ob.Root() != p.Commitment().RootSighash {
		err = fmt.Errorf("remote: %s is the outboard of another package", bare(&u))
	}
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	if p.outboard != nil {
		p.outboard.Close()
	}
	p.outboard = r
	return ob, nil
}

// ExpectAll announces that all of the package will be read, front to back.
func (p *Package) ExpectAll() { p.Reader.Expect(0, p.Reader.Size()) }

// ExpectFile announces that the body of f will be read.
func (p *Package) ExpectFile(f *s9pk.File) { p.Reader.Expect(f.Position, f.Size) }

// Close ends the connections.
func (p *Package) Close() error {
	err := p.Reader.Close()
	if p.outboard != nil {
		err = errors.Join(err, p.outboard.Close())
	}
	return err
}
