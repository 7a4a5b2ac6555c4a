package image

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"
)

const (
	whiteout       = ".wh."
	whiteoutOpaque = ".wh..wh..opq"
	paxXattr       = "SCHILY.xattr."
)

// addTar lays the layer in f, an uncompressed tar file that must stay open until
// the tree is written, over the tree. Sparse files are unfolded into dir. With
// whiteouts, names beginning with ".wh." remove what is below.
func (t *tree) addTar(ctx context.Context, f *os.File, dir string, whiteouts bool) error {
	t.layer++
	tr := tar.NewReader(f) // reads no more than it must: f's offset is the content's
	for {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		hdr, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%w: %w", ErrLayer, err)
		}
		if err := t.addEntry(f, tr, hdr, dir, whiteouts); err != nil {
			return err
		}
	}
}

func (t *tree) addEntry(f *os.File, tr *tar.Reader, hdr *tar.Header, dir string, whiteouts bool) error {
	parts, err := clean(hdr.Name)
	if err != nil {
		return err
	}
	if base := path.Base("/" + strings.Join(parts, "/")); whiteouts && strings.HasPrefix(base, whiteout) {
		parent := parts[:len(parts)-1]
		switch {
		case base == whiteoutOpaque:
			return t.opaque(parent)
		case strings.HasPrefix(base, whiteout+whiteout): // aufs's own bookkeeping
			return nil
		case base == whiteout:
			return fmt.Errorf("%w: a whiteout without a name", ErrLayer)
		}
		return t.hide(append(append([]string(nil), parent...), base[len(whiteout):]))
	}
	n := &node{hdr: *hdr}
	n.hdr.PAXRecords = xattrs(hdr.PAXRecords)
	switch hdr.Typeflag {
	case tar.TypeDir:
		n.children = map[string]*node{}
	case tar.TypeSymlink, tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
	case tar.TypeLink:
		to, err := clean(hdr.Linkname)
		if err != nil {
			return err
		}
		target, err := t.at(to)
		if err != nil {
			return err
		}
		if target == nil || target.isDir() {
			return fmt.Errorf("%w: %s is a hard link to %s, which is no file", ErrLayer, hdr.Name, hdr.Linkname)
		}
		// A link into an older layer makes the file this layer's, for whiteouts.
		return t.put(parts, target)
	case tar.TypeReg, tar.TypeGNUSparse:
		n.hdr.Typeflag = tar.TypeReg
		if n.open, err = content(f, tr, hdr, dir); err != nil {
			return err
		}
	case tar.TypeXGlobalHeader:
		return nil
	default:
		return fmt.Errorf("%w: %s has type %q", ErrLayer, hdr.Name, hdr.Typeflag)
	}
	return t.put(parts, n)
}

// content says where a regular file's bytes are.
func content(f *os.File, tr *tar.Reader, hdr *tar.Header, dir string) (func() (io.ReadCloser, error), error) {
	sparse := hdr.Typeflag == tar.TypeGNUSparse
	for k := range hdr.PAXRecords {
		sparse = sparse || strings.HasPrefix(k, "GNU.sparse.")
	}
	if sparse {
		out, err := os.CreateTemp(dir, "sparse-")
		if err != nil {
			return nil, fmt.Errorf("image: %w", err)
		}
		defer out.Close()
		if _, err := io.Copy(out, tr); err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrLayer, hdr.Name, err)
		}
		return func() (io.ReadCloser, error) { return os.Open(out.Name()) }, nil
	}
	at, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	size := hdr.Size
	return func() (io.ReadCloser, error) { return io.NopCloser(io.NewSectionReader(f, at, size)), nil }, nil
}

// xattrs keeps the extended attributes of an entry's PAX records.
func xattrs(records map[string]string) map[string]string {
	var kept map[string]string
	for k, v := range records {
		if strings.HasPrefix(k, paxXattr) {
			if kept == nil {
				kept = map[string]string{}
			}
			kept[k] = v
		}
	}
	return kept
}

// dirOptions says what of a folder on disk is content.
type dirOptions struct {
	owners bool // else everything belongs to root
	times  bool // else files get the time that the whole image has
	// shared takes away the write permission of others than the owner: in a folder
	// that a version control system checked out it says nothing.
	shared bool
}

// addDir lays the folder at dir over the tree. Directories that are there
// already, perhaps through a link (/lib), stay as they are and are only added to.
// Names beginning with ".wh." are ordinary here. Sockets are skipped.
func (t *tree) addDir(ctx context.Context, dir string, o dirOptions) error {
	t.layer++
	links := map[fileID]*node{}
	fi, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("image: %w", err)
	}
	if !fi.IsDir() {
		return fmt.Errorf("%w: %s is not a directory", ErrSource, dir)
	}
	return filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err == nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			return fmt.Errorf("image: %w", err)
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return fmt.Errorf("image: %w", err)
		}
		parts, err := clean(filepath.ToSlash(rel))
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if p == dir {
			fi, err = os.Stat(p) // the folder itself may be reached through a link
		}
		if err != nil {
			return fmt.Errorf("image: %w", err)
		}
		if fi.Mode()&os.ModeSocket != 0 {
			return nil
		}
		id, linked := hardLink(fi)
		if n := links[id]; linked && n != nil {
			return t.put(parts, n)
		}
		if fi.IsDir() && (t.layer > 1 || p != dir) {
			if there, err := t.dir(parts, false); there != nil || err != nil {
				return err
			}
		}
		n, err := fileNode(p, fi, o.owners)
		if err != nil {
			return err
		}
		if !o.times {
			n.hdr.ModTime = time.Time{}
		}
		if o.shared {
			n.hdr.Mode &^= 0o022
		}
		if linked && !fi.IsDir() {
			links[id] = n
		}
		return t.put(parts, n)
	})
}

func fileNode(p string, fi os.FileInfo, keep bool) (*node, error) {
	target := ""
	if fi.Mode()&os.ModeSymlink != 0 {
		var err error
		if target, err = os.Readlink(p); err != nil {
			return nil, fmt.Errorf("image: %w", err)
		}
	}
	hdr, err := tar.FileInfoHeader(fi, target)
	if err != nil {
		return nil, fmt.Errorf("image: %s: %w", p, err)
	}
	n := &node{hdr: *hdr}
	n.hdr.PAXRecords = nil
	if n.hdr.PAXRecords, err = fileXattrs(p, fi); err != nil {
		return nil, fmt.Errorf("image: %s: %w", p, err)
	}
	if !keep {
		n.hdr.Uid, n.hdr.Gid = 0, 0
	}
	switch {
	case fi.IsDir():
		n.children = map[string]*node{}
	case fi.Mode().IsRegular():
		n.open = func() (io.ReadCloser, error) { return os.Open(p) }
	}
	return n, nil
}
