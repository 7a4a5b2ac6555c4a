package service

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/selfstead/selfstead/lxcrt"
	"github.com/selfstead/selfstead/patchdb"
	"github.com/selfstead/selfstead/s9pk"
	"github.com/selfstead/selfstead/server/api"
	"github.com/selfstead/selfstead/server/problem"
	"github.com/selfstead/selfstead/server/state"
	"golang.org/x/sys/unix"
)

// What one service may take of the machine when nothing else is said: no fork
// bomb and no leak of its own may bring the server down, and no service is
// worth more processor time than another.
const (
	maxTasks      = 1 << 14
	cpuWeight     = 100
	memoryReserve = 1 << 30   // of the machine's memory, for the server and the system
	memoryLeast   = 512 << 20 // for a service, however small the machine
)

// machineMemory is how much there is, 0 when that is not known.
func machineMemory() int64 {
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) != nil {
		return 0
	}
	return int64(info.Totalram) * int64(info.Unit)
}

// defaultLimits are the limits of a container that nobody has set others for.
// What the manifest says that the package needs it gets, as far as that is there.
func defaultLimits(total int64, m *s9pk.Manifest) lxcrt.Limits {
	l := lxcrt.Limits{PIDs: maxTasks, CPUWeight: cpuWeight}
	if total > 0 {
		l.Memory, l.Swap = max(memoryLeast, total-memoryReserve), -1
		if m.HardwareRequirements.RAM != nil {
			l.Memory = max(l.Memory, int64(min(*m.HardwareRequirements.RAM, uint64(total))))
		}
	}
	return l
}

// owned puts what the owner has set in the place of defaults.
func owned(l lxcrt.Limits, set *state.Limits) lxcrt.Limits {
	if set == nil {
		return l
	}
	if set.Memory != nil {
		l.Memory, l.Swap = *set.Memory, -1
	}
	if set.CPUs != nil {
		l.CPUQuota = *set.CPUs
	}
	if set.CPUWeight != nil {
		l.CPUWeight = *set.CPUWeight
	}
	if set.PIDs != nil {
		l.PIDs = *set.PIDs
	}
	return l
}

// able drops the limits that this kernel has no means for.
func able(l lxcrt.Limits) lxcrt.Limits {
	if !controller("pids") {
		l.PIDs = 0
	}
	if !controller("memory") {
		l.Memory, l.Swap = 0, 0
	}
	if !controller("cpu") {
		l.CPUWeight, l.CPUQuota = 0, 0
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

// setLimits is what the package's owner has set, nil for nothing.
func (m *Manager) setLimits(id string) (*state.Limits, error) {
	set, err := patchdb.Get[state.Limits](m.db, state.PackagePointer(id, "limits"))
	if errors.Is(err, patchdb.ErrNotFound) {
		return nil, nil
	}
	return &set, err
}

// wantedLimits are those of a package's container.
func (m *Manager) wantedLimits(b *bundle) (lxcrt.Limits, error) {
	set, err := m.setLimits(b.Manifest.ID)
	if err != nil {
		return lxcrt.Limits{}, fmt.Errorf("service: limits of %s: %w", b.Manifest.ID, err)
	}
	return able(owned(defaultLimits(machineMemory(), b.Manifest), set)), nil
}

// take makes a container the unit's, with the limits of now: they may have
// changed since it was made.
func (u *unit) take(ctx context.Context, run *instance) {
	u.limiting.Lock()
	defer u.limiting.Unlock()
	u.setInstance(run)
	wanted, err := u.m.wantedLimits(run.bundle)
	if err == nil && run.c.Spec().Limits != wanted {
		err = run.c.SetLimits(ctx, wanted)
	}
	if err != nil {
		u.m.log.Error("limits are not in force", "package", u.id, "err", err)
	}
}

// Limits says what a package may take of the machine.
func (m *Manager) Limits(id string) (api.PackageLimits, error) {
	var out api.PackageLimits
	u := m.unit(id)
	var b *bundle
	if u != nil {
		b = u.archive()
	}
	if b == nil {
		if _, err := m.Get(id); err != nil {
			return out, err
		}
		return out, problem.Newf(503, problem.CodeStopping, "package %s is not loaded yet", id)
	}
	set, err := m.setLimits(id)
	if err != nil {
		return out, err
	}
	out.Default = limitsView(able(defaultLimits(machineMemory(), b.Manifest)))
	out.Effective = limitsView(able(owned(defaultLimits(machineMemory(), b.Manifest), set)))
	if set != nil {
		out.Set = api.Limits(*set)
	}
	return out, nil
}

// limitsView shows limits; those that are not there are left out.
func limitsView(l lxcrt.Limits) (v api.Limits) {
	if l.Memory > 0 {
		v.Memory = &l.Memory
	}
	if l.CPUQuota > 0 {
		v.CPUs = &l.CPUQuota
	}
	if l.CPUWeight > 0 {
		v.CPUWeight = &l.CPUWeight
	}
	if l.PIDs > 0 {
		v.PIDs = &l.PIDs
	}
	return v
}

// SetLimits replaces what a package's owner has set; what is not said is at its
// default. A container that runs has the new limits at return, and what it is in
// the middle of goes on. Limits that it cannot be brought under are not set.
func (m *Manager) SetLimits(ctx context.Context, id string, set api.Limits) error {
	u, err := m.installed(ctx, id)
	if err != nil {
		return err
	}
	u.limiting.Lock()
	defer u.limiting.Unlock()
	own := state.Limits(set)
	wanted := able(owned(defaultLimits(machineMemory(), u.archive().Manifest), &own))
	undo := func() {}
	if run := u.instance(); run != nil && run.alive() {
		was := run.c.Spec().Limits
		if err := run.c.SetLimits(ctx, wanted); err != nil {
			if errors.Is(err, lxcrt.ErrInvalid) || !run.alive() {
				return err
			}
			return problem.Newf(409, problem.CodeConflict, "package %s cannot be brought under these limits while it runs", id).Because(err)
		}
		undo = func() {
			if err := run.c.SetLimits(context.WithoutCancel(ctx), was); err != nil {
				m.log.Error("limits are not as the document says", "package", id, "err", err)
			}
		}
	}
	_, err = m.db.Update(ctx, func(tx *patchdb.Tx) error {
		at := state.PackagePointer(id, "limits")
		switch {
		case !tx.Exists(state.PackagePointer(id)):
			return problem.NotFound("package", id)
		case own != (state.Limits{}):
			return tx.PutAll(at, own)
		case tx.Exists(at):
			return tx.Remove(at)
		}
		return nil
	})
	if err != nil {
		undo()
	}
	return err
}
