package startos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/fxamacker/cbor/v2"

	"github.com/selfstead/selfstead/patchdb"
	"github.com/selfstead/selfstead/patchdb/internal/tree"
)

// Database is what a file comes to.
type Database struct {
	patchdb.Dump
	Revisions int             // patches read after the first value
	Failed    []patchdb.Patch // patches that could not be applied; each still counts as a revision
	Dropped   int64           // bytes at the end that could not be read
	Backup    bool            // the .bak file was read, which stands in for the database
}

// Detect reports whether path holds a StartOS database rather than one of
// patchdb: its first byte, or its .bak file, says so. An empty file is one. A
// .bak file means nothing beside a patchdb database, which has no such rule, nor
// where it is one itself.
func Detect(path string) (bool, error) {
	b, err := firstByte(path)
	if err == nil && b == oursFirst {
		return false, nil
	}
	if b, err := firstByte(backupOf(path)); err == nil && b != oursFirst {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("startos: %w", err)
	}
	return b <= 0x1b, nil // CBOR major type 0, unsigned
}

// oursFirst is what a patchdb file begins with. In CBOR it begins a text, which
// is no revision.
const oursFirst = 'p'

// firstByte returns the first byte of a file, 0 of an empty one.
func firstByte(path string) (byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.Read(b[:]); err != nil && err != io.EOF {
		return 0, err
	}
	return b[0], nil
}

// backupOf is the file that the reference writes before it rewrites the
// database, and takes for the database while it is there: the database's name
// with another extension. A dot at the beginning of a name starts none.
func backupOf(path string) string {
	ext := filepath.Ext(path)
	if ext == filepath.Base(path) {
		ext = ""
	}
	return strings.TrimSuffix(path, ext) + ".bak"
}

// Read reads the database at path as the reference would, the .bak rule
// included, and changes nothing.
func Read(path string) (*Database, error) {
	b, err := os.ReadFile(backupOf(path))
	backup := err == nil
	if errors.Is(err, fs.ErrNotExist) {
		b, err = os.ReadFile(path)
	}
	if err != nil {
		return nil, fmt.Errorf("startos: %w", err)
	}
	d, err := Decode(b)
	if err != nil {
		return nil, fmt.Errorf("startos: read %s: %w", path, err)
	}
	d.Backup = backup
	return d, nil
}

// Decode reads the content of a file. A file that ends early, at whatever
// place, is as good as it goes: without anything it is null at revision 0. The
// only error is a document that patchdb cannot hold.
func Decode(b []byte) (*Database, error) {
	r := reader{rest: b}
	d := &Database{}
	var root tree.Node = tree.Null{}
	if id, ok := r.revision(); ok {
		d.ID = patchdb.RevisionID(id)
		if v, ok := r.item(); ok {
			root = v
			for {
				ops, ok := r.patch()
				if !ok {
					break
				}
				d.ID++
				d.Revisions++
				if next, err := apply(root, ops); err == nil {
					root = next
				} else if errors.Is(err, tree.ErrSize) || errors.Is(err, tree.ErrDepth) {
					return nil, err
				} else {
					d.Failed = append(d.Failed, public(ops))
				}
			}
		}
	}
	d.Dropped = int64(len(r.rest))
	d.Value = tree.Encode(root)
	return d, nil
}

func apply(root tree.Node, ops []tree.Op) (tree.Node, error) {
	for _, o := range ops {
		var err error
		if root, _, err = tree.Edit(root, o.Path, o.Verb, o.Val); err != nil {
			return nil, err
		}
	}
	return root, nil
}

func public(ops []tree.Op) patchdb.Patch {
	p := make(patchdb.Patch, len(ops))
	for i, o := range ops {
		p[i] = patchdb.Op{Op: o.Verb.Name(), Path: string(patchdb.Join("", o.Path...))}
		if o.Val != nil {
			p[i].Value = tree.Encode(o.Val)
		}
	}
	return p
}

// Import makes a new patchdb database at path of the StartOS database at from,
// with its revision.
func Import(from, path string, o patchdb.Options) (*Database, *patchdb.DB, error) {
	d, err := Read(from)
	if err != nil {
		return nil, nil, err
	}
	db, err := patchdb.Create(path, d.Dump, o)
	return d, db, err
}

// Export writes the document with its revision to path, in one step: path has
// the old content or the new, whatever happens meanwhile. A .bak file beside it,
// which would count instead, is an error.
func Export(ctx context.Context, d patchdb.Dump, path string) error {
	b, err := Encode(d)
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	if _, err := os.Stat(backupOf(path)); err == nil {
		return fmt.Errorf("startos: export %s: %w: %s would count instead", path, fs.ErrExist, backupOf(path))
	}
	if err := replaceFile(path, b); err != nil {
		return fmt.Errorf("startos: export: %w", err)
	}
	return nil
}

func replaceFile(path string, b []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// Encode returns the content of a file that holds the document and no patches.
func Encode(d patchdb.Dump) ([]byte, error) { return EncodeLog(d, nil) }

// EncodeLog returns the content of a file that holds the document and the
// revisions that follow it. Integers from -2^63 to 2^64-1 and float64 keep
// their value; another number is an error.
func EncodeLog(d patchdb.Dump, revisions []patchdb.Revision) ([]byte, error) {
	n, err := tree.Parse(d.Value)
	if err != nil {
		return nil, fmt.Errorf("startos: %w", err)
	}
	w := writer{b: head(nil, majorUint, uint64(d.ID))}
	w.node(n)
	for i, r := range revisions {
		if r.ID != d.ID+patchdb.RevisionID(i)+1 {
			return nil, fmt.Errorf("startos: revision %d does not follow", r.ID)
		}
		w.patch(r.Patch)
	}
	return w.b, w.err
}

var float = func() cbor.EncMode {
	m, err := cbor.EncOptions{ShortestFloat: cbor.ShortestFloat16}.EncMode()
	if err != nil {
		panic(err) // the options are constant
	}
	return m
}()
