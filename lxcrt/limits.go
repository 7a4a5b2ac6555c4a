package lxcrt

import (
	"fmt"
	"strconv"
)

// Limits bound one container; zero values leave the kernel's default, which is
// no limit. SetLimits changes them while the container runs.
type Limits struct {
	// Memory is in bytes; Swap is what may be swapped beside it, in bytes, and
	// only counts with Memory. A negative Swap leaves swap unlimited. Where the
	// kernel does not account for swap (Features.SwapLimit) it has no effect.
	Memory int64 `json:"memory,omitempty"`
	Swap   int64 `json:"swap,omitempty"`
	// CPUWeight is a share from 1 to 10000 against 100 of everyone else.
	CPUWeight int `json:"cpuWeight,omitempty"`
	// CPUQuota is in CPUs: 1.5 is one and a half.
	CPUQuota float64 `json:"cpuQuota,omitempty"`
	// PIDs is the highest number of tasks, threads included.
	PIDs int64 `json:"pids,omitempty"`
	// IO bounds what goes to and comes from disks.
	IO IOLimits `json:"io,omitzero"`
}

// IOLimits bound a container's I/O with each of the disks that hold its folder,
// its layers and the sources of its mounts, each disk by itself. In the v1 layout
// they bind reads and direct writes only: what is written through the page cache
// is later brought to disk by the kernel, on nobody's account.
type IOLimits struct {
	// Bytes a second.
	ReadBytes  int64 `json:"readBytes,omitempty"`
	WriteBytes int64 `json:"writeBytes,omitempty"`
	// Operations a second.
	ReadOps  int64 `json:"readOps,omitempty"`
	WriteOps int64 `json:"writeOps,omitempty"`
	// Weight is a share from 1 to 10000 against 100 of everyone else, where a
	// disk's scheduler knows shares (Features.IOWeight).
	Weight int `json:"weight,omitempty"`
}

func (l Limits) check() string {
	io := l.IO
	if l.Memory < 0 || l.CPUWeight < 0 || l.CPUWeight > 10000 || l.CPUQuota < 0 || l.PIDs < 0 ||
		io.ReadBytes < 0 || io.WriteBytes < 0 || io.ReadOps < 0 || io.WriteOps < 0 || io.Weight < 0 || io.Weight > 10000 {
		return fmt.Sprintf("limits %+v", l)
	}
	return ""
}

// setting is one file of a cgroup and what is written to it.
type setting struct {
	controller, file, value string
	set                     bool // false: the value is the kernel's default
	share                   bool // says something about siblings, not about what is inside
}

// settings of everything but I/O, which depends on disks.
func (l Limits) settings(unified, swap bool) []setting {
	var all []setting
	add := func(controller, file string, set bool, value any, none string) {
		v := none
		if set {
			v = fmt.Sprint(value)
		}
		all = append(all, setting{controller: controller, file: file, value: v, set: set})
	}
	const period = 100_000 // microseconds
	quota := max(int64(l.CPUQuota*period), 1000)
	if unified {
		add("memory", "memory.max", l.Memory > 0, l.Memory, "max")
		if swap {
			add("memory", "memory.swap.max", l.Memory > 0 && l.Swap >= 0, l.Swap, "max")
		}
		add("cpu", "cpu.weight", l.CPUWeight > 0, l.CPUWeight, "100")
		all[len(all)-1].share = true
		add("cpu", "cpu.max", l.CPUQuota > 0, fmt.Sprintf("%d %d", quota, period), "max "+strconv.Itoa(period))
		add("pids", "pids.max", l.PIDs > 0, l.PIDs, "max")
		return all
	}
	add("memory", "memory.limit_in_bytes", l.Memory > 0, l.Memory, "-1")
	if swap { // here memory and swap together
		add("memory", "memory.memsw.limit_in_bytes", l.Memory > 0 && l.Swap >= 0, l.Memory+max(l.Swap, 0), "-1")
	}
	add("cpu", "cpu.shares", l.CPUWeight > 0, max(l.CPUWeight*1024/100, 2), "1024")
	all[len(all)-1].share = true
	add("cpu", "cpu.cfs_period_us", l.CPUQuota > 0, period, strconv.Itoa(period))
	add("cpu", "cpu.cfs_quota_us", l.CPUQuota > 0, quota, "-1")
	add("pids", "pids.max", l.PIDs > 0, l.PIDs, "max")
	return all
}

// settings of one disk, by its numbers.
func (l IOLimits) settings(unified bool, disk string) []setting {
	if unified {
		value := func(n int64) string {
			if n == 0 {
				return "max"
			}
			return strconv.FormatInt(n, 10)
		}
		return []setting{{controller: "io", file: "io.max", set: l.bounded(), value: fmt.Sprintf("%s rbps=%s wbps=%s riops=%s wiops=%s",
			disk, value(l.ReadBytes), value(l.WriteBytes), value(l.ReadOps), value(l.WriteOps))}}
	}
	var all []setting
	for _, s := range []struct {
		file  string
		value int64
	}{{"read_bps", l.ReadBytes}, {"write_bps", l.WriteBytes}, {"read_iops", l.ReadOps}, {"write_iops", l.WriteOps}} {
		all = append(all, setting{controller: "blkio", file: "blkio.throttle." + s.file + "_device",
			value: fmt.Sprintf("%s %d", disk, s.value), set: s.value > 0})
	}
	return all
}

func (l IOLimits) bounded() bool {
	return l.ReadBytes > 0 || l.WriteBytes > 0 || l.ReadOps > 0 || l.WriteOps > 0
}

// weights are the files that take a share, of which a kernel has one or none.
func (l IOLimits) weights(unified bool) []setting {
	w := l.Weight
	if w == 0 {
		w = 100
	}
	value, bfq, controller := strconv.Itoa(w), strconv.Itoa(min(w, 1000)), "blkio"
	if unified {
		controller = "io"
		return []setting{{controller: controller, file: "io.weight", value: value, set: l.Weight > 0, share: true},
			{controller: controller, file: "io.bfq.weight", value: bfq, set: l.Weight > 0, share: true}}
	}
	return []setting{{controller: controller, file: "blkio.bfq.weight", value: bfq, set: l.Weight > 0, share: true}}
}
