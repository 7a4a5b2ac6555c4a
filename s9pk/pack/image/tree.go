package image

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"time"
)

// ErrLayer is wrapped by errors about a layer that says nonsense.
var ErrLayer = errors.New("image: unusable layer")

// A node is a file of the merged tree. Two names of one node are hard links.
type node struct {
	hdr      tar.Header // Name, Linkname of hard links and Size of non-files unused
	children map[string]*node
	open     func() (io.ReadCloser, error) // content of a regular file
	layer    int                           // that put it there
}

func (n *node) isDir() bool { return n.hdr.Typeflag == tar.TypeDir }

// A tree is a root file system merged from layers, in memory but for the content
// of files.
type tree struct {
	root  *node
	layer int
}

func newTree() *tree { return &tree{root: newDir(0)} }

func newDir(layer int) *node {
	return &node{hdr: tar.Header{Typeflag: tar.TypeDir, Mode: 0o755}, children: map[string]*node{}, layer: layer}
}

// maxName is Linux's PATH_MAX: longer names could not be unpacked.
const maxName = 4096

// clean turns an entry's name into its parts; the root has none.
func clean(name string) ([]string, error) {
	if strings.ContainsRune(name, 0) || len(name) > maxName {
		return nil, fmt.Errorf("%w: name %.80q", ErrLayer, name)
	}
	name = path.Clean("/" + name) // a leading ".." cannot leave the root
	if name == "/" {
		return nil, nil
	}
	return strings.Split(name[1:], "/"), nil
}

// dir returns the directory that parts name. Links among the parts are followed
// inside the tree, as when a layer is unpacked over a /lib that has become a link
// to /usr/lib. What is missing is made when make is set.
func (t *tree) dir(parts []string, make bool) (*node, error) {
	todo := slices.Clone(parts)
	at, stack := t.root, []*node{}
	for links := 0; len(todo) > 0; {
		name := todo[0]
		todo = todo[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			if len(stack) > 0 {
				at, stack = stack[len(stack)-1], stack[:len(stack)-1]
			}
			continue
		}
		next := at.children[name]
		switch {
		case next == nil:
			if !make {
				return nil, nil
			}
			next = newDir(t.layer)
			at.children[name] = next
		case next.hdr.Typeflag == tar.TypeSymlink:
			if links++; links > 40 {
				return nil, fmt.Errorf("%w: too many links in %q", ErrLayer, path.Join(parts...))
			}
			todo = append(strings.Split(next.hdr.Linkname, "/"), todo...)
			if strings.HasPrefix(next.hdr.Linkname, "/") {
				at, stack = t.root, stack[:0]
			}
			continue
		case !next.isDir():
			if !make {
				return nil, nil
			}
			next = newDir(t.layer)
			at.children[name] = next
		}
		stack = append(stack, at)
		at = next
	}
	return at, nil
}

// put sets what stands at parts.
func (t *tree) put(parts []string, n *node) error {
	n.layer = t.layer
	if len(parts) == 0 {
		if !n.isDir() {
			return fmt.Errorf("%w: the root is not a directory", ErrLayer)
		}
		t.root.hdr = n.hdr
		return nil
	}
	parent, err := t.dir(parts[:len(parts)-1], true)
	if err != nil {
		return err
	}
	name := parts[len(parts)-1]
	if old := parent.children[name]; old != nil && old.isDir() && n.isDir() {
		old.hdr, old.layer = n.hdr, t.layer
		return nil
	}
	parent.children[name] = n
	return nil
}

// at returns what stands at parts, links in its parents followed; nil if nothing.
func (t *tree) at(parts []string) (*node, error) {
	if len(parts) == 0 {
		return t.root, nil
	}
	parent, err := t.dir(parts[:len(parts)-1], false)
	if parent == nil || err != nil {
		return nil, err
	}
	return parent.children[parts[len(parts)-1]], nil
}

// hide removes the lower layers' part of what stands at parts: a whiteout of the
// OCI image specification, which says nothing about the layer that it stands in.
func (t *tree) hide(parts []string) error {
	if len(parts) == 0 {
		return fmt.Errorf("%w: a whiteout of the root", ErrLayer)
	}
	parent, err := t.dir(parts[:len(parts)-1], false)
	if parent == nil || err != nil {
		return err
	}
	name := parts[len(parts)-1]
	n := parent.children[name]
	if n == nil {
		return nil
	}
	if !t.hideLower(n) {
		delete(parent.children, name)
	}
	return nil
}

// hideLower removes what older layers put below n and says whether anything of
// the current one is left.
func (t *tree) hideLower(n *node) bool {
	left := n.layer == t.layer
	for name, c := range n.children {
		if t.hideLower(c) {
			left = true
		} else {
			delete(n.children, name)
		}
	}
	return left
}

// opaque removes what older layers put into the directory that parts name.
func (t *tree) opaque(parts []string) error {
	n, err := t.dir(parts, false)
	if n == nil || err != nil {
		return err
	}
	for name, c := range n.children {
		if !t.hideLower(c) {
			delete(n.children, name)
		}
	}
	return nil
}

// mountPoints adds what a container needs to start and a minimal image may lack,
// as docker does to an image that it exports: without them nothing could be
// mounted over a read-only root.
func (t *tree) mountPoints() error {
	t.layer++
	for _, name := range []string{"dev", "etc", "proc", "sys", "tmp"} {
		d, err := t.dir([]string{name}, true)
		if err != nil {
			return err
		}
		if name == "tmp" && d.layer == t.layer {
			d.hdr.Mode = 0o1777
		}
	}
	etc, err := t.dir([]string{"etc"}, true)
	if err != nil {
		return err
	}
	for _, name := range []string{"hostname", "hosts", "resolv.conf"} {
		if etc.children[name] == nil {
			etc.children[name] = &node{hdr: tar.Header{Typeflag: tar.TypeReg, Mode: 0o644}, layer: t.layer}
		}
	}
	return nil
}

// stat sums up what writeTar will write.
func (t *tree) stat() (bytes int64, latest time.Time) {
	seen := map[*node]bool{}
	var walk func(n *node)
	walk = func(n *node) {
		if seen[n] {
			return
		}
		seen[n] = true
		if n.open != nil {
			bytes += n.hdr.Size
		}
		if n.hdr.ModTime.After(latest) {
			latest = n.hdr.ModTime
		}
		for _, c := range n.children {
			walk(c)
		}
	}
	walk(t.root)
	return bytes, latest
}

// writeTar writes the tree in name order, every directory before what it holds,
// without an entry for the root itself. Times after latest, and those not known,
// become latest. read is told of file content as it is written.
func (t *tree) writeTar(ctx context.Context, w io.Writer, latest time.Time, read func(n int64)) error {
	tw := tar.NewWriter(w)
	first := map[*node]string{}
	buf := make([]byte, 256<<10)
	var walk func(name string, n *node) error
	walk = func(name string, n *node) error {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		hdr := tar.Header{
			Name: name, Typeflag: n.hdr.Typeflag, Mode: n.hdr.Mode & 0o7777, Uid: n.hdr.Uid, Gid: n.hdr.Gid,
			ModTime: n.hdr.ModTime.Truncate(time.Second), PAXRecords: n.hdr.PAXRecords,
		}
		if hdr.ModTime.After(latest) || n.hdr.ModTime.IsZero() {
			hdr.ModTime = latest
		}
		if hdr.ModTime.Unix() < 0 {
			hdr.ModTime = time.Unix(0, 0)
		}
		switch n.hdr.Typeflag {
		case tar.TypeDir:
			hdr.Name += "/"
		case tar.TypeSymlink:
			hdr.Linkname = n.hdr.Linkname
		case tar.TypeChar, tar.TypeBlock:
			hdr.Devmajor, hdr.Devminor = n.hdr.Devmajor, n.hdr.Devminor
		case tar.TypeReg:
			hdr.Size = n.hdr.Size
		}
		if to, ok := first[n]; ok {
			hdr.Typeflag, hdr.Linkname, hdr.Size, hdr.PAXRecords = tar.TypeLink, to, 0, nil
			return tw.WriteHeader(&hdr)
		}
		if !n.isDir() {
			first[n] = name
		}
		if err := tw.WriteHeader(&hdr); err != nil {
			return fmt.Errorf("image: %s: %w", name, err)
		}
		if n.open != nil && hdr.Size > 0 {
			if err := copyFile(tw, n, buf, read); err != nil {
				return fmt.Errorf("image: %s: %w", name, err)
			}
		}
		return walkChildren(name, n, walk)
	}
	if err := walkChildren("", t.root, walk); err != nil {
		return err
	}
	return tw.Close()
}

func walkChildren(name string, n *node, walk func(string, *node) error) error {
	for _, c := range slices.Sorted(maps.Keys(n.children)) {
		if err := walk(path.Join(name, c), n.children[c]); err != nil {
			return err
		}
	}
	return nil
}

func copyFile(w io.Writer, n *node, buf []byte, read func(int64)) error {
	r, err := n.open()
	if err != nil {
		return err
	}
	defer r.Close()
	for left := n.hdr.Size; left > 0; {
		k, err := io.ReadFull(r, buf[:min(int64(len(buf)), left)])
		if err != nil {
			return fmt.Errorf("content ends %d bytes early: %w", left-int64(k), err)
		}
		if _, err := w.Write(buf[:k]); err != nil {
			return err
		}
		left -= int64(k)
		if read != nil {
			read(int64(k))
		}
	}
	return nil
}
