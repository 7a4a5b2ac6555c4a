package lxcrt

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// makeDevices makes a copy of each declared device node that belongs to
// container root; the configuration binds the copies inside. The host's own node
// keeps its owner, which inside would be nobody.
func (c *Container) makeDevices() error {
	for _, d := range c.spec.Devices {
		var st unix.Stat_t
		if err := unix.Stat(d, &st); err != nil {
			return &os.PathError{Op: "device", Path: d, Err: err}
		}
		if t := st.Mode & unix.S_IFMT; t != unix.S_IFCHR && t != unix.S_IFBLK {
			return fmt.Errorf("%w: %s is no device", ErrInvalid, d)
		}
		node := filepath.Join(c.dir, "devices", strings.TrimPrefix(d, "/"))
		if err := os.MkdirAll(filepath.Dir(node), 0o755); err != nil {
			return err
		}
		if err := os.Remove(node); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if err := unix.Mknod(node, st.Mode, int(st.Rdev)); err != nil {
			return &os.PathError{Op: "mknod", Path: node, Err: err}
		}
		if err := os.Chmod(node, os.FileMode(st.Mode&0o777)); err != nil {
			return err
		}
		if err := os.Lchown(node, int(c.spec.IDs.Base), int(c.spec.IDs.Base)); err != nil {
			return err
		}
	}
	return nil
}
