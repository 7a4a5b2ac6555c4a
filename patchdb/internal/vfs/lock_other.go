//go:build !unix

package vfs

import (
	"errors"
	"os"
)

// Lock is not supported here: without it two processes could write one file.
func (f osFile) Lock() error {
	return &os.PathError{Op: "lock", Path: f.Name(), Err: errors.ErrUnsupported}
}
