package image

import (
	"archive/tar"
	"context"
	"io"
	"time"

	"github.com/selfstead/selfstead/s9pk/squashfs"
)

// Folder writes the content of dir as a SquashFS file at path, for the members of
// a package that are no root file systems: everything belongs to root, may be read
// by all and dates from date, so that equal contents give equal bytes wherever the
// folder was checked out. level is zstd's; 0 means squashfs.DefaultLevel.
func Folder(ctx context.Context, dir, path string, date time.Time, level int) error {
	t := newTree()
	if err := t.addDir(ctx, dir, dirOptions{shared: true}); err != nil {
		return err
	}
	readable(t.root)
	if date.Unix() < 0 {
		date = time.Unix(0, 0)
	}
	return squashfs.Create(ctx, path, squashfs.CreateOptions{Level: level, Time: date},
		func(w io.Writer) error { return t.writeTar(ctx, w, date, nil) })
}

// readable gives files and directories below n one of two modes.
func readable(n *node) {
	switch {
	case n.isDir():
		n.hdr.Mode = 0o755
	case n.hdr.Typeflag == tar.TypeReg && n.hdr.Mode&0o111 != 0:
		n.hdr.Mode = 0o755
	case n.hdr.Typeflag == tar.TypeReg:
		n.hdr.Mode = 0o644
	}
	n.hdr.PAXRecords = nil
	for _, c := range n.children {
		readable(c)
	}
}
