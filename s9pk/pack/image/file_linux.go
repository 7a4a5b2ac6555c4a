package image

import (
	"errors"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// fileID tells files apart, to find hard links.
type fileID struct{ dev, ino uint64 }

func hardLink(fi os.FileInfo) (fileID, bool) {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok || st.Nlink < 2 || fi.IsDir() {
		return fileID{}, false
	}
	return fileID{uint64(st.Dev), st.Ino}, true
}

// fileXattrs reads the extended attributes that an image carries: those of users
// and file capabilities, and not what the machine's security modules add.
func fileXattrs(path string, fi os.FileInfo) (map[string]string, error) {
	if !fi.Mode().IsRegular() && !fi.IsDir() {
		return nil, nil
	}
	size, err := unix.Llistxattr(path, nil)
	if errors.Is(err, unix.ENOTSUP) || size <= 0 && err == nil {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	names := make([]byte, size)
	if size, err = unix.Llistxattr(path, names); err != nil {
		return nil, err
	}
	var found map[string]string
	for _, name := range strings.Split(strings.TrimRight(string(names[:size]), "\x00"), "\x00") {
		if !strings.HasPrefix(name, "user.") && name != "security.capability" {
			continue
		}
		value := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			return nil, err
		}
		if found == nil {
			found = map[string]string{}
		}
		found[paxXattr+name] = string(value[:n])
	}
	return found, nil
}
