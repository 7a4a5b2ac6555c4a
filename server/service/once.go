package service

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/selfstead/selfstead/patchdb"
	"github.com/selfstead/selfstead/server/service/effect"
	"github.com/selfstead/selfstead/server/state"
)

// sentRun is a run of an action that a package has asked for: what names it, and
// the container that it was given to.
type sentRun struct {
	Call      string `json:"call"`
	Container string `json:"container"`
}

// maxRuns is how many runs that a package asked for are remembered.
const maxRuns = 256

func runsPointer(pkg string) patchdb.Pointer { return state.PrivatePointer("runs", pkg) }

// once remembers that a named run goes to a container, before it goes there. One
// that went there before may go again, since the runtime in it knows the run by
// its name and answers with the same one. One that went to a container that is
// gone is refused: it may have run, and must not run twice.
func (m *Manager) once(ctx context.Context, callID string, run *instance) error {
	caller, _, _ := strings.Cut(callID, " ")
	at := runsPointer(caller)
	_, err := m.db.Update(ctx, func(tx *patchdb.Tx) error {
		sent, err := patchdb.TxGet[[]sentRun](tx, at)
		if err != nil && !errors.Is(err, patchdb.ErrNotFound) {
			return err
		}
		if i := slices.IndexFunc(sent, func(s sentRun) bool { return s.Call == callID }); i >= 0 {
			if sent[i].Container != run.guid {
				return effect.Fail(effect.KindCancelled, "the container of %s ended during this run; how far it came is not known", run.u.id)
			}
			return nil
		}
		sent = append(sent, sentRun{callID, run.guid})
		return tx.PutAll(at, sent[max(0, len(sent)-maxRuns):])
	})
	return err
}
