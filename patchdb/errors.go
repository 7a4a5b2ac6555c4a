package patchdb

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/selfstead/selfstead/patchdb/internal/tree"
)

// What callers branch on, with errors.Is.
var (
	ErrNotFound error = notFound{} // a pointer leads nowhere; is fs.ErrNotExist as well
	ErrInvalid        = errors.New("patchdb: invalid")
	ErrTest           = errors.New("patchdb: test operation failed")
	ErrConflict       = errors.New("patchdb: the document is at another revision")
	ErrReadOnly       = errors.New("patchdb: read-only")
	ErrLocked         = errors.New("patchdb: in use by another process")
	ErrCorrupt        = errors.New("patchdb: damaged")
	ErrClosed         = errors.New("patchdb: closed")
)

type notFound struct{}

func (notFound) Error() string        { return "patchdb: not found" }
func (notFound) Is(target error) bool { return target == fs.ErrNotExist }

// PointerError says at which place of the document an operation stopped.
type PointerError struct {
	Op      string // "get", "put", "add", …
	Pointer Pointer
	Err     error // wraps one of the sentinels
}

func (e *PointerError) Error() string {
	return fmt.Sprintf("patchdb: %s %q: %s", e.Op, string(e.Pointer), bare(e.Err))
}

// Unwrap returns the cause.
func (e *PointerError) Unwrap() error { return e.Err }

// FileError says what happened to which file, and where in it. Its cause wraps
// ErrCorrupt, ErrLocked, ErrReadOnly or the operating system's error.
type FileError struct {
	Op, Path string
	Offset   int64 // bytes from the start; -1 where it does not apply
	Err      error
}

func (e *FileError) Error() string {
	if e.Offset >= 0 {
		return fmt.Sprintf("patchdb: %s %s at byte %d: %s", e.Op, e.Path, e.Offset, bare(e.Err))
	}
	return fmt.Sprintf("patchdb: %s %s: %s", e.Op, e.Path, bare(e.Err))
}

// Unwrap returns the cause.
func (e *FileError) Unwrap() error { return e.Err }

// bare is the error's text without the package's name, for use within another.
func bare(err error) string { return strings.TrimPrefix(err.Error(), "patchdb: ") }

// cause pairs a sentinel with what lies behind it.
type cause struct{ is, why error }

func (c cause) Error() string   { return c.why.Error() }
func (c cause) Unwrap() []error { return []error{c.is, c.why} }

// readOnly is why no more updates are taken.
type readOnly struct{ why error }

func (r readOnly) Error() string   { return ErrReadOnly.Error() + ": " + bare(r.why) }
func (r readOnly) Unwrap() []error { return []error{ErrReadOnly, r.why} }

// plain is an error of the database's file without the name that it was opened
// by, which a compaction has changed since.
func plain(err error) error {
	if p, ok := err.(*fs.PathError); ok {
		return fmt.Errorf("%s: %w", p.Op, p.Err)
	}
	return err
}

// editError translates what the tree says.
func editError(op string, p Pointer, err error) error {
	is := ErrInvalid
	if errors.Is(err, tree.ErrNotFound) {
		return &PointerError{op, p, cause{ErrNotFound, err}}
	}
	return &PointerError{op, p, cause{is, err}}
}
