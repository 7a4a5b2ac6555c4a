package s9pk

import (
	"errors"
	"fmt"
	"strings"

	"github.com/selfstead/selfstead/s9pk/merkle"
)

// Sentinels for what callers branch on; every error about an archive wraps one
// of them, or an error of the reader below, or fs.ErrNotExist.
var (
	// ErrFormat: not a v2 package, or bytes that no writer produces.
	ErrFormat = merkle.ErrFormat
	// ErrTruncated: the archive ends before what its own fields promise.
	ErrTruncated = merkle.ErrTruncated
	// ErrHashMismatch: a table or a body that is not what was signed.
	ErrHashMismatch = merkle.ErrHashMismatch
	// ErrUnsafe: signed, but refused because using it is dangerous; see the
	// package comment for the list. Options.Lenient opens it for inspection.
	ErrUnsafe = merkle.ErrUnsafe
	// ErrLimit: larger or deeper than Options.Limits allow.
	ErrLimit = merkle.ErrLimit
	// ErrCommitment: a valid archive, but not the one that was asked for.
	ErrCommitment = merkle.ErrCommitment
	// ErrMissing: signed, but left out of this copy.
	ErrMissing = merkle.ErrMissing
	// ErrKind: a directory where a file is needed, or the reverse.
	ErrKind = merkle.ErrKind
	// ErrUnhashed: an entry that was never signed cannot be left out.
	ErrUnhashed = merkle.ErrUnhashed

	// ErrSignature: the signature does not hold for the header's root.
	ErrSignature = errors.New("s9pk: invalid signature")
	// ErrSize: a table or content of another length than was signed or announced.
	ErrSize = errors.New("s9pk: content has another size than was signed")
	// ErrVersion1, a kind of ErrFormat: a package of the older format; see s9pk/v1.
	ErrVersion1 = fmt.Errorf("%w: version 1 package", ErrFormat)
	// ErrNotStreamable: the archive stores what is needed first behind what it
	// describes, so it cannot be verified in one pass without Options.Received.
	ErrNotStreamable = errors.New("s9pk: layout cannot be verified in one pass")
	// ErrUnverified: a reader was closed before its last byte proved the others.
	ErrUnverified = errors.New("s9pk: content was not read to its end and is not verified")
	// ErrManifest: manifest.json cannot be read as a manifest.
	ErrManifest = errors.New("s9pk: invalid manifest")
	// ErrReadOnly: archives opened with Options.Lenient are for looking at.
	ErrReadOnly = errors.New("s9pk: opened for inspection only")
)

// EntryError says at which entry an operation stopped.
type EntryError struct {
	Op   string // "open", "verify", "read", "write", "extract"
	Path string // slash-separated; "" for the header, "/" for the root table
	// Offset is where, in bytes from the start of the archive; -1 when unknown.
	Offset int64
	Err    error
}

func (e *EntryError) Error() string {
	place := e.Path
	switch place {
	case "":
		place = "header"
	case "/":
		place = "root table"
	}
	text := e.Err.Error()
	for _, prefix := range []string{"s9pk: ", "merkle: "} {
		text = strings.TrimPrefix(text, prefix)
	}
	return "s9pk: " + e.Op + " " + printable(place) + ": " + text
}

// Unwrap returns the cause.
func (e *EntryError) Unwrap() error { return e.Err }

// printable keeps names from breaking a line or filling a screen.
func printable(path string) string {
	ok := len(path) <= 300
	for i := 0; ok && i < len(path); i++ {
		ok = path[i] >= ' ' && path[i] != 0x7f
	}
	if ok {
		return path
	}
	if len(path) > 300 {
		path = path[:300] + "..."
	}
	return quote(path)
}
