package effect

import (
	"github.com/selfstead/selfstead/patchdb"
	"github.com/selfstead/selfstead/server/service/rpc"
)

// A service writes into the server's document, so what it may write has
// limits: far above what real packages need, and such that a hostile one
// cannot fill the server's memory.
const (
	maxMembers     = 256       // health checks, actions, tasks, dependencies, hosts, bindings of a host
	maxParams      = 64 << 10  // of an effect that is not listed below
	maxLargeParams = 256 << 10 // of those that carry forms and inputs to store
)

// paramLimits are the methods with another limit than maxParams.
var paramLimits = map[string]int{
	"action.create-task":  maxLargeParams,
	"action.export":       maxLargeParams,
	"set-dependencies":    maxLargeParams,
	"set-init-progress":   maxLargeParams,
	"action.run":          rpc.DefaultMaxLine, // passed on, not stored
	"action.get-input":    rpc.DefaultMaxLine,
	"echo":                rpc.DefaultMaxLine,
	"notification.create": 2 << 20,
	"clear-callbacks":     1 << 20,
	"clear-bindings":      maxLargeParams,
}

func checkSize(method string, n int) error {
	limit := maxParams
	if l, ok := paramLimits[method]; ok {
		limit = l
	}
	if n > limit {
		return invalid("%s: parameters of %d bytes, at most %d are taken", method, n, limit)
	}
	return nil
}

// room refuses a further member of the object at p once it is full.
func room(tx *patchdb.Tx, p patchdb.Pointer, member string) error {
	if tx.Exists(patchdb.Join(p, member)) || !tx.Exists(p) {
		return nil
	}
	n, err := tx.Len(p)
	if err != nil {
		return err
	}
	if n >= maxMembers {
		return Fail(KindInvalidRequest, "%s holds %d members, no more are taken", p, n)
	}
	return nil
}
