package metrics

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// hertz is the unit of /proc/stat: USER_HZ, which is 100 on every architecture
// that Go runs on.
const hertz = 100

// Host is what the machine does and has.
type Host struct {
	CPUs       int                // processors in use
	CPUSeconds map[string]float64 // since the boot, of all processors, by mode (proc(5), /proc/stat)
	Load1      float64            // tasks that run or wait, over one minute

	MemoryTotal, MemoryAvailable int64 // bytes
	SwapTotal, SwapFree          int64

	DiskTotal, DiskAvailable int64 // bytes of the file system with the state folder

	Uptime float64 // seconds since the boot
}

var modes = []string{"user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal"}

// Read reads it; dir is the state folder.
func Read(dir string) (Host, error) {
	h := Host{CPUSeconds: map[string]float64{}}
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return h, fmt.Errorf("metrics: %w", err)
	}
	for line := range bytes.Lines(stat) {
		f := strings.Fields(string(line))
		switch {
		case len(f) > len(modes) && f[0] == "cpu":
			for i, mode := range modes {
				ticks, err := strconv.ParseFloat(f[i+1], 64)
				if err != nil {
					return h, fmt.Errorf("metrics: /proc/stat: %w", err)
				}
				h.CPUSeconds[mode] = ticks / hertz
			}
		case len(f) > 0 && strings.HasPrefix(f[0], "cpu"):
			h.CPUs++
		}
	}
	memory, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return h, fmt.Errorf("metrics: %w", err)
	}
	into := map[string]*int64{"MemTotal:": &h.MemoryTotal, "MemAvailable:": &h.MemoryAvailable, "SwapTotal:": &h.SwapTotal, "SwapFree:": &h.SwapFree}
	for s := bufio.NewScanner(bytes.NewReader(memory)); s.Scan(); {
		if f := strings.Fields(s.Text()); len(f) >= 2 && into[f[0]] != nil {
			kib, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil {
				return h, fmt.Errorf("metrics: /proc/meminfo: %w", err)
			}
			*into[f[0]] = kib << 10
		}
	}
	if err := firstNumber("/proc/loadavg", &h.Load1); err != nil {
		return h, err
	}
	if err := firstNumber("/proc/uptime", &h.Uptime); err != nil {
		return h, err
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return h, fmt.Errorf("metrics: statfs %s: %w", dir, err)
	}
	h.DiskTotal, h.DiskAvailable = int64(fs.Blocks)*fs.Bsize, int64(fs.Bavail)*fs.Bsize
	return h, nil
}

func firstNumber(path string, into *float64) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	word, _, _ := strings.Cut(string(text), " ")
	if *into, err = strconv.ParseFloat(word, 64); err != nil {
		return fmt.Errorf("metrics: %s: %w", path, err)
	}
	return nil
}
