package effect

import (
	"context"
	"errors"
	"slices"

	"github.com/selfstead/selfstead/patchdb"
	"github.com/selfstead/selfstead/server/state"
)

// A runtime repeats a call whose answer it did not get. While one server lives
// its socket remembers the answers; across servers it is the document that
// remembers, for the few effects that must not happen twice.

type callKey struct{}

// CallID is the caller's name of the call that ctx belongs to, "" when it gave
// none.
func CallID(ctx context.Context) string {
	id, _ := ctx.Value(callKey{}).(string)
	return id
}

// maxCalls is how many calls of a package are remembered: far more than a
// runtime has under way at once.
const maxCalls = 256

// CallsPointer is where the remembered calls of a package stand.
func CallsPointer(pkg string) patchdb.Pointer { return state.PrivatePointer("calls", pkg) }

// first reports whether the call is made for the first time, and remembers it
// together with what the transaction does.
func (h *Handler) first(ctx context.Context, tx *patchdb.Tx) (bool, error) {
	id := CallID(ctx)
	if id == "" || len(id) > 128 {
		return true, nil
	}
	at := CallsPointer(h.Package)
	calls, err := patchdb.TxGet[[]string](tx, at)
	if err != nil && !errors.Is(err, patchdb.ErrNotFound) {
		return false, err
	}
	if slices.Contains(calls, id) {
		return false, nil
	}
	calls = append(calls, id)
	return true, tx.PutAll(at, calls[max(0, len(calls)-maxCalls):])
}

// updateOnce is update for a call that may come again.
func (h *Handler) updateOnce(ctx context.Context, fn func(tx *patchdb.Tx) error) error {
	return h.update(ctx, func(tx *patchdb.Tx) error {
		if first, err := h.first(ctx, tx); err != nil || !first {
			return err
		}
		return fn(tx)
	})
}
