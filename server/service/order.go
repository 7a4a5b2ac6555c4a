package service

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/selfstead/selfstead/patchdb"
	"github.com/selfstead/selfstead/server/state"
)

// waves puts packages in the order in which they start: each in a later wave
// than those it needs. They stop in the reverse order. Packages that need each
// other in a circle share a wave, and what is not there is not waited for;
// notes says so.
func waves(needs map[string][]string) (list [][]string, notes []string) {
	s := &strong{needs: needs, index: map[string]int{}, low: map[string]int{}, wave: map[string]int{}}
	ids := sortedKeys(needs)
	for _, id := range ids {
		for _, other := range needs[id] {
			if _, ok := needs[other]; !ok {
				notes = append(notes, fmt.Sprintf("%s needs %s, which is not installed", id, other))
			}
		}
		if s.index[id] == 0 {
			s.visit(id)
		}
	}
	for _, id := range ids {
		for len(list) <= s.wave[id] {
			list = append(list, nil)
		}
		list[s.wave[id]] = append(list[s.wave[id]], id)
	}
	return list, append(notes, s.notes...)
}

// strong finds the circles (strongly connected components, Tarjan 1972) and
// numbers their waves on the way: a component is complete only after all that
// it needs.
type strong struct {
	needs      map[string][]string
	index, low map[string]int // from 1
	stack      []string
	wave       map[string]int // of complete components
	notes      []string
}

func (s *strong) visit(id string) {
	s.index[id] = len(s.index) + 1
	s.low[id] = s.index[id]
	s.stack = append(s.stack, id)
	for _, other := range s.needs[id] {
		if _, ok := s.needs[other]; !ok || other == id {
			continue
		}
		if s.index[other] == 0 {
			s.visit(other)
			s.low[id] = min(s.low[id], s.low[other])
		} else if slices.Contains(s.stack, other) {
			s.low[id] = min(s.low[id], s.index[other])
		}
	}
	if s.low[id] != s.index[id] {
		return
	}
	at := slices.Index(s.stack, id)
	circle := slices.Sorted(slices.Values(s.stack[at:]))
	s.stack = s.stack[:at]
	wave := 0
	for _, member := range circle {
		for _, other := range s.needs[member] {
			if w, ok := s.wave[other]; ok {
				wave = max(wave, w+1)
			}
		}
	}
	for _, member := range circle {
		s.wave[member] = wave
	}
	if len(circle) > 1 {
		s.notes = append(s.notes, strings.Join(circle, ", ")+" need each other and start together")
	}
}

// needsOf reads what each package said last that it needs.
func needsOf(packages map[string]state.Package) map[string][]string {
	needs := map[string][]string{}
	for id, p := range packages {
		needs[id] = sortedKeys(p.CurrentDependencies)
	}
	return needs
}

// needsLimit is how long a service waits at the server's start for all those
// that it needs.
const needsLimit = 2 * time.Minute

// arrange tells each unit whom to wait for at the server's start.
func (m *Manager) arrange(packages map[string]state.Package) {
	needs := needsOf(packages)
	list, notes := waves(needs)
	for _, note := range notes {
		m.log.Warn("order of services", "note", note)
	}
	at := map[string]int{}
	for i, wave := range list {
		for _, id := range wave {
			at[id] = i
		}
	}
	for id, others := range needs {
		u := m.unit(id)
		for _, other := range others {
			wave, ok := at[other]
			if before := m.unit(other); u != nil && ok && wave < at[id] && packages[other].DesiredState == state.StateRunning && before != nil {
				u.needs = append(u.needs, before)
			}
		}
	}
}

// awaitNeeds waits until those that the package needs have come up, or have
// failed to.
func (u *unit) awaitNeeds(ctx context.Context) {
	needs := u.needs
	u.needs = nil // that was for the server's start
	limit := time.NewTimer(needsLimit)
	defer limit.Stop()
	for _, other := range needs {
		select {
		case <-other.came:
			if info, err := other.status(); err == nil && info.Error != nil {
				u.m.log.Warn("a service starts although one that it needs does not run", "package", u.id, "needs", other.id)
			}
		case <-limit.C:
			u.m.log.Warn("a service starts without waiting any longer", "package", u.id, "needs", other.id)
			return
		case <-ctx.Done():
			return
		}
	}
}

// arrive says that the service has come up, or that its first try has failed.
func (u *unit) arrive() { u.cameO.Do(func() { close(u.came) }) }

// stopOrder is the order in which services are stopped: who needs another
// before that one.
func (m *Manager) stopOrder(units []*unit) [][]*unit {
	needs := map[string][]string{}
	byID := map[string]*unit{}
	for _, u := range units {
		byID[u.id], needs[u.id] = u, nil
		if others, err := patchdb.Get[map[string]json.RawMessage](m.db, state.PackagePointer(u.id, "currentDependencies")); err == nil {
			needs[u.id] = sortedKeys(others)
		}
	}
	list, _ := waves(needs)
	var order [][]*unit
	for _, wave := range slices.Backward(list) {
		var now []*unit
		for _, id := range wave {
			now = append(now, byID[id])
		}
		order = append(order, now)
	}
	return order
}
