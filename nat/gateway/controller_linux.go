package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// Controller keeps the policy of one network namespace. It is safe for
// concurrent use. What it makes outlives it: see CleanUp.
type Controller struct {
	o     Options
	log   *slog.Logger
	ns    *os.File // the namespace, whichever thread runs us
	marks marks

	mu    sync.Mutex
	k     *kernel // nil when closed
	cfg   Config
	slots map[string]uint32 // as applied last
	was   map[string]string // settings to put back; nil before they were read

	cancel context.CancelFunc
	done   chan struct{}
}

// New makes a Controller for the current network namespace. It changes nothing
// before the first Apply, and follows changes of links, addresses, routes and
// rules from then on. Errors: ErrInvalid (o), or what the kernel said.
func New(o Options) (*Controller, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	ns, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, fmt.Errorf("gateway: network namespace: %w", err)
	}
	k, err := dial(ns)
	if err != nil {
		ns.Close()
		return nil, err
	}
	return &Controller{o: o, log: o.Logger, ns: ns, marks: marks{ns, o.Table}, k: k}, nil
}

// Apply makes the kernel match cfg and keeps it so. Interfaces that are not
// there are no error: their traffic goes nowhere until they come. Applying the
// same again writes nothing. What is new comes before what is old goes, so that
// no traffic sees a state between. An error of the kernel may leave new rules
// beside old ones; the rest of cfg is in force as far as it can be, and each
// change of the network makes another try. Apply again. Errors: ErrInvalid (cfg; nothing changed), ErrClosed, or what the kernel
// said.
func (c *Controller) Apply(ctx context.Context, cfg Config) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.k == nil {
		return ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if c.cancel == nil {
		// It listens before the first look, so that no change falls in between.
		m, err := listen(c.ns)
		if err != nil {
			return err
		}
		wctx, cancel := context.WithCancel(context.Background())
		c.cancel, c.done = cancel, make(chan struct{})
		go c.follow(wctx, m)
	}
	c.cfg = cfg.Clone()
	return c.sync()
}

// follow applies the Config again after each change that is not our own, and
// some time after a try that failed.
func (c *Controller) follow(ctx context.Context, m *monitor) {
	defer close(c.done)
	defer m.close()
	var again time.Duration
	for {
		c.mu.Lock()
		var self uint32
		if c.k != nil {
			self = c.k.pid
		}
		c.mu.Unlock()
		if err := m.wait(ctx, self, again); err != nil {
			if ctx.Err() == nil {
				c.log.Error("changes of the network are no longer followed", "err", err)
			}
			return
		}
		c.mu.Lock()
		if ctx.Err() != nil || c.k == nil {
			c.mu.Unlock()
			return
		}
		if err := c.sync(); err != nil {
			again = min(max(2*again, time.Second), time.Minute)
			c.log.Error("routes do not match the gateways", "err", err, "again", again)
		} else {
			again = 0
		}
		c.mu.Unlock()
	}
}

// sync makes the kernel match the Config. Held: mu. Routes come before the rules
// that lead to them, and go after; what was is noted before a filter is changed.
func (c *Controller) sync() error {
	if c.was == nil {
		rules, _, err := c.marks.have()
		if err != nil {
			return err
		}
		c.was = settingsOf(rules)
	}
	w, err := c.k.look()
	if err != nil {
		return err
	}
	p := makePlan(c.cfg, c.o, w.gateways, w.main, c.slots)
	c.slots = p.Slots
	var errs []error
	note := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	note(c.k.addRoutes(w.routes, p.Routes))
	note(c.k.syncRules(w.rules, c.o.Priority, p.Rules))
	note(c.k.dropRoutes(w.routes, c.o.TableBase, p.Routes))
	note(c.syncSettings(p.Slots))
	return errors.Join(errs...)
}

// Close stops following. The policy stays in force, as it is. It may be called
// twice.
func (c *Controller) Close() error {
	c.mu.Lock()
	if c.cancel != nil {
		c.cancel()
	}
	done := c.done
	c.mu.Unlock()
	if done != nil {
		<-done
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.k == nil {
		return nil
	}
	err := errors.Join(c.k.close(), c.ns.Close())
	c.k = nil
	return err
}

// CleanUp removes every rule, route and mark of ours, those of a dead process
// with equal Options too, and puts reverse path filters back. Routing is main's
// again; the Controller may Apply anew.
func (c *Controller) CleanUp(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.k == nil {
		return ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	c.cfg, c.slots = Config{}, nil
	return c.sync()
}
