package status

import "github.com/selfstead/selfstead/server/state"

// The values of DesiredStatus.Main.
const (
	Stopped    = "stopped"
	Running    = "running"
	Restarting = "restarting"
	BackingUp  = "backing-up"
)

// The values of DesiredStatus.OnComplete.
const (
	ThenStart = "start"
	ThenStop  = "stop"
)

// Start asks for the service to run: stopped becomes running, a backup goes
// on to running.
func Start(p *state.Package) {
	switch p.StatusInfo.Desired.Main {
	case Restarting, Running:
	case BackingUp:
		p.StatusInfo.Desired.OnComplete = ThenStart
	default:
		p.StatusInfo.Desired = state.DesiredStatus{Main: Running}
	}
	Settle(p)
}

// Stop asks for the service to stop and forgets its health.
func Stop(p *state.Package) {
	if p.StatusInfo.Desired.Main == BackingUp {
		p.StatusInfo.Desired.OnComplete = ThenStop
	} else {
		p.StatusInfo.Desired = state.DesiredStatus{Main: Stopped}
	}
	clearHealth(p)
	Settle(p)
}

// Restart asks for one cycle of stop and start and forgets the health. A
// service that is restarting but has not started yet cycles once more; a
// stopped one stays stopped.
func Restart(p *state.Package) {
	d := &p.StatusInfo.Desired
	switch {
	case d.Main == Running:
		*d = restarting(false)
	case d.Main == Restarting && p.StatusInfo.Started == nil:
		*d = restarting(true)
	}
	clearHealth(p)
	Settle(p)
}

// BackUp asks for the service to stop for a backup; what its owner wants comes
// after that.
func BackUp(p *state.Package) {
	d := &p.StatusInfo.Desired
	switch d.Main {
	case BackingUp:
	case Running, Restarting:
		*d = state.DesiredStatus{Main: BackingUp, OnComplete: ThenStart}
	default:
		*d = state.DesiredStatus{Main: BackingUp, OnComplete: ThenStop}
	}
	Settle(p)
}

// Load is what becomes of the status when a new container takes over: nothing
// is started, and a cycle or backup that was under way ends where it was
// going.
func Load(p *state.Package) {
	s := &p.StatusInfo
	s.Started = nil
	s.Error = nil
	clearHealth(p)
	switch s.Desired.Main {
	case BackingUp:
		if s.Desired.OnComplete == ThenStart {
			s.Desired = state.DesiredStatus{Main: Running}
		} else {
			s.Desired = state.DesiredStatus{Main: Stopped}
		}
	case Restarting, Running:
		s.Desired = state.DesiredStatus{Main: Running}
	default:
		s.Desired = state.DesiredStatus{Main: Stopped}
	}
	Settle(p)
}

// Fail records why the service's code cannot run.
func Fail(p *state.Package, e state.ErrorData) {
	p.StatusInfo.Started = nil
	p.StatusInfo.Error = &e
	clearHealth(p)
	Settle(p)
}

// Trouble records why the last start or stop did not succeed, nil that it is
// over; what runs, and the next try, are not touched.
func Trouble(p *state.Package, e *state.ErrorData) {
	p.StatusInfo.Error = e
	Settle(p)
}

func restarting(again bool) state.DesiredStatus {
	return state.DesiredStatus{Main: Restarting, RestartAgain: &again}
}

func clearHealth(p *state.Package) { p.StatusInfo.Health = map[string]state.HealthResult{} }
