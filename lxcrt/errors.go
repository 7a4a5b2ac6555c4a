package lxcrt

import (
	"errors"
	"io/fs"
)

// What callers branch on. Each comes wrapped in an *Error that says where.
var (
	// ErrInvalid: the Spec, Mount or option is wrong by itself.
	ErrInvalid = errors.New("invalid")
	// ErrNotSupported is always wrapped with the name of what is missing.
	ErrNotSupported = errors.New("not supported here")
	// ErrNotFound: no such container, or nothing mounted there.
	ErrNotFound = fs.ErrNotExist
	// ErrExists: a container of that name is already there.
	ErrExists = fs.ErrExist
	// ErrNotRunning: the call needs a running container.
	ErrNotRunning = errors.New("not running")
	// ErrRunning: the call needs a stopped container.
	ErrRunning = errors.New("already running")
	// ErrClosed: the Runtime was closed.
	ErrClosed = errors.New("runtime is closed")
)

// Error says which step of which container failed.
type Error struct {
	Op   string // "start", "mount /media/x", ...
	Name string // the container; empty for the runtime itself
	Err  error
}

func (e *Error) Error() string {
	s := "lxcrt: " + e.Op
	if e.Name != "" {
		s += " " + e.Name
	}
	return s + ": " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }
