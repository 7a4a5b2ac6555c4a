// Package vfs is the little that patchdb asks of a file system, so that tests
// can put one underneath which crashes, fails and forgets what was not synced.
package vfs

import (
	"errors"
	"io"
)

// ErrLocked says that another process holds the file.
var ErrLocked = errors.New("locked by another process")

// FS opens files and changes directory entries. Entries are durable only after
// SyncDir.
type FS interface {
	// Open opens an existing file for reading, and for writing if asked.
	Open(name string, write bool) (File, error)
	// Create opens a file for reading and writing, making it if missing.
	Create(name string) (File, error)
	// Link gives a file a second name, which must be free (fs.ErrExist).
	Link(from, to string) error
	// Rename moves a name, replacing what stood there.
	Rename(from, to string) error
	// Remove removes a name.
	Remove(name string) error
	// SyncDir makes the entries of the directory that holds name durable.
	SyncDir(name string) error
	// Names reports whether name leads to f.
	Names(name string, f File) (bool, error)
}

// File is an open file.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// Size is the length in bytes.
	Size() (int64, error)
	// Truncate sets the length.
	Truncate(size int64) error
	// Sync makes content and length durable.
	Sync() error
	// Writeback has the disk take the bytes written to a range. They are not
	// durable by it: it leaves a later Sync little to do.
	Writeback(off, n int64) error
	// Lock takes the file for this process until Close, or fails with ErrLocked.
	Lock() error
}

// Inheriter is a File that can take over another's permissions and owner.
type Inheriter interface {
	Inherit(from File) error
}
