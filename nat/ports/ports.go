package ports

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
)

// The range that Allocate draws from.
const (
	FirstDynamic = 49152
	LastDynamic  = 65534
)

var (
	// ErrTaken marks a port that another owner holds; the error is a *TakenError.
	ErrTaken = errors.New("ports: port is taken")
	// ErrRestricted marks a port that is not handed out; the error is a *RestrictedError.
	ErrRestricted = errors.New("ports: port is restricted")
	// ErrRange marks a range that does not lie within 1 to 65535.
	ErrRange = errors.New("ports: not a range of ports")
	// ErrExhausted means that the dynamic range has no room left.
	ErrExhausted = errors.New("ports: no dynamic port is free")
	// ErrNotHeld marks the release of a port that the owner does not hold.
	ErrNotHeld = errors.New("ports: port is not held by its owner")
)

// TakenError names the first taken port of a request and who holds it. It
// matches ErrTaken.
type TakenError struct {
	Port  uint16
	Owner string // who holds it
}

func (e *TakenError) Error() string {
	return "ports: port " + strconv.Itoa(int(e.Port)) + " is taken by " + strconv.Quote(e.Owner)
}

// Is reports ErrTaken as matching.
func (e *TakenError) Is(target error) bool { return target == ErrTaken }

// RestrictedError names the first restricted port of a request. It matches
// ErrRestricted.
type RestrictedError struct{ Port uint16 }

func (e *RestrictedError) Error() string {
	return "ports: port " + strconv.Itoa(int(e.Port)) + " is restricted"
}

// Is reports ErrRestricted as matching.
func (e *RestrictedError) Is(target error) bool { return target == ErrRestricted }

// Range is Count ports from First upwards; Count 0 means 1.
type Range struct {
	First uint16 `json:"first"`
	Count int    `json:"count,omitempty"`
}

// Port returns the range of one port.
func Port(p uint16) Range { return Range{First: p, Count: 1} }

// Last is the highest port of the range. A Range past 65535 is refused by
// every function of this package before Last could wrap.
func (r Range) Last() uint16 { return r.First + uint16(r.count()-1) }

func (r Range) count() int { return max(r.Count, 1) }

func (r Range) check() error {
	if r.First == 0 || r.Count < 0 || r.count() > 65536-int(r.First) {
		return fmt.Errorf("%w: %d ports from %d", ErrRange, r.count(), r.First)
	}
	return nil
}

// String is "443" or "5000-5009".
func (r Range) String() string {
	if r.count() == 1 {
		return strconv.Itoa(int(r.First))
	}
	return strconv.Itoa(int(r.First)) + "-" + strconv.Itoa(int(r.First)+r.count()-1)
}

// restricted are ports above 1024 that hosts use themselves: mDNS, LLMNR,
// PostgreSQL, X11 over SSH, Tor.
var restricted = []uint16{5353, 5355, 5432, 6010, 9050, 9051}

// Restricted reports whether a port is only handed out by ReserveRestricted.
func Restricted(p uint16) bool { return p <= 1024 || slices.Contains(restricted, p) }

// Allocator keeps who has which port. The zero value has none taken and is
// ready; it is safe for concurrent use.
type Allocator struct {
	mu   sync.Mutex
	held map[uint16]holding
}

type holding struct {
	owner string
	refs  int
}

// Reserve gives owner a range, or one reference more to what it holds already.
// Returns a *RestrictedError, a *TakenError or ErrRange, and then changes
// nothing.
func (a *Allocator) Reserve(owner string, r Range) error { return a.reserve(owner, r, false) }

// ReserveRestricted is Reserve for those who may have restricted ports: the
// host's own services.
func (a *Allocator) ReserveRestricted(owner string, r Range) error { return a.reserve(owner, r, true) }

func (a *Allocator) reserve(owner string, r Range, all bool) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.freeLocked(owner, r, all); err != nil {
		return err
	}
	a.takeLocked(owner, r)
	return nil
}

// freeLocked reports the first port of r that owner cannot have.
func (a *Allocator) freeLocked(owner string, r Range, all bool) error {
	if err := r.check(); err != nil {
		return err
	}
	for i := range r.count() {
		p := r.First + uint16(i)
		if h, ok := a.held[p]; ok {
			if h.owner != owner {
				return &TakenError{p, h.owner}
			}
		} else if !all && Restricted(p) {
			return &RestrictedError{p}
		}
	}
	return nil
}

func (a *Allocator) takeLocked(owner string, r Range) {
	if a.held == nil {
		a.held = map[uint16]holding{}
	}
	for i := range r.count() {
		p := r.First + uint16(i)
		a.held[p] = holding{owner, a.held[p].refs + 1}
	}
}

// Allocate gives owner one port: the preferred one when it is free and not
// restricted, else one of the dynamic range at random. Preferred 0 means any.
// A port that owner holds already is never the answer.
func (a *Allocator) Allocate(owner string, preferred uint16) (uint16, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	free := func(p uint16) bool { _, taken := a.held[p]; return !taken }
	if preferred != 0 && !Restricted(preferred) && free(preferred) {
		a.takeLocked(owner, Port(preferred))
		return preferred, nil
	}
	// From a random place on, so that it also ends when one port is left.
	const n = LastDynamic - FirstDynamic + 1
	start := rand.IntN(n)
	for i := range n {
		if p := uint16(FirstDynamic + (start+i)%n); free(p) {
			a.takeLocked(owner, Port(p))
			return p, nil
		}
	}
	return 0, ErrExhausted
}

// Move exchanges one range of owner for another, which may overlap it. On
// error owner keeps the old one.
func (a *Allocator) Move(owner string, from, to Range) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.heldLocked(owner, from); err != nil {
		return err
	}
	if from == to {
		return nil
	}
	if err := a.freeLocked(owner, to, false); err != nil {
		return err
	}
	a.dropLocked(from)
	a.takeLocked(owner, to)
	return nil
}

// Release takes one reference of owner to each port of r; those without any
// left are free. Returns ErrNotHeld, and then changes nothing.
func (a *Allocator) Release(owner string, r Range) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.heldLocked(owner, r); err != nil {
		return err
	}
	a.dropLocked(r)
	return nil
}

func (a *Allocator) heldLocked(owner string, r Range) error {
	if err := r.check(); err != nil {
		return err
	}
	for i := range r.count() {
		if p := r.First + uint16(i); a.held[p].owner != owner || a.held[p].refs == 0 {
			return fmt.Errorf("%w: port %d, owner %q", ErrNotHeld, p, owner)
		}
	}
	return nil
}

func (a *Allocator) dropLocked(r Range) {
	for i := range r.count() {
		p := r.First + uint16(i)
		h := a.held[p]
		if h.refs--; h.refs == 0 {
			delete(a.held, p)
			continue
		}
		a.held[p] = h
	}
}

// ReleaseAll frees every port of owner, however often it was reserved.
func (a *Allocator) ReleaseAll(owner string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for p, h := range a.held {
		if h.owner == owner {
			delete(a.held, p)
		}
	}
}

// Owner says who holds a port.
func (a *Allocator) Owner(p uint16) (owner string, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	h, ok := a.held[p]
	return h.owner, ok
}

// Allocation is a run of ports that one owner holds equally often.
type Allocation struct {
	Owner string `json:"owner"`
	Range
	Refs int `json:"refs"`
}

// Allocations lists what is held, by port.
func (a *Allocator) Allocations() []Allocation {
	a.mu.Lock()
	defer a.mu.Unlock()
	list := make([]uint16, 0, len(a.held))
	for p := range a.held {
		list = append(list, p)
	}
	slices.Sort(list)
	out := []Allocation{}
	for _, p := range list {
		h := a.held[p]
		if n := len(out); n > 0 && out[n-1].Owner == h.owner && out[n-1].Refs == h.refs && int(out[n-1].First)+out[n-1].Count == int(p) {
			out[n-1].Count++
			continue
		}
		out = append(out, Allocation{h.owner, Port(p), h.refs})
	}
	return out
}

// MarshalJSON writes the list of allocations.
func (a *Allocator) MarshalJSON() ([]byte, error) { return json.Marshal(a.Allocations()) }

// UnmarshalJSON replaces everything by a list of allocations, restricted ports
// included. It refuses a list that gives one port twice.
func (a *Allocator) UnmarshalJSON(b []byte) error {
	var list []Allocation
	if err := json.Unmarshal(b, &list); err != nil {
		return fmt.Errorf("ports: %w", err)
	}
	slices.SortFunc(list, func(x, y Allocation) int { return cmp.Compare(x.First, y.First) })
	held := map[uint16]holding{}
	for _, e := range list {
		if err := e.check(); err != nil {
			return err
		}
		for i := range e.count() {
			p := e.First + uint16(i)
			if h, ok := held[p]; ok {
				return &TakenError{p, h.owner}
			}
			held[p] = holding{e.Owner, max(e.Refs, 1)}
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.held = held
	return nil
}
