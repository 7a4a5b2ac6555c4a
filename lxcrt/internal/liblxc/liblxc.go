//go:build linux && cgo && !nolxc

package liblxc

// #cgo pkg-config: lxc
// #cgo CFLAGS: -O2 -Wall
import "C"

import (
	"fmt"

	lxc "github.com/lxc/go-lxc"
)

// Supported says whether this binary was built with liblxc.
const Supported = true

// Version of the installed liblxc.
func Version() string { return lxc.Version() }

// Check hands every item to liblxc as the configuration of the container name
// below dir; the first one that it does not take is named in the error. Nothing
// is written.
func Check(dir, name string, items []Item) error {
	c, err := lxc.NewContainer(name, dir)
	if err != nil {
		return fmt.Errorf("liblxc container: %w", err)
	}
	defer c.Release()
	c.ClearConfig()
	for _, it := range items {
		if err := c.SetConfigItem(it.Key, it.Value); err != nil {
			return fmt.Errorf("liblxc %s refuses %s = %q: %w", lxc.Version(), it.Key, it.Value, err)
		}
	}
	return nil
}
