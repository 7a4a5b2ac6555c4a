package operation

import (
	"encoding/json"
	"time"

	"github.com/selfstead/selfstead/server/problem"
)

// Status is where an operation stands.
type Status string

// The statuses; all but Running are final.
const (
	Running   Status = "running"
	Succeeded Status = "succeeded"
	Failed    Status = "failed"
	Cancelled Status = "cancelled"
)

// Unit is what Progress counts.
type Unit string

// The units.
const (
	Bytes Unit = "bytes"
	Steps Unit = "steps"
)

// Progress says how far an operation is within its current phase.
type Progress struct {
	Phase string `json:"phase" doc:"what is being done now" example:"upload"`
	Done  int64  `json:"done" doc:"how much of the phase is done, in unit" example:"1048576"`
	Total *int64 `json:"total" doc:"how much the phase is; null when not known" example:"8388608"`
	Unit  Unit   `json:"unit" enum:"bytes,steps" doc:"what done and total count"`
}

// Operation is a snapshot of long work.
type Operation struct {
	ID       string           `json:"id" doc:"name of the operation" example:"k3v5d7a2m4q6s8u1w3y5z7b2ce"`
	Kind     string           `json:"kind" doc:"what kind of work it is" example:"install"`
	Status   Status           `json:"status" enum:"running,succeeded,failed,cancelled"`
	Progress Progress         `json:"progress"`
	Package  string           `json:"package,omitempty" doc:"the package it works on, once that is known" example:"hello-world"`
	Created  time.Time        `json:"created"`
	Finished *time.Time       `json:"finished,omitempty"`
	Result   json.RawMessage  `json:"result,omitempty" doc:"what succeeded work gave; its shape depends on kind"`
	Problem  *problem.Problem `json:"problem,omitempty" doc:"why it failed or was cancelled"`
}

// Done reports whether the operation has ended.
func (o Operation) Done() bool { return o.Status != Running }
