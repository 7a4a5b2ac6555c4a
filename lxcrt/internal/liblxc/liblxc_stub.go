//go:build !linux || !cgo || nolxc

package liblxc

// Supported says whether this binary was built with liblxc.
const Supported = false

// Version is empty without liblxc.
func Version() string { return "" }

// Check is not there without liblxc.
func Check(dir, name string, items []Item) error { return ErrUnsupported }
