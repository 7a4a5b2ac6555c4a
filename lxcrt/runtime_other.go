//go:build !linux

package lxcrt

import (
	"context"
	"fmt"
)

// Runtime makes containers, on Linux.
type Runtime struct{}

// New needs Linux.
func New(ctx context.Context, o Options) (*Runtime, error) {
	return nil, &Error{Op: "new", Err: fmt.Errorf("any system but Linux: %w", ErrNotSupported)}
}
