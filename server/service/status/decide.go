package status

import (
	"time"

	"github.com/selfstead/selfstead/server/state"
)

// Step is what the reconciler does next.
type Step string

// The steps.
const (
	Nothing  Step = ""
	Starting Step = "start"
	Stopping Step = "stop"
	Backup   Step = "backup"
)

// Decide is the step that brings the service nearer to what is desired.
func Decide(s state.StatusInfo) Step {
	started := s.Started != nil
	switch s.Desired.Main {
	case Running:
		if !started {
			return Starting
		}
	case Restarting:
		if !started {
			return Starting
		}
		return Stopping
	case BackingUp:
		if started {
			return Stopping
		}
		return Backup
	default:
		if started {
			return Stopping
		}
	}
	return Nothing
}

// Started records that the runtime answered start.
func Started(p *state.Package, now time.Time) {
	s := &p.StatusInfo
	s.Error = nil
	if s.Started == nil {
		now = now.UTC()
		s.Started = &now
	}
	if s.Desired.Main == Restarting {
		if s.Desired.RestartAgain != nil && *s.Desired.RestartAgain {
			s.Desired = restarting(false)
		} else {
			s.Desired = state.DesiredStatus{Main: Running}
		}
	}
	Settle(p)
}

// Ended records that the service is down.
func Ended(p *state.Package) {
	p.StatusInfo.Started = nil
	clearHealth(p)
	Settle(p)
}

// BackedUp records that the prepared backup ended, or that there was none.
func BackedUp(p *state.Package) {
	if p.StatusInfo.Desired.Main == BackingUp {
		main := Stopped
		if p.StatusInfo.Desired.OnComplete == ThenStart {
			main = Running
		}
		p.StatusInfo.Desired = state.DesiredStatus{Main: main}
	}
	Settle(p)
}

// Settle makes the members that clients read, State and DesiredState, follow
// from the others.
func Settle(p *state.Package) {
	p.State, p.DesiredState = Word(*p), state.StateStopped
	d := p.StatusInfo.Desired
	if d.Main == Running || d.Main == Restarting || d.Main == BackingUp && d.OnComplete == ThenStart {
		p.DesiredState = state.StateRunning
	}
}

// Word is the one word for what the package is doing.
func Word(p state.Package) string {
	s := p.StatusInfo
	switch {
	case p.StateInfo.State == Installing:
		return state.StateInstalling
	case p.StateInfo.State == Updating:
		return state.StateUpdating
	case p.StateInfo.State == Removing:
		return state.StateRemoving
	case s.Error != nil:
		return state.StateFailed
	case s.Desired.Main == Restarting:
		return state.StateRestarting
	case s.Desired.Main == Running && s.Started != nil:
		return state.StateRunning
	case s.Desired.Main == Running:
		return state.StateStarting
	case s.Started != nil:
		return state.StateStopping
	}
	return state.StateStopped
}

// The values of StateInfo.State.
const (
	Installing = "installing"
	Updating   = "updating"
	Installed  = "installed"
	Removing   = "removing"
)
