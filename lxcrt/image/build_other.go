//go:build !linux

package image

import (
	"context"
	"fmt"
)

var excluded []string

const tidy = ""

// Build needs Linux.
func Build(ctx context.Context, o Options) (string, error) {
	return "", fmt.Errorf("%w: any system but Linux", ErrNotSupported)
}
