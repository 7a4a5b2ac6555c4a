package service

import (
	"slices"
	"strings"
	"sync"

	"github.com/selfstead/selfstead/patchdb"
)

// watchers holds the callbacks that containers registered. A callback fires
// once, at the first change at, below or above one of its pointers.
type watchers[K comparable] struct {
	mu   sync.Mutex
	byID map[K]map[int64][]patchdb.Pointer
}

func newWatchers[K comparable]() *watchers[K] {
	return &watchers[K]{byID: map[K]map[int64][]patchdb.Pointer{}}
}

// maxCallbacks bounds what one container may register.
const maxCallbacks = 1 << 14

func (w *watchers[K]) add(who K, id int64, p patchdb.Pointer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.byID[who] == nil {
		w.byID[who] = map[int64][]patchdb.Pointer{}
	}
	if len(w.byID[who]) < maxCallbacks && !slices.Contains(w.byID[who][id], p) && len(w.byID[who][id]) < 8 {
		w.byID[who][id] = append(w.byID[who][id], p)
	}
}

// forget drops the callbacks in only, or without only all that are not in
// except.
func (w *watchers[K]) forget(who K, only, except []int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if only != nil {
		for _, id := range only {
			delete(w.byID[who], id)
		}
		return
	}
	keep := make(map[int64]bool, len(except))
	for _, id := range except {
		keep[id] = true
	}
	for id := range w.byID[who] {
		if !keep[id] {
			delete(w.byID[who], id)
		}
	}
}

// drop forgets everything of one container.
func (w *watchers[K]) drop(who K) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.byID, who)
}

// take removes and returns the callbacks that a change at the paths fires;
// nil paths fire all.
func (w *watchers[K]) take(paths []patchdb.Pointer) map[K][]int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	fired := map[K][]int64{}
	for who, ids := range w.byID {
		for id, pointers := range ids {
			if paths == nil || slices.ContainsFunc(pointers, func(p patchdb.Pointer) bool { return touched(p, paths) }) {
				fired[who] = append(fired[who], id)
				delete(ids, id)
			}
		}
		slices.Sort(fired[who])
	}
	return fired
}

func touched(p patchdb.Pointer, paths []patchdb.Pointer) bool {
	return slices.ContainsFunc(paths, func(q patchdb.Pointer) bool { return within(p, q) || within(q, p) })
}

// within reports whether p is at or below q.
func within(p, q patchdb.Pointer) bool {
	return p == q || strings.HasPrefix(string(p), string(q)) && p[len(q)] == '/'
}
