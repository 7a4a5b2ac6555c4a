package network

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"

	"github.com/selfstead/selfstead/patchdb"
	"github.com/selfstead/selfstead/server/state"
)

// Errors that callers branch on.
var (
	ErrNotFound   = errors.New("network: no such binding")
	ErrInvalid    = errors.New("network: invalid binding")
	ErrNoFreePort = errors.New("network: no outside port is free")
	ErrPortTaken  = errors.New("network: outside port is taken")
	restricted    = []uint16{5353, 5355, 5432, 6010, 9050, 9051}
	firstDynamic  = 49152
	portsPointer  = state.PrivatePointer("ports")
)

// assignable says whether a binding may ask for port at all.
func assignable(port uint16) bool { return port > 1024 && !slices.Contains(restricted, port) }

// inUse says whether a program of the server itself holds port, for TCP or
// UDP: a forward would take its traffic away.
func inUse(port uint16) bool {
	addr := net.JoinHostPort("", strconv.Itoa(int(port)))
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return true
	}
	l.Close()
	p, err := net.ListenPacket("udp", addr)
	if err != nil {
		return true
	}
	p.Close()
	return false
}

// ledger is the document's record of outside ports, loaded for one transaction.
type ledger struct {
	owners  map[string]state.PortOwner
	changed bool
}

func openLedger(tx *patchdb.Tx) (*ledger, error) {
	l := &ledger{owners: map[string]state.PortOwner{}}
	if err := tx.Get(portsPointer, &l.owners); err != nil && !errors.Is(err, patchdb.ErrNotFound) {
		return nil, err
	}
	return l, nil
}

func (l *ledger) save(tx *patchdb.Tx) error {
	if !l.changed {
		return nil
	}
	return tx.PutAll(portsPointer, l.owners)
}

func (l *ledger) free(port uint16) bool {
	_, taken := l.owners[strconv.Itoa(int(port))]
	return !taken && assignable(port) && !inUse(port)
}

func (l *ledger) take(port uint16, o state.PortOwner) {
	l.owners[strconv.Itoa(int(port))] = o
	l.changed = true
}

func (l *ledger) drop(match func(state.PortOwner) bool) {
	for port, o := range l.owners {
		if match(o) {
			delete(l.owners, port)
			l.changed = true
		}
	}
}

// assign gives owner the preferred port or the first free dynamic one.
func (l *ledger) assign(preferred uint16, owner state.PortOwner) (uint16, error) {
	if preferred != 0 && l.free(preferred) {
		l.take(preferred, owner)
		return preferred, nil
	}
	for p := firstDynamic; p <= 65535; p++ {
		if l.free(uint16(p)) {
			l.take(uint16(p), owner)
			return uint16(p), nil
		}
	}
	return 0, ErrNoFreePort
}

// assignRange takes start to start+n-1, all or nothing.
func (l *ledger) assignRange(start uint16, n int, owner state.PortOwner) error {
	for p := int(start); p < int(start)+n; p++ {
		if o, taken := l.owners[strconv.Itoa(p)]; taken {
			return fmt.Errorf("%w: %d by %s", ErrPortTaken, p, o.Package)
		}
		if !l.free(uint16(p)) {
			return fmt.Errorf("%w: %d", ErrPortTaken, p)
		}
	}
	for p := int(start); p < int(start)+n; p++ {
		l.take(uint16(p), owner)
	}
	return nil
}
