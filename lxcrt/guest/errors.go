package guest

import (
	"errors"
	"fmt"
)

// ErrUsage marks a command line that start-container does not understand.
var ErrUsage = errors.New("guest: bad command line")

// ExitError carries the exit status that start-container ends with. Err may be
// nil: then nothing is printed.
type ExitError struct {
	Code int
	Err  error
}

func (e *ExitError) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("guest: exit status %d", e.Code)
	}
	return e.Err.Error()
}

func (e *ExitError) Unwrap() error { return e.Err }

// Statuses of a command that could not be run, as env(1) and sh(1) give them.
const (
	exitUsage         = 2
	exitNotExecutable = 126
	exitNotFound      = 127
)

func usagef(format string, a ...any) error {
	return &ExitError{Code: exitUsage, Err: fmt.Errorf("%w: %s", ErrUsage, fmt.Sprintf(format, a...))}
}

// exitCode is the status for an error that came out of an applet.
func exitCode(err error) int {
	var exit *ExitError
	if errors.As(err, &exit) {
		return exit.Code
	}
	var rpc *RPCError
	if errors.As(err, &rpc) && rpc.Code > 0 && rpc.Code < 256 {
		return rpc.Code
	}
	return 1
}
