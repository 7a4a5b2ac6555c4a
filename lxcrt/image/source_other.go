//go:build !linux

package image

import (
	"context"
	"fmt"
)

// FromDir needs Linux.
func FromDir(ctx context.Context, s Source) (string, error) {
	return "", fmt.Errorf("%w: any system but Linux", ErrNotSupported)
}

// FromOCI needs Linux.
func FromOCI(ctx context.Context, s Source) (Container, error) {
	return Container{}, fmt.Errorf("%w: any system but Linux", ErrNotSupported)
}
