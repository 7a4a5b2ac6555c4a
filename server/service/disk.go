package service

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"time"

	"github.com/selfstead/selfstead/patchdb"
	"github.com/selfstead/selfstead/server/problem"
	"github.com/selfstead/selfstead/server/service/effect"
	"github.com/selfstead/selfstead/server/service/status"
	"github.com/selfstead/selfstead/server/state"
	"golang.org/x/sys/unix"
)

// How often the disk is looked at. Free space costs one call; what each volume
// takes is counted file by file.
const (
	countEvery = 15 * time.Minute
	lookMost   = 10 * time.Second
	lookLeast  = 250 * time.Millisecond
	fillRate   = 256 << 20 // bytes a second that a service is thought to write at most
)

// watchDisk counts what the volumes take, and guards the reserve: when less than
// that is free, the service that wrote most since the last count is stopped.
// Until ctx ends.
func (m *Manager) watchDisk(ctx context.Context) {
	last := m.countAll(ctx, nil)
	counted := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		free, err := m.free()
		switch {
		case err != nil:
			m.log.Error("free space", "err", err)
		case free < diskReserve:
			last = m.stopWriter(ctx, last, free)
			counted = time.Now()
		case time.Since(counted) >= countEvery:
			last = m.countAll(ctx, last)
			counted = time.Now()
		}
		timer.Reset(lookAgain(free))
	}
}

// lookAgain is how long the reserve is safe from a service that writes fast.
func lookAgain(free int64) time.Duration {
	span := time.Duration(float64(free-diskReserve) / fillRate * float64(time.Second))
	return min(max(span, lookLeast), lookMost)
}

func (m *Manager) free() (int64, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(m.dir.volumes(), &fs); err != nil {
		return 0, fmt.Errorf("service: free space: %w", err)
	}
	return int64(fs.Bavail) * fs.Bsize, nil
}

// countAll counts what each package takes on the disk, all in all, and puts what
// its volumes take into the document. What cannot be counted is as it was.
func (m *Manager) countAll(ctx context.Context, before map[string]int64) map[string]int64 {
	now := map[string]int64{}
	for _, u := range m.all() {
		if ctx.Err() != nil {
			return before
		}
		sum, err := u.countDisk(ctx)
		if err != nil {
			m.log.Debug("disk use", "package", u.id, "err", err)
			sum = before[u.id]
		}
		now[u.id] = sum
	}
	return now
}

// countDisk counts one package's volumes for the document, and returns what it
// takes with logs and its container's own layers.
func (u *unit) countDisk(ctx context.Context) (int64, error) {
	b := u.archive()
	if b == nil {
		return 0, errors.New("service: it is not loaded")
	}
	volumes := map[string]int64{}
	var sum int64
	for _, v := range b.Manifest.Volumes {
		n, err := diskUse(filepath.Join(u.m.dir.data(u.id), v))
		if err != nil {
			return 0, err
		}
		volumes[v] = n
		sum += n
	}
	n, err := diskUse(u.m.dir.log(u.id))
	if err != nil {
		return 0, err
	}
	sum += n
	if run := u.instance(); run != nil {
		n, err := scratchUse(u.m.dir.container(run.guid))
		if err != nil {
			return 0, err
		}
		sum += n
	}
	_, err = u.m.db.Update(ctx, func(tx *patchdb.Tx) error {
		at := state.PackagePointer(u.id, "disk")
		if old, err := patchdb.TxGet[map[string]int64](tx, at); err == nil && maps.Equal(old, volumes) || !tx.Exists(state.PackagePointer(u.id)) {
			return nil
		}
		return tx.PutAll(at, volumes)
	})
	return sum, err
}

// countSoon counts after the set-up of a version.
func (u *unit) countSoon() {
	if _, err := u.countDisk(u.m.ctx); err != nil && u.m.ctx.Err() == nil {
		u.m.log.Debug("disk use", "package", u.id, "err", err)
	}
}

// scratchUse is what a container has written outside its volumes.
func scratchUse(dir string) (sum int64, err error) {
	for _, pattern := range []string{"upper", "sub/*"} {
		found, _ := filepath.Glob(filepath.Join(dir, pattern))
		for _, f := range found {
			n, err := diskUse(f)
			if err != nil {
				return 0, err
			}
			sum += n
		}
	}
	return sum, nil
}

// stopWriter stops the running service that has written most since the last
// count, if any has, and tells the owner.
func (m *Manager) stopWriter(ctx context.Context, last map[string]int64, free int64) map[string]int64 {
	now := m.countAll(ctx, last)
	var worst *unit
	var most int64
	for _, u := range m.all() {
		info, err := u.status()
		if err != nil || info.Started == nil || info.Desired.Main == status.Stopped {
			continue
		}
		if grown := now[u.id] - last[u.id]; grown > most {
			worst, most = u, grown
		}
	}
	if worst == nil {
		return now
	}
	id := worst.id
	m.log.Warn("the disk is full, the service that writes is stopped", "package", id, "free", free, "written", most)
	_, err := m.db.Update(ctx, func(tx *patchdb.Tx) error {
		if err := effect.Edit(tx, id, status.Stop); err != nil {
			return err
		}
		return effect.Notify(tx, state.Notification{PackageID: &id, Level: "error", Title: "Service stopped: the disk is full",
			Message: fmt.Sprintf("%s was stopped because the disk is full: %d bytes were free, %d stay for the server, and it had written %d. Its data takes %d bytes. Make room, then start it again.",
				id, free, int64(diskReserve), most, now[id])})
	})
	if err != nil && ctx.Err() == nil {
		m.log.Error("stopping a service that fills the disk", "package", id, "err", err)
	}
	worst.poke()
	return now
}

// roomToRun refuses a start while the reserve is touched.
func (m *Manager) roomToRun(id string) error {
	free, err := m.free()
	if err != nil || free >= diskReserve {
		return err
	}
	return problem.Newf(507, problem.CodeDiskFull, "package %s cannot start while the disk is full: %d bytes are free, and %d stay for the server", id, free, int64(diskReserve))
}
