//go:build !linux

package nat

import (
	"context"
	"fmt"
	"log/slog"
)

// Options tunes New. The zero value suits production.
type Options struct {
	Table  string       // name of our nftables table, family inet; "" means "selfstead"
	Logger *slog.Logger // nil means silent
}

// Controller keeps one table of one network namespace; on this platform there is none.
type Controller struct{}

var errPlatform = fmt.Errorf("%w: nf_tables needs Linux", ErrNotSupported)

// New returns ErrNotSupported.
func New(Options) (*Controller, error) { return nil, errPlatform }

// Apply returns ErrNotSupported.
func (c *Controller) Apply(context.Context, Config) error { return errPlatform }

// Forwards returns ErrNotSupported.
func (c *Controller) Forwards(context.Context) ([]Forward, error) { return nil, errPlatform }

// CleanUp returns ErrNotSupported.
func (c *Controller) CleanUp(context.Context) error { return errPlatform }

// Close does nothing.
func (c *Controller) Close() error { return nil }
