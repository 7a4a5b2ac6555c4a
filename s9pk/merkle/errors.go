package merkle

import "errors"

// Sentinels for what a reader of tables and contents branches on.
var (
	// ErrFormat: bytes that no writer produces (types, varints, names that are not UTF-8).
	ErrFormat = errors.New("merkle: malformed data")
	// ErrTruncated: data ends before what its length fields promise.
	ErrTruncated = errors.New("merkle: data ends early")
	// ErrHashMismatch: bytes that do not belong to the signed tree.
	ErrHashMismatch = errors.New("merkle: content does not match its hash")
	// ErrUnsafe: well formed and signed, but dangerous to use: a name that is no
	// single path component, a repeated name, an exchanged type.
	ErrUnsafe = errors.New("merkle: unsafe entry")
	// ErrLimit: more than the reader is willing to hold.
	ErrLimit = errors.New("merkle: limit exceeded")
	// ErrUnhashed: the operation needs a hash that has not been computed yet.
	ErrUnhashed = errors.New("merkle: entry has no hash yet")
	// ErrMissing: the entry is signed but was left out of this copy.
	ErrMissing = errors.New("merkle: entry was left out of this copy")
	// ErrKind: a directory where a file is needed, or the reverse.
	ErrKind = errors.New("merkle: wrong kind of entry")
)
