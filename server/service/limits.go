package service

import (
	"os"
	"strings"

	"github.com/selfstead/selfstead/lxcrt"
	"golang.org/x/sys/unix"
)

// What one service may take of the machine when nothing else is said: no fork
// bomb and no leak of its own may bring the server down.
const (
	maxTasks      = 1 << 14
	memoryReserve = 1 << 30   // of the machine's memory, for the server and the system
	memoryLeast   = 512 << 20 // for a service, however small the machine
)

// defaultLimits are the limits of every container, as far as the kernel has
// the means.
func defaultLimits() lxcrt.Limits {
	var l lxcrt.Limits
	if controller("pids") {
		l.PIDs = maxTasks
	}
	var info unix.Sysinfo_t
	if controller("memory") && unix.Sysinfo(&info) == nil {
		total := int64(info.Totalram) * int64(info.Unit)
		l.Memory, l.Swap = max(memoryLeast, total-memoryReserve), -1
	}
	return l
}

// controller reports whether the kernel's control groups have a controller.
func controller(name string) bool {
	text, err := os.ReadFile("/proc/cgroups")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) == 4 && f[0] == name && f[3] == "1" {
			return true
		}
	}
	return false
}
