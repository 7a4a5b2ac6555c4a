package service

import (
	"fmt"
	"sync"
	"time"

	"github.com/selfstead/selfstead/patchdb"
	"github.com/selfstead/selfstead/server/service/effect"
	"github.com/selfstead/selfstead/server/state"
)

// drift notices services that for long are not what their owner wants. One that
// is right only for moments in between, because it crashes again and again,
// counts as wrong all along. It is safe to share.
type drift struct {
	limit  time.Duration // how long is long
	steady time.Duration // right for so long is right again
	tell   func(id string, since time.Time, wrong bool)

	mu     sync.Mutex
	closed bool
	by     map[string]*drifting
}

type drifting struct {
	wrong  bool
	since  time.Time // of the first wrong moment; zero: all is well
	told   bool
	timer  *time.Timer // while wrong: to tell; while right again: to believe it
	serial int         // of the timer that counts
}

func newDrift(limit, steady time.Duration, tell func(id string, since time.Time, wrong bool)) *drift {
	return &drift{limit: limit, steady: steady, tell: tell, by: map[string]*drifting{}}
}

// observe says how a package stands now.
func (d *drift) observe(id string, wrong bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.by[id]
	if d.closed || s == nil && !wrong || s != nil && s.wrong == wrong {
		return
	}
	if s == nil {
		s = &drifting{since: time.Now()}
		d.by[id] = s
	}
	s.wrong = wrong
	d.armLocked(id, s)
}

// armLocked sets the timer for what comes next if nothing changes.
func (d *drift) armLocked(id string, s *drifting) {
	if s.timer != nil {
		s.timer.Stop()
	}
	s.serial++
	mine, wait := s.serial, d.steady
	if s.wrong {
		if s.told {
			return
		}
		wait = max(0, d.limit-time.Since(s.since))
	}
	s.timer = time.AfterFunc(wait, func() { d.expire(id, s, mine) })
}

func (d *drift) expire(id string, s *drifting, serial int) {
	d.mu.Lock()
	if d.closed || d.by[id] != s || s.serial != serial {
		d.mu.Unlock()
		return
	}
	wrong, told, since := s.wrong, s.told, s.since
	if wrong {
		s.told = true
	} else {
		delete(d.by, id)
	}
	d.mu.Unlock()
	if wrong || told {
		d.tell(id, since, wrong)
	}
}

// forget drops a package that is gone.
func (d *drift) forget(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s := d.by[id]; s != nil {
		s.timer.Stop()
		delete(d.by, id)
	}
}

func (d *drift) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	for _, s := range d.by {
		s.timer.Stop()
	}
}

// strays reports whether a package is not what its owner wants. One that is
// worked on is on its way.
func strays(now, desired string) bool {
	switch now {
	case state.StateInstalling, state.StateUpdating, state.StateRemoving:
		return false
	}
	return now != desired
}

// watchDrift looks how a package stands.
func (m *Manager) watchDrift(id string) {
	now, err := patchdb.Get[string](m.db, state.PackagePointer(id, "state"))
	desired, derr := patchdb.Get[string](m.db, state.PackagePointer(id, "desiredState"))
	if err != nil || derr != nil {
		m.drift.forget(id)
		return
	}
	m.drift.observe(id, strays(now, desired))
}

// tellDrift leaves the owner a notification.
func (m *Manager) tellDrift(id string, since time.Time, wrong bool) {
	p, err := patchdb.Get[state.Package](m.db, state.PackagePointer(id))
	if err != nil {
		return
	}
	span := time.Since(since).Round(time.Second)
	n := state.Notification{PackageID: &id, Level: "success", Title: "Service is " + p.State + " again",
		Message: fmt.Sprintf("%s was not %s for %s, and is again.", id, p.DesiredState, span)}
	if wrong {
		n.Level, n.Title = "warning", "Service is not "+p.DesiredState
		n.Message = fmt.Sprintf("%s should be %s, but has been %s or the like for %s.", id, p.DesiredState, p.State, span)
		if e := p.StatusInfo.Error; e != nil {
			n.Message += " " + e.Details
		}
	}
	_, err = m.db.Update(m.ctx, func(tx *patchdb.Tx) error { return effect.Notify(tx, n) })
	if err != nil && m.ctx.Err() == nil {
		m.log.Error("notification", "package", id, "err", err)
	}
}
