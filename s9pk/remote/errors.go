package remote

import (
	"errors"
	"fmt"
	"net/url"
)

// Sentinels for what callers branch on.
var (
	// ErrChanged: the file is another one than at the first request.
	ErrChanged = errors.New("the file changed while it was read")
	// ErrRange: the answer is not for the range that was asked for.
	ErrRange = errors.New("the server answers with a wrong range")
	// ErrStatus: an answer that is no content at all.
	ErrStatus = errors.New("unexpected status")
	// ErrStalled: no byte came for Options.Stall.
	ErrStalled = errors.New("the server stalled")
	// ErrLength: the server does not tell the length of the file.
	ErrLength = errors.New("the server does not tell the length")
)

// Error says for which part of which file reading stopped.
type Error struct {
	URL    string // without user, password and query
	Offset int64
	Err    error
}

func (e *Error) Error() string {
	return fmt.Sprintf("remote: %s at byte %d: %s", e.URL, e.Offset, e.Err)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// bare is a URL without what may be secret in it.
func bare(u *url.URL) string {
	c := *u
	c.User, c.RawQuery, c.Fragment = nil, "", ""
	return c.String()
}

// permanent marks what no further attempt can better.
type permanent struct{ error }

func (p permanent) Unwrap() error { return p.error }
