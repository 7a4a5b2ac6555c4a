package nat

import (
	"errors"
	"strconv"
)

var (
	// ErrInvalid marks a Config that cannot be applied; the error that wraps it
	// is a *ConfigError and names the forward and the field.
	ErrInvalid = errors.New("nat: invalid configuration")
	// ErrConflict means that another program kept changing the rule set of this
	// network namespace while Apply worked; nothing of the new state is in force.
	ErrConflict = errors.New("nat: rules changed by another program")
	// ErrReadBack means that the kernel holds something else than was written;
	// the state from before has been put back.
	ErrReadBack = errors.New("nat: kernel state differs from what was written")
	// ErrNotSupported is wrapped with the name of the feature that is missing.
	ErrNotSupported = errors.New("nat: not supported")
	// ErrNoLabel means that other rules of this network namespace use every bit
	// of the conntrack label; we need one to know our own connections by.
	ErrNoLabel = errors.New("nat: no connection label is free")
	// ErrClosed is returned by a Controller after Close.
	ErrClosed = errors.New("nat: controller is closed")
)

// ConfigError says which forward of a Config was refused and why. It matches ErrInvalid.
type ConfigError struct {
	Forward string // name of the forward, "" when it has none
	Index   int    // position in Config.Forwards, -1 when unknown
	Field   string // "source.port", "target.prefix", ...
	Reason  string
}

func (e *ConfigError) Error() string {
	who := "forward"
	if e.Forward != "" {
		who += " " + strconv.Quote(e.Forward)
	} else if e.Index >= 0 {
		who += " #" + strconv.Itoa(e.Index+1)
	}
	return "nat: " + who + ": " + e.Field + ": " + e.Reason
}

// Is reports ErrInvalid as matching.
func (e *ConfigError) Is(target error) bool { return target == ErrInvalid }

// KernelError says which step the kernel refused.
type KernelError struct {
	Op     string // "add element", "dump rules", "set hairpin mode", ...
	Object string // what it was about: a set, a chain, a link
	Detail string // the kernel's own words (extended acknowledgement), if any
	Err    error  // usually a unix.Errno
}

func (e *KernelError) Error() string {
	s := "nat: " + e.Op
	if e.Object != "" {
		s += " " + e.Object
	}
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	return s + ": " + e.Err.Error()
}

// Is reports ErrNotSupported as matching where the kernel lacks something.
func (e *KernelError) Is(target error) bool {
	return target == ErrNotSupported && errors.Is(e.Err, errors.ErrUnsupported)
}

// Unwrap returns the kernel's error number.
func (e *KernelError) Unwrap() error { return e.Err }

// FlowError says that the kernel would not delete flows of forwards that went,
// though it took the new rules. The next Apply deletes what is left, also of an
// equal Config, also in another process.
type FlowError struct {
	Restored bool // the rules from before are in force again; else the new ones are
	Err      error
}

func (e *FlowError) Error() string {
	state := "the new rules are in force"
	if e.Restored {
		state = "the rules from before are in force again"
	}
	return "nat: flows of forwards that went are not deleted, " + state + ": " + e.Err.Error()
}

// Unwrap returns the kernel's error.
func (e *FlowError) Unwrap() error { return e.Err }
