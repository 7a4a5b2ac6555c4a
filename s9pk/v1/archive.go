package v1

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/sha512"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"slices"
	"strings"

	"github.com/selfstead/selfstead/s9pk"
)

// The sections of a package.
const (
	SectionManifest     = "manifest"
	SectionLicense      = "license"
	SectionInstructions = "instructions"
	SectionIcon         = "icon"
	SectionImages       = "docker_images"
	SectionAssets       = "assets"
	SectionScripts      = "scripts"
)

var required = []string{SectionManifest, SectionLicense, SectionInstructions, SectionIcon, SectionImages, SectionAssets}

// Bounds on what is read into memory.
const (
	maxTable    = 64 << 10
	maxManifest = 16 << 20
	maxText     = 4 << 20
)

const fixedHeader = 103

// Section is a part of the file.
type Section struct {
	Label            string
	Position, Length int64
}

// Archive is an opened package. Nothing in it is proven before Verify.
type Archive struct {
	r        io.ReaderAt
	size     int64
	signer   ed25519.PublicKey
	sig      []byte
	body     int64 // where the header ends
	sections []Section
	verified bool
}

func fail(section string, offset int64, err error) error {
	return &s9pk.EntryError{Op: "open", Path: section, Offset: offset, Err: err}
}

// Is says whether a file begins like a version 1 package.
func Is(head []byte) bool {
	return len(head) >= 3 && head[0] == 0x3b && head[1] == 0x3b && head[2] == 1
}

// Open reads the header and table of a package of the given length. The error
// is an *s9pk.EntryError that wraps s9pk.ErrFormat, ErrTruncated or ErrLimit.
func Open(r io.ReaderAt, size int64) (*Archive, error) {
	head := make([]byte, min(max(size, 0), fixedHeader))
	if err := readFull(r, head, 0); err != nil {
		return nil, fail("", 0, err)
	}
	if !Is(head) {
		return nil, fail("", 0, fmt.Errorf("%w: no version 1 package", s9pk.ErrFormat))
	}
	if len(head) < fixedHeader {
		return nil, fail("", size, fmt.Errorf("%w: header of %d bytes, need %d", s9pk.ErrTruncated, size, fixedHeader))
	}
	a := &Archive{r: r, size: size, signer: head[3:35], sig: head[35:99]}
	n := int64(binary.BigEndian.Uint32(head[99:]))
	if n > maxTable {
		return nil, fail("/", 99, fmt.Errorf("%w: table of %d bytes", s9pk.ErrLimit, n))
	}
	a.body = fixedHeader + n
	if a.body > size {
		return nil, fail("/", 99, fmt.Errorf("%w: table of %d bytes", s9pk.ErrTruncated, n))
	}
	table := make([]byte, n)
	if err := readFull(r, table, fixedHeader); err != nil {
		return nil, fail("/", fixedHeader, err)
	}
	if err := a.parse(table); err != nil {
		return nil, err
	}
	for _, label := range required {
		if _, ok := a.section(label); !ok {
			return nil, fail(label, -1, fmt.Errorf("%w: section is missing", s9pk.ErrFormat))
		}
	}
	return a, nil
}

func readFull(r io.ReaderAt, p []byte, off int64) error {
	n, err := r.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: %d of %d bytes at %d", s9pk.ErrTruncated, n, len(p), off)
	}
	return err
}

func (a *Archive) parse(table []byte) error {
	for at := 0; at < len(table); {
		n := int(table[at])
		rest := table[at+1:]
		if len(rest) < n+16 {
			return fail("/", fixedHeader+int64(at), fmt.Errorf("%w: table ends inside an entry", s9pk.ErrTruncated))
		}
		label := string(rest[:n])
		pos, length := binary.BigEndian.Uint64(rest[n:]), binary.BigEndian.Uint64(rest[n+8:])
		if pos > math.MaxInt64 || length > math.MaxInt64 || int64(length) > a.size || int64(pos) > a.size-int64(length) {
			return fail(label, saturate(pos), fmt.Errorf("%w: %d bytes at %d, the file has %d", s9pk.ErrTruncated, length, pos, a.size))
		}
		if length > 0 && int64(pos) < a.body {
			return fail(label, int64(pos), fmt.Errorf("%w: section lies in the unsigned header", s9pk.ErrUnsafe))
		}
		a.sections = slices.DeleteFunc(a.sections, func(s Section) bool { return s.Label == label }) // the last one counts
		a.sections = append(a.sections, Section{label, int64(pos), int64(length)})
		at += 1 + n + 16
	}
	return nil
}

func saturate(v uint64) int64 { return int64(min(v, math.MaxInt64)) }

// Signer is the key that the package says it was signed with.
func (a *Archive) Signer() ed25519.PublicKey { return a.signer }

// Sections lists what is there, as the table does.
func (a *Archive) Sections() []Section { return slices.Clone(a.sections) }

func (a *Archive) section(label string) (Section, bool) {
	i := slices.IndexFunc(a.sections, func(s Section) bool { return s.Label == label })
	if i < 0 {
		return Section{}, false
	}
	return a.sections[i], true
}

// Verify reads the whole file and checks its signature; the error wraps
// s9pk.ErrSignature. It must not run at the same time as other methods.
func (a *Archive) Verify(ctx context.Context) error {
	digest, err := a.digest(ctx)
	if err != nil {
		return err
	}
	opts := &ed25519.Options{Hash: crypto.SHA512, Context: s9pk.Context}
	if err := ed25519.VerifyWithOptions(a.signer, digest, a.sig, opts); err != nil {
		return &s9pk.EntryError{Op: "verify", Offset: 3, Err: fmt.Errorf("%w: it was not made by this key for this content", s9pk.ErrSignature)}
	}
	a.verified = true
	return nil
}

// ContentHash is how StartOS shows which package it is: base32, in lower case
// and without padding, of the SHA-512 of everything that is signed.
func (a *Archive) ContentHash(ctx context.Context) (string, error) {
	digest, err := a.digest(ctx)
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(digest)), err
}

func (a *Archive) digest(ctx context.Context) ([]byte, error) {
	h := sha512.New()
	buf := make([]byte, 256<<10)
	for off := a.body; off < a.size; {
		if err := ctx.Err(); err != nil {
			return nil, context.Cause(ctx)
		}
		p := buf[:min(int64(len(buf)), a.size-off)]
		if err := readFull(a.r, p, off); err != nil {
			return nil, &s9pk.EntryError{Op: "verify", Offset: off, Err: err}
		}
		h.Write(p)
		off += int64(len(p))
	}
	return h.Sum(nil), nil
}

// Reader gives the bytes of a section; fs.ErrNotExist where there is none.
func (a *Archive) Reader(label string) (*io.SectionReader, error) {
	s, ok := a.section(label)
	if !ok {
		return nil, fmt.Errorf("s9pk: version 1 section %s: %w", label, fs.ErrNotExist)
	}
	return io.NewSectionReader(a.r, s.Position, s.Length), nil
}

func (a *Archive) read(label string, limit int64) ([]byte, error) {
	r, err := a.Reader(label)
	if err != nil {
		return nil, err
	}
	if r.Size() > limit {
		return nil, fail(label, -1, fmt.Errorf("%w: %d bytes, at most %d are read", s9pk.ErrLimit, r.Size(), limit))
	}
	b := make([]byte, r.Size())
	if err := readFull(r, b, 0); err != nil {
		return nil, fail(label, -1, err)
	}
	return b, nil
}
