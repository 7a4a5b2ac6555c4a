//go:build !linux

package gateway

import (
	"context"
	"fmt"
	"runtime"
)

var errPolicy = fmt.Errorf("%w: policy routing on %s", ErrNotSupported, runtime.GOOS)

// List needs Linux.
func List() ([]Gateway, error) { return nil, errPolicy }

// Watch needs Linux.
func Watch(context.Context, func([]Gateway) error) error { return errPolicy }

// Controller needs Linux.
type Controller struct{}

// New needs Linux.
func New(Options) (*Controller, error) { return nil, errPolicy }

// Apply needs Linux.
func (*Controller) Apply(context.Context, Config) error { return errPolicy }

// CleanUp needs Linux.
func (*Controller) CleanUp(context.Context) error { return errPolicy }

// Close does nothing.
func (*Controller) Close() error { return nil }
