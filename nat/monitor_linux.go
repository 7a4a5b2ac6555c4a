package nat

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// monitor follows links, addresses, routes and neighbours, and brings what was
// applied up to date when they change: where replies may take a short cut,
// which bridge port a target hangs on. It also looks whether our table is as it
// was left.
type monitor struct {
	c    *Controller
	file *os.File
	wake chan struct{} // holds at most one
	done chan struct{}
	wg   sync.WaitGroup
}

const (
	monitorPause  = 50 * time.Millisecond  // between two refreshes
	monitorSysctl = 2 * time.Second        // bridge netfilter may be switched without an event
	monitorRules  = 200 * time.Millisecond // between two looks at the generation of the rule set
	monitorShare  = 20                     // of the time, one part at most goes into reading our table,
	monitorLast   = 3 * time.Second        // though it is looked at this often
)

func openMonitor(c *Controller) (*monitor, error) {
	s, err := openSocket(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH, unix.RTNLGRP_IPV4_IFADDR,
		unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE)
	if err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(s.fd, true); err != nil {
		s.close()
		return nil, &KernelError{Op: "set up monitor", Err: err}
	}
	m := &monitor{c: c, file: os.NewFile(uintptr(s.fd), "netlink"), wake: make(chan struct{}, 1), done: make(chan struct{})}
	m.wg.Add(2)
	go m.read()
	go m.run()
	return m, nil
}

func (m *monitor) stop() {
	close(m.done)
	m.file.Close()
	m.wg.Wait()
}

// read turns events into wake-ups. A lost event is one too.
func (m *monitor) read() {
	defer m.wg.Done()
	buf := make([]byte, 64<<10)
	for {
		n, err := m.file.Read(buf)
		select {
		case <-m.done:
			return
		default:
		}
		if err == nil && !m.c.interesting(buf[:n]) {
			continue
		}
		if err != nil && !errors.Is(err, unix.ENOBUFS) {
			m.c.log.Error("nat: cannot follow link changes any more", "err", err)
			return
		}
		m.poke()
	}
}

// poke asks for a refresh soon.
func (m *monitor) poke() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// interesting sorts out neighbour events as long as no target hangs on a
// bridge whose ports are followed.
func (c *Controller) interesting(b []byte) bool {
	for len(b) >= 16 {
		size := int(binary.NativeEndian.Uint32(b))
		if size < 16 || size > len(b) {
			return true
		}
		switch typ := binary.NativeEndian.Uint16(b[4:]); {
		case typ != unix.RTM_NEWNEIGH && typ != unix.RTM_DELNEIGH:
			return true
		case c.watchNeighbours.Load():
			return true
		}
		b = b[min((size+3)&^3, len(b)):]
	}
	return false
}

func (m *monitor) run() {
	defer m.wg.Done()
	tick := time.NewTicker(monitorSysctl)
	defer tick.Stop()
	rules := time.NewTimer(monitorRules)
	defer rules.Stop()
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-m.done:
			return
		case <-rules.C:
			spent := m.c.watchRules()
			rules.Reset(min(max(monitorRules, monitorShare*spent), monitorLast))
			continue
		case <-tick.C:
		case <-m.wake:
		}
		m.c.refresh()
		pause.Reset(monitorPause)
		select {
		case <-m.done:
			return
		case <-pause.C:
		}
	}
}

// refresh applies the last configuration again if the environment changed.
func (c *Controller) refresh() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || !c.applied {
		return
	}
	env, err := readEnvironment(c.route)
	if err == nil && c.plan != nil && c.plan.env.equal(&env) && !c.portsMoved() {
		return
	}
	c.asked = nil // a link that came may lead to a target that did not answer
	if err == nil {
		_, err = c.prepare(c.cfg, env)
	}
	if err == nil {
		_, err = c.install(context.Background())
	}
	if err != nil {
		c.plan, c.gen = nil, 0
		c.log.Warn("nat: cannot follow a change of links", "err", err)
	}
}

// watchRules puts back what another program changed in our table, or took away
// with all others. Reading the generation is all that it costs as long as no
// other program changes any rules. Subscribing to the kernel's events would make
// each of our own changes dearer, by an event for every element.
//
// It returns the time that went into reading where nothing had to be done.
func (c *Controller) watchRules() (spent time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || !c.applied || c.plan == nil {
		return 0
	}
	gen, err := c.nft.generation(nil, nil)
	if err != nil || gen == c.gen {
		return 0
	}
	start := time.Now()
	stale := false
	w, err := c.difference(false, 0)
	switch {
	case errors.Is(err, errMoved):
		return time.Since(start)
	case err == nil && w.empty():
		c.known(w, w.gen)
		return time.Since(start)
	case err == nil:
		c.log.Warn("nat: another program changed our table, putting it back", "found", w.describe())
		if stale, err = c.install(context.Background()); err == nil && stale {
			c.swept, c.fresh = false, false
		}
	}
	if err != nil {
		c.gen = 0
		c.log.Error("nat: cannot put our table back", "err", err)
	}
	if !c.swept || c.unpin { // what clients did meanwhile
		c.keeper.poke()
	}
	return 0
}

// portsMoved reports whether targets hang on other bridge ports than before.
func (c *Controller) portsMoved() bool {
	ports, err := c.wantedPorts()
	if err != nil {
		return true
	}
	was := c.wanted[setPorts]
	if len(ports) != len(was) {
		return true
	}
	for p := range ports {
		if !was[p] {
			return true
		}
	}
	return false
}
