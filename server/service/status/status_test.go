package status_test

import (
	"testing"
	"time"

	"github.com/selfstead/selfstead/server/service/status"
	"github.com/selfstead/selfstead/server/state"
	"github.com/stretchr/testify/require"
)

func pkg(main string, again *bool, onComplete string, started bool) state.Package {
	p := state.Package{StateInfo: state.StateInfo{State: status.Installed}}
	p.StatusInfo.Desired = state.DesiredStatus{Main: main, RestartAgain: again, OnComplete: onComplete}
	p.StatusInfo.Health = map[string]state.HealthResult{"web": {Name: "Web", Result: "success"}}
	if started {
		now := time.Unix(1, 0)
		p.StatusInfo.Started = &now
	}
	return p
}

func TestCommands(t *testing.T) {
	yes, no := true, false
	for name, c := range map[string]struct {
		in     state.Package
		do     func(*state.Package)
		want   state.DesiredStatus
		health int // entries left
		word   string
	}{
		"start stopped":          {pkg("stopped", nil, "", false), status.Start, state.DesiredStatus{Main: "running"}, 1, "starting"},
		"start running":          {pkg("running", nil, "", true), status.Start, state.DesiredStatus{Main: "running"}, 1, "running"},
		"start restarting":       {pkg("restarting", &no, "", true), status.Start, state.DesiredStatus{Main: "restarting", RestartAgain: &no}, 1, "restarting"},
		"start backing up":       {pkg("backing-up", nil, "stop", false), status.Start, state.DesiredStatus{Main: "backing-up", OnComplete: "start"}, 1, "stopped"},
		"stop running":           {pkg("running", nil, "", true), status.Stop, state.DesiredStatus{Main: "stopped"}, 0, "stopping"},
		"stop backing up":        {pkg("backing-up", nil, "start", true), status.Stop, state.DesiredStatus{Main: "backing-up", OnComplete: "stop"}, 0, "stopping"},
		"restart running":        {pkg("running", nil, "", true), status.Restart, state.DesiredStatus{Main: "restarting", RestartAgain: &no}, 0, "restarting"},
		"restart running, down":  {pkg("running", nil, "", false), status.Restart, state.DesiredStatus{Main: "restarting", RestartAgain: &no}, 0, "restarting"},
		"restart again":          {pkg("restarting", &no, "", false), status.Restart, state.DesiredStatus{Main: "restarting", RestartAgain: &yes}, 0, "restarting"},
		"restart before stop":    {pkg("restarting", &no, "", true), status.Restart, state.DesiredStatus{Main: "restarting", RestartAgain: &no}, 0, "restarting"},
		"restart stopped":        {pkg("stopped", nil, "", false), status.Restart, state.DesiredStatus{Main: "stopped"}, 0, "stopped"},
		"back up running":        {pkg("running", nil, "", true), status.BackUp, state.DesiredStatus{Main: "backing-up", OnComplete: "start"}, 1, "stopping"},
		"back up restarting":     {pkg("restarting", &no, "", false), status.BackUp, state.DesiredStatus{Main: "backing-up", OnComplete: "start"}, 1, "stopped"},
		"back up stopped":        {pkg("stopped", nil, "", false), status.BackUp, state.DesiredStatus{Main: "backing-up", OnComplete: "stop"}, 1, "stopped"},
		"back up twice":          {pkg("backing-up", nil, "start", false), status.BackUp, state.DesiredStatus{Main: "backing-up", OnComplete: "start"}, 1, "stopped"},
		"load restarting":        {pkg("restarting", &yes, "", true), status.Load, state.DesiredStatus{Main: "running"}, 0, "starting"},
		"load backing up, start": {pkg("backing-up", nil, "start", true), status.Load, state.DesiredStatus{Main: "running"}, 0, "starting"},
		"load backing up, stop":  {pkg("backing-up", nil, "stop", true), status.Load, state.DesiredStatus{Main: "stopped"}, 0, "stopped"},
		"load new":               {pkg("", nil, "", false), status.Load, state.DesiredStatus{Main: "stopped"}, 0, "stopped"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := c.in
			c.do(&p)
			require.Equal(t, c.want, p.StatusInfo.Desired)
			require.Len(t, p.StatusInfo.Health, c.health)
			require.Equal(t, c.word, p.State)
		})
	}
}

// A restart ends running, whatever number of further restarts came in
// between; each one before the start costs one more cycle, not two.
func TestRestartCycles(t *testing.T) {
	p := pkg("running", nil, "", true)
	var steps []status.Step
	run := func(n int) {
		for range n {
			step := status.Decide(p.StatusInfo)
			steps = append(steps, step)
			switch step {
			case status.Starting:
				status.Started(&p, time.Now())
			case status.Stopping:
				status.Ended(&p)
			}
		}
	}
	status.Restart(&p)
	run(1)
	status.Restart(&p)
	run(6)
	require.Equal(t, []status.Step{"stop", "start", "stop", "start", "", "", ""}, steps)
	require.Equal(t, state.StateRunning, p.State)
	require.Equal(t, state.StateRunning, p.DesiredState)
}

// From any state, doing what Decide says reaches what is desired and stays.
func TestReconcilerSettles(t *testing.T) {
	yes, no := true, false
	for _, main := range []string{"stopped", "running", "restarting", "backing-up"} {
		for _, again := range []*bool{nil, &yes, &no} {
			for _, then := range []string{"start", "stop"} {
				for _, started := range []bool{false, true} {
					p := pkg(main, again, then, started)
					for range 8 {
						switch status.Decide(p.StatusInfo) {
						case status.Starting:
							status.Started(&p, time.Now())
						case status.Stopping:
							status.Ended(&p)
						case status.Backup:
							status.BackedUp(&p)
						}
					}
					require.Equal(t, status.Nothing, status.Decide(p.StatusInfo))
					require.Equal(t, p.DesiredState, p.State)
				}
			}
		}
	}
}

func TestFailedShowsUntilLoaded(t *testing.T) {
	p := pkg("running", nil, "", true)
	status.Fail(&p, state.ErrorData{Details: "no"})
	require.Equal(t, state.StateFailed, p.State)
	require.Equal(t, state.StateRunning, p.DesiredState)
	status.Load(&p)
	require.Equal(t, state.StateStarting, p.State)
}

func TestTroubleIsShownUntilItIsOver(t *testing.T) {
	t.Parallel()
	p := state.Package{StateInfo: state.StateInfo{State: status.Installed}}
	status.Load(&p)
	status.Start(&p)
	status.Trouble(&p, &state.ErrorData{Details: "no"})
	require.Equal(t, state.StateFailed, p.State)
	require.Equal(t, state.StateRunning, p.DesiredState, "it is tried again")
	require.Equal(t, status.Starting, status.Decide(p.StatusInfo))
	status.Started(&p, time.Now())
	require.Nil(t, p.StatusInfo.Error)
	require.Equal(t, state.StateRunning, p.State)
	status.Trouble(&p, &state.ErrorData{Details: "no"})
	status.Trouble(&p, nil)
	require.Equal(t, state.StateRunning, p.State)
}
