package account

import (
	"math"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/selfstead/selfstead/server/problem"
)

// The allowance of one client address.
const (
	freeTries  = 5                // failures before waiting begins
	tryEvery   = 12 * time.Second // one more try after each
	maxClients = 4096             // addresses remembered
	maxAtOnce  = 64               // tries in progress of an address that has signed in before; others have freeTries
)

// CodeThrottled is the problem of a client that tries too often.
const CodeThrottled = "too-many-tries"

// throttled is the 429 that says how long to wait (RFC 9110 section 10.2.3).
func throttled(wait time.Duration) error {
	seconds := max(1, int(math.Ceil(wait.Seconds())))
	return problem.Newf(http.StatusTooManyRequests, CodeThrottled, "too many tries; wait %d s", seconds).
		WithHeader("Retry-After", strconv.Itoa(seconds))
}

// client is the allowance of one address: tokens as of a moment.
type client struct {
	tokens float64
	at     time.Time
	known  bool // it has signed in before
	busy   int  // tries in progress
}

// throttle counts tries by client address.
type throttle struct {
	now func() time.Time

	mu      sync.Mutex
	clients map[netip.Prefix]*client
}

func newThrottle(now func() time.Time) *throttle {
	return &throttle{now: now, clients: map[netip.Prefix]*client{}}
}

// key is what counts as one client: an IPv4 address, or an IPv6 /64, which one
// household has to itself.
func key(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	bits := 32
	if a.Is6() {
		bits = 64
	}
	p, _ := a.Prefix(bits)
	return p
}

// begin admits one try; a problem when the address has used up its allowance or
// has too many in progress. What it admits must be ended.
func (t *throttle) begin(a netip.Addr) (known bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.clientLocked(key(a))
	switch {
	case c.tokens < 1:
		return c.known, throttled(time.Duration((1 - c.tokens) * float64(tryEvery)))
	case !c.known && c.busy >= freeTries || c.busy >= maxAtOnce:
		return c.known, throttled(time.Second)
	}
	c.busy++
	return c.known, nil
}

// take uses up the allowance for a try that is about to be judged: others of
// the address may have been judged since it began.
func (t *throttle) take(a netip.Addr) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.clientLocked(key(a))
	if c.tokens < 1 {
		return throttled(time.Duration((1 - c.tokens) * float64(tryEvery)))
	}
	c.tokens--
	return nil
}

// succeed gives back all of the allowance and remembers the address.
func (t *throttle) succeed(a netip.Addr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.clientLocked(key(a))
	c.tokens, c.known = freeTries, true
}

func (t *throttle) end(a netip.Addr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c := t.clients[key(a)]; c != nil {
		c.busy = max(0, c.busy-1)
	}
}

func (t *throttle) clientLocked(k netip.Prefix) *client {
	now := t.now()
	c := t.clients[k]
	if c == nil {
		if len(t.clients) >= maxClients {
			t.evictLocked()
		}
		c = &client{tokens: freeTries, at: now}
		t.clients[k] = c
	}
	c.tokens = min(freeTries, c.tokens+float64(now.Sub(c.at))/float64(tryEvery))
	c.at = now
	return c
}

// evictLocked makes room for one address: of a few drawn at random the stranger
// least recently seen goes; a known address only when there is no stranger.
func (t *throttle) evictLocked() {
	const draw = 32
	var victim netip.Prefix
	var worst *client
	n := 0
	for k, c := range t.clients { // begins at a random place
		older := worst == nil || c.known == worst.known && c.at.Before(worst.at)
		if older || worst.known && !c.known {
			victim, worst = k, c
		}
		if n++; n >= draw && !worst.known {
			break
		}
	}
	delete(t.clients, victim)
}
