package vm

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
)

// cpio writes the archive that the kernel unpacks first: format "newc", as the
// kernel's Documentation/driver-api/early-userspace/buffer-format.rst has it.
type cpio struct {
	w     *bufio.Writer
	count int
	dirs  map[string]bool
}

func newCPIO(w io.Writer) *cpio {
	return &cpio{w: bufio.NewWriter(w), dirs: map[string]bool{"/": true}}
}

const (
	cpioFile = 0o100000
	cpioDir  = 0o040000
	cpioChar = 0o020000
)

// entry writes one; major and minor are those of a device.
func (c *cpio) entry(name string, mode uint32, content []byte, major, minor uint32) {
	name = strings.TrimPrefix(name, "/")
	c.count++
	fmt.Fprintf(c.w, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
		c.count, mode, 0, 0, 1, 0, len(content), 0, 0, major, minor, len(name)+1, 0)
	c.w.WriteString(name)
	c.w.Write(make([]byte, 1+padding(110+len(name)+1)))
	c.w.Write(content)
	c.w.Write(make([]byte, padding(len(content))))
}

func padding(n int) int { return (4 - n%4) % 4 }

// dir adds a folder and those above it.
func (c *cpio) dir(name string) {
	if c.dirs[name] {
		return
	}
	c.dir(path.Dir(name))
	c.dirs[name] = true
	c.entry(name, cpioDir|0o755, nil, 0, 0)
}

func (c *cpio) file(name string, mode uint32, content []byte) {
	c.dir(path.Dir(name))
	c.entry(name, cpioFile|mode, content, 0, 0)
}

func (c *cpio) close() error {
	c.entry("TRAILER!!!", 0, nil, 0, 0)
	return c.w.Flush()
}

// writeInitrd writes the initial file system to file: the first program, its
// configuration and the modules it loads.
func writeInitrd(file string, program, config []byte, im *Image) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	c := newCPIO(f)
	c.dir("/sysroot")
	c.dir("/dev")
	c.entry("/dev/console", cpioChar|0o600, nil, 5, 1)
	c.file("/init", 0o755, program)
	c.file("/vm.json", 0o644, config)
	for _, m := range im.Order {
		b, err := os.ReadFile(path.Join(im.Modules, m))
		if err != nil {
			return err
		}
		c.file("/modules/"+m, 0o644, b)
	}
	if err := c.close(); err != nil {
		return err
	}
	return f.Close()
}
