package nat

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Options tunes New. The zero value suits production.
type Options struct {
	Table  string       // name of our nftables table, family inet; "" means "selfstead"
	Logger *slog.Logger // nil means silent
	// NoPortMapping drops forwarded packets of the port mapping protocols (PCP and
	// NAT-PMP, UDP 5351; SSDP, UDP 1900), so that no inside host opens ports on a
	// router further out. What a forward publishes passes. It holds from the first
	// Apply on.
	NoPortMapping bool
}

// Controller keeps one table of one network namespace. It is safe for
// concurrent use. Rules outlive it: Close leaves them in force, CleanUp
// removes them.
type Controller struct {
	table string
	log   *slog.Logger
	bit   int  // of the conntrack label
	shut  bool // port mapping protocols are dropped
	ns    *namespace

	mu      sync.Mutex
	closed  bool
	nft     *socket
	route   *socket
	flows   *socket
	applied bool          // cfg is what Apply last brought about
	cfg     Config        // shares nothing with callers
	plan    *plan         // nil when it must be made anew from cfg
	chosen  bool          // the label is settled
	gen     uint32        // generation at which the kernel was known to match; 0 when not known
	chains  []chainDef    // what it had then
	have    [numSets]bool // the same
	fresh   bool          // there was no table before the first Apply
	swept   bool          // flows of forwards that died with an earlier process are gone
	unpin   bool          // clients may be pinned to ports that were not forwarded before
	monitor *monitor
	keeper  *flowKeeper

	records map[string]map[uint32]string // what we changed outside the table, as it is noted there; nil: not read yet
	wanted  map[string]map[uint32]bool   // what has to be changed there
	asked   map[netip.Addr]bool          // neighbours that were asked for and have not answered

	watchNeighbours atomic.Bool // the monitor cares for neighbour events
}

// New opens a controller for the caller's current network namespace, wherever
// it is used from later on. It changes nothing.
func New(o Options) (*Controller, error) {
	c := &Controller{table: o.Table, log: o.Logger, shut: o.NoPortMapping}
	if c.table == "" {
		c.table = "selfstead"
	}
	if len(c.table) > 120 || !printable(c.table) {
		return nil, fmt.Errorf("%w: table name %q", ErrInvalid, c.table)
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	c.bit = labelBit(c.table)
	if err := c.open(); err != nil {
		c.release()
		return nil, err
	}
	return c, nil
}

func (c *Controller) open() (err error) {
	if c.ns, err = currentNamespace(); err != nil {
		return err
	}
	return c.ns.do(func() error {
		for _, s := range []struct {
			at    **socket
			proto int
		}{{&c.nft, unix.NETLINK_NETFILTER}, {&c.route, unix.NETLINK_ROUTE}, {&c.flows, unix.NETLINK_NETFILTER}} {
			if *s.at, err = openSocket(s.proto); err != nil {
				return err
			}
		}
		if c.keeper, err = openFlowKeeper(c); err != nil {
			return err
		}
		c.monitor, err = openMonitor(c)
		return err
	})
}

func (c *Controller) release() {
	if c.monitor != nil {
		c.monitor.stop()
	}
	if c.keeper != nil {
		c.keeper.stop()
	}
	for _, s := range []*socket{c.nft, c.route, c.flows} {
		if s != nil {
			s.close()
		}
	}
	if c.ns != nil {
		c.ns.close()
	}
}

// Close stops following changes and releases the sockets. The rules stay in
// force. Closing again does nothing.
func (c *Controller) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	c.mu.Unlock()
	c.release()
	return nil
}

// Apply makes the kernel match cfg. The switch is one transaction (two for a
// forward that changes its form) and traffic never sees a state between; on any error the old rules stay. Applying an
// equal Config again writes nothing and cuts no flow. Flows of forwards that
// went, or that lead elsewhere now, are deleted, and no others. What was
// written is read back. Returns a *ConfigError (ErrInvalid), ErrConflict,
// ErrReadBack, a *KernelError, or a *FlowError where the rules were switched
// and switched back, because flows could not be deleted.
//
// One forward more or less costs the same however many there are.
func (c *Controller) Apply(ctx context.Context, cfg Config) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return ErrClosed
	}
	env, err := readEnvironment(c.route)
	if err != nil {
		return err
	}
	e, err := c.prepare(cfg, env)
	if err != nil {
		return err
	}
	// What could keep flows from being deleted should show before the switch.
	if _, err := countFlows(c.flows); err != nil {
		c.plan, c.gen = nil, 0
		return err
	}
	before := c.cfg
	if !c.applied {
		if before, err = c.inForce(ctx); err != nil {
			c.plan, c.gen = nil, 0
			return err
		}
	}
	stale, err := c.install(ctx)
	if err != nil {
		if c.plan, c.gen = nil, 0; c.applied {
			_ = c.restore(ctx, before)
		}
		return err
	}
	if stale || !c.swept && !c.fresh {
		c.swept = false // until it is done: with the next Apply, if not now
		if err := c.sweepAfter(ctx, before); err != nil {
			return err
		}
		c.swept = true
	}
	c.remember(e)
	if !c.swept || c.unpin {
		c.keeper.poke() // nothing that was in force is concerned
	}
	return nil
}

// prepare makes the plan for cfg, or leaves everything as it was. It returns
// how cfg differs from what was applied last.
func (c *Controller) prepare(cfg Config, env Environment) (edit, error) {
	e := editOf(c.cfg, cfg)
	if c.plan == nil {
		from := cfg
		if c.applied {
			from = c.cfg
		}
		p, err := newPlan(from, env)
		if err != nil {
			return e, err
		}
		c.plan, c.gen = p, 0
		if !c.applied {
			return e, nil
		}
	}
	if err := c.plan.change(e); err != nil {
		return e, err
	}
	c.plan.setEnvironment(env)
	return e, nil
}

// install brings the kernel to the plan. It reports whether forwards went or
// changed, so that flows may be stale.
func (c *Controller) install(ctx context.Context) (stale bool, err error) {
	if err := c.beforeSwitch(); err != nil {
		return false, err
	}
	if stale, err = c.sync(ctx); err != nil {
		return false, err
	}
	return stale, c.afterSwitch()
}

// remember keeps cfg, sharing what did not change with the copy held so far.
func (c *Controller) remember(e edit) {
	now := make([]Forward, len(e.now))
	for i := range e.now {
		now[i] = *c.plan.byName[e.now[i].Name]
	}
	c.cfg.Forwards = slices.Replace(c.cfg.Forwards, e.head, e.head+len(e.was), now...)
	c.applied = true
}

// restore goes back to a state from before; nothing is left of the failed one
// where the kernel still listens.
func (c *Controller) restore(ctx context.Context, before Config) error {
	c.plan, c.gen = nil, 0
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), restoreTimeout)
	defer cancel()
	env, err := readEnvironment(c.route)
	if err == nil {
		c.plan, err = newPlan(before, env)
	}
	if err == nil {
		_, err = c.install(ctx)
	}
	if err != nil {
		c.plan, c.gen = nil, 0
		c.log.Error("nat: cannot go back to the state before", "err", err)
	}
	return err
}

// sweepAfter deletes flows that the new rules would not make. If that cannot be
// done the rules from before come back, since a flow of a forward that went
// would otherwise go on for as long as it sends.
func (c *Controller) sweepAfter(ctx context.Context, before Config) (err error) {
	for range sweepTries {
		if err = c.sweep(); err == nil {
			return nil
		}
	}
	c.fresh = false // the next Apply deletes them, whatever changes then
	back := c.restore(ctx, before)
	if !c.applied {
		c.plan, c.gen = nil, 0
	}
	return &FlowError{Restored: back == nil, Err: errors.Join(err, back)}
}

// sync writes the difference between plan and kernel.
func (c *Controller) sync(ctx context.Context) (stale bool, err error) {
	wrote := uint32(0)  // the generation that our last transaction made
	filled := uint32(0) // the same, if it filled a new table
	for try := range maxTries {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		work, err := c.difference(try >= looseFrom, filled)
		if errors.Is(err, errMoved) {
			continue
		}
		if err != nil {
			return false, err
		}
		stale, c.unpin = stale || work.stale(), c.unpin || work.opens()
		c.fresh = c.fresh || work.fresh && !c.applied
		if work.empty() {
			c.known(work, work.gen)
			return stale, nil
		}
		if work.full && work.gen != 0 && work.gen == wrote {
			// What we wrote is not what is there, and nobody changed anything since.
			return false, fmt.Errorf("%w: %s", ErrReadBack, work.describe())
		}
		gen, err := c.write(work)
		if errors.Is(err, unix.ERESTART) || errors.Is(err, errMoved) || work.gen == 0 && (errors.Is(err, unix.EEXIST) || errors.Is(err, unix.ENOENT)) {
			c.gen = 0
			continue
		}
		if err != nil {
			c.gen = 0
			return false, err
		}
		exact, err := c.verify(work, gen)
		if err != nil {
			c.gen = 0
			return false, err
		}
		if exact {
			c.known(work, gen)
			return stale, nil
		}
		if wrote, filled, c.gen = gen, 0, 0; work.fresh && !work.moved {
			filled = gen
		}
	}
	return false, fmt.Errorf("%w: gave up after %d tries", ErrConflict, maxTries)
}

// Forwards reads back what is in force, from the kernel alone: forwards applied
// by another process are listed too. They come in the order of their sources.
func (c *Controller) Forwards(ctx context.Context) ([]Forward, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, ErrClosed
	}
	cfg, err := c.inForce(ctx)
	return cfg.Forwards, err
}

// inForce reads what is in force, whoever applied it.
func (c *Controller) inForce(ctx context.Context) (Config, error) {
	for range maxTries {
		if err := ctx.Err(); err != nil {
			return Config{}, err
		}
		_, elements, err := readAll(c.nft, c.table)
		if errors.Is(err, errMoved) {
			continue
		}
		if err != nil {
			return Config{}, err
		}
		return Config{Forwards: forwardsOf(elements)}, nil
	}
	return Config{}, fmt.Errorf("%w: gave up reading after %d tries", ErrConflict, maxTries)
}

// CleanUp removes everything of ours, also what a dead process left: the table,
// the flows that it translated, hairpin modes and sysctls that it had set. The
// controller can be used again afterwards.
func (c *Controller) CleanUp(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return ErrClosed
	}
	c.plan, c.gen, c.applied, c.cfg = nil, 0, false, Config{}
	if err := ctx.Err(); err != nil {
		return err
	}
	c.records = nil
	if err := c.loadRecords(); err != nil {
		return err
	}
	if err := c.undoRecords(); err != nil {
		return err
	}
	if _, err := c.chooseBit(true); err != nil && !errors.Is(err, ErrNoLabel) {
		return err
	}
	b := newBatch(c.table, 0)
	b.delTable()
	if _, err := c.nft.commit(b); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	c.fresh, c.swept = false, false
	if err := c.sweep(); err != nil {
		return err
	}
	c.swept = true
	return nil
}

// names returns the sorted keys of a map.
func names[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}
