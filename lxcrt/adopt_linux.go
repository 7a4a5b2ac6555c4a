package lxcrt

import (
	"fmt"
	"os"
)

// adopt looks whether the container runs, and watches it if so.
func (c *Container) adopt() error {
	rec, err := readRecord(c.dir)
	if err != nil {
		if o, ok := readOutcome(c.dir); ok && o.Started {
			c.last = o.exitStatus()
		}
		return c.clear(record{})
	}
	pidfd, err := rec.Init.open()
	if err != nil { // never got that far, or is over
		endProcess(rec.Monitor)
		if o, ok := readOutcome(c.dir); ok && o.Started {
			c.last = o.exitStatus()
		}
		return c.clear(rec)
	}
	monitor, err := rec.Monitor.open()
	if err != nil {
		pidfd.Close()
		return c.clear(rec)
	}
	userns, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", rec.Init.PID))
	if err != nil {
		pidfd.Close()
		monitor.Close()
		return c.clear(rec)
	}
	// Its caller may have died before it let PID 1 go; then it is about to end.
	if !executed(rec) {
		pidfd.Close()
		monitor.Close()
		userns.Close()
		return c.clear(rec)
	}
	life := &run{monitor: rec.Monitor, init: rec.Init, logger: rec.Logger, pidfd: pidfd, userns: userns, done: make(chan struct{})}
	c.run, c.state = life, Running
	if c.frozen() {
		c.state = Frozen
	}
	gone := make(chan struct{})
	c.r.watchers.Go(func() {
		if awaitExit(monitor) == nil {
			close(gone)
		}
	})
	c.r.watchers.Go(func() {
		c.watch(life, gone)
		monitor.Close()
	})
	return nil
}

// executed says whether PID 1 has come to its own program, for which it gets a
// moment.
func executed(rec record) bool {
	for try := range 400 {
		monitor, err := programOf(rec.Monitor.PID)
		if err != nil {
			return false
		}
		init, err := programOf(rec.Init.PID)
		if err != nil || !rec.Init.alive() {
			return false
		}
		if !sameProgram(init, monitor) {
			return true
		}
		pause(try)
	}
	return false
}
