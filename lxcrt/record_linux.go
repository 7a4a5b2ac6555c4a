package lxcrt

import (
	"encoding/json"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

const (
	recordFile = "run.json"  // while it runs
	exitFile   = "exit.json" // after it ended, by the monitor
)

// record is what a later process needs to adopt a running container.
type record struct {
	Boot    string  `json:"boot"`
	Monitor process `json:"monitor"`
	Init    process `json:"init"`            // zero until PID 1 is about to be executed
	Logger  process `json:"logger,omitzero"` // of a Spec with Log
}

func (rec record) write(dir string) error {
	b, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	// Not synced: after a crash of the machine its processes are gone anyway.
	tmp := filepath.Join(dir, recordFile+".new")
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(dir, recordFile))
}

// readRecord returns a record of this boot, or an error.
func readRecord(dir string) (record, error) {
	var rec record
	b, err := os.ReadFile(filepath.Join(dir, recordFile))
	if err != nil {
		return rec, err
	}
	if err := json.Unmarshal(b, &rec); err != nil {
		return rec, err
	}
	if rec.Boot != bootID() {
		return record{}, os.ErrNotExist
	}
	return rec, nil
}

// outcome is what the monitor wrote at the end.
type outcome struct {
	Started bool `json:"started"`
	Status  int  `json:"status"` // as liblxc has it
}

func readOutcome(dir string) (outcome, bool) {
	var o outcome
	b, err := os.ReadFile(filepath.Join(dir, exitFile))
	if err != nil || json.Unmarshal(b, &o) != nil {
		return o, false
	}
	return o, true
}

func (o outcome) exitStatus() ExitStatus {
	if o.Status&0x7f == 0 {
		return ExitStatus{Code: o.Status >> 8 & 0xff, Known: true}
	}
	// liblxc writes an end by signal as wait(2) writes a stop.
	sig := o.Status & 0x7f
	if sig == 0x7f {
		sig = o.Status >> 8 & 0x7f
	}
	return ExitStatus{Code: -1, Signal: unix.Signal(sig), Known: true}
}
