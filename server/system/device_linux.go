package system

import (
	"bufio"
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

func setHostname(name string) error { return unix.Sethostname([]byte(name)) }

// Synced reports whether the kernel's clock is kept by a time service.
func Synced() bool {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	return err == nil && state != unix.TIME_ERROR && t.Status&unix.STA_UNSYNC == 0
}

// Device is what the machine is.
type Device struct {
	OS      string // "Debian GNU/Linux 12 (bookworm)"
	Kernel  string
	CPU     string // model; "" where the kernel does not say
	CPUs    int
	Memory  int64  // bytes
	Product string // what its firmware calls it; "" where it does not
}

// Device reads it.
func (m *Manager) Device() Device {
	d := Device{CPUs: runtime.NumCPU()}
	for key, value := range keyed(filepath.Join(m.o.Etc, "os-release"), "=") {
		if key == "PRETTY_NAME" {
			d.OS = strings.Trim(value, `"'`)
		}
	}
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		d.Kernel = unix.ByteSliceToString(name.Release[:])
	}
	d.CPU = keyed("/proc/cpuinfo", ":")["model name"]
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		d.Memory = int64(info.Totalram) * int64(info.Unit)
	}
	if text, err := os.ReadFile("/sys/class/dmi/id/product_name"); err == nil {
		d.Product = strings.TrimSpace(string(text))
	} else if text, err := os.ReadFile("/proc/device-tree/model"); err == nil {
		d.Product = strings.TrimRight(string(text), "\x00\n")
	}
	return d
}

// keyed reads lines of a key and a value; of equal keys the first counts.
func keyed(path, sep string) map[string]string {
	out := map[string]string{}
	text, err := os.ReadFile(path)
	if err != nil {
		return out
	}
	for s := bufio.NewScanner(bytes.NewReader(text)); s.Scan(); {
		key, value, ok := strings.Cut(s.Text(), sep)
		if key = strings.TrimSpace(key); ok && out[key] == "" {
			out[key] = strings.TrimSpace(value)
		}
	}
	return out
}
