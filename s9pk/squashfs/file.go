package squashfs

import (
	"io"
	"io/fs"
	"maps"
	"reflect"
	"slices"

	"github.com/diskfs/go-diskfs/filesystem"
)

// entries lists the directory at a path without links, by name. Held: mu.
func (f *FS) entries(at string) ([]fs.DirEntry, error) {
	byName, err := f.list(at)
	if err != nil {
		return nil, err
	}
	list := make([]fs.DirEntry, 0, len(byName))
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		list = append(list, infoOf(byName[name]))
	}
	return list, nil
}

// modeOf is the whole mode of an entry. The library's Mode drops setuid, setgid
// and the sticky bit, and gives no other way to them than the field it keeps them
// in; forking it for three bits would be worse. Without that field they are not
// shown, and the tests fail.
func modeOf(e libEntry) fs.FileMode {
	mode := e.Mode()
	v := reflect.Indirect(reflect.ValueOf(e))
	if v.Kind() != reflect.Struct {
		return mode
	}
	raw := v.FieldByName("mode")
	if !raw.CanUint() {
		return mode
	}
	for bit, flag := range map[uint64]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if raw.Uint()&bit != 0 {
			mode |= flag
		}
	}
	return mode
}

// openDir is a directory that was opened as a file.
type openDir struct {
	info info
	list []fs.DirEntry
}

func (d *openDir) Stat() (fs.FileInfo, error) { return d.info, nil }
func (d *openDir) Close() error               { return nil }

func (d *openDir) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: d.info.name, Err: fs.ErrInvalid}
}

func (d *openDir) ReadDir(n int) ([]fs.DirEntry, error) {
	if n <= 0 {
		n = len(d.list)
	} else if len(d.list) == 0 {
		return nil, io.EOF
	}
	n = min(n, len(d.list))
	got := d.list[:n]
	d.list = d.list[n:]
	return got, nil
}

// openFile is a regular file, read front to back.
type openFile struct {
	fs   *FS
	name string
	info info
	f    filesystem.File
	left int64
}

func (o *openFile) Stat() (fs.FileInfo, error) { return o.info, nil }

func (o *openFile) Read(p []byte) (n int, err error) {
	if o.left <= 0 {
		return 0, io.EOF
	}
	if len(p) == 0 {
		return 0, nil
	}
	o.fs.mu.Lock()
	defer o.fs.mu.Unlock()
	defer func() {
		if err != nil {
			err = &fs.PathError{Op: "read", Path: o.name, Err: err}
		}
	}()
	defer recovered(&err)
	n, err = o.f.Read(p[:min(int64(len(p)), o.left)])
	o.left -= int64(n)
	if n > 0 {
		return n, nil // an error comes again, with the end of the file
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return 0, broken(err)
}

func (o *openFile) Close() error {
	o.left = 0
	return o.f.Close()
}
