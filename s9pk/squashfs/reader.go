package squashfs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/diskfs/go-diskfs/backend"
	"github.com/diskfs/go-diskfs/filesystem"
	"github.com/diskfs/go-diskfs/filesystem/squashfs"
)

// ErrFormat is wrapped by errors about an image that is not SquashFS 4.0, or is
// damaged.
var ErrFormat = errors.New("squashfs: unusable image")

const (
	maxDepth   = 128 // of directories
	maxLinks   = 40  // followed on the way to a file
	cacheBytes = 16 << 20
)

// FS is an image that is read in place. It is an fs.FS, fs.ReadDirFS, fs.StatFS
// and fs.ReadLinkFS, and may be shared; it does one thing at a time. Links are
// followed inside the image, absolute ones from its root.
//
// The image is read as it is: prove its bytes first. Damaged ones give errors
// that wrap ErrFormat. One that is made to harm cannot loop or crash the reader,
// but a block of it may unpack to a thousand times its size in memory.
type FS struct {
	mu   sync.Mutex
	lib  *squashfs.FileSystem
	dirs map[uint32]string // inode of each directory seen, and its one path
}

// Open reads the superblock and the tables of an image of size bytes.
func Open(r io.ReaderAt, size int64) (f *FS, err error) {
	defer recovered(&err)
	if err := check(r, size); err != nil {
		return nil, err
	}
	lib, err := squashfs.Read(&storage{r: r, size: size}, size, 0, 0)
	if err != nil {
		return nil, broken(err)
	}
	lib.SetCacheSize(cacheBytes)
	return &FS{lib: lib, dirs: map[uint32]string{}}, nil
}

// check refuses superblocks whose numbers the library would take at their word.
func check(r io.ReaderAt, size int64) error {
	var b [96]byte
	if n, err := r.ReadAt(b[:], 0); n < len(b) {
		if err == nil || errors.Is(err, io.EOF) {
			return fmt.Errorf("%w: %d bytes", ErrFormat, size)
		}
		return fmt.Errorf("squashfs: %w", err)
	}
	le := binary.LittleEndian
	block, fragments, comp, ids := le.Uint32(b[12:]), le.Uint32(b[16:]), le.Uint16(b[20:]), le.Uint16(b[26:])
	switch {
	case string(b[:4]) != "hsqs":
		return fmt.Errorf("%w: no SquashFS", ErrFormat)
	case block < 4096 || block > 1<<20 || block&(block-1) != 0:
		return fmt.Errorf("%w: blocks of %d bytes", ErrFormat, block)
	case ids == 0:
		return fmt.Errorf("%w: no owners", ErrFormat)
	case comp == 3 || comp == 5: // the library reads neither as they stand in images
		return fmt.Errorf("%w: compressed with %s: %w", ErrFormat, map[uint16]string{3: "lzo", 5: "lz4"}[comp], errors.ErrUnsupported)
	case int64(fragments)/512*8 > size:
		return fmt.Errorf("%w: %d fragments in %d bytes", ErrFormat, fragments, size)
	}
	if used := le.Uint64(b[40:]); used > uint64(size) {
		return fmt.Errorf("%w: it takes %d bytes and %d are there", ErrFormat, used, size)
	}
	return nil
}

func broken(err error) error { return fmt.Errorf("%w: %w", ErrFormat, err) }

// recovered turns a panic of the library, which trusts an image in many places,
// into an error.
func recovered(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("%w: %v", ErrFormat, p)
	}
}

// libEntry is what the library's directory entries are.
type libEntry interface {
	fs.DirEntry
	fs.FileInfo
	Open() (filesystem.File, error)
	Readlink() (string, error)
}

// find walks to name; the last component's link is followed if follow is set.
// Held: mu.
func (f *FS) find(name string, follow bool) (at string, e libEntry, err error) {
	todo := strings.Split(name, "/")
	if name == "." {
		todo = nil
	}
	at = "."
	for links := 0; len(todo) > 0; {
		part := todo[0]
		todo = todo[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			if at = path.Dir(at); at == "." {
				e = nil
				continue
			}
			if _, e, err = f.find(at, false); err != nil {
				return "", nil, err
			}
			continue
		}
		entries, err := f.list(at)
		if err != nil {
			return "", nil, err
		}
		if e = nil; entries[part] == nil {
			return "", nil, fs.ErrNotExist
		}
		e = entries[part]
		if e.Mode()&fs.ModeSymlink != 0 && (follow || len(todo) > 0) {
			if links++; links > maxLinks {
				return "", nil, errors.New("too many links")
			}
			to, err := e.Readlink()
			if err != nil {
				return "", nil, broken(err)
			}
			todo = append(strings.Split(to, "/"), todo...)
			e = nil
			if strings.HasPrefix(to, "/") {
				at = "."
			} else if at != "." {
				if _, e, err = f.find(at, false); err != nil {
					return "", nil, err
				}
			}
			continue
		}
		if len(todo) > 0 && !e.Mode().IsDir() {
			return "", nil, fs.ErrNotExist
		}
		at = path.Join(at, part)
	}
	return at, e, nil
}

// list reads the directory at a path without links. Held: mu.
func (f *FS) list(at string) (map[string]libEntry, error) {
	if strings.Count(at, "/") >= maxDepth {
		return nil, fmt.Errorf("%w: directories nested deeper than %d", ErrFormat, maxDepth)
	}
	entries, err := f.lib.ReadDir(at)
	if err != nil {
		return nil, broken(err)
	}
	byName := make(map[string]libEntry, len(entries))
	for _, d := range entries {
		e, ok := d.(libEntry)
		if !ok {
			return nil, fmt.Errorf("%w: unknown entry %T", ErrFormat, d)
		}
		name := e.Name()
		if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
			return nil, fmt.Errorf("%w: name %q in %s", ErrFormat, name, at)
		}
		if st, ok := e.Sys().(*squashfs.StatT); ok && e.Mode().IsDir() {
			full := path.Join(at, name)
			if first, seen := f.dirs[st.Inode]; seen && first != full {
				return nil, fmt.Errorf("%w: %s and %s are one directory", ErrFormat, first, full)
			}
			f.dirs[st.Inode] = full
		}
		byName[name] = e
	}
	return byName, nil
}

func (f *FS) do(op, name string, fn func() error) (err error) {
	if !fs.ValidPath(name) {
		return &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	defer func() {
		if err != nil {
			err = &fs.PathError{Op: op, Path: name, Err: err}
		}
	}()
	defer recovered(&err)
	return fn()
}

// Info is what Sys of an fs.FileInfo of an image gives.
type Info struct {
	UID, GID uint32
	Link     string // target of a symbolic link
}

// info is an fs.FileInfo and fs.DirEntry that no longer needs the library.
type info struct {
	name    string
	size    int64
	mode    fs.FileMode
	modTime time.Time
	sys     *Info
}

func (i info) Name() string               { return i.name }
func (i info) Size() int64                { return i.size }
func (i info) Mode() fs.FileMode          { return i.mode }
func (i info) ModTime() time.Time         { return i.modTime }
func (i info) IsDir() bool                { return i.mode.IsDir() }
func (i info) Sys() any                   { return i.sys }
func (i info) Type() fs.FileMode          { return i.mode.Type() }
func (i info) Info() (fs.FileInfo, error) { return i, nil }

func infoOf(e libEntry) info {
	i := info{name: e.Name(), size: e.Size(), mode: modeOf(e), modTime: e.ModTime(), sys: &Info{}}
	if st, ok := e.Sys().(*squashfs.StatT); ok {
		*i.sys = Info{UID: st.UID, GID: st.GID, Link: st.LinkTarget}
	}
	return i
}

// stat of what find found; the root has no entry.
func (f *FS) stat(e libEntry) (info, error) {
	if e != nil {
		return infoOf(e), nil
	}
	fi, err := f.lib.Stat(".")
	if err != nil {
		return info{}, broken(err)
	}
	root, ok := fi.(libEntry)
	if !ok {
		return info{}, fmt.Errorf("%w: unknown entry %T", ErrFormat, fi)
	}
	return infoOf(root), nil
}

// Stat describes the file at name, a link's target.
func (f *FS) Stat(name string) (fi fs.FileInfo, err error) {
	err = f.do("stat", name, func() error { fi, err = f.lstat(name, true); return err })
	return fi, err
}

// Lstat describes the file at name, a link itself.
func (f *FS) Lstat(name string) (fi fs.FileInfo, err error) {
	err = f.do("lstat", name, func() error { fi, err = f.lstat(name, false); return err })
	return fi, err
}

func (f *FS) lstat(name string, follow bool) (fs.FileInfo, error) {
	_, e, err := f.find(name, follow)
	if err != nil {
		return nil, err
	}
	i, err := f.stat(e)
	if err != nil {
		return nil, err
	}
	i.name = path.Base(name)
	return i, nil
}

// ReadLink gives the target of the symbolic link at name.
func (f *FS) ReadLink(name string) (to string, err error) {
	err = f.do("readlink", name, func() error {
		_, e, err := f.find(name, false)
		if err != nil {
			return err
		}
		if e == nil || e.Mode()&fs.ModeSymlink == 0 {
			return fs.ErrInvalid
		}
		to, err = e.Readlink()
		return err
	})
	return to, err
}

// ReadDir lists the directory at name, by name.
func (f *FS) ReadDir(name string) (list []fs.DirEntry, err error) {
	err = f.do("readdir", name, func() error {
		at, e, err := f.find(name, true)
		if err != nil {
			return err
		}
		if e != nil && !e.Mode().IsDir() {
			return errors.New("not a directory")
		}
		list, err = f.entries(at)
		return err
	})
	return list, err
}

// Open opens the file at name.
func (f *FS) Open(name string) (file fs.File, err error) {
	err = f.do("open", name, func() error {
		at, e, err := f.find(name, true)
		if err != nil {
			return err
		}
		i, err := f.stat(e)
		if err != nil {
			return err
		}
		i.name = path.Base(name)
		switch {
		case i.mode.IsDir():
			list, err := f.entries(at)
			file = &openDir{info: i, list: list}
			return err
		case !i.mode.IsRegular():
			return fmt.Errorf("a %v has no content", i.mode.Type())
		}
		lf, err := e.Open()
		if err != nil {
			return broken(err)
		}
		file = &openFile{fs: f, name: name, info: i, f: lf, left: i.size}
		return nil
	})
	return file, err
}

// storage is what the library reads from. Reads beyond the end are errors other
// than io.EOF, which the library would take for an empty block and try again.
type storage struct {
	r    io.ReaderAt
	size int64
}

var errOutside = errors.New("reference to what lies outside of the image")

func (s *storage) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off >= s.size || int64(len(p)) > s.size-off {
		return 0, errOutside
	}
	return s.r.ReadAt(p, off)
}

func (s *storage) Stat() (fs.FileInfo, error)              { return nil, errors.ErrUnsupported }
func (s *storage) Read([]byte) (int, error)                { return 0, errors.ErrUnsupported }
func (s *storage) Seek(int64, int) (int64, error)          { return 0, errors.ErrUnsupported }
func (s *storage) Close() error                            { return nil }
func (s *storage) Sys() (*os.File, error)                  { return nil, errors.ErrUnsupported }
func (s *storage) Writable() (backend.WritableFile, error) { return nil, errors.ErrUnsupported }
func (s *storage) Path() string                            { return "" }
