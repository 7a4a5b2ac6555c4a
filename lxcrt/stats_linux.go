package lxcrt

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Stats of a running container. What the cgroup layout does not tell is -1: in
// the v1 layout swap without its accounting, and pressure. There the I/O counters
// also lack what was written through the page cache, which the kernel brings to
// disk on nobody's account.
type Stats struct {
	Memory      int64         // bytes in use, page cache included
	MemoryLimit int64         // bytes, the host's memory where none is set
	MemoryCache int64         // bytes of Memory that the kernel can take back
	Swap        int64         // bytes
	SwapLimit   int64         // bytes beside MemoryLimit; -1 where none is set
	CPU         time.Duration // time used by everything inside since the start
	PIDs        int64         // tasks
	PIDsLimit   int64         // -1 where none is set
	OOMKills    int64         // processes that the kernel ended for want of memory
	// What went to and came from all disks since the start, in bytes and operations;
	// in the v1 layout without what an upper of limited size takes.
	IOReadBytes, IOWriteBytes, IOReads, IOWrites int64
	// Pressure is the share of the last ten seconds, in percent, in which some
	// task waited for memory, CPU or I/O; all -1 in the v1 layout.
	MemoryPressure, CPUPressure, IOPressure float64
}

// Stats reads the counters of the container's cgroups.
func (c *Container) Stats(ctx context.Context) (Stats, error) {
	if _, err := c.living(ctx); err != nil {
		return Stats{}, c.fail("stats", err)
	}
	g := group{c.r.trees, c.payload()}
	s := Stats{Swap: -1, SwapLimit: -1, PIDsLimit: -1, MemoryPressure: -1, CPUPressure: -1, IOPressure: -1}
	s.PIDs = g.number("pids", "pids.current")
	s.PIDsLimit = g.number("pids", "pids.max")
	if c.r.trees.cgroup2() {
		s.Memory = g.number("", "memory.current")
		s.MemoryLimit = g.number("", "memory.max")
		s.MemoryCache = g.field("", "memory.stat", "file")
		s.Swap = g.number("", "memory.swap.current")
		s.SwapLimit = g.number("", "memory.swap.max")
		s.OOMKills = g.field("", "memory.events", "oom_kill")
		s.CPU = time.Duration(g.field("", "cpu.stat", "usage_usec")) * time.Microsecond
		s.MemoryPressure = g.pressure("memory.pressure")
		s.CPUPressure = g.pressure("cpu.pressure")
		s.IOPressure = g.pressure("io.pressure")
		s.IOReadBytes, s.IOWriteBytes = g.sum("", "io.stat", " rbytes="), g.sum("", "io.stat", " wbytes=")
		s.IOReads, s.IOWrites = g.sum("", "io.stat", " rios="), g.sum("", "io.stat", " wios=")
	} else {
		s.Memory = g.number("memory", "memory.usage_in_bytes")
		s.MemoryLimit = g.number("memory", "memory.limit_in_bytes")
		s.MemoryCache = g.field("memory", "memory.stat", "total_cache")
		s.Swap = g.field("memory", "memory.stat", "total_swap")
		s.OOMKills = g.field("memory", "memory.oom_control", "oom_kill")
		// Each cgroup counts what it ends itself, and the part inside has limits too.
		if in := (group{c.r.trees, c.payload() + "/" + innerGroup}).field("memory", "memory.oom_control", "oom_kill"); in > 0 {
			s.OOMKills += in
		}
		s.CPU = time.Duration(g.number("cpuacct", "cpuacct.usage"))
		const most = 1 << 60 // no limit is a number of nearly 63 bits
		if both := g.number("memory", "memory.memsw.limit_in_bytes"); both >= 0 && both < most && s.MemoryLimit >= 0 {
			s.SwapLimit = both - s.MemoryLimit
		}
		const bytes, ops = "blkio.throttle.io_service_bytes_recursive", "blkio.throttle.io_serviced_recursive"
		s.IOReadBytes, s.IOWriteBytes = g.sum("blkio", bytes, " Read "), g.sum("blkio", bytes, " Write ")
		s.IOReads, s.IOWrites = g.sum("blkio", ops, " Read "), g.sum("blkio", ops, " Write ")
	}
	if host := hostMemory(); s.MemoryLimit < 0 || host > 0 && s.MemoryLimit > host {
		s.MemoryLimit = host
	}
	if s.Memory < 0 { // it ended meanwhile
		if _, err := c.living(ctx); err != nil {
			return Stats{}, c.fail("stats", err)
		}
	}
	return s, nil
}

type group struct {
	trees hierarchies
	path  string
}

func (g group) read(controller, file string) string {
	p := g.trees.path(controller, g.path, file)
	if p == "" {
		return ""
	}
	b, err := os.ReadFile(p)
	if err != nil {
		return ""
	}
	return string(b)
}

// number is -1 for "max" and for what cannot be read.
func (g group) number(controller, file string) int64 {
	n, err := strconv.ParseInt(strings.TrimSpace(g.read(controller, file)), 10, 64)
	if err != nil {
		return -1
	}
	return n
}

func (g group) field(controller, file, name string) int64 {
	for l := range strings.Lines(g.read(controller, file)) {
		if k, v, ok := strings.Cut(strings.TrimSpace(l), " "); ok && k == name {
			if n, err := strconv.ParseInt(v, 10, 64); err == nil {
				return n
			}
		}
	}
	return -1
}

// sum adds the numbers that follow a word, one for each disk. Loop devices are
// left out: what goes through one arrives at a disk.
func (g group) sum(controller, file, word string) int64 {
	if !g.trees.has(controller, g.path, file) {
		return -1
	}
	var all int64
	for l := range strings.Lines(g.read(controller, file)) {
		if _, rest, ok := strings.Cut(l, word); ok && !strings.HasPrefix(l, "7:") {
			if f := strings.Fields(rest); len(f) > 0 {
				n, _ := strconv.ParseInt(f[0], 10, 64)
				all += n
			}
		}
	}
	return all
}

func (g group) pressure(file string) float64 {
	for l := range strings.Lines(g.read("", file)) {
		if rest, ok := strings.CutPrefix(l, "some avg10="); ok {
			v, _, _ := strings.Cut(rest, " ")
			if f, err := strconv.ParseFloat(v, 64); err == nil {
				return f
			}
		}
	}
	return -1
}

// hostMemory in bytes, 0 if unknown.
func hostMemory() int64 {
	b, err := os.ReadFile(filepath.Join("/proc", "meminfo"))
	if err != nil {
		return 0
	}
	for l := range strings.Lines(string(b)) {
		if f := strings.Fields(l); len(f) >= 2 && f[0] == "MemTotal:" {
			kb, _ := strconv.ParseInt(f[1], 10, 64)
			return kb << 10
		}
	}
	return 0
}
