package vm

import "errors"

// Errors that callers branch on.
var (
	// ErrNotSupported is always wrapped with the name of what is missing.
	ErrNotSupported = errors.New("vm: not supported here")
	// ErrGone: the machine ended or was reset under a command.
	ErrGone = errors.New("vm: the machine went away")
)
