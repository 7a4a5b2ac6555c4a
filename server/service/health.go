package service

import (
	"context"
	"sync"
	"time"

	"github.com/selfstead/selfstead/patchdb"
	"github.com/selfstead/selfstead/server/state"
)

// What a service says of its health stands in the document as it said it: other
// services read it there. What its owner sees is steadier.
const (
	healthGrace = 30 * time.Second // after a start, in which a failure still counts as starting
	failHold    = 10 * time.Second // a success becomes a failure once that has lasted so long
	healHold    = 5 * time.Second  // and a failure a success
)

const (
	healthSuccess  = "success"
	healthFailure  = "failure"
	healthStarting = "starting"
)

// check is the history of one health check. The zero value has none.
type check struct {
	shown string    // settled
	said  string    // last word of the service
	since time.Time // of said
}

// observe takes a word of the service.
func (c *check) observe(said string, started, now time.Time) {
	c.settle(started, now)
	if c.said != said {
		c.said, c.since = said, now
	}
	c.settle(started, now)
}

// settle moves shown on to what has lasted long enough, and returns it.
func (c *check) settle(started, now time.Time) string {
	want, hold := c.said, time.Duration(0)
	switch {
	case c.said == healthFailure && c.shown == healthSuccess:
		hold = failHold
	case c.said == healthFailure && c.shown != healthFailure && now.Sub(started) < healthGrace:
		want = healthStarting
	case c.said == healthSuccess && c.shown == healthFailure:
		hold = healHold
	}
	if now.Sub(c.since) >= hold {
		c.shown = want
	}
	return c.shown
}

// checks are those of one service. They are safe to share.
type checks struct {
	mu sync.Mutex
	by map[string]*check
}

// observe takes all that the service says now; started is when it was, the zero
// time while it is down.
func (c *checks) observe(said map[string]state.HealthResult, started, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name := range c.by {
		if _, ok := said[name]; !ok {
			delete(c.by, name)
		}
	}
	for name, h := range said {
		if c.by == nil {
			c.by = map[string]*check{}
		}
		if c.by[name] == nil {
			c.by[name] = &check{}
		}
		c.by[name].observe(h.Result, started, now)
	}
}

// shown is the settled word for one check; said is its last word, which counts
// where it has not been observed yet.
func (c *checks) shown(name, said string, started, now time.Time) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	one := c.by[name]
	if one == nil {
		return said
	}
	one.observe(said, started, now)
	return one.shown
}

func startedAt(info state.StatusInfo) time.Time {
	if info.Started == nil {
		return time.Now() // coming up
	}
	return *info.Started
}

// watchHealth takes in what the service says of its health, and keeps the last
// words of a failing check for its owner: they outlast the failure, the service
// and the server.
func (u *unit) watchHealth(ctx context.Context) {
	info, err := u.status()
	if err != nil {
		return
	}
	u.checks.observe(info.Health, startedAt(info), time.Now())
	at := state.PackagePointer(u.id, "failures")
	kept, _ := patchdb.Get[map[string]state.HealthFailure](u.m.db, at)
	fresh := map[string]state.HealthFailure{}
	for name, h := range info.Health {
		if h.Result == healthFailure && h.Message != nil && kept[name].Message != *h.Message {
			fresh[name] = state.HealthFailure{Message: *h.Message, At: time.Now().UTC()}
		}
	}
	if len(fresh) == 0 {
		return
	}
	_, err = u.m.db.Update(ctx, func(tx *patchdb.Tx) error {
		if !tx.Exists(state.PackagePointer(u.id)) {
			return nil
		}
		for name, f := range fresh {
			if err := tx.PutAll(patchdb.Join(at, name), f); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil && ctx.Err() == nil {
		u.m.log.Error("health", "package", u.id, "err", err)
	}
}
