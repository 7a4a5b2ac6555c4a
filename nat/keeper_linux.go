package nat

import (
	"sync"

	"golang.org/x/sys/unix"
)

// flowKeeper does in the background what Apply need not wait for. It has a
// socket of its own, since a dump of all flows takes as long as the host has
// many.
type flowKeeper struct {
	c    *Controller
	s    *socket
	wake chan struct{} // holds at most one
	done chan struct{}
	wg   sync.WaitGroup
}

func openFlowKeeper(c *Controller) (*flowKeeper, error) {
	s, err := openSocket(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, err
	}
	k := &flowKeeper{c: c, s: s, wake: make(chan struct{}, 1), done: make(chan struct{})}
	k.wg.Go(func() {
		for {
			select {
			case <-k.done:
				return
			case <-k.wake:
				k.work()
			}
		}
	})
	return k, nil
}

func (k *flowKeeper) poke() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// stop ends the keeper after what it still has to do.
func (k *flowKeeper) stop() {
	close(k.done)
	k.wg.Wait()
	select {
	case <-k.wake:
		k.work()
	default:
	}
	k.s.close()
}

// work deletes flows that an earlier process left, and those of clients that
// sent to a port before it was forwarded: while such a client goes on sending,
// its packets would never be translated.
func (k *flowKeeper) work() {
	c := k.c
	c.mu.Lock()
	swept, unpin, bit := c.swept || c.plan == nil, c.unpin, c.bit
	c.unpin = false
	c.mu.Unlock()
	var gone []flow
	if !swept {
		flows, err := dumpFlows(k.s, translated, bit)
		if err != nil {
			c.log.Warn("nat: cannot list flows", "err", err)
		} else {
			c.mu.Lock()
			if c.plan != nil {
				gone = c.stale(flows)
				c.swept = true
			}
			c.mu.Unlock()
		}
	}
	if unpin {
		flows, err := dumpFlows(k.s, unanswered, bit)
		if err != nil {
			c.log.Warn("nat: cannot list flows", "err", err)
		}
		c.mu.Lock()
		for _, f := range flows {
			if c.plan != nil && f.proto == protoUDP && c.plan.claimed(&f) {
				gone = append(gone, f)
			}
		}
		c.mu.Unlock()
	}
	if err := c.deleteFlows(k.s, gone); err != nil {
		c.log.Warn("nat: cannot delete flows", "err", err)
		c.mu.Lock()
		c.swept, c.fresh = false, false // with the next Apply
		c.mu.Unlock()
	}
}

// claimed reports whether a new packet of a flow that nobody translated would
// be translated now.
func (p *plan) claimed(f *flow) bool {
	fw, _ := p.lookup(f.dst, f.proto)
	return fw != nil && (p.env.Addrs[f.src.Addr()] != 0 || fw.admits(f.src.Addr()))
}
